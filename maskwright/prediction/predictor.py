"""A model ready to be called on images.

An image is resized by the rule of the model, padded at the right and bottom or cut, as its task has
it; what is found comes back in pixels of the original image.
"""

from __future__ import annotations

import inspect
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from ..channels import describe_channels
from ..devices import pick_device
from ..errors import OptionError, checked_options
from ..models.base import Model
from ..models.inference import pick_precision
from ..models.meta import Meta
from ..structures import Images
from ..tasks import get_task
from ..tasks.base import Attach, Settings
from ..tasks.options import own_options
from ..text import one_line
from ..window import Window
from .memory import MemoryGuard, out_of_memory_told
from .network import FastNetwork
from .reading import Loaded, Reading, read, warn_of
from .sources import one_source
from .tiles import Stop, assemble, look_at_tiles, parse_tiling, untiled_warning
from .windows import idle_window_warning, own_window_warning


class Predictor:
    """A model that is ready to be called on images.

    Attributes:
        model: the network, in evaluation mode on `device`.
        task: what it is for.
        fast: compute with the model rearranged for inference: batch norm folded and, on a CPU,
            Winograd convolutions, equal up to rounding (see `nn.inference`). Set it to False for
            the model's own arithmetic to the bit.
        precision: of the arithmetic if `fast`: "float32", "bf16" or "fp16" (see `load`).
        meta: what its checkpoint says of itself.
        names: names by label.
        memory: refuses images that cannot fit into memory.
        device: where it computes.
        origin: the options of the command line that load the same model, by name; empty where it
            has none.

    Example:
        >>> import maskwright as mw
        >>> predictor = mw.load("runs/train/exp")  # doctest: +SKIP
        >>> result = predictor("cells.png", conf=0.5)  # doctest: +SKIP
    """

    def __init__(
        self, model: Any, meta: Meta, *, device: str = "auto", precision: str = "float32"
    ) -> None:
        self.device = pick_device(device)
        self.precision, dtype = precision, pick_precision(precision, self.device)
        self.model = model.eval().to(self.device)
        self.task = get_task(self.model.task)
        # A CPU's convolutions take this layout without a copy per layer, as do those of a GPU in
        # half types.
        self._channels_last = self.device.type == "cpu" or precision != "float32"
        if self._channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.fast = True
        self._network = FastNetwork(self.model, dtype)
        self.memory = MemoryGuard(self.network, self.device)
        self._attacher: Attach | None = None
        self.meta = meta
        self.origin: dict[str, str] = {}
        self.names = [
            name if name is not None else f"class {i}" for i, name in enumerate(meta.names)
        ]

    @property
    def detector(self) -> Any:
        """The same as `model`."""
        return self.model

    def __repr__(self) -> str:
        first = ", ".join(map(one_line, self.names[:3])) + (", ..." if self.names[3:] else "")
        count = "1 name" if len(self.names) == 1 else f"{len(self.names)} names"
        return (
            f"<Predictor {self.meta.model}, {count} ({first}), on {self.device}: call it with an "
            "image>"
        )

    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        conf: float | str = 0.25,
        iou: float | None = None,
        max_det: int = 100,
        imgsz: Any = None,
        soft_nms: Any = None,
        tta: Any = None,
        window: Window | str | None = None,
        page: int | str | None = None,
        channels: Sequence[int] | str | int | None = None,
        topk: int = 5,
        slide: int | None = None,
        crf: Any = None,
        probs: bool = False,
        tile: int | None = None,
        overlap: float = 0.2,
        tile_levels: int = 1,
    ) -> list[Any]: ...

    @overload
    def __call__(
        self,
        image: Any,
        *,
        conf: float | str = 0.25,
        iou: float | None = None,
        max_det: int = 100,
        imgsz: Any = None,
        soft_nms: Any = None,
        tta: Any = None,
        window: Window | str | None = None,
        page: int | str | None = None,
        channels: Sequence[int] | str | int | None = None,
        topk: int = 5,
        slide: int | None = None,
        crf: Any = None,
        probs: bool = False,
        tile: int | None = None,
        overlap: float = 0.2,
        tile_levels: int = 1,
    ) -> Any: ...

    @checked_options
    def __call__(
        self,
        image: Any,
        *,
        conf: float | str = 0.25,
        iou: float | None = None,
        max_det: int = 100,
        imgsz: Any = None,
        soft_nms: Any = None,
        tta: Any = None,
        window: Window | str | None = None,
        page: int | str | None = None,
        channels: Sequence[int] | str | int | None = None,
        topk: int = 5,
        slide: int | None = None,
        crf: Any = None,
        probs: bool = False,
        tile: int | None = None,
        overlap: float = 0.2,
        tile_levels: int = 1,
    ) -> Any:
        """Return what is found in an image: a `Result`, or that of another task.

        Args:
            image: path, http(s) address, encoded bytes, open file, PIL image, or array or tensor
                (H, W, 3) RGB, (H, W) grey; a list of them gives a list of results, each the same
                as if the image had come alone.
            conf: smallest score, in [0, 1]; or text with some by name, see `predict`.
            iou: of two objects of one class that overlap more than this, the weaker is dropped.
                None: the model's own, mostly 0.5.
            max_det: most objects; a warning says when an image reached it.
            imgsz: long side, (short, long) side or "1.25x"; None: the rule of the model.
            soft_nms: see `predict`.
            tta: see `predict`.
            window: see `predict`.
            page: see `predict`, where it may be several: here it is one.
            channels: see `predict`.
            topk: see `predict`.
            slide: see `predict`.
            crf: see `predict`.
            probs: see `predict`.
            tile: see `predict`.
            overlap: see `predict`.
            tile_levels: see `predict`.

        Raises:
            ValueError: if an image cannot be read (the message names it) or an option is wrong.
        """
        given = {"conf": conf, "iou": iou, "max_det": max_det, "soft_nms": soft_nms, "tta": tta}
        given |= {"topk": topk, "slide": slide, "crf": crf, "probs": probs}
        given |= {"tile": tile, "overlap": overlap, "tile_levels": tile_levels}
        settings = self.settings(given, type(self).__call__)
        rule = self.resize_rule(imgsz, settings)
        many = isinstance(image, list | tuple)
        sources = [one_source(item, i) for i, item in enumerate(image if many else [image])]
        # One by one: padding to a larger neighbour would change the numbers a little.
        reading = self.reading(window, channels, page)
        results = []
        deep, idle, sizes = False, 0, []
        for source in sources:
            loaded = read(replace(source, page=reading.page), reading, settings.tiling)
            warn_of(loaded)
            deep = deep or loaded.deep
            sizes.append(loaded.pixels.shape[:2])
            idle += loaded.pixels.dtype == np.uint8
            results += self.infer([loaded], rule, settings)
        if deep and reading.window is None:
            warnings.warn(own_window_warning(self.meta.model), stacklevel=2)
        if text := idle_window_warning(window, idle, len(sizes)):
            warnings.warn(text, stacklevel=2)
        if text := untiled_warning(self.model, self.meta, rule, settings, sizes):
            warnings.warn(text, stacklevel=2)
        for text in self.task.remarks(results, self.model, settings, set()):
            warnings.warn(text, stacklevel=2)
        return results if many else results[0]

    def settings(self, given: Mapping[str, Any], function: Callable[..., Any]) -> Settings:
        """Return the checked options of a prediction or a validation.

        Args:
            given: options by name.
            function: whose defaults give way to what an exported graph has.

        Raises:
            OptionError: if one is wrong, or another task's.
        """
        defaults = defaults_of(function)
        own = own_options(self.task, self.meta.model, given, defaults)
        made = self.task.settings(self.model, own, defaults, self.names)
        asked = (own.get(name, defaults.get(name)) for name in ("tile", "overlap", "tile_levels"))
        tiling = parse_tiling(*asked)
        return made if tiling is None else replace(made, tiling=tiling)

    def reading(self, window: Any = None, channels: Any = None, page: Any = None) -> Reading:
        """Return what is taken of image files by the options `window`, `channels` and `page`.

        Raises:
            OptionError: if one is wrong, or names another number of channels than the network has.
        """
        return Reading.of(self.meta, self.model.channels, window, channels, page)

    def network(self) -> Model:
        """Return what computes: the model, rearranged for inference if `fast`."""
        return self._network.get() if self.fast else self.model

    def resize_rule(self, imgsz: Any = None, settings: Settings | None = None) -> Any:
        """Return the rule for `imgsz` with the model's conventions; None: the model's own rule.

        Args:
            imgsz: see `predict`.
            settings: of the prediction, whose tiles it is to fit.

        Raises:
            OptionError: if the model has no such size, or tiles are too small for it.
        """
        if imgsz is not None and self.model.buckets:
            sizes = ", ".join(f"{height} x {width}" for height, width in self.model.buckets)
            raise OptionError(
                f"imgsz={imgsz}: {self.meta.model} was exported for images of {sizes}; export it "
                "with imgsz=none to choose the size later"
            )
        rule = self.task.resize_rule(self.model, imgsz)
        if settings is not None and settings.tiling is not None:
            settings.tiling.require(rule, self.model.size_divisor)
        return rule

    def prepare(self, batch: Sequence[tuple[np.ndarray, str | None]], *rules: Any) -> list[Images]:
        """Return images in memory as network input on the device: a batch for each resize rule.

        Args:
            batch: pixels (H, W, 3) uint8 RGB, and the path of each.
            *rules: how they are resized.
        """
        pixels = [one for one, _ in batch]
        photos = [(one, None if path is None else Path(path)) for one, path in batch]
        scaled = [self.task.collate(pixels, self.model, rule) for rule in rules]
        return [self._on_device(self._attach(images, photos)) for images in scaled]

    def _attach(self, images: Images, photos: Sequence[tuple[np.ndarray, Path | None]]) -> Images:
        """Return images with what the model takes beside pixels."""
        if self._attacher is None:  # not before: validation takes from a cache what is attached
            self._attacher = self.task.attach(self.model) or _nothing
        return self._attacher(images, photos)

    def _on_device(self, images: Images) -> Images:
        images = images.to(self.device)
        if not self._channels_last:
            return images
        pixels = images.pixels.contiguous(memory_format=torch.channels_last)
        return replace(images, pixels=pixels)

    def infer(
        self,
        batch: Sequence[Loaded],
        rule: Any,
        settings: Settings,
        *,
        tiles: int = 1,
        stop: Stop | None = None,
    ) -> list[Any]:
        """Return the results of images in memory, computed as one batch.

        Args:
            batch: the images; those that are larger than a tile of the settings are computed one
                by one, in tiles.
            rule: how they are resized, see `resize_rule`.
            settings: of the prediction.
            tiles: of a large image that are computed at once.
            stop: takes a signal that comes between the tiles of an image, whose result and those
                before it are returned; None: it is raised.
        """
        tiling = settings.tiling
        if tiling is not None and not all(tiling.fits(one.pixels.shape[:2]) for one in batch):
            found = []
            for one in batch:
                photo, name = (one.pixels, one.source.path), one.source.name
                found.append(self.find_one(photo, rule, settings, name, tiles, stop))
                if stop is not None and stop.error is not None:
                    break
            batch = batch[: len(found)]
        else:
            name = ", ".join(loaded.source.name for loaded in batch)
            photos = [(one.pixels, one.source.path) for one in batch]
            answers, speed = self.find(photos, settings.rules(rule), settings, name)
            found = [(one, speed) for one in answers]
        results: list[Any] = [
            self.task.result(
                one,
                loaded.photo,
                self.model,
                self.meta,
                settings,
                names=self.names,
                path=loaded.source.path,
                speed={"load": loaded.load_ms, **speed},
                source_name=loaded.source.name if loaded.source.path is not None else "",
            )
            for loaded, (one, speed) in zip(batch, found, strict=True)
        ]
        results = [
            replace(one, frame=image.frame, time=image.time, page=page, axes=image.source.axes)
            for image, one in zip(batch, results, strict=True)
            for page in [image.source.page]
        ]
        if stop is not None and stop.error is not None:
            results[-1] = replace(results[-1], stopped=stop.tiles)
        return results

    def find(
        self,
        photos: Sequence[tuple[np.ndarray, str | None]],
        rules: Sequence[Any],
        settings: Settings,
        name: str,
    ) -> tuple[list[Any], dict[str, float]]:
        """Return what is found in a batch of images, and the milliseconds of each by stage.

        Args:
            photos: (H, W, 3) uint8 RGB, and the path of each.
            rules: how they are resized, one for each look.
            settings: of the prediction.
            name: what the batch is called.
        """
        start = time.perf_counter()
        sizes = [pixels.shape[:2] for pixels, _ in photos]
        self.memory.require(sizes, rules, name, part=settings.part)
        with out_of_memory_told(name):
            images = self.prepare(photos, *rules)
            prepared = time.perf_counter()
            with torch.inference_mode():
                made = self.task.compute(self.network(), images, settings, self.meta)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)  # or the time would be that of the launch
        inferred = time.perf_counter()
        found = self.task.decode(made, images, settings, self.model)
        done = time.perf_counter()
        share = 1e3 / len(photos)
        return found, {
            "preprocess": share * (prepared - start),
            "inference": share * (inferred - prepared),
            "postprocess": share * (done - inferred),
        }

    def find_one(
        self,
        photo: tuple[Any, str | None],
        rule: Any,
        settings: Settings,
        name: str,
        tiles: int,
        stop: Stop | None = None,
    ) -> tuple[Any, dict[str, float]]:
        """Return what is found in an image, in tiles if it is larger than one; see `find`.

        Args:
            photo: (H, W, 3) uint8 RGB, an array or `LazyPixels`, and its path.
            rule: how it or a tile is resized.
            settings: of the prediction.
            name: of the image.
            tiles: that are computed at once.
            stop: see `infer`.
        """
        pixels, path = photo
        if settings.tiling is None or settings.tiling.fits(pixels.shape[:2]):
            whole = np.asarray(pixels)
            (found,), speed = self.find([(whole, path)], settings.rules(rule), settings, name)
            return found, speed
        return self._find_in_tiles(pixels, rule, settings, name, tiles, stop)

    def _find_in_tiles(
        self, pixels: Any, rule: Any, settings: Settings, name: str, tiles: int, stop: Stop | None
    ) -> tuple[Any, dict[str, float]]:
        """Return what is found in an image larger than a tile; see `find_one`."""
        tiling = settings.tiling
        assert tiling is not None
        total = dict.fromkeys(("load", "preprocess", "inference", "postprocess"), 0.0)

        def look(parts: Sequence[np.ndarray], level: int) -> list[Any]:
            rules = settings.rules(tiling.rule(rule, level))
            photos = [(part, None) for part in parts]
            found, speed = self.find(photos, rules, assembler.settings, name)
            for stage, ms in speed.items():
                total[stage] += ms * len(parts)
            return found

        assembler = self.task.assembler(self.model, settings, pixels.shape[:2])
        with ExitStack() as stack:
            stack.enter_context(out_of_memory_told(name))
            looked = look_at_tiles(pixels, tiling, look, batch=tiles, name=name)
            stack.callback(looked.close)
            count = sum(map(len, tiling.tiles(pixels.shape[:2])))
            assemble(assembler, looked, count, name, stop)
            start = time.perf_counter()
            found = assembler.finish()
        total["postprocess"] += 1e3 * (time.perf_counter() - start)
        return found, total

    def explainer(self, method: str, target: str | int | None, rule: Any) -> Callable[[Any], Any]:
        """Return what gives a result its `heatmap` and what is `explained` by it.

        It warns of a result in which there is nothing to explain, and leaves it as it is.

        Args:
            method: "cam", "gradcam" or "gradcam++".
            target: what is to be explained; None: the best find.
            rule: how images are resized, see `resize_rule`.

        Raises:
            OptionError: if the method or the target does not fit the model.
        """
        if self.model.channels != 3:
            raise OptionError(
                f"explain={method} shows what speaks for a find in red, green and blue; "
                f"{self.meta.model} was trained with {describe_channels(self.meta.channels)}"
            )
        explain = self.task.explainer(self.model, self.meta, self.names, method, target)

        def collate(pixels: Sequence[np.ndarray]) -> Images:
            images = self.task.collate(pixels, self.model, rule)
            return self._on_device(self._attach(images, [(one, None) for one in pixels]))

        def explained(result: Any) -> Any:
            found = explain(result, collate, rule)
            if found is None:
                meant = "" if target is None else f" of explain_target={target}"
                name = one_line(result.name)
                warnings.warn(
                    f"{name}: nothing{meant} was found that could be explained", stacklevel=3
                )
                return result
            heat, mark = found
            if not heat.any():
                warnings.warn(
                    f"{one_line(result.name)}: the heat map of {one_line(mark[0])} is empty, as at "
                    "the last stage of the network no place speaks more for it than another",
                    stacklevel=3,
                )
            return replace(result, heatmap=heat, explained=mark)

        return explained


def _nothing(images: Images, photos: object) -> Images:
    return images


@cache
def defaults_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the defaults of a function's options."""
    parameters = inspect.signature(function).parameters
    return {name: one.default for name, one in parameters.items()}
