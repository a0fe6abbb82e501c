"""Prediction: photos in, `Result`s out, one image at a time or a stream over a folder.

`Predictor` holds a detector on its device and the class names; `predict` runs one over any source
in constant memory. An image is resized by the rule of the model, padded at the right and bottom,
and the boxes that come back are mapped to the original image by the ratio of each axis.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Generator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch

from ..data.pixels.images import collate_images, resize_image
from ..data.proposals import with_regions
from ..devices import pick_device
from ..errors import OptionError, checked_options
from ..models.detection.base import Detector, PostProcess
from ..models.inference import pick_precision
from ..models.meta import Meta
from ..ops.soft_nms import SoftNMS
from ..paths import takes_paths
from ..proposals import ProposalStore
from ..reports.gallery import check_formats
from ..runs import check_save
from ..structures import Images, Resize
from ..tasks.detection.post import default_post as default_post
from ..tasks.detection.post import make_post as make_post
from ..tasks.detection.post import parse_soft_nms as parse_soft_nms
from ..tasks.detection.post import whole_number as whole_number
from ..tasks.detection.regions import proposal_store
from ..tasks.detection.result import Result
from ..tasks.detection.views import Views, detect_views, to_detections
from ..text import one_line, printable
from ..window import Window, parse_window
from .memory import MemoryGuard, TooLittleMemoryError, out_of_memory_told
from .network import FastNetwork
from .reading import Loaded, read, read_all, warn_frames
from .sources import Sources, list_sources, one_source
from .stream import Results, Saver
from .windows import chosen_window, own_window_warning


class Predictor:
    """A detector that is ready to be called on images.

    Attributes:
        detector: the model, in evaluation mode on `device`.
        fast: compute with the detector rearranged for inference: batch norm folded and, on a CPU,
            Winograd convolutions, equal up to rounding (see `nn.inference`). Set it to False for
            the detector's own arithmetic to the bit.
        precision: of the arithmetic if `fast`: "float32", "bf16" or "fp16" (see `hub.load`).
        meta: what its checkpoint says of itself.
        names: class names by label.
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
        self, detector: Detector, meta: Meta, *, device: str = "auto", precision: str = "float32"
    ) -> None:
        self.device = pick_device(device)
        self.precision, dtype = precision, pick_precision(precision, self.device)
        self.detector = detector.eval().to(self.device)
        # A CPU's convolutions take this layout without a copy per layer, as do those of a GPU in
        # half types.
        self._channels_last = self.device.type == "cpu" or precision != "float32"
        if self._channels_last:
            self.detector = self.detector.to(memory_format=torch.channels_last)
        self.fast = True
        self._network = FastNetwork(self.detector, dtype)
        self.memory = MemoryGuard(self.network, self.device)
        self._proposals: ProposalStore | None = None
        self.meta = meta
        self.origin: dict[str, str] = {}
        self.names = [
            name if name is not None else f"class {i}" for i, name in enumerate(meta.names)
        ]

    def __repr__(self) -> str:
        first = ", ".join(map(one_line, self.names[:3])) + (", ..." if self.names[3:] else "")
        count = "1 class" if len(self.names) == 1 else f"{len(self.names)} classes"
        return (
            f"<Predictor {self.meta.model}, {count} ({first}), on {self.device}: call it with an "
            "image>"
        )

    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        *,
        conf: float = 0.25,
        iou: float = 0.5,
        max_det: int = 100,
        imgsz: Any = None,
        soft_nms: str | SoftNMS | None = None,
        tta: str | Views | None = None,
        window: Window | str | None = None,
    ) -> list[Result]: ...

    @overload
    def __call__(
        self,
        image: Any,
        *,
        conf: float = 0.25,
        iou: float = 0.5,
        max_det: int = 100,
        imgsz: Any = None,
        soft_nms: str | SoftNMS | None = None,
        tta: str | Views | None = None,
        window: Window | str | None = None,
    ) -> Result: ...

    @checked_options
    def __call__(
        self,
        image: Any,
        *,
        conf: float = 0.25,
        iou: float = 0.5,
        max_det: int = 100,
        imgsz: Any = None,
        soft_nms: str | SoftNMS | None = None,
        tta: str | Views | None = None,
        window: Window | str | None = None,
    ) -> Result | list[Result]:
        """Return the objects of an image.

        Args:
            image: path, http(s) address, encoded bytes, open file, PIL image, or array or tensor
                (H, W, 3) RGB, (H, W) grey; a list of them gives a list of results, each the same
                as if the image had come alone.
            conf: smallest score, in [0, 1].
            iou: of two boxes of one class that overlap more than this, the weaker is dropped.
            max_det: most objects; a warning says when an image reached it.
            imgsz: long side, (short, long) side or "1.25x"; None: the rule of the model.
            soft_nms: see `predict`.
            tta: see `predict`.
            window: see `predict`.

        Raises:
            ValueError: if an image cannot be read (the message names it) or an option is wrong.
        """
        post = self.detector.limits(make_post(conf, iou, max_det, soft_nms), default_post(predict))
        resize, views = self.resize_rule(imgsz), Views.parse(tta)
        many = isinstance(image, list | tuple)
        sources = [one_source(item, i) for i, item in enumerate(image if many else [image])]
        # One by one: padding to a larger neighbour would change the numbers a little.
        scale = chosen_window(self.meta, window)
        results = []
        deep = False
        for source in sources:
            loaded = read(source, scale)
            warn_frames(source)
            deep = deep or loaded.deep
            results += self.infer([loaded], resize, post, views)
        if deep and scale is None:
            warnings.warn(own_window_warning(self.meta), stacklevel=2)
        most = post.max_det
        _warn_capped([result for result in results if len(result) >= most], most)
        _warn_short(results, self.detector, most)
        return results if many else results[0]

    def network(self) -> Detector:
        """Return what computes: the detector, rearranged for inference if `fast`."""
        return self._network.get() if self.fast else self.detector

    def resize_rule(self, imgsz: Any = None) -> Resize:
        """Return the rule for `imgsz` with the model's conventions; None: the model's own rule."""
        own = self.detector.resize
        if imgsz is None:
            return own
        if self.detector.buckets:
            sizes = ", ".join(f"{height} x {width}" for height, width in self.detector.buckets)
            raise OptionError(
                f"imgsz={imgsz}: {self.meta.model} was exported for images of {sizes}; export it "
                "with imgsz=none to choose the size later"
            )
        return Resize.parse(
            imgsz, rounding=own.rounding, antialias=own.antialias, within=own.within
        )

    def prepare(self, batch: Sequence[Loaded], *resizes: Resize) -> list[Images]:
        """Return images in memory as network input on the device: a batch for each resize rule."""
        regions = None if self.detector.proposal_source is None else self._regions(batch)
        return [self._scale(batch, resize, regions) for resize in resizes]

    def _scale(
        self, batch: Sequence[Loaded], resize: Resize, regions: Sequence[np.ndarray] | None
    ) -> Images:
        scaled = []
        for loaded in batch:
            height, width = loaded.pixels.shape[:2]
            size = resize.target_size(height, width)
            scaled.append((resize_image(loaded.pixels, size, resize.antialias), (height, width)))
        detector = self.detector
        images = collate_images(scaled, detector.size_divisor, detector.buckets)
        if regions is not None:
            images = with_regions(images, regions)
        images = images.to(self.device)
        if not self._channels_last:
            return images
        pixels = images.pixels.contiguous(memory_format=torch.channels_last)
        return replace(images, pixels=pixels)

    def _regions(self, batch: Sequence[Loaded]) -> list[np.ndarray]:
        """Return the regions (n, 4) of each photo in its own pixels."""
        if self._proposals is None:  # not before: validation takes its regions from the cache
            self._proposals = proposal_store(self.detector)
        assert self._proposals is not None
        regions = []
        for loaded in batch:
            path = loaded.source.path
            file = None if path is None else Path(path)
            regions.append(self._proposals(loaded.pixels, image_file=file).boxes)
        return regions

    def infer(
        self,
        batch: Sequence[Loaded],
        resize: Resize,
        post: PostProcess,
        views: Views | None = None,
    ) -> list[Result]:
        """Return the results of images in memory, computed as one batch.

        Args:
            batch: the images.
            resize: resize rule.
            post: thresholds.
            views: look at each image in these ways; None: once, as it is.
        """
        start = time.perf_counter()
        rules = [resize] if views is None else views.resizes(resize)
        name = ", ".join(loaded.source.name for loaded in batch)
        self.memory.require([loaded.pixels.shape[:2] for loaded in batch], rules, name)
        with out_of_memory_told(name):
            images = self.prepare(batch, *rules)
            prepared = time.perf_counter()
            with torch.inference_mode():
                if views is None:
                    instances = self.network()(images[0], post)
                else:
                    mirrored = None if self.meta.keypoints is None else self.meta.keypoints.mirrored
                    network = self.network()
                    detections = detect_views(network, images, post, views.flip, mirrored)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)  # or the time would be that of the launch
        inferred = time.perf_counter()
        if views is None:
            detections = to_detections(instances, images[0])
        done = time.perf_counter()
        share = 1e3 / len(batch)
        speed = {
            "preprocess": share * (prepared - start),
            "inference": share * (inferred - prepared),
            "postprocess": share * (done - inferred),
        }
        return [
            Result(
                found,
                loaded.pixels,
                self.names,
                loaded.source.path,
                {"load": loaded.load_ms, **speed},
                self.meta.category_ids,
                self.detector.paste_mode,
                self.meta.keypoints,
                loaded.source.name if loaded.source.path is not None else "",
            )
            for loaded, found in zip(batch, detections, strict=True)
        ]


@checked_options
@takes_paths
def predict(
    model: str | Path | Predictor,
    source: Any,
    *,
    conf: float = 0.25,
    iou: float = 0.5,
    max_det: int = 100,
    imgsz: int | tuple[int, int] | str | None = None,
    batch: int = 1,
    device: str = "auto",
    precision: str = "float32",
    save: bool | str | Path | None = None,
    soft_nms: str | None = None,
    tta: str | None = None,
    window: tuple[float, float] | str | None = None,
    proposal_source: str | None = None,
    weights: str | Path | None = None,
    formats: str | tuple[str, ...] | None = None,
    labels: bool = True,
    show: bool = False,
    project: str | Path = "runs",
    name: str | None = None,
    trust: bool = False,
) -> Results:
    """Predict over a source of any size, one result at a time.

    Names and options are checked at once, the images are read while you iterate. Of many images
    one that cannot be read is reported as a warning and passed over.

    Args:
        model: registered name, checkpoint or run folder; `maskwright models` lists the names.
        source: image file, folder, glob pattern such as "photos/*.jpg", or http(s) address; in
            Python also bytes, an open file, an array or tensor (H, W, 3), a PIL image, or a
            list of all these.
        conf: smallest score of an object, from 0 to 1.
        iou: of two boxes of one class that overlap more than this, the weaker is dropped.
        max_det: most objects in an image; a warning says when an image reached it.
        imgsz: image size in pixels: the long side, short and long side, or a factor such as
            1.25x. None: the rule that the model was trained with.
        batch: images that are computed at once.
        device: where to compute: auto, cpu, cuda, cuda:1, mps; a `Predictor` stays on its own.
        precision: float32, bf16 or fp16, see `load`; a `Predictor` keeps its own.
        save: write a picture and a JSON file of each image, and a page that shows several: true
            into a new run folder, a path into that folder, false nothing.
        soft_nms: let boxes that overlap a better one of their class lose score instead of dropping
            them: linear, gaussian, or gaussian:0.3 with another sigma than 0.5. None: plain NMS.
        tta: look at each image several times and merge what is found: factors on the image size and
            the word flip, as in flip or 0.75,1,1.25,flip. None: once.
        window: sample values that become 0 to 255 in images of more than 8 bits: the smallest and
            the largest, as in 0,4095; percentile or minmax: each image's own. None: auto, as the
            model was trained; percentile, if that was on 8-bit images.
        proposal_source: for models that take their regions with the image, such as Fast R-CNN:
            where these come from (selective_search, boxes.npz, ...). None: from where they came in
            training; a `Predictor` keeps its own.
        weights: for a registered name: published weights such as coco, or a checkpoint.
        formats: further files per image, joined by commas: geojson (polygons with holes, for
            QuPath and GIS tools), labels (16-bit PNG with the object's number at each pixel).
        labels: write class and score at the objects of the pictures of save and show.
        show: open each picture in a window, or show it in the notebook.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "predict".
        trust: run the machine code in a file of `maskwright export format=aoti`.

    Returns:
        An iterator of `Result` in the order of the source; its `dir` and `page` tell where the
        files are.

    Raises:
        ValueError: if the source, the model or an option is wrong; while iterating, if the only
            image or all images cannot be read.
    """
    post, _ = make_post(conf, iou, max_det, soft_nms), parse_window(window)
    batch = whole_number("batch", batch)
    where, files = check_save(save, project, name), check_formats(formats)
    if files and where is False:
        raise OptionError(
            "formats names files to write, but save=false writes none: give save=true"
        )
    if not labels and where is False and not show:
        raise OptionError(
            "labels=false is about pictures, but none is made: give save=true or show=true; "
            "result.plot(labels=False) draws one"
        )
    sources = list_sources(source)
    if sources.passed_over:
        warnings.warn(printable(sources.passed_over), stacklevel=4)  # beyond the two wrappers
    if isinstance(model, Predictor):
        if weights is not None:
            raise OptionError("weights is for a model given by its name; this one has its own")
        predictor = model
    else:
        from ..hub.loading import load

        predictor = load(
            model,
            weights=weights,
            device=device,
            precision=precision,
            trust=trust,
            proposal_source=proposal_source,
        )
    if "labels" in files and not predictor.detector.predicts_masks:
        raise OptionError(
            f"formats=labels needs masks, and {predictor.meta.model} predicts boxes alone"
        )
    post = predictor.detector.limits(post, default_post(predict))
    resize, views = predictor.resize_rule(imgsz), Views.parse(tta)
    scale = chosen_window(predictor.meta, window)
    saver = None
    if where is not False:
        saver = Saver(
            where,
            project=project,
            name=name,
            formats=files,
            labels=labels,
            title=str(source) if isinstance(source, str | Path) else "Predictions",
            several=len(sources) > 1,
        )
    stream = _stream(predictor, sources, resize, post, views, scale, batch, saver, show, labels)
    return Results(stream, len(sources), predictor.meta.model, saver)


def _stream(
    predictor: Predictor,
    sources: Sources,
    resize: Resize,
    post: PostProcess,
    views: Views | None,
    window: Window | str | None,
    batch: int,
    saver: Saver | None,
    show: bool,
    labels: bool,
) -> Generator[Result]:
    capped = stretched = short = False
    rules = [resize] if views is None else views.resizes(resize)
    images = read_all(sources, window, predictor.memory, rules)
    while group := list(islice(images, batch)):
        if window is None and not stretched and any(loaded.deep for loaded in group):
            stretched = True
            warnings.warn(own_window_warning(predictor.meta), stacklevel=2)
        for result in _compute(predictor, group, resize, post, views, sources.single):
            if len(result) >= post.max_det and not capped:
                capped = True
                _warn_capped([result], post.max_det)
            if not short:
                short = _warn_short([result], predictor.detector, post.max_det)
            if saver is not None:
                saver.write(result)
            if show:
                result.show(labels=labels)
            yield result
    if saver is not None:
        saver.finish(len(sources))


def _compute(
    predictor: Predictor,
    group: Sequence[Loaded],
    resize: Resize,
    post: PostProcess,
    views: Views | None,
    single: bool,
) -> list[Result]:
    """Return the results of a batch; one by one, and without those that do not fit into memory."""
    try:
        return predictor.infer(group, resize, post, views)
    except TooLittleMemoryError as error:
        if single:
            raise
        # What it refers to would keep the memory.
        problem = str(error)
    if len(group) == 1:
        warnings.warn(printable(f"skipped: {problem}"), stacklevel=3)
        return []
    parts = [_compute(predictor, [one], resize, post, views, single) for one in group]
    return [result for part in parts for result in part]


def _warn_capped(results: Sequence[Result], max_det: int) -> None:
    if results:
        names = ", ".join(one_line(r.name) for r in results[:3]) + (
            ", ..." if len(results) > 3 else ""
        )
        warnings.warn(
            f"max_det={max_det} was reached in {names}: there may be more objects; "
            f"raise it, such as max_det={max_det * 5}",
            stacklevel=3,
        )


def _warn_short(results: Sequence[Result], detector: Detector, max_det: int) -> bool:
    """Warn of images where the model's proposals may have been too few; return whether any was."""
    found = [r for r in results if r.detections.short and len(r) < max_det]
    if found:
        names = ", ".join(r.file_name for r in found[:3]) + (", ..." if len(found) > 3 else "")
        most = max(len(result) for result in found)
        warnings.warn(
            f"{names}: there may be more objects than the {most} found: "
            f"{detector.short_advice(max_det)}",
            stacklevel=3,
        )
    return bool(found)
