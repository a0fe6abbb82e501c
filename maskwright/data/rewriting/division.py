"""Images divided into parts by chance, so that each part has its share of every class.

Iterative stratification (Sechidis et al. 2011) for any number of parts: rare classes are dealt out
first, each image into the part that lacks most; of all its classes and of images, that is, and not
of the rarest class alone as there, which lets common classes and the sizes of the parts stray twice
as far. Before that every part gets an image of each class that has enough of them. What belongs
together, such as all images of a patient, stays together. The same seed gives the same parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CLOSEST = 100  # units that are compared before one is taken


def divide(
    images: np.ndarray,
    labels: np.ndarray,
    units: np.ndarray,
    fractions: Sequence[float],
    seed: int = 0,
) -> np.ndarray:
    """Return the part of each image, (N,) int64.

    Args:
        images, labels: (P,) which image has which class; images may have none.
        units: (N,) what each image belongs to, numbers from 0 on.
        fractions: share of the images of each part; their sum is 1.
        seed: the same one gives the same parts.
    """
    dealer = _Dealer(images, labels, units, fractions, seed)
    dealer.cover()
    dealer.deal()
    part: np.ndarray = dealer.part[units]
    return part


class _Dealer:
    """The state of a division."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        units: np.ndarray,
        fractions: Sequence[float],
        seed: int,
    ) -> None:
        count, self.parts = int(units.max()) + 1, len(fractions)
        nothing = int(labels.max(initial=-1)) + 1  # the class of those without any
        keys, times = np.unique(units[images] * (nothing + 1) + labels, return_counts=True)
        empty = np.setdiff1d(np.arange(count), units[images])
        self.sizes: list[int] = np.bincount(units, minlength=count).tolist()
        self.classes: list[list[tuple[int, int]]] = [[] for _ in range(count)]  # with their images
        for key, number in zip(keys.tolist(), times.tolist(), strict=True):
            self.classes[key // (nothing + 1)].append((key % (nothing + 1), number))
        for unit in empty.tolist():
            self.classes[unit].append((nothing, self.sizes[unit]))
        order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(count).tolist()
        self.members: list[list[int]] = [[] for _ in range(nothing + 1)]
        self.fractions, self.sides = fractions, [share * len(units) for share in fractions]
        self.total = [0] * (nothing + 1)
        for unit in order:
            for label, number in self.classes[unit]:
                self.members[label].append(unit)
                self.total[label] += number
        self.rarest = sorted(
            (label for label, own in enumerate(self.members) if own),
            key=lambda label: (len(self.members[label]), label),
        )
        self.lacking = [[share * number for number in self.total] for share in fractions]
        self.room = list(self.sides)
        self.having = [[False] * (nothing + 1) for _ in fractions]
        self.part = np.full(count, -1)

    def cover(self) -> None:
        """Give each part a unit of each class, the first parts of one that has too few."""
        for label in self.rarest:
            free = [unit for unit in self.members[label] if self.part[unit] < 0]
            for part in range(min(len(self.members[label]), self.parts)):
                if self.having[part][label] or not free or len(self.members[label]) < 2:
                    continue
                # One that brings other classes, too, and fits in.
                near = free[:CLOSEST]
                best = min(near, key=lambda unit: (-self._new(unit, part), self._over(unit, part)))
                self._put(best, part)
                free.remove(best)

    def deal(self) -> None:
        """Give each unit that is left, rare classes first, to the part that it fits best."""
        for label in self.rarest:
            free = [unit for unit in self.members[label] if self.part[unit] < 0]
            for unit in sorted(free, key=lambda unit: -self.sizes[unit]):  # small ones fill up
                self._put(unit, min(range(self.parts), key=lambda part: self._misfit(unit, part)))

    def _misfit(self, unit: int, part: int) -> float:
        """Return how the squares of what a part lacks, relative to its share, would change."""
        size = self.sizes[unit]
        change = size * (size - 2 * self.room[part]) / self.sides[part]
        for label, number in self.classes[unit]:
            wanted = self.fractions[part] * self.total[label]
            change += number * (number - 2 * self.lacking[part][label]) / wanted
        return change

    def _new(self, unit: int, part: int) -> int:
        return sum(not self.having[part][label] for label, _ in self.classes[unit])

    def _over(self, unit: int, part: int) -> float:
        return max(self.sizes[unit] - self.room[part], 0.0)

    def _put(self, unit: int, part: int) -> None:
        self.part[unit] = part
        self.room[part] -= self.sizes[unit]
        for label, number in self.classes[unit]:
            self.lacking[part][label] -= number
            self.having[part][label] = True
