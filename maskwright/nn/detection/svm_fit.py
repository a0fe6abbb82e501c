"""Fitting of linear SVMs and box regression on region features (Girshick et al. 2014, R-CNN).

As published (sections 2.3, 3.5 and appendices B, C): the objects themselves are the positives of
an SVM, regions that overlap no object of the class by 0.3 its negatives, the hard ones of which
are found in one pass over the images; features are scaled to a mean norm of 20; ridge regression
with lambda 1000 learns from the regions that overlap an object by 0.6. Differences: the features
of the ridge are scaled in the same way, since its lambda means something at one scale only, and
its intercept is not shrunk; what is kept of either is bounded by memory, a random sample of all.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ...ops.boxes import box_ioa, box_iou, encode_deltas
from ..track import Track

NORM = 20.0  # mean norm of the features that the SVMs see
C, POSITIVE_WEIGHT, BIAS = 1e-3, 2.0, 10.0  # of the SVMs, as in the published code
NEGATIVE_IOU, RIDGE_IOU = 0.3, 0.6
HARD, EASY = -1.0, -1.2  # margins: above the first a negative is kept, below the second dropped
REFIT = 2000  # new negatives of a class after which its SVM is fitted anew
FIRST = 5000  # random negatives of a class to begin with
MOST = 20_000  # negatives of a class, its positives, and regions for its ridge
# Bytes for the negatives of all classes; the same for positives, for the ridge, and for features.
MEMORY = 2**30
RIDGE_LAMBDA = 1000.0


@dataclass(frozen=True)
class Objects:
    """Regions and objects of one image, on the CPU.

    Attributes:
        boxes: (n, 4) xyxy, the regions.
        gt: (g, 4) xyxy, the objects.
        labels: (g,) int64.
        crowd: (g,) bool: neither positive nor negative.
    """

    boxes: Tensor
    gt: Tensor
    labels: Tensor
    crowd: Tensor

    @property
    def all_boxes(self) -> Tensor:
        """The regions, and behind them the objects: (n + g, 4)."""
        return torch.cat([self.boxes, self.gt])


class _Sample:
    """A bounded random sample of rows, in which each row given has the same chance to stay."""

    def __init__(self, most: int, rng: np.random.Generator) -> None:
        self.most = most
        self.given = 0
        self.rows: list[tuple[np.ndarray, ...]] = []
        self._rng = rng

    def add(self, *row: np.ndarray) -> None:
        self.given += 1
        place = self.given - 1
        if place >= self.most:
            place = int(self._rng.integers(self.given))
        if place < len(self.rows):
            self.rows[place] = tuple(part.copy() for part in row)
        elif place < self.most:
            self.rows.append(tuple(part.copy() for part in row))

    def stacked(self, part: int = 0) -> np.ndarray:
        return np.stack([row[part] for row in self.rows])


@dataclass
class _Rows:
    """Rows of features that an SVM gets wrong, with a bound on their number."""

    most: int
    rows: list[np.ndarray] = field(default_factory=list)
    keys: set[int] = field(default_factory=set)
    order: list[int] = field(default_factory=list)
    fresh: int = 0

    def add(self, key: int, row: np.ndarray) -> None:
        if key not in self.keys and len(self.rows) < self.most:
            self.rows.append(row.copy())
            self.keys.add(key)
            self.order.append(key)
            self.fresh += 1

    def keep(self, which: np.ndarray) -> None:
        self.rows = [row for row, kept in zip(self.rows, which, strict=True) if kept]
        self.order = [key for key, kept in zip(self.order, which, strict=True) if kept]
        self.keys = set(self.order)


class RegionFitter:
    """Collects region features image by image, and fits SVMs and ridge regression to them.

    Use: `see` each image once, `begin`, `mine` each image once, `finish`.

    Args:
        names: class names.
        width: size of the last layer's features.
        pooled: size of the pooled features.
        svm: whether SVMs are wanted; without, `begin` and `mine` do nothing.
        images: how many images there are.
        say: is told what went otherwise than planned.
        track: takes a label and the pieces of a long work, and yields them; may raise to stop.
    """

    def __init__(
        self,
        names: Sequence[str],
        width: int,
        pooled: int,
        *,
        svm: bool,
        images: int,
        say: Callable[[str], None],
        track: Track = lambda label, pieces: iter(pieces),
    ) -> None:
        classes = len(names)
        self.names = names
        self.svm = svm
        self._say = say
        self._track = track
        self._rng = np.random.default_rng(0)
        most = max(min(MOST, MEMORY // (classes * width * 4)), 200)
        pairs = max(min(MOST, MEMORY // (classes * pooled * 4)), 100)
        self._first = min(FIRST, most) / max(images, 1)  # random negatives of a class and image
        self._positives = [_Sample(most, self._rng) for _ in range(classes)]
        self._negatives = [_Rows(most) for _ in range(classes)]
        self._pairs = [_Sample(pairs, self._rng) for _ in range(classes)]
        self._norms: list[tuple[float, int]] = []
        self._pooled_norms: list[tuple[float, int]] = []
        self._pooled = pooled
        self._weight = torch.zeros(classes, width)
        self._bias = torch.zeros(classes)

    def pairs(self, objects: Objects) -> tuple[Tensor, Tensor]:
        """Return the regions (m,) that the ridge learns from, and the object (m,) of each."""
        if not len(objects.gt) or not len(objects.boxes):
            none = torch.zeros(0, dtype=torch.int64)
            return none, none
        iou = torch.where(objects.crowd[:, None], 0, box_iou(objects.gt, objects.boxes))
        best, owner = iou.max(0)
        rows = (best >= RIDGE_IOU).nonzero()[:, 0]
        return rows, owner[rows]

    def see(
        self,
        image: int,
        last: Tensor,
        objects: Objects,
        rows: Tensor,
        owner: Tensor,
        pooled: Tensor,
    ) -> None:
        """Take the features of an image.

        Args:
            image: its number.
            last: (n + g, width) features of its regions and, behind them, of its objects.
            objects: regions and objects.
            rows, owner: what `pairs` returned.
            pooled: (m, pooled) features of the regions `rows`.
        """
        boxes, gt, labels = objects.boxes, objects.gt, objects.labels
        if len(last):
            self._norms.append((float(last.norm(dim=1).sum()), len(last)))
        for number in (~objects.crowd).nonzero()[:, 0].tolist():
            self._positives[int(labels[number])].add(last[len(boxes) + number].numpy())
        if len(pooled):
            self._pooled_norms.append((float(pooled.norm(dim=1).sum()), len(pooled)))
            goals = encode_deltas(gt[owner], boxes[rows], (1.0, 1.0, 1.0, 1.0)).numpy()
            for label, features, goal in zip(labels[owner].tolist(), pooled, goals, strict=True):
                self._pairs[label].add(features.numpy(), goal)
        if self.svm:
            for label, usable in enumerate(self._usable(objects)):
                candidates = np.flatnonzero(usable)
                wanted = int(self._first + self._rng.random())
                count = min(wanted, len(candidates))
                for row in self._rng.choice(candidates, count, replace=False) if count else ():
                    self._negatives[label].add(_key(image, int(row)), last[row].numpy())

    def _usable(self, objects: Objects) -> list[np.ndarray]:
        """Return for each class which regions (n,) are its negatives."""
        boxes, gt, labels, crowd = objects.boxes, objects.gt, objects.labels, objects.crowd
        if not len(gt):
            return [np.ones(len(boxes), bool)] * len(self.names)
        iou = box_iou(gt, boxes)
        ignored = torch.where(crowd[:, None], box_ioa(boxes, gt).T, 0).amax(0) > 0.5
        usable = []
        for label in range(len(self.names)):
            own = torch.where(((labels == label) & ~crowd)[:, None], iou, 0)
            usable.append(((own.amax(0) < NEGATIVE_IOU) & ~ignored).numpy())
        return usable

    def begin(self) -> None:
        """Fit the SVMs to all positives and the random negatives."""
        self._scale = NORM / max(_mean(self._norms), 1e-12)
        if self.svm:
            for label in self._track("SVMs", range(len(self.names))):
                name, positives = self.names[label], self._positives[label]
                if positives.given > positives.most:
                    self._say(
                        f"{positives.given} objects of the class {name!r} are too many for memory: "
                        f"its SVM learns from {positives.most} of them, at random"
                    )
                if not positives.rows:
                    self._say(
                        f"no object of the class {name!r} in the training images: its SVM has no "
                        "positives, so the class is never found"
                    )
                    self._bias[label] = -10.0
                elif not self._negatives[label].rows:
                    self._say(
                        f"no region lies apart from the objects of the class {name!r}: its SVM has "
                        "no negatives, so the class is never found; more proposals, or "
                        "classifier=softmax, find it"
                    )
                    self._bias[label] = -10.0
                else:
                    self._fit(label)
                    if len(self._negatives[label].rows) == self._negatives[label].most:
                        self._drop_easy(label)

    def _drop_easy(self, label: int) -> None:
        """Make room: drop the negatives of a class that its SVM is sure of."""
        kept = self._negatives[label]
        weight = self._weight[label].numpy()
        margins = np.array([row @ weight for row in kept.rows]) + float(self._bias[label])
        kept.keep(margins >= EASY)

    def _trained(self, label: int) -> bool:
        return bool(self._positives[label].rows) and bool(self._negatives[label].rows)

    def mine(self, image: int, last: Tensor, objects: Objects) -> None:
        """Keep the negatives of an image that the SVMs get wrong or nearly so; see `see`."""
        if not self.svm:
            return
        margins = (last[: len(objects.boxes)] @ self._weight.T + self._bias).numpy()
        for label, usable in enumerate(self._usable(objects)):
            if not self._positives[label].rows:
                continue
            kept = self._negatives[label]
            hard = np.flatnonzero(usable & (margins[:, label] > HARD))
            # The hardest first, should there be no room for all.
            for row in hard[np.argsort(-margins[hard, label], kind="stable")].tolist():
                kept.add(_key(image, row), last[row].numpy())
            full = len(kept.rows) == kept.most and kept.fresh > kept.most // 10
            if kept.fresh >= REFIT or full:
                self._fit(label)
                self._drop_easy(label)

    def finish(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return weights (C, width) and biases (C,) of the SVMs, and those of the ridge.

        The ridge's are (C, 4, pooled) and (C, 4); zeros for a class without regions to learn from.
        """
        if self.svm:
            for label in self._track("SVMs again", range(len(self.names))):
                if self._trained(label) and self._negatives[label].fresh:
                    self._fit(label)
        scale = NORM / max(_mean(self._pooled_norms), 1e-12)
        weights, biases = [], []
        for pairs in self._track("box regression", self._pairs):
            weight, bias = torch.zeros(self._pooled, 4), torch.zeros(4)
            if pairs.rows:
                features = torch.from_numpy(pairs.stacked()) * scale
                weight, bias = ridge(features, torch.from_numpy(pairs.stacked(1)), RIDGE_LAMBDA)
            weights.append(weight.T * scale)
            biases.append(bias)
        return (self._weight, self._bias), (torch.stack(weights), torch.stack(biases))

    def _fit(self, label: int) -> None:
        negatives = self._negatives[label]
        weight, bias, settled = linear_svm(
            self._positives[label].stacked() * self._scale,
            np.stack(negatives.rows) * self._scale,
        )
        if not settled:
            self._say(f"the SVM of the class {self.names[label]!r} has not converged")
        negatives.fresh = 0
        self._weight[label] = torch.from_numpy(weight * self._scale)
        self._bias[label] = bias


def require_solver() -> None:
    """Make sure that SVMs can be fitted.

    Raises:
        ImportError: if scikit-learn is not installed; the message tells what to install.
    """
    try:
        import sklearn.svm  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "the SVMs of R-CNN and SPPnet are fitted by scikit-learn: pip install "
            f"'maskwright[proposals]', or train with classifier=softmax ({error})"
        ) from None


def linear_svm(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Fit a linear SVM with hinge loss.

    Args:
        positives: (p, D).
        negatives: (n, D).

    Returns:
        weight (D,), bias, and whether the solver came to an end.

    Raises:
        ImportError: see `require_solver`.
    """
    require_solver()
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    machine = LinearSVC(
        C=C,
        loss="hinge",
        intercept_scaling=BIAS,
        class_weight={1: POSITIVE_WEIGHT},
        max_iter=20_000,
        random_state=0,
    )
    features = np.concatenate([positives, negatives])
    labels = np.concatenate([np.ones(len(positives), int), -np.ones(len(negatives), int)])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        machine.fit(features, labels)
    settled = not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)
    return machine.coef_[0], float(machine.intercept_[0]), settled


def ridge(features: Tensor, goals: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Fit a linear map with squared loss and a penalty on its weights, but not on its intercept.

    Args:
        features: (n, D).
        goals: (n, T).
        strength: factor of the squared weights (lambda).

    Returns:
        weight (D, T) and intercept (T,), float32.

    Reference: Girshick et al. 2014, appendix C, eq. 5.
    """
    x, y = features.double(), goals.double()
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    count, size = x.shape
    if count < size:  # the smaller of two systems with the same solution
        gram = x @ x.T + strength * torch.eye(count, dtype=x.dtype)
        weight = x.T @ torch.linalg.solve(gram, y)
    else:
        gram = x.T @ x + strength * torch.eye(size, dtype=x.dtype)
        weight = torch.linalg.solve(gram, x.T @ y)
    return weight.float(), (mean_y - mean_x @ weight).float()


def _mean(sums: list[tuple[float, int]]) -> float:
    return sum(total for total, _ in sums) / max(sum(count for _, count in sums), 1)


def _key(image: int, row: int) -> int:
    return (image << 24) | row
