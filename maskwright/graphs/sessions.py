"""Open exported files and run them: ONNX Runtime, OpenVINO and torch behind one class.

`GraphDetector` stands where a detector stands: a predictor gives it images and thresholds and gets
instances. Thresholds are part of a graph, so that it can only be asked for less than it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import OptionError
from ..models.detection.base import Detector, PostProcess
from ..models.detection.regions import require_proposals
from ..nn.ragged import GOOD_SCORE
from ..paths import plain_path
from ..structures import Images, Instances
from .archive import ArchiveError, check_archive
from .spec import KEY, GraphSpec
from .torch_file import load_compiled, load_program
from .trace import quiet

Run = Callable[..., list[Tensor]]

# With fewer proposals than this for an object found, some objects may have had none: in a crowd of
# nuclei 3 found nine of ten, 5 all but one in forty.
FEW_PER_OBJECT = 5


class GraphDetector(Detector):
    """A detector whose network is an exported graph; it predicts and does not train.

    Args:
        spec: the description in the file.
        run: maps the tensors of `spec.inputs` to those of `spec.outputs`, both in order.
        source: what messages call it: the path of the file.
    """

    def __init__(self, spec: GraphSpec, run: Run, source: str) -> None:
        super().__init__(
            len(spec.meta.names),
            mean=(0.0, 0.0, 0.0),  # the graph has its own inside
            std=(1.0, 1.0, 1.0),
            resize=spec.resize,
            paste_mode=spec.paste_mode,
        )
        self.spec = spec
        self.task = spec.task
        self.num_keypoints = spec.num_keypoints
        self.size_divisor = spec.divisor
        self.buckets = [] if spec.size is None else [spec.size]
        if spec.regions is not None:
            self.proposal_source, self.max_proposals = spec.regions.source, spec.regions.slots
        self.source = source
        self._run = run

    def forward(self, images: Images, post: PostProcess | None = None) -> Instances:
        """Return the detections of each image by falling score; see `Detector.forward`.

        Raises:
            OptionError: if `post` asks for more than the graph was exported with.
            ValueError: if the pixels have another size than the graph's.
        """
        own = self.spec.post
        post = post or own
        self._check(post, tuple(images.pixels.shape[2:]))
        found = dict(zip(self.spec.outputs, self._all(images), strict=True))
        valid = torch.arange(own.max_det) < found["count"][:, None]
        # NMS decides a box by the better ones alone, so the best of what it kept are what it
        # would have kept under a stricter threshold.
        valid = (valid & (found["scores"] > post.score_thresh))[:, : post.max_det]
        cut = {name: value[:, : post.max_det] for name, value in found.items() if name != "count"}
        clean = {
            name: value * valid.view(*valid.shape, *[1] * (value.ndim - 2))
            for name, value in cut.items()
        }
        short = None
        if self.spec.proposals is not None:  # a graph does not say which proposal an object is from
            good = valid & (clean["scores"] >= GOOD_SCORE)
            short = FEW_PER_OBJECT * good.sum(1) > self.spec.proposals
        return Instances(
            clean["boxes"],
            clean["labels"],
            valid,
            clean["scores"],
            mask_crops=clean.get("mask_probs"),
            keypoints=clean.get("keypoints"),
            short=short,
        )

    def num_proposals(self, max_det: int) -> int | None:
        """Return how many proposals of an image the graph looks at, as the file says."""
        return self.spec.proposals

    def short_advice(self, max_det: int) -> str:
        """Return how to export a graph with more; see `Detector`."""
        count = self.spec.proposals
        if self.spec.regions is not None:
            return f"{self.source} takes {count} regions of an image: train and export with more"
        return (
            f"{self.source} looks at {count} proposals of an image: export it anew with a larger "
            f"max_det, such as max_det={2 * (count or 0)}"
        )

    def limits(self, post: PostProcess, default: PostProcess) -> PostProcess:
        """Return the thresholds with those of the graph in place of defaults that it cannot meet.

        The suppression is part of the graph, so its IoU is that of the file unless another is asked
        for; see `Detector.limits`.
        """
        own = self.spec.post
        conf, iou, most = post.score_thresh, post.nms_thresh, post.max_det
        return replace(
            post,
            score_thresh=max(conf, own.score_thresh) if conf == default.score_thresh else conf,
            nms_thresh=own.nms_thresh if iou == default.nms_thresh else iou,
            max_det=min(most, own.max_det) if most == default.max_det else most,
        )

    def _check(self, post: PostProcess, size: tuple[int, ...]) -> None:
        own = self.spec.post
        wrong = None
        if post.score_thresh < own.score_thresh:
            wrong = f"conf={own.score_thresh:g}, so it has no objects down to {post.score_thresh:g}"
        elif post.max_det > own.max_det:
            wrong = f"max_det={own.max_det}, so it cannot find {post.max_det} objects"
        elif post.nms_thresh != own.nms_thresh:
            wrong = f"iou={own.nms_thresh:g}, which is part of its graph, not {post.nms_thresh:g}"
        elif post.soft_nms != own.soft_nms:
            raise OptionError(
                f"{self.source} has plain NMS in its graph, and no format holds soft-NMS: take the "
                "model itself"
            )
        if wrong:
            raise OptionError(
                f"{self.source} was exported with {wrong}: leave it out, export it anew, or take "
                "the model itself"
            )
        if self.spec.size is not None and size != self.spec.size:
            raise ValueError(f"{self.source} takes pixels of {self.spec.size}, not {size}")

    def _all(self, images: Images) -> list[Tensor]:
        """Run the graph on any number of images, in batches of its own size."""
        parts = [
            [value[:used] for value in self._one(given)]
            for given, used in fill_batches(images, self.spec)
        ]
        return [torch.cat(values) for values in zip(*parts, strict=True)]

    def _one(self, given: list[Tensor]) -> list[Tensor]:
        """Run the graph on one batch of its own size.

        Raises:
            ValueError: if it is not the graph of its description.
        """
        try:
            values = self._run(*given)
        except MemoryError:
            raise
        except Exception as error:  # of ONNX Runtime, OpenVINO or torch
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"{self.source} does not fit its own description ({reason}): export it again"
            ) from None
        slots = [len(given[0]), self.spec.post.max_det]
        for name, value in zip(self.spec.outputs, values, strict=True):
            if list(value.shape[:2]) != (slots[:1] if name == "count" else slots):
                raise ValueError(
                    f"{self.source} does not fit its own description ({name} has the shape "
                    f"{tuple(value.shape)}): export it again"
                )
        return values


def fill_batches(images: Images, spec: GraphSpec) -> Iterator[tuple[list[Tensor], int]]:
    """Yield the inputs of a graph and the number of images that count, in batches that it takes.

    Args:
        images: any number of images.
        spec: of the graph; if it takes a number of images, the last batch is filled up with copies.
    """
    values = [images.pixels, images.sizes]
    if spec.regions is not None:
        values.append(_regions(images, spec.regions.slots))
    step = spec.batch or len(images)
    for first in range(0, len(images), step):
        given = [value[first : first + step].contiguous() for value in values]
        used = len(given[0])
        if used < step:
            given = [
                torch.cat([value, value[-1:].expand(step - used, *value.shape[1:])])
                for value in given
            ]
        yield given, used


def _regions(images: Images, slots: int) -> Tensor:
    """Return the regions of images (B, slots, 4); boxes of zeros in empty slots."""
    found = require_proposals(images)
    boxes = torch.where(found.valid[..., None], found.boxes, 0)[:, :slots]
    return F.pad(boxes, (0, 0, 0, slots - boxes.shape[1]))


def open_graph(path: Path, *, trust: bool = False) -> GraphDetector:
    """Return the detector in an exported file, recognised by its suffix.

    Args:
        path: the file.
        trust: run machine code that the file holds: only files of `format=aoti` have any.

    Raises:
        ValueError: if the file is missing, damaged, or not one that maskwright wrote.
        ImportError: if the library that runs it is missing.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist")
    spec, run = _OPENERS[path.suffix](path, trust)
    return GraphDetector(spec, run, str(path))


def _read_spec(text: str | None, path: Path) -> GraphSpec:
    if not text:
        raise ValueError(
            f"{path} does not say what it detects: it was not written by `maskwright export`"
        )
    try:
        return GraphSpec.from_json(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _damaged(path: Path, what: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(f"{path} is damaged or no {what} file ({reason}): copy or export it again")


def _tensor(value: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(value))


def _open_onnx(path: Path, _: bool) -> tuple[GraphSpec, Run]:
    try:
        import onnxruntime
    except ImportError:
        raise ImportError(
            f"{path}: running ONNX needs onnxruntime: pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        with plain_path(path) as plain:
            session = onnxruntime.InferenceSession(
                plain, options, providers=["CPUExecutionProvider"]
            )
    except Exception as error:  # its errors have no common class
        raise _damaged(path, "ONNX", error) from None
    spec = _read_spec(session.get_modelmeta().custom_metadata_map.get(KEY), path)

    def run(*given: Tensor) -> list[Tensor]:
        values = {name: value.numpy() for name, value in zip(spec.inputs, given, strict=True)}
        return [_tensor(value) for value in session.run(spec.outputs, values)]

    return spec, run


def _open_openvino(path: Path, _: bool) -> tuple[GraphSpec, Run]:
    try:
        import openvino
    except ImportError:
        raise ImportError(f"{path}: running it needs OpenVINO: pip install openvino") from None
    if not path.with_suffix(".bin").is_file():
        raise ValueError(
            f"{path.with_suffix('.bin')} does not exist: the weights of {path.name} lie in it, the "
            "two stay together"
        )
    core = openvino.Core()
    settings = {
        # Or processors with bfloat16 would round every layer.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        model = core.read_model(path)
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        compiled = core.compile_model(model, "CPU", settings)
    except RuntimeError as error:
        raise _damaged(path, "OpenVINO", error) from None
    spec = _read_spec(text, path)

    def run(*given: Tensor) -> list[Tensor]:
        values = {name: value.numpy() for name, value in zip(spec.inputs, given, strict=True)}
        found = compiled(values)
        return [_tensor(found[name]) for name in spec.outputs]

    return spec, run


def _open_pt2(path: Path, trust: bool) -> tuple[GraphSpec, Run]:
    data = path.read_bytes()
    try:
        text, code, graph = check_archive(data)
    except ArchiveError as error:
        raise ValueError(
            f"{path} is not opened: {error}; reading it might run code, and no file of `maskwright "
            "export` has that"
        ) from None
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, ".pt2", error) from None
    spec = _read_spec(text, path)
    if code and not trust:
        raise ValueError(
            f"{path} holds machine code, which would run with all your rights: if you know where "
            "it comes from, open it with trust=true"
        )
    try:
        with quiet():
            module: Any = load_compiled(path) if code else load_program(graph)
    except Exception as error:  # what torch raises for a graph that does not hold together
        raise _damaged(path, ".pt2", error) from None

    def run(*given: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return list(module(*given))

    return spec, run


# Suffix of each kind of file, and who opens it.
_OPENERS: dict[str, Callable[[Path, bool], tuple[GraphSpec, Run]]] = {
    ".onnx": _open_onnx,
    ".xml": _open_openvino,
    ".pt2": _open_pt2,
}
GRAPH_SUFFIXES = tuple(_OPENERS)
