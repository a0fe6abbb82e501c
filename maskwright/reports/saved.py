"""Where the files of one image of a prediction run went, for the page that shows them all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .result import ImageResult, Mark


@dataclass(frozen=True)
class SavedResult:
    """Where the files of one image went, and what its row of the page says.

    Attributes:
        name: what the source image is called, see `Result.name`.
        overlay: picture with what was found.
        data: JSON file, see `Result.to_json`.
        original: copy of the image for the page, or None.
        size: (height, width) of the image.
        counts: how often each name was found.
        ms: milliseconds that the image took.
        found: what the page shows of each find, see `Mark`.
        heatmap: picture of where the evidence lies, or None.
        measure: what the numbers of the finds are called.
        page: page that zooms into the picture of a large image, or None; `overlay` is smaller then.
    """

    name: str
    overlay: Path
    data: Path
    original: Path | None
    size: tuple[int, int]
    counts: dict[str, int]
    ms: float
    found: tuple[Mark, ...]
    heatmap: Path | None = None
    measure: str = ImageResult.MEASURE
    page: Path | None = None
