"""What the command `predict` shows of videos: how far it is, and the table of counts."""

from __future__ import annotations

from contextlib import closing

from ...terminal import console
from ...terminal.interrupt import Interrupt
from .watching import VideoResults


def show(results: VideoResults) -> int:
    """Look at all frames, and return the exit status; Ctrl-C ends behind a frame, files whole."""
    try:
        with (
            Interrupt() as stop,
            closing(results),
            console.progress("predict", total=results.total, unit="frame") as bar,
        ):
            for result in stop.listen(results, waits=False):
                assert result.time is not None
                bar.update(at=console.format_seconds(result.time))
    finally:
        counts = results.counts
        columns = list(dict.fromkeys(key for row in counts.values() for key in row))
        if counts and results.taken:
            console.table(
                "1 frame" if results.taken == 1 else f"{results.taken} frames",
                ["name", *columns],
                [[console.short(name), *map(row.get, columns)] for name, row in counts.items()],
            )
        for video in results.videos:
            console.note(f"video: {video}")
        if results.videos:
            console.note(f"data of each frame, counts: {results.dir}")
    return 128 + stop.number if stop.number else 0
