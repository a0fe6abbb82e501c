"""What a prediction gives to people: boxes, masks, names, pictures and files of one image.

`structures.Detections` is the data; `Result` wraps it with the image and the class names. Masks
stay small squares in their boxes until somebody asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...files import replacing_picture
from ...ops.outlines import Part, as_geometry, trace_parts
from ...ops.rle import decode_rle, measure_rle
from ...paths import home_path
from ...reports.result import ImageResult, Mark, as_png
from ...structures import Detections, Skeleton
from ...text import to_json
from .crf import full_masks, mask_codes

if TYPE_CHECKING:
    from PIL import Image

NEAR = 80  # pixels around a part of a picture, of which labels may reach into it


@dataclass(frozen=True, repr=False, eq=False)
class Result(ImageResult):
    """The objects found in one image, by falling score, in pixels of the original image.

    Attributes:
        detections: boxes, scores, labels and small masks.
        image: (H, W, 3) uint8 RGB, the original image.
        names: class names by label.
        path: where the image came from; None for pixels in memory.
        speed: milliseconds for "load", "preprocess", "inference" and "postprocess".
        category_ids: the data set's own id of each class, for `to_coco`; empty: label + 1.
        paste_mode: how masks return to the image (see `ops.paste_masks`).
        skeleton: what the keypoints are called, and the lines between them.
        source_name: how the image is called among the others of its source, see `name`.
        heatmap: see `ImageResult`.
        explained: see `ImageResult`.
        frame: see `ImageResult`.
        time: see `ImageResult`.
        page: see `ImageResult`.
        axes: see `ImageResult`.
        stopped: see `ImageResult`.

    Example:
        >>> import numpy as np, torch
        >>> found = Detections((4, 6), torch.tensor([[1., 1., 3., 3.]]), torch.tensor([.9]),
        ...                    torch.tensor([0]))
        >>> result = Result(found, np.zeros((4, 6, 3), np.uint8), ["cell"], path="a.png")
        >>> result
        a.png: 1 cell
        >>> result[0].boxes.tolist()
        [[1.0, 1.0, 3.0, 3.0]]
    """

    detections: Detections
    image: np.ndarray
    names: list[str]
    path: str | None = None
    speed: dict[str, float] = field(default_factory=dict)
    category_ids: Sequence[int] = ()
    paste_mode: str = "grid"
    skeleton: Skeleton | None = None
    source_name: str = ""
    heatmap: np.ndarray | None = None
    explained: Mark | None = None
    frame: int | None = None
    time: float | None = None
    page: int | None = None
    axes: Mapping[str, int] = field(default_factory=dict)
    stopped: tuple[int, int] | None = None

    # GeoJSON with polygons, and 16-bit PNGs in `labels/` with the number of the object at each
    # pixel.
    FILES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "geojson": (".geojson", ""),
        "labels": (".png", "labels"),
    }
    COLUMNS: ClassVar[Mapping[str, str]] = {
        **{"label": "int32", "name": "string", "score": "float32"},
        **dict.fromkeys(("x1", "y1", "x2", "y2"), "float32"),
        **{"mask": "string", "keypoints": "list<float32>"},
    }

    @property
    def boxes(self) -> Tensor:
        """(N, 4) float32 xyxy, pixels of the original image."""
        return self.detections.boxes

    @property
    def scores(self) -> Tensor:
        """(N,) float32, falling."""
        return self.detections.scores

    @property
    def labels(self) -> Tensor:
        """(N,) int64, positions in `names`."""
        return self.detections.labels

    @property
    def ids(self) -> Tensor | None:
        """(N,) int64, which object of a video each is, from 1 on; 0: not known yet.

        None where objects are not followed; see the option `track`.
        """
        return self.detections.ids

    @property
    def keypoints(self) -> Tensor | None:
        """(N, J, 3) float32 x, y, score, pixels of the original image; None without keypoints.

        Names of the J keypoints: `skeleton.names`. The score is a probability; a model with
        torchvision's conventions gives its raw logit, as torchvision does.
        """
        return self.detections.keypoints

    @cached_property
    def masks(self) -> Tensor | None:
        """(N, H, W) bool, made at the first use and kept; None for a model of boxes alone.

        N full-size masks are large: `rle` takes the same masks in a thousandth of the memory.
        """
        return full_masks(self.detections, self.paste_mode)

    @cached_property
    def rle(self) -> list[dict[str, Any]] | None:
        """The masks as COCO run-length codes `{"size": [H, W], "counts": str}`, or None."""
        codes = mask_codes(self.detections, self.paste_mode)
        if codes is None:
            return None
        return [{"size": list(code["size"]), "counts": _as_text(code["counts"])} for code in codes]

    def counts(self) -> dict[str, int]:
        """Return the number of objects by class name, the most frequent first."""
        return dict(Counter(self.names[i] for i in self.labels.tolist()).most_common())

    def __len__(self) -> int:
        return len(self.detections)

    def __bool__(self) -> bool:
        return True  # a result without objects is a result, not a missing one

    def __getitem__(self, index: int | slice | Tensor | np.ndarray | Sequence[Any]) -> Result:
        """Return the objects at `index`: a number, a slice, positions, or a bool mask (N,).

        Raises:
            IndexError: if a position is out of range or a bool mask has another length than N.
        """
        positions = torch.arange(len(self))
        if isinstance(index, int | np.integer):
            if not -len(self) <= index < len(self):
                raise IndexError(f"object {index} asked for, but there are {len(self)}")
            chosen = positions[int(index)].reshape(1)
        elif isinstance(index, slice):
            chosen = positions[index]
        else:
            wanted = torch.as_tensor(index).cpu()
            chosen = positions[wanted if wanted.numel() else wanted.to(torch.int64)]
        return replace(self, detections=self.detections.keep(chosen))

    def __iter__(self) -> Iterator[Result]:
        for i in range(len(self)):
            yield self[i]

    def plot(self, *, labels: bool = True) -> Image.Image:
        """Return the image with the objects drawn on it.

        Args:
            labels: write class and score at the objects.
        """
        from ...drawing.draw import draw_instances

        ids = None if self.ids is None else self.ids.tolist()
        # Masks go by their codes: full-size ones of a crowd would fill the memory.
        masks = None if self.rle is None else [decode_rle(code) for code in self.rle]
        return draw_instances(
            self.image,
            self.boxes,
            self.labels,
            self.names,
            self.scores,
            masks,
            self.keypoints,
            texts=None if labels else [""] * len(self),
            ids=ids,
            skeleton=self.skeleton,
        )

    def plot_part(self, frame: tuple[int, int, int, int], *, labels: bool = True) -> Image.Image:
        """Return a part of the picture of `plot`; see `ImageResult`."""
        from ...drawing.draw import MAX_BOXES_WITH_MASKS, MAX_LABELS, draw_instances

        # Labels reach beyond their objects: what is near is drawn as well, and cut off.
        height, width = self.size
        x1, y1 = max(frame[0] - NEAR, 0), max(frame[1] - NEAR, 0)
        x2, y2 = min(frame[2] + NEAR, width), min(frame[3] + NEAR, height)
        low, high = self.boxes[:, :2], self.boxes[:, 2:]
        inside = (low < torch.tensor([x2, y2])).all(1) & (high > torch.tensor([x1, y1])).all(1)
        some = inside.nonzero()[:, 0].tolist()
        shift = torch.tensor([x1, y1])
        masks = None
        if self.rle is not None:
            crops = [decode_rle(self.rle[k]) for k in some]
            masks = [
                (crop, (a - x1, b - y1, c - x1, d - y1) if crop.size else (0, 0, 0, 0))
                for crop, (a, b, c, d) in crops
            ]
        points = self.keypoints
        if points is not None:
            points = torch.cat([points[inside, :, :2] - shift, points[inside, :, 2:]], -1)
        picture = draw_instances(
            self.image[y1:y2, x1:x2],
            self.boxes[inside] - shift.repeat(2),
            self.labels[inside],
            self.names,
            self.scores[inside],
            masks,
            points,
            colors=[self._colors[k] for k in some],
            texts=None if labels and len(self) <= MAX_LABELS else [""] * len(some),
            ids=None if self.ids is None else self.ids[inside].tolist(),
            boxed=masks is None or len(self) <= MAX_BOXES_WITH_MASKS,
            skeleton=self.skeleton,
        )
        return picture.crop((frame[0] - x1, frame[1] - y1, frame[2] - x1, frame[3] - y1))

    @cached_property
    def _colors(self) -> list[tuple[int, int, int]]:
        from ...drawing.draw import instance_colors

        return instance_colors(self.labels.numpy(), len(self.names))

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return the objects in the COCO results format.

        Args:
            image_id: the image's id in the ground truth.

        Returns:
            One dict an object with `image_id`, `category_id` (the data set's own id), `bbox` as
            [x, y, width, height], `score`, and where the model has them `segmentation` (run-length
            code) and `keypoints` (flat list of x, y, score).
        """
        corners = self.boxes.to(torch.float64)
        boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], 1).tolist()
        rows: list[dict[str, Any]] = [
            {
                "image_id": image_id,
                "category_id": self._category_id(label),
                "bbox": box,
                "score": score,
            }
            for label, box, score in zip(
                self.labels.tolist(), boxes, self.scores.tolist(), strict=True
            )
        ]
        for row, code in zip(rows, self.rle or (), strict=self.rle is not None):
            row["segmentation"] = code
        if self.keypoints is not None:
            for row, points in zip(rows, self.keypoints.flatten(1).tolist(), strict=True):
                row["keypoints"] = points
        return rows

    def rows(self) -> list[dict[str, Any]]:
        """Return an object a row; the run-length code `mask` is one of the whole image."""
        corners, points = self.boxes.tolist(), self.keypoints
        codes = [None] * len(self) if self.rle is None else [code["counts"] for code in self.rle]
        flat = [None] * len(self) if points is None else points.flatten(1).tolist()
        found = zip(self.labels.tolist(), self.scores.tolist(), corners, codes, flat, strict=True)
        return [
            dict(zip(self.COLUMNS, (label, self.names[label], score, *box, *rest), strict=True))
            for label, score, box, *rest in found
        ]

    def summary(self) -> str:
        """Return the number of objects of each class, as in "2 cells, 1 nucleus"."""
        return ", ".join(f"{n} {what}" for what, n in self.counts().items()) or "no objects"

    def marks(self) -> list[Mark]:
        """Return name, score and box of each object; see `ImageResult`."""
        rows: list[Mark] = []
        corners = self.boxes.round().tolist()
        for label, score, box in zip(
            self.labels.tolist(), self.scores.tolist(), corners, strict=True
        ):
            x1, y1, x2, y2 = (int(v) for v in box)
            rows.append((self.names[label], int(1000 * score), (x1, y1, x2 - x1, y2 - y1)))
        return rows

    def answers(self) -> dict[str, Callable[[], str | bytes]]:
        """Return a COCO document and label images as well; see `ImageResult`."""
        from PIL import Image

        made = {**super().answers(), "coco": lambda: to_json(self.coco_document())}
        if self.rle is not None:
            made["labels"] = lambda: as_png(Image.fromarray(self.label_image()))
        return made

    def drawn(self) -> dict[str, Any]:
        """Return the lines between keypoints as well, `bones`; see `ImageResult`."""
        bones = {} if self.skeleton is None else {"bones": [list(b) for b in self.skeleton.bones]}
        return {**super().drawn(), **bones}

    def coco_document(self) -> dict[str, Any]:
        """Return the objects as a COCO data set of this one image, scores included."""
        height, width = self.size
        joints: dict[str, Any] = {}
        if self.skeleton is not None:
            bones = [[a + 1, b + 1] for a, b in self.skeleton.bones]
            joints = {"keypoints": list(self.skeleton.names), "skeleton": bones}
        annotations = []
        for number, row in enumerate(self.to_coco(1), 1):
            entry = {"id": number, **row, "iscrowd": 0, "area": row["bbox"][2] * row["bbox"][3]}
            if (points := entry.get("keypoints")) is not None:  # their scores become "seen"
                entry["keypoints"] = [2 if k % 3 == 2 else v for k, v in enumerate(points)]
                entry["num_keypoints"] = len(points) // 3
            if "segmentation" in entry:
                entry["area"] = float(measure_rle(entry["segmentation"])[0])
            annotations.append(entry)
        return {
            "images": [{"id": 1, "file_name": self.name, "height": height, "width": width}],
            "annotations": annotations,
            "categories": [
                {"id": self._category_id(label), "name": name, **joints}
                for label, name in enumerate(self.names)
            ],
        }

    def writers(self) -> dict[str, Callable[[Path], Any]]:
        """Return what writes polygons and label images; see `ImageResult`."""
        return {"geojson": self.save, "labels": self.save_labels}

    def _texts(self) -> dict[str, Callable[[], str]]:
        return {".geojson": self.to_geojson}

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the original image."""
        return self.detections.size

    def content(self) -> dict[str, Any]:
        """Return `objects`, and `keypoint_names` where there are any.

        Each object has `name`, `label`, `category_id`, `score`, `box` (xyxy), where objects of a
        video are followed their `id` (None: not known yet), and where the model has them
        `segmentation` (COCO run-length code) and `keypoints` ([x, y, score] each, in the order of
        the document's `keypoint_names`).
        """
        objects: list[dict[str, Any]] = []
        for i, label in enumerate(self.labels.tolist()):
            entry: dict[str, Any] = {
                "name": self.names[label],
                "label": label,
                "category_id": self._category_id(label),
                "score": round(self.scores[i].item(), 5),
                "box": [round(x, 2) for x in self.boxes[i].tolist()],
            }
            if self.ids is not None:
                entry["id"] = int(self.ids[i]) or None
            if self.rle is not None:
                entry["segmentation"] = self.rle[i]
            if self.keypoints is not None:
                entry["keypoints"] = [
                    [round(x, 2), round(y, 2), round(score, 5)]
                    for x, y, score in self.keypoints[i].tolist()
                ]
            objects.append(entry)
        document: dict[str, Any] = {"objects": objects}
        if self.skeleton is not None:
            document["keypoint_names"] = list(self.skeleton.names)
        return document

    def polygons(self, tolerance: float = 0.0) -> list[list[Part]] | None:
        """Return the masks as polygons with holes, the parts of each object, or None.

        Args:
            tolerance: pixels by which outlines may be simplified; at 0 filling them gives exactly
                the masks (see `ops.outlines`).

        Raises:
            ValueError: if the tolerance is negative.
        """
        if self.rle is None:
            return None
        return [trace_parts(*decode_rle(code), tolerance=tolerance) for code in self.rle]

    def to_geojson(self, tolerance: float = 0.0) -> str:
        """Return the objects as GeoJSON text, in pixels of the image, for QuPath and GIS tools.

        One feature an object: its mask as Polygon or MultiPolygon with holes, or its box if the
        model has no masks; no geometry if no pixel of the mask is over the threshold.

        Args:
            tolerance: as for `polygons`.
        """
        features = []
        shapes = self.polygons(tolerance)
        for i, label in enumerate(self.labels.tolist()):
            box = [round(x, 2) for x in self.boxes[i].tolist()]
            x1, y1, x2, y2 = box
            corners = np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]])
            geometry = as_geometry([Part(corners)] if shapes is None else shapes[i])
            properties = {
                "objectType": "detection",
                "classification": {"name": self.names[label]},
                "score": round(self.scores[i].item(), 5),
                "box": box,
            }
            features.append({"type": "Feature", "geometry": geometry, "properties": properties})
        return to_json({"type": "FeatureCollection", "features": features})

    def label_image(self) -> np.ndarray:
        """Return (H, W) uint16: 0 is background, k the k-th object; the higher score lies above.

        Raises:
            ValueError: for a model without masks, or more than 65,535 objects.
        """
        if self.rle is None:
            raise ValueError("label images need masks, and this model has boxes alone")
        if len(self) > 65_535:
            raise ValueError(f"a label image of 16 bits holds 65,535 objects, not {len(self)}")
        labels = np.zeros(self.detections.size, np.uint16)
        for number in range(len(self), 0, -1):
            crop, (x1, y1, x2, y2) = decode_rle(self.rle[number - 1])
            labels[y1:y2, x1:x2][crop] = number
        return labels

    def save_labels(self, path: str | Path) -> Path:
        """Write `label_image` as a 16-bit grayscale PNG and return the path.

        Raises:
            ValueError: if `path` does not end in .png or cannot be written, and as `label_image`.
        """
        from PIL import Image

        path = Path(home_path(path))
        if path.suffix.lower() != ".png":
            raise ValueError(f"save_labels: {str(path)!r} must end in .png, which keeps 16 bits")
        labels = self.label_image()
        with replacing_picture(path) as temporary:
            Image.fromarray(labels).save(temporary)
        return path

    def to_supervision(self) -> Any:
        """Return a `supervision.Detections`, with `class_name` in its data.

        Of a model of keypoints, the data also has `keypoints` (N, J, 2) and `keypoint_scores`
        (N, J), which is what `supervision.KeyPoints` takes as `xy` and `confidence`.

        Raises:
            ImportError: if supervision is not installed.
        """
        try:
            import supervision
        except ImportError:
            raise ImportError(
                "to_supervision needs supervision: pip install 'maskwright[supervision]'"
            ) from None
        labels = self.labels.numpy()
        data: dict[str, Any] = {"class_name": np.array([self.names[i] for i in labels], dtype=str)}
        if self.keypoints is not None:
            data["keypoints"] = self.keypoints[..., :2].numpy()
            data["keypoint_scores"] = self.keypoints[..., 2].numpy()
        return supervision.Detections(
            xyxy=self.boxes.numpy(),
            mask=None if self.masks is None else self.masks.numpy(),
            confidence=self.scores.numpy(),
            class_id=labels,
            tracker_id=None if self.ids is None else self.ids.numpy(),
            data=data,
        )

    def _category_id(self, label: int) -> int:
        return int(self.category_ids[label]) if self.category_ids else label + 1


def _as_text(counts: str | bytes) -> str:
    return counts.decode("ascii") if isinstance(counts, bytes) else counts
