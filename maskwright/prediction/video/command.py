"""What the command `predict` shows of videos: how far it is, and the table of counts."""

from __future__ import annotations

from contextlib import closing

from ...terminal import console
from ...terminal.interrupt import Interrupt
from .watching import VideoResults


def show(results: VideoResults) -> int:
    """Look at all frames, and return the exit status; Ctrl-C ends behind a frame, files whole."""
    last = None
    try:
        with (
            Interrupt() as stop,
            closing(results),
            console.progress("predict", total=results.total, unit="frame") as bar,
        ):
            for result in stop.listen(results, waits=False):
                last = result
                assert result.time is not None
                bar.update(at=console.format_seconds(result.time))
    finally:
        counts = results.counts
        columns = list(dict.fromkeys(key for row in counts.values() for key in row))
        frames = "1 frame" if results.taken == 1 else f"{results.taken} frames"
        if counts and results.taken:
            console.table(
                frames,
                ["name", *columns],
                [[console.short(name), *map(row.get, columns)] for name, row in counts.items()],
            )
        elif last is not None:
            console.table(frames, ["found"], [[last.summary()]])
        videos = [video for video in results.videos if video.exists()]
        for video in videos:
            console.note(f"video: {video}")
        if videos and results.dir is not None:
            tables = ", counts" if any(results.dir.glob("*.counts.csv")) else ""
            console.note(f"data of each frame{tables}: {results.dir}")
    return 128 + stop.number if stop.number else 0
