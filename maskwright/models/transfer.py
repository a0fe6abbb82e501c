"""Weights of a detector into one with other classes: class rows go by class name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import first_few
from ..structures import Skeleton
from .detection.base import Detector


def class_rows(detector: nn.Module) -> dict[str, tuple[int, bool]]:
    """Return which tensors have rows per class: name to (rows of a class, background last)."""
    rows = {}
    for prefix, module in detector.named_modules():
        for layer, spec in getattr(module, "class_rows", {}).items():
            for kind in ("weight", "bias"):
                rows[f"{prefix}.{layer}.{kind}"] = spec
    return rows


def class_squares(detector: nn.Module) -> set[str]:
    """Return the names of the tensors with a row and a column for each class."""
    return {
        f"{prefix}.{name}"
        for prefix, module in detector.named_modules()
        for name in getattr(module, "class_squares", ())
    }


def class_places(detector: nn.Module, num_classes: int) -> dict[str, Tensor]:
    """Return which tensors have rows of classes among others: name to the rows (C, n) of each.

    Args:
        detector: the detector.
        num_classes: C, which need not be its own.
    """
    own = getattr(detector, "class_places", None)
    found: dict[str, Tensor] = {} if own is None else own(num_classes)
    return found


def _copy_places(target: Tensor, source: Tensor, rows: Sequence[Tensor]) -> bool:
    """Copy rows of classes, and those of none, in their order; False if the sizes do not fit.

    Args:
        target: gets the rows.
        source: has them.
        rows: the places (C, n) of all classes in both, and the pairs of classes that are the same.
    """
    here, there, mine, theirs = rows
    keep = [torch.ones(len(tensor), dtype=torch.bool) for tensor in (target, source)]
    if here.max() >= len(target) or there.max() >= len(source):
        return False
    for kept, places in zip(keep, (here, there), strict=True):
        kept[places.flatten()] = False
    if target.shape[1:] != source.shape[1:] or keep[0].sum() != keep[1].sum():
        return False
    target[keep[0]] = source[keep[1]].to(target)
    target[here[mine].flatten()] = source[there[theirs].flatten()].to(target)
    return True


def keypoint_axes(detector: nn.Module) -> dict[str, int]:
    """Return which tensors have a row per keypoint: name to the axis of these rows."""
    return {
        f"{prefix}.{name}": axis
        for prefix, module in detector.named_modules()
        for name, axis in getattr(module, "keypoint_axes", {}).items()
    }


def fitted_later(detector: nn.Module) -> set[str]:
    """Return the names of the tensors that are fitted after training, to its classes alone."""
    return {
        f"{prefix}.{name}"
        for prefix, module in detector.named_modules()
        for name in getattr(module, "fitted_later", ())
    }


def match_names(mine: Skeleton | None, theirs: Skeleton | None) -> list[tuple[int, int]]:
    """Return the positions of the keypoints that two skeletons share by name."""
    if mine is None or theirs is None:
        return []
    return [(i, theirs.names.index(n)) for i, n in enumerate(mine.names) if n in theirs.names]


def transfer(
    detector: Detector,
    names: list[str],
    state: Mapping[str, Tensor],
    source_names: list[str | None],
    *,
    skeleton: Skeleton | None = None,
    source_skeleton: Skeleton | None = None,
) -> str:
    """Copy weights into a detector with other classes: rows of classes and keypoints by name.

    Args:
        detector: gets the weights; its `fresh` says what they lack.
        names: its class names.
        state: weights of a detector of the same kind.
        source_names: class names of the weights.
        skeleton: its keypoints.
        source_skeleton: keypoints of the weights.

    Returns:
        One line: how many tensors and classes were copied and what starts anew.

    Raises:
        ValueError: if less than a tenth of the tensors fit.
    """
    position = {name: i for i, name in enumerate(source_names) if name is not None}
    pairs = [(i, position[name]) for i, name in enumerate(names) if name in position]
    mine = torch.tensor([i for i, _ in pairs], dtype=torch.int64)
    theirs = torch.tensor([j for _, j in pairs], dtype=torch.int64)
    rows, squares = class_rows(detector), class_squares(detector)
    axes = keypoint_axes(detector)
    rows_here, rows_there = (class_places(detector, len(known)) for known in (names, source_names))
    joints = match_names(skeleton, source_skeleton)
    later = fitted_later(detector)
    own = {key: value for key, value in detector.state_dict().items() if key not in later}
    copied, fresh = 0, []
    for key, target in own.items():
        source = state.get(key)
        if source is not None and source.is_floating_point() != target.is_floating_point():
            source = None
        if key in rows_here:
            places = (rows_here[key], rows_there[key], mine, theirs)
            if source is not None and _copy_places(target, source, places):
                copied += 1
            else:
                fresh.append(key)
            continue
        if key in squares:
            given_square = (len(source_names), len(source_names), *target.shape[2:])
            if source is not None and source.shape == given_square:
                target[mine[:, None], mine] = source[theirs[:, None], theirs].to(target)
                copied += 1
            else:
                fresh.append(key)
            continue
        group, background = rows.get(key, (0, False))
        given_rows = (len(source_names) + int(background)) * group
        if group and source is not None and source.shape == (given_rows, *target.shape[1:]):
            body = target[: len(names) * group].unflatten(0, (-1, group))
            given = source[: len(source_names) * group].unflatten(0, (-1, group))
            body[mine] = given[theirs].to(body)
            if background:
                target[-group:] = source[-group:].to(target)
            copied += 1
        elif key in axes and source is not None and source.dim() == target.dim():
            body, given = target.movedim(axes[key], 0), source.movedim(axes[key], 0)
            if joints and body.shape[1:] == given.shape[1:]:
                here, there = (torch.tensor(places) for places in zip(*joints, strict=True))
                body[here] = given[there].to(body)
                copied += 1
            else:
                fresh.append(key)
        elif source is not None and source.shape == target.shape:
            target.copy_(source)
            copied += 1
        else:
            fresh.append(key)
    if copied < 0.1 * len(own):
        raise ValueError(
            f"only {copied} of {len(own)} tensors fit: the weights belong to another model "
            f"(first that does not fit: {fresh[0]})"
        )
    trained = {name for name, _ in detector.named_parameters()}
    detector.fresh = frozenset(trained.intersection(fresh))
    # Files of older versions do not count the batches, which no norm of ours asks for.
    counters = [key for key in fresh if key.endswith("num_batches_tracked")]
    fresh = [key for key in fresh if key not in counters]
    new = [name for name in names if name not in position]
    count = len(own) - len(counters)
    parts = [f"{copied} of {count} tensors copied", f"{len(pairs)} of {len(names)} classes"]
    if skeleton is not None:
        parts.append(f"{len(joints)} of {len(skeleton)} keypoints")
    text = f"{', '.join(parts)} by name"
    if new:
        text += f"; new classes start afresh: {first_few(new, 5)}"
        known = {str(known).lower(): known for known in position}
        near = difflib.get_close_matches(new[0].lower(), known, 1, 0.8)
        if near:
            text += f" (the weights know {known[near[0]]!r}: another spelling of {new[0]!r}?)"
    if fresh:
        text += f"; {len(fresh)} tensors start afresh (first: {fresh[0]})"
    return text
