"""Who crosses a line, and to which side: counted from the centres of boxes that are followed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

# A centre is on a side once it is farther from the line than this share of the diagonal of its box:
# boxes of one standing object differ by a few hundredths from frame to frame.
MARGIN = 0.05


@dataclass(frozen=True)
class Crossing:
    """An object has crossed the line.

    Attributes:
        id: of the object.
        direction: "down" or "up" of a line that rather lies, "right" or "left" of one that stands.
    """

    id: int
    direction: str


class Line:
    """Counts the objects that cross a line between its ends.

    Attributes:
        ends: x1, y1, x2, y2 in pixels.
        directions: what the two ways across are called, in the order of the counts.
    """

    def __init__(self, ends: tuple[float, ...]) -> None:
        self.ends = ends
        x1, y1, x2, y2 = ends
        lies = abs(x2 - x1) >= abs(y2 - y1)
        self.directions = ("down", "up") if lies else ("right", "left")
        # The normal that points down, or to the right.
        across, down = -(y2 - y1), x2 - x1
        if (down if lies else across) < 0:
            across, down = -across, -down
        length = (across**2 + down**2) ** 0.5
        self._normal = across / length, down / length
        self._length = length
        # Of each object where it last was clearly on one side: distance, place along the line.
        self._known: dict[int, tuple[float, float]] = {}
        self.counts: Counter[str] = Counter()

    def see(self, id: int, box: tuple[float, float, float, float]) -> Crossing | None:
        """Take where an object is in the next frame, and return its crossing if it crossed.

        Example:
            >>> line = Line((0, 50, 100, 50))
            >>> line.see(1, (10, 30, 20, 40)), line.see(1, (10, 55, 20, 65))
            (None, Crossing(id=1, direction='down'))
        """
        left, top, right, bottom = box
        x1, y1, x2, y2 = self.ends
        x, y = (left + right) / 2 - x1, (top + bottom) / 2 - y1
        distance = x * self._normal[0] + y * self._normal[1]
        along = (x * (x2 - x1) + y * (y2 - y1)) / self._length
        if abs(distance) <= MARGIN * ((right - left) ** 2 + (bottom - top) ** 2) ** 0.5:
            return None
        before = self._known.get(id)
        self._known[id] = distance, along
        if before is None or (before[0] > 0) == (distance > 0):
            return None
        share = before[0] / (before[0] - distance)
        if not 0 <= before[1] + share * (along - before[1]) <= self._length:
            return None  # past one of its ends
        direction = self.directions[0 if distance > 0 else 1]
        self.counts[direction] += 1
        return Crossing(id, direction)
