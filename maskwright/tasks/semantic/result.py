"""What a prediction gives to people: the class of every pixel of one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...drawing.label_maps import BACKGROUND, class_palette, draw_label_map, label_picture
from ...drawing.labels import Color
from ...files import replacing, replacing_picture
from ...ops.outlines import Part, as_geometry, trace_labels
from ...ops.rle import encode_crop
from ...paths import home_path
from ...reports.result import ImageResult, Mark, as_png, as_text
from ...text import to_json

if TYPE_CHECKING:
    from PIL import Image

TOLD = 4  # classes that `summary` names


@dataclass(frozen=True, repr=False, eq=False)
class SemanticResult(ImageResult):
    """The classes of the pixels of one image.

    Attributes:
        labels: (H, W) uint8, positions in `names`, pixels of the original image.
        image: (H, W, 3) uint8 RGB, the original image.
        names: class names by label.
        path: where the image came from; None for pixels in memory.
        speed: milliseconds for "load", "preprocess", "inference" and "postprocess".
        probs: (C, H, W) floating point, the probability of each class at each pixel; None: they
            were not kept.
        source_name: how the image is called among the others of its source, see `name`.
        heatmap: see `ImageResult`.
        explained: see `ImageResult`.
        frame: see `ImageResult`.
        time: see `ImageResult`.
        page: see `ImageResult`.
        axes: see `ImageResult`.
        colors: (red, green, blue) of the classes by label, as far as their data set has some.

    Example:
        >>> import numpy as np
        >>> labels = np.array([[0, 0, 0, 1]], np.uint8)
        >>> result = SemanticResult(labels, np.zeros((1, 4, 3), np.uint8), ["sky", "road"], "a.png")
        >>> result
        a.png: sky 75%, road 25%
        >>> result.shares
        {'sky': 0.75, 'road': 0.25}
        >>> result.mask("road").tolist()
        [[False, False, False, True]]
    """

    labels: np.ndarray
    image: np.ndarray
    names: list[str]
    path: str | None = None
    speed: dict[str, float] = field(default_factory=dict)
    probs: np.ndarray | None = None
    source_name: str = ""
    heatmap: np.ndarray | None = None
    explained: Mark | None = None
    colors: Sequence[Color | None] = ()
    frame: int | None = None
    time: float | None = None
    page: int | None = None
    axes: Mapping[str, int] = field(default_factory=dict)

    MEASURE = "share"
    # GeoJSON with polygons, 8-bit PNGs with a palette in `labels/`, arrays in `probs/`.
    FILES: ClassVar[Mapping[str, tuple[str, str]]] = {
        "geojson": (".geojson", ""),
        "labels": (".png", "labels"),
        "probs": (".npz", "probs"),
    }

    COLUMNS: ClassVar[Mapping[str, str]] = {
        **{"label": "int32", "name": "string", "pixels": "int64", "share": "float64"},
        "mask": "string",
    }

    @cached_property
    def pixels(self) -> dict[str, int]:
        """The number of pixels by class name, of the classes that occur, the largest first."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.names))
        order = np.argsort(-counts, kind="stable").tolist()
        return {self.names[label]: int(counts[label]) for label in order if counts[label]}

    @property
    def shares(self) -> dict[str, float]:
        """The share of the image by class name, of the classes that occur, the largest first."""
        return {name: count / self.labels.size for name, count in self.pixels.items()}

    @cached_property
    def palette(self) -> np.ndarray:
        """(C, 3) uint8, the colour of each class in pictures and label maps."""
        return class_palette(self.names, self.colors)

    def mask(self, name: str) -> np.ndarray:
        """Return where a class is, (H, W) bool.

        Raises:
            ValueError: if the model has no class of that name.
        """
        mask: np.ndarray = self.labels == self.names.index(name)
        return mask

    def counts(self) -> dict[str, int]:
        """Return the names of the classes that occur, each once."""
        return dict.fromkeys(self.pixels, 1)

    def summary(self) -> str:
        """Return the largest classes and their shares, as in "road 41%, sky 30%, and 3 more"."""
        shares = list(self.shares.items())
        shown = [f"{name} {share:.0%}" for name, share in shares[:TOLD]]
        more = [f"and {len(shares) - TOLD} more"] if len(shares) > TOLD else []
        return ", ".join(shown + more) or "no pixels"

    def marks(self) -> list[Mark]:
        """Return the classes with their shares for the page of a run; see `ImageResult`."""
        return [(name, int(1000 * share), None) for name, share in self.shares.items()]

    def content(self) -> dict[str, Any]:
        """Return the classes that occur as plain data, the largest first; see `ImageResult`."""
        total = self.labels.size
        return {
            "classes": [
                {
                    "class": name,
                    "label": self.names.index(name),
                    "pixels": count,
                    "share": round(count / total, 6),
                }
                for name, count in self.pixels.items()
            ]
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each class that occurs, the largest first, its pixels as `mask`."""
        height, width = self.labels.shape
        found = []
        for name, count in self.pixels.items():
            where, label = self.mask(name), self.names.index(name)
            code = encode_crop(where, (0, 0, width, height), (height, width))["counts"]
            values = (label, name, count, count / self.labels.size, code.decode("ascii"))
            found.append(dict(zip(self.COLUMNS, values, strict=True)))
        return found

    def plot(self, *, labels: bool = True) -> Image.Image:
        """Return the image with its classes in colour.

        Args:
            labels: write the classes and their shares below it, below a frame of a video all
                classes; a small image is enlarged then.
        """
        still = self.frame is not None
        return draw_label_map(
            self.image, self.labels, self.names, colors=self.palette, legend=labels, still=still
        )

    def plot_part(self, frame: tuple[int, int, int, int], *, labels: bool = True) -> Image.Image:
        """Return a part of the picture of `plot`, without the legend; see `ImageResult`."""
        x1, y1, x2, y2 = frame
        image, classes = self.image[y1:y2, x1:x2], self.labels[y1:y2, x1:x2]
        return draw_label_map(image, classes, self.names, colors=self.palette, legend=False)

    def answers(self) -> dict[str, Callable[[], str | bytes]]:
        """Return the label map as well; see `ImageResult`."""
        return {**super().answers(), "labels": lambda: as_png(self.label_image())}

    def drawn(self) -> dict[str, Any]:
        """Return the label map as grey PNG, and the colours by label; see `ImageResult`."""
        maps = {"label_map": as_text(self.labels), "colors": self.palette.tolist()}
        return {**super().drawn(), **maps}

    def writers(self) -> dict[str, Callable[[Path], Any]]:
        """Return what writes polygons, label maps and probabilities; see `ImageResult`."""
        return {"geojson": self.save, "labels": self.save_labels, "probs": self.save_probs}

    def _texts(self) -> dict[str, Callable[[], str]]:
        return {".geojson": self.to_geojson}

    def label_image(self) -> Image.Image:
        """Return the label map as an 8-bit image with a palette: its pixels are the labels."""
        return label_picture(self.labels, self.palette)

    def save_labels(self, path: str | Path) -> Path:
        """Write `label_image` as a PNG and return the path.

        Raises:
            ValueError: if `path` does not end in .png or cannot be written.
        """
        path = Path(home_path(path))
        if path.suffix.lower() != ".png":
            raise ValueError(f"save_labels: {str(path)!r} must end in .png, which keeps the labels")
        with replacing_picture(path) as temporary:
            self.label_image().save(temporary)
        return path

    def save_probs(self, path: str | Path) -> Path:
        """Write the probabilities in half precision, with the class names, and return the path.

        The file holds `probs` (C, H, W) float16 and `names`; `numpy.load` reads it.

        Raises:
            ValueError: if they were not kept, `path` does not end in .npz or cannot be written.
        """
        path = Path(home_path(path))
        if self.probs is None:
            raise ValueError(f"{self.name} has no probabilities: predict with probs=true")
        if path.suffix.lower() != ".npz":
            raise ValueError(f"save_probs: {str(path)!r} must end in .npz")
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, probs=self.probs.astype(np.float16), names=self.names)
        return path

    def polygons(self, tolerance: float = 0.0) -> dict[str, list[Part]]:
        """Return the classes that occur as polygons with holes, by name.

        Args:
            tolerance: pixels by which outlines may be simplified; at 0 filling them gives exactly
                the label map (see `ops.outlines`).

        Raises:
            ValueError: if the tolerance is negative.
        """
        found = trace_labels(self.labels, tolerance=tolerance)
        return {self.names[label]: parts for label, parts in found.items()}

    def to_geojson(self, tolerance: float = 0.0) -> str:
        """Return the classes as GeoJSON text, in pixels of the image, for QuPath and GIS tools.

        One feature a class, a Polygon or MultiPolygon with holes. A class called "background" has
        none: it is what no polygon covers.

        Args:
            tolerance: as for `polygons`.
        """
        features = [
            {
                "type": "Feature",
                "geometry": as_geometry(parts),
                "properties": {
                    "objectType": "annotation",
                    "classification": {"name": name},
                    "label": self.names.index(name),
                    "pixels": self.pixels[name],
                },
            }
            for name, parts in self.polygons(tolerance).items()
            if name.strip().lower() != BACKGROUND
        ]
        return to_json({"type": "FeatureCollection", "features": features})
