"""What an exported file says of itself: its interface, its thresholds, its classes, its origin.

The same JSON lies in the metadata of every format, so that a file is all one needs. `runtime.py`
reads it as well; `docs/export.md` describes it for readers in other languages.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from .._version import __version__
from ..models.detection.base import Detector, PostProcess
from ..models.meta import Meta
from ..structures import MAX_INPUT, Resize

KEY = "maskwright"  # of the metadata, in every format
GRAPH_FILE = f"{KEY}.json"  # of the description, where it is a file of an archive
VERSION = 1  # of the JSON
# Outputs in their order; masks and keypoints only where the model has them.
TASKS = ("detect", "segment", "keypoints", "segment+keypoints")
PASTE_MODES = ("grid", "torchvision")
PRECISIONS = ("fp32", "fp16", "int8")
MOST_SLOTS = 100_000
OUTPUTS = ("boxes", "scores", "labels", "mask_probs", "count", "keypoints")


@dataclass(frozen=True)
class RegionInput:
    """The regions that a graph takes with the pixels, for detectors that do not find them.

    Attributes:
        slots: of an image, no more regions.
        source: where the detector got them from in training; see `proposals.make_source`.
    """

    slots: int
    source: str


@dataclass(frozen=True)
class Quantised:
    """What int8 came to.

    Attributes:
        images: number of calibration images.
        before: AP of the float graph by key ("box/AP", "mask/AP", "keypoints/AP"), in [0, 1].
        after: the same of the int8 graph.
    """

    images: int
    before: dict[str, float]
    after: dict[str, float]

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Quantised:
        """Read what `asdict` gave."""
        before, after = (
            {str(key): float(value) for key, value in data[name].items()}
            for name in ("before", "after")
        )
        return cls(int(data["images"]), before, after)


@dataclass(frozen=True)
class GraphSpec:
    """The description of an exported detector.

    Attributes:
        meta: names, category ids, keypoints, licence, source and window; `args` and `extra` are
            empty.
        task: see `Detector`.
        post: thresholds in the graph.
        size: (height, width) of `pixels`; None: any multiples of `divisor`.
        batch: images of a call; None: any number.
        divisor: sides of `pixels` are multiples of it.
        resize: how a photo becomes network input, before it is padded.
        paste_mode: how masks return to the image (see `ops.paste_masks`).
        num_keypoints: keypoints of an object, 0 for none.
        precision: "fp32"; "fp16": weights in half precision, arithmetic in single; "int8": most
            layers in 8-bit integers.
        quantised: what int8 came to; None for other precisions.
        regions: what the graph takes beside the pixels; None: it finds its regions itself.
        proposals: of an image, that the graph looks at; None: not known.
    """

    meta: Meta
    task: str
    post: PostProcess
    size: tuple[int, int] | None
    batch: int | None
    divisor: int
    resize: Resize
    paste_mode: str
    num_keypoints: int
    precision: str
    quantised: Quantised | None = None
    regions: RegionInput | None = None
    proposals: int | None = None

    @classmethod
    def of(
        cls,
        detector: Detector,
        meta: Meta,
        post: PostProcess,
        *,
        size: tuple[int, int] | None,
        batch: int | None,
        half: bool,
    ) -> GraphSpec:
        """Describe the graph of a detector."""
        bare = Meta(
            meta.model,
            {},
            meta.names,
            meta.category_ids,
            meta.keypoints,
            licence=meta.licence,
            source=meta.source,
            window=meta.window,
        )
        source = detector.proposal_source
        return cls(
            bare,
            detector.task,
            post,
            size,
            batch,
            detector.size_divisor,
            replace(detector.resize, within=size),
            detector.paste_mode,
            detector.num_keypoints,
            "fp16" if half else "fp32",
            regions=None if source is None else RegionInput(detector.max_proposals, source),
            proposals=detector.num_proposals(post.max_det),
        )

    @property
    def inputs(self) -> list[str]:
        """Names of the graph's inputs, in order."""
        return ["pixels", "sizes"] if self.regions is None else ["pixels", "sizes", "regions"]

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs, in order."""
        kinds = self.task.split("+")
        optional = {"mask_probs": "segment", "keypoints": "keypoints"}
        return [name for name in OUTPUTS if optional.get(name, kinds[0]) in kinds]

    def to_json(self) -> str:
        """Return the description as JSON text; see `docs/export.md`."""
        meta = self.meta
        return json.dumps(
            {
                "version": VERSION,
                "maskwright": __version__,
                "model": meta.model,
                "task": self.task,
                "names": meta.names,
                "category_ids": meta.category_ids,
                "keypoints": None if meta.keypoints is None else asdict(meta.keypoints),
                "num_keypoints": self.num_keypoints,
                "licence": meta.licence,
                "source": meta.source,
                "window": meta.window,
                "conf": self.post.score_thresh,
                "iou": self.post.nms_thresh,
                "max_det": self.post.max_det,
                "proposals": self.proposals,
                "size": self.size,
                "batch": self.batch,
                "divisor": self.divisor,
                "resize": asdict(self.resize),
                "paste_mode": self.paste_mode,
                "precision": self.precision,
                "int8": None if self.quantised is None else asdict(self.quantised),
                "regions": None if self.regions is None else asdict(self.regions),
                "outputs": self.outputs,
            },
            ensure_ascii=True,
        )

    @classmethod
    def from_json(cls, text: str) -> GraphSpec:
        """Read what `to_json` wrote.

        Raises:
            ValueError: if it is no such text, or of a newer version.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            if int(data["version"]) > VERSION:
                raise ValueError(
                    f"it was written by maskwright {data.get('maskwright')}, which is newer than "
                    f"this one ({__version__}): update maskwright"
                )
            size, batch, quantised = data["size"], data["batch"], data.get("int8")
            regions = data.get("regions")
            within = data["resize"].get("within")
            spec = cls(
                Meta.from_dict({"args": {}, **data}),
                str(data["task"]),
                PostProcess(float(data["conf"]), float(data["iou"]), int(data["max_det"])),
                None if size is None else (int(size[0]), int(size[1])),
                None if batch is None else int(batch),
                int(data["divisor"]),
                Resize(**{**data["resize"], "within": within and (int(within[0]), int(within[1]))}),
                str(data["paste_mode"]),
                int(data["num_keypoints"]),
                str(data["precision"]),
                None if quantised is None else Quantised.from_dict(quantised),
                regions and RegionInput(int(regions["slots"]), str(regions["source"])),
                None if data.get("proposals") is None else int(data["proposals"]),
            )
        except (TypeError, KeyError, IndexError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"its description is incomplete ({error!r})") from None
        sides = spec.size or (spec.divisor, spec.divisor)
        slots = 1 if spec.regions is None else spec.regions.slots
        if min(*sides, spec.divisor, spec.batch or 1, slots) < 1 or sides[0] * sides[1] > MAX_INPUT:
            raise ValueError(f"its description names impossible sizes: {sides}, {spec.batch}")
        if spec.resize.within != spec.size:
            raise ValueError(f"its description resizes to {spec.resize.within}, not {spec.size}")
        known = (
            (spec.task, TASKS),
            (spec.paste_mode, PASTE_MODES),
            (spec.precision, PRECISIONS),
        )
        for value, values in known:
            if value not in values:
                raise ValueError(f"its description says {value!r}, not {' or '.join(values)}")
        if max(spec.post.max_det, slots) > MOST_SLOTS or not 0 <= spec.num_keypoints <= MOST_SLOTS:
            raise ValueError("its description names impossible numbers of objects or keypoints")
        return spec
