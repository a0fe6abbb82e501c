"""What the numbers of boxes tell of a whole file: fractions, corners, or another image size.

Such files read without a fault, box by box, and teach nonsense. What is told here is certain enough
to refuse the file.
"""

from __future__ import annotations

from typing import Any

from .objects import finite_number

FEWEST = 4  # boxes from which on a pattern is none of chance
BEYOND = 2.0  # pixels outside the image that rounding explains


class BoxPattern:
    """Counts over the boxes of a file, as they were written."""

    def __init__(self) -> None:
        self.count = self.fractions = self.corners = self.beyond = 0
        self.areas_of_sides = self.areas_of_corners = 0
        self.reach = (0.0, 0.0)
        self.image = (0, 0)

    def add(self, box: Any, area: Any, size: tuple[int, int]) -> None:
        """Take note of a box.

        Args:
            box: x, y, width, height as written; anything else is passed over.
            area: as written, None for the area of a mask.
            size: (height, width) of its image.
        """
        numbers = [finite_number(value) for value in box] if isinstance(box, list) else []
        if len(numbers) != 4 or None in numbers:
            return
        x, y, w, h = (value for value in numbers if value is not None)
        height, width = size
        self.count += 1
        # Pascal VOC counts from 1, so that a fraction may have become negative.
        self.fractions += min(x, y) >= -1 and max(x + w, y + h) <= 2 and max(width, height) > 16
        self.corners += w > x and h > y and w <= width + BEYOND and h <= height + BEYOND
        if max(x + w - width, y + h - height) > BEYOND:
            self.beyond += 1
            self.reach = max(self.reach[0], x + w), max(self.reach[1], y + h)
            self.image = max(self.image[0], height), max(self.image[1], width)
        stated = finite_number(area)
        if stated is not None and stated > 0:
            of_sides, of_corners = abs(w * h - stated), abs((w - x) * (h - y) - stated)
            self.areas_of_sides += of_sides <= 0.01 * stated
            self.areas_of_corners += of_corners <= 0.01 * stated and of_corners < of_sides

    def problem(self) -> str | None:
        """Return what all boxes together seem to be, and how to mend it; None if nothing shows."""
        if self.count and self.fractions == self.count:
            return (
                f"all {self.count} boxes lie within 0 to 1: they seem to be fractions of the image "
                "(as in YOLO); multiply x and width by the width of the image, y and height by its "
                "height, for this format counts in pixels"
            )
        if self.count < FEWEST:
            return None
        by_area = self.areas_of_corners == self.count and not self.areas_of_sides
        if self.corners == self.count and (self.beyond >= 0.2 * self.count or by_area):
            shown = f"{self.beyond} of {self.count} boxes reach beyond their image"
            if not self.beyond:
                shown = f"the areas of all {self.count} boxes are not width times height"
            return (
                f"read as x, y, width, height {shown}, and all fit as x1, y1, x2, y2: write "
                "[x1, y1, x2 - x1, y2 - y1]"
            )
        if self.beyond > 0.5 * self.count:
            height, width = self.image
            return (
                f"{self.beyond} of {self.count} boxes reach beyond their image, up to "
                f"{self.reach[0]:.0f} x {self.reach[1]:.0f} where it has {width} x {height} "
                "pixels: "
                "they seem to be made for images of another size; scale them, or put the original "
                "images back"
            )
        return None
