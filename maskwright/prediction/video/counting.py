"""How often each name was found in the frames of a video."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ...reports.result import ImageResult

COLUMNS = ("frames", "most", "mean")  # of `Counts.rows`


class Counts:
    """Counts what was found, frame by frame.

    Attributes:
        frames: how many were looked at.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._seen: Counter[str] = Counter()
        self._found: Counter[str] = Counter()
        self._most: dict[str, int] = {}
        self._further: dict[str, Counter[str]] = {}

    def add(self, result: ImageResult) -> None:
        """Count the finds of a frame."""
        self.frames += 1
        for name, count in result.counts().items():
            self._seen[name] += 1
            self._found[name] += count
            self._most[name] = max(count, self._most.get(name, 0))

    def add_further(self, numbers: Mapping[str, Mapping[str, int]]) -> None:
        """Add numbers by name and by what they count, such as tracks."""
        for name, counts in numbers.items():
            self._further.setdefault(name, Counter()).update(counts)

    def rows(self, further: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, float]]:
        """Return the numbers of each name, the one in most frames first.

        `frames` in which it was found, the `most` in one of them, the `mean` of all frames, and
        what was added beside.

        Args:
            further: as for `add_further`, in these rows alone.
        """
        beside = {name: Counter(row) for name, row in self._further.items()}
        for name, row in further.items():
            beside.setdefault(name, Counter()).update(row)
        names = sorted({*self._seen, *beside}, key=lambda name: (-self._seen[name], name))
        return {
            name: {
                "frames": self._seen[name],
                "most": self._most.get(name, 0),
                "mean": round(self._found[name] / max(self.frames, 1), 3),
                **beside.get(name, {}),
            }
            for name in names
        }
