"""What a dense head makes of the logits of its boxes: probabilities, their losses, the best ones.

Classes are either independent of each other (a sigmoid each, RetinaNet) or exclude each other and a
background (a softmax, SSD). A head asks the one it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ....ops.checks import as_float
from ....ops.focal import one_hot_losses
from ...ragged import active_slots, least, take

# Of an image: losses (B, N) without gradient -> (B, N) bool: which of them count.
Choose = Callable[[Tensor], Tensor]
IN_GRAPHS = 5000  # boxes that a graph suppresses, whose number cannot depend on the image


class Best(NamedTuple):
    """The best pairs of a box and a class.

    Attributes:
        scores: (B, K); -1 where an image has fewer.
        places: (B, K) int64, which box.
        labels: (B, K) int64.
    """

    scores: Tensor
    places: Tensor
    labels: Tensor


class Scores(Protocol):
    """What a head asks.

    Attributes:
        background: 1 if the last logit of a box is that of the background, else 0.
    """

    background: int

    def losses(self, logits: Tensor, labels: Tensor, positive: Tensor, choose: Choose) -> Tensor:
        """Return the loss of each box, 0 where it does not count.

        Args:
            logits: (B, N, C), with the background C + 1.
            labels: (B, N) int64 in [0, C), of the boxes that are positive.
            positive: (B, N) bool; the others are background.
            choose: which boxes count.

        Returns:
            (B, N).
        """
        ...

    def best(self, levels: Sequence[Tensor], score_thresh: float, max_det: int) -> Best:
        """Return the pairs of box and class that the suppression sees.

        Args:
            levels: logits (B, N_l, C) of each level, with the background C + 1.
            score_thresh: what scores must be above; some of the result may not be.
            max_det: objects that are wanted.
        """
        ...


class SigmoidScores:
    """Independent classes: binary cross-entropy or the focal loss.

    Args:
        alpha, gamma: of the focal loss; an alpha of None: binary cross-entropy.
        candidates: pairs of box and class of a level that are looked at.
    """

    background = 0

    def __init__(self, *, alpha: float | None, gamma: float, candidates: int) -> None:
        self.alpha, self.gamma = alpha, gamma
        self.candidates = candidates

    def losses(self, logits: Tensor, labels: Tensor, positive: Tensor, choose: Choose) -> Tensor:
        """Return the sum over the classes; see `Scores`."""
        each = one_hot_losses(logits, labels, positive, alpha=self.alpha, gamma=self.gamma)
        return torch.where(choose(each.detach()), each, 0)

    def best(self, levels: Sequence[Tensor], score_thresh: float, max_det: int) -> Best:
        """Return the best pairs of each level; see `Scores`."""
        found, start = [], 0
        for logits in levels:
            score, at = self._best(as_float(logits), score_thresh, max(self.candidates, max_det))
            classes = logits.shape[2]
            found.append((score, at // classes + start, at % classes))
            start = start + logits.shape[1]
        return Best(*(torch.cat(parts, 1) for parts in zip(*found, strict=True)))

    @staticmethod
    def _best(logits: Tensor, score_thresh: float, limit: int) -> tuple[Tensor, Tensor]:
        """Return scores (B, K) and flat places (B, K) of the best of (B, N, C), by falling score.

        Where fewer than `limit` are above the threshold, the others have a score of -1.
        """
        flat = logits.flatten(1)
        if torch.compiler.is_compiling():
            top, at = flat.topk(least(limit, flat.shape[1]), 1)
            return top.sigmoid(), at
        floor = math.log(score_thresh / (1 - score_thresh)) if 0 < score_thresh < 1 else -math.inf
        if flat.device.type != "cpu":  # to sort all takes less than to wait for how many there are
            top, at = flat.topk(min(limit, flat.shape[1]), 1)
            return torch.where(top > floor - 1e-3, top.sigmoid(), -1), at
        # Few are above the threshold: the others need neither a sigmoid nor an order.
        found: list[tuple[Tensor, Tensor]] = []
        for row in flat:
            # A step below, as the sigmoid rounds: the score decides.
            at = (row > floor - 1e-3).nonzero()[:, 0]
            top, order = row[at].topk(min(limit, len(at)))
            found.append((top.sigmoid(), at[order]))
        scores, places = _padded(found)
        return scores, places


class SoftmaxScores:
    """Classes that exclude each other and the background, which is last: cross-entropy.

    Args:
        candidates: boxes of a class that are looked at, over all levels (Liu et al. 2016).
        growing: as many as objects are wanted, where these are more.
        by_level: candidates are pairs of box and class of a level, not boxes of a class.
    """

    background = 1

    def __init__(self, *, candidates: int, growing: bool = True, by_level: bool = False) -> None:
        self.candidates = candidates
        self.growing = growing
        self.by_level = by_level

    def losses(self, logits: Tensor, labels: Tensor, positive: Tensor, choose: Choose) -> Tensor:
        """Return the cross-entropy; see `Scores`. Only of boxes that count it has a gradient."""
        goal = torch.where(positive, labels, logits.shape[2] - 1)
        with torch.no_grad():
            every = as_float(logits.detach())
            own = every.gather(2, goal[..., None])[..., 0]
            counted = choose(_log_sum(every) - own)
        rows = active_slots(counted)
        each = F.cross_entropy(as_float(take(logits, rows)), take(goal, rows), reduction="none")
        full = torch.zeros_like(counted, dtype=each.dtype).flatten().index_put((rows,), each)
        return torch.where(counted, full.view_as(counted), 0)

    def best(self, levels: Sequence[Tensor], score_thresh: float, max_det: int) -> Best:
        """Return the best boxes of each class, or pairs of each level; see `Scores`."""
        limit = max(self.candidates, max_det if self.growing else 0)
        if torch.compiler.is_compiling() and self.by_level:
            return self._best_of_levels(levels, limit)
        if torch.compiler.is_compiling():
            return self._best_of_all(torch.cat(list(levels), 1), limit)
        floor = math.log(score_thresh) if score_thresh > 0 else -math.inf
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        # One wait an image, not one a level.
        if levels[0].device.type != "cpu" and not self.by_level:
            levels = [torch.cat(list(levels), 1)]
        totals = [_log_sum(as_float(logits)) for logits in levels]  # (B, N_l)
        for image in range(len(levels[0])):
            scores, places, labels, start = [], [], [], 0
            for logits, total in zip(levels, totals, strict=True):
                # A step below, as the logarithm rounds: the score decides.
                line = total[image] + (floor - 1e-3)
                box, label = (logits[image, :, :-1] > line[:, None]).nonzero().unbind(1)
                score = (as_float(logits[image, box, label]) - total[image, box]).exp()
                if self.by_level and len(score) > limit:
                    score, order = score.topk(limit)
                    box, label = box[order], label[order]
                scores.append(score)
                places.append(box + start)
                labels.append(label)
                start += logits.shape[1]
            score, place, label = torch.cat(scores), torch.cat(places), torch.cat(labels)
            score, order = score.sort(descending=True, stable=True)
            place, label = place[order], label[order]
            if len(score) > limit and not self.by_level:
                kept = _first_of_each(label, limit)
                score, place, label = score[kept], place[kept], label[kept]
            found.append((score, place, label))
        return Best(*_padded(found))

    @staticmethod
    def _best_of_levels(levels: Sequence[Tensor], limit: int) -> Best:
        """Return the best pairs of each level in shapes that do not depend on the image."""
        scores, places, labels, start = [], [], [], 0
        for logits in levels:
            flat = as_float(logits).softmax(2)[..., :-1].flatten(1)
            top, at = flat.topk(least(limit, flat.shape[1]), 1)
            classes = logits.shape[2] - 1
            scores.append(top)
            places.append(at // classes + start)
            labels.append(at % classes)
            start = start + logits.shape[1]
        return Best(torch.cat(scores, 1), torch.cat(places, 1), torch.cat(labels, 1))

    @staticmethod
    def _best_of_all(logits: Tensor, limit: int) -> Best:
        """Return the same in shapes that do not depend on the image, of each image the best."""
        scores = as_float(logits).softmax(2)[..., :-1].transpose(1, 2)  # (B, C, N)
        top, place = scores.topk(least(limit, scores.shape[2]), 2)
        label = torch.arange(scores.shape[1], device=scores.device)[:, None].expand_as(place)
        top, order = top.flatten(1).topk(least(IN_GRAPHS, top.shape[1] * top.shape[2]), 1)
        return Best(top, place.flatten(1).gather(1, order), label.flatten(1).gather(1, order))


def _log_sum(logits: Tensor) -> Tensor:
    """Return the logarithm of the sum of exponentials over the last axis."""
    if torch.compiler.is_compiling() or logits.device.type != "cpu":
        return logits.logsumexp(-1)
    total = logits.exp().sum(-1)
    # Of usual logits; where sums overflow or have lost digits near zero, all go the long way.
    fine = bool(((total >= torch.finfo(total.dtype).tiny) & total.isfinite()).all())
    return total.log() if fine else logits.logsumexp(-1)


def _first_of_each(labels: Tensor, limit: int) -> Tensor:
    """Return which of labels (K,) are among the first `limit` of their kind: (K,) bool."""
    order = labels.argsort(stable=True)
    counts = labels.bincount()
    rank = torch.arange(len(labels), device=labels.device)
    rank = rank - (counts.cumsum(0) - counts)[labels[order]]
    kept = torch.empty_like(labels, dtype=torch.bool)
    kept[order] = rank < limit
    return kept


def _padded(found: Sequence[tuple[Tensor, ...]]) -> list[Tensor]:
    """Return what was found in each image in slots (B, K): scores of -1, zeros elsewhere."""
    slots = max(1, *(len(row[0]) for row in found)) if len(found) > 0 else 1
    result = []
    for column in zip(*found, strict=True):
        full = column[0].new_zeros((len(found), slots))
        if full.is_floating_point():
            full.fill_(-1)
        for row, values in zip(full, column, strict=True):
            row[: len(values)] = values
        result.append(full)
    return result
