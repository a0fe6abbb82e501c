"""Which images of a data set with one split only are held out for validation.

The held-out part is drawn by chance, but so that what a validation needs is in it: images with
objects, every class that more than one image has, and each class in proportion, rare ones first
(iterative stratification, Sechidis et al. 2011). Images of one group, as of one patient, stay
together. The same seed gives the same parts.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..checking.verdict import too_few_images
from ..records import Dataset

PASSES = 10  # over the groups, until none changes sides


def split_dataset(
    dataset: Dataset, fraction: float = 0.2, seed: int = 0, *, holdout: str = "stratified"
) -> tuple[Dataset, Dataset]:
    """Return (train, val): a part of the images is held out, each side gets at least one.

    Args:
        dataset: at least two images.
        fraction: share of the images in val, in (0, 1).
        seed: the same seed gives the same parts.
        holdout: see `hold_out`.

    Raises:
        ValueError: if there are fewer than two images or `fraction` is out of range.
    """
    train, val = hold_out(dataset, fraction, seed, holdout=holdout)
    return dataset.select(train, "train"), dataset.select(val, "val")


def hold_out(
    dataset: Dataset, fraction: float, seed: int, *, holdout: str = "stratified"
) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the images to train on, and of those to validate on, both sorted.

    Args:
        dataset: at least two images.
        fraction: share of the images to validate on, in (0, 1).
        seed: the same seed gives the same parts.
        holdout: "stratified", or "random": whatever is in the images.

    Raises:
        ValueError: see `split_dataset`.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    if problem := too_few_images(dataset):
        raise ValueError(problem)
    order = np.random.Generator(np.random.Philox(key=[seed, 0])).permutation(len(dataset))
    count = min(max(round(len(dataset) * fraction), 1), len(dataset) - 1)
    groups = dataset.groups
    if groups is not None:
        chosen = _draw_groups(dataset, groups, order, count, stratified=holdout != "random")
    elif holdout == "random":
        chosen = order[:count]
    else:
        chosen = np.array(_Draw(dataset, order).draw(count, fraction))
    train = np.setdiff1d(np.arange(len(dataset)), chosen)
    return train, np.sort(chosen)


def _draw_groups(
    dataset: Dataset, groups: np.ndarray, order: np.ndarray, count: int, *, stratified: bool
) -> np.ndarray:
    """Return the images of whole groups, about `count`: never all of a class, if it can be helped.

    Args:
        dataset: the images.
        groups: (N,) group of each.
        order: the images in random order.
        count: images to hold out.
        stratified: each class in proportion, or whatever comes.

    Raises:
        ValueError: if all images are one group.
    """
    _, owner = np.unique(groups, return_inverse=True)
    number = int(owner.max()) + 1
    if number < 2:
        raise ValueError(
            f"{dataset.source}: all images are of one group, so that none can be held out: correct "
            "the column of groups, give a split val, or train with val_fraction=0"
        )
    images, labels = dataset.classes_of_images()
    have = np.zeros((number, len(dataset.names) + 1))  # images of each class, and in all
    np.add.at(have, (owner[images], labels), 1)
    have[:, -1] = np.bincount(owner)
    if not stratified:
        have[:, :-1] = 0
    wanted = count / len(dataset) * have.sum(0)
    weight = 1 / np.maximum(have.sum(0), 1)
    _, first = np.unique(owner[order], return_index=True)
    drawn = np.argsort(first)  # groups in random order, large ones first: small ones fill up
    drawn = drawn[np.argsort(-have[drawn, -1], kind="stable")] if stratified else drawn

    def off(held: np.ndarray) -> float:
        return float((((held - wanted) ** 2) * weight).sum())

    total, held = have.sum(0), np.zeros_like(wanted)
    taken = np.zeros(number, bool)
    for _ in range(PASSES):  # each group changes sides where that helps
        moved = False
        for group in drawn.tolist():
            sign = -1 if taken[group] else 1
            after = held + sign * have[group]
            lost = (total - after < 1) & (total > 0)
            if not lost.any() and off(after) < off(held):
                held, moved = after, True
                taken[group] = not taken[group]
        if not moved:
            break
    if not taken.any():  # each group is larger than what is wanted, or alone in having a class
        taken[min(drawn.tolist(), key=lambda group: off(have[group]))] = True
    return np.flatnonzero(taken[owner])


class _Draw:
    """Images taken one after the other, in a random order, by what is still missing.

    Groups are the classes, and beside them the images with objects and those without. An image
    belongs to all groups that it has an object of.
    """

    def __init__(self, dataset: Dataset, order: np.ndarray) -> None:
        images, labels = dataset.classes_of_images()
        objects, nothing = len(dataset.names), len(dataset.names) + 1
        having = np.unique(images)
        empty = np.setdiff1d(np.arange(len(dataset)), having)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        image = np.concatenate([images, having, empty])
        group = np.concatenate(
            [labels, np.full(len(having), objects), np.full(len(empty), nothing)]
        )
        self.objects = objects
        self.order: list[int] = order.tolist()
        self.members: list[list[int]] = [[] for _ in range(nothing + 1)]
        self.groups: list[list[int]] = [[] for _ in range(len(dataset))]
        by_rank = np.lexsort((group, rank[image]))
        for one, which in zip(image[by_rank].tolist(), group[by_rank].tolist(), strict=True):
            self.members[which].append(one)
            self.groups[one].append(which)
        self.taken: set[int] = set()
        self.settled: set[int] = set()  # taken, or left to the training
        self.have = [0] * len(self.members)

    def draw(self, count: int, fraction: float) -> list[int]:
        """Return `count` images."""
        rarest_first = sorted(
            (which for which, members in enumerate(self.members) if members),
            key=lambda which: (len(self.members[which]), which),
        )
        # One of each class, then each in proportion, then whatever fills the part.
        missing = [w for w in rarest_first if w < self.objects and len(self.members[w]) > 1]
        for which in missing:
            if not self.have[which]:
                left = [w for w in missing if not self.have[w]]
                self._take(which, 1, count, left if len(left) > count - len(self.taken) else [])
        if not self.have[self.objects] and len(self.members[self.objects]) > 1:
            self._take(self.objects, 1, count, [], spare=False)
        for which in rarest_first:
            wanted = round(fraction * len(self.members[which]))
            self._take(which, wanted, count, [])
            self.settled.update(self.members[which])  # not drawn again for a more common class
        for allowed in (self._spares, lambda image: True):
            self._fill(count, allowed)
        return sorted(self.taken)

    def _take(
        self, which: int, wanted: int, count: int, missing: list[int], *, spare: bool = True
    ) -> None:
        """Take images of a group until it has `wanted`; with `missing`, those with most of them."""
        candidates = self.members[which]
        if missing:
            short = set(missing)
            candidates = sorted(candidates, key=lambda one: -len(short & set(self.groups[one])))
        for image in candidates:
            if self.have[which] >= wanted or len(self.taken) >= count:
                return
            if image not in self.settled and (not spare or self._spares(image)):
                self._add(image)

    def _fill(self, count: int, allowed: Callable[[int], bool]) -> None:
        for image in self.order:
            if len(self.taken) >= count:
                return
            if image not in self.taken and allowed(image):
                self._add(image)

    def _spares(self, image: int) -> bool:
        """True if each class of the image stays in another one that is not taken."""
        return all(
            which > self.objects or len(self.members[which]) - self.have[which] > 1
            for which in self.groups[image]
        )

    def _add(self, image: int) -> None:
        self.taken.add(image)
        self.settled.add(image)
        for which in self.groups[image]:
            self.have[which] += 1
