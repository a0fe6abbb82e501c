"""What limits of the number of objects may have cut off in a prediction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...models.detection.base import Detector
from ...text import one_line
from .result import Result
from .settings import DetectionSettings


def limits_reached(
    results: Sequence[Result], model: Detector, settings: DetectionSettings, said: set[str]
) -> Iterator[str]:
    """Yield warnings on results that are full, each kind once; see `Task.remarks`."""
    most, tiling = settings.post.max_det, settings.tiling
    parts = [result for result in results if tiling is not None and not tiling.fits(result.size)]
    whole = [result for result in results if result not in parts]
    full = [r for r in results if r.detections.full or (len(r) >= most and r in whole)]
    if full and "full" not in said:
        said.add("full")
        names = ", ".join(one_line(r.name) for r in full[:3]) + (", ..." if full[3:] else "")
        where = "a tile of " if full[0] in parts else ""
        yield (
            f"max_det={most} was reached in {where}{names}: there may be more objects; raise it, "
            f"such as max_det={most * 5}"
        )
    short = [r for r in results if r.detections.short and (len(r) < most or r in parts)]
    if short and "short" not in said:
        said.add("short")
        names = ", ".join(r.file_name for r in short[:3]) + (", ..." if short[3:] else "")
        yield (
            f"{names}: there may be more objects than the {max(map(len, short))} found: "
            f"{model.short_advice(most)}"
        )
