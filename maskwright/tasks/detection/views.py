"""From network input to detections in the original image, out of one look or of several views.

Several views (test-time augmentation) are the photo at several sizes and mirrored. Their boxes are
brought together by one more NMS, with the rule of the views themselves. Masks and keypoints are
then found anew in the merged boxes, in every view: mask probabilities are averaged, as detectron2
does, of each keypoint the view with the highest score decides. A model that cannot look at given
boxes (an exported graph) keeps those of the view that a box comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...models.detection.base import Detector, PostProcess
from ...ops.soft_nms import suppress_padded
from ...structures import Detections, Images, Instances
from ..views import mirror_pixels


def to_detections(
    instances: Instances, images: Images, mask_reach: float = 1.0
) -> list[Detections]:
    """Return the predictions of each image in pixels of its original, without empty slots.

    Args:
        instances: B images of predictions with scores, padded-image pixels.
        images: the batch that was predicted; only its sizes are read.
        mask_reach: of the detector, see `Detector`.

    Returns:
        B `Detections` on the CPU by falling score, boxes clipped to the image.
    """
    if instances.scores is None:
        raise ValueError("to_detections takes predictions: these instances have no scores")
    instances = instances.to("cpu")
    scores, crops, points = instances.scores, instances.mask_crops, instances.keypoints
    assert scores is not None
    sizes = images.sizes.cpu().to(torch.float32)
    originals = images.original_sizes.cpu()
    short = [False] * len(originals) if instances.short is None else instances.short.tolist()
    # The sides were rounded one by one, so that each axis has a ratio of its own.
    ratio = (originals / sizes).flip(1)  # (B, 2) as x, y
    out = []
    for i, (height, width) in enumerate(originals.tolist()):
        kept = instances.valid[i].nonzero()[:, 0]
        kept = kept[scores[i, kept].argsort(descending=True, stable=True)]
        limit = torch.tensor([width, height, width, height], dtype=torch.float32)
        boxes = (instances.boxes[i, kept].float() * ratio[i].repeat(2)).clamp(min=0)
        joints = None
        if points is not None:
            joints = points[i, kept].float()
            joints = torch.cat([joints[..., :2] * ratio[i], joints[..., 2:]], -1)
        out.append(
            Detections(
                (height, width),
                boxes.minimum(limit),
                scores[i, kept].float(),
                instances.labels[i, kept],
                None if crops is None else crops[i, kept].float(),
                joints,
                short[i],
                mask_reach=mask_reach,
            )
        )
    return out


def detect_views(
    network: Detector,
    scaled: Sequence[Images],
    post: PostProcess,
    flip: bool,
    mirrored: Sequence[int] | None = None,
) -> list[Detections]:
    """Return what was found in the same images at several sizes, merged.

    Args:
        network: a detector in evaluation mode.
        scaled: the same B images at each size.
        post: thresholds, of the views and of the merged detections.
        flip: look at each size mirrored as well.
        mirrored: which keypoint each one is in a mirror; None without keypoints.

    Returns:
        B `Detections`, as `to_detections` gives them.
    """
    views = [(images, False) for images in scaled]
    if flip:
        views += [(mirror(images), True) for images in scaled]
    parts = []
    for images, flipped in views:
        found = network(images, post)
        if flipped:
            found = _unmirror(found, images.sizes, mirrored)
        parts.append(to_detections(found, images, network.mask_reach))
    merged = [_merge(of_image, post) for of_image in zip(*parts, strict=True)]
    if network.task == "detect":
        return merged
    crops: list[Tensor] = []
    points: list[Tensor] = []
    for images, flipped in views:
        looked = network.refine(images, _slots(merged, images, flipped))
        if looked is None:
            return merged
        if flipped:
            looked = _unmirror(looked, images.sizes, mirrored)
        if looked.mask_crops is not None:
            crops.append(looked.mask_crops.float().cpu())
        if looked.keypoints is not None:
            ratio = (images.original_sizes / images.sizes).flip(1)[:, None, None]  # as x, y
            xy = looked.keypoints[..., :2] * ratio
            points.append(torch.cat([xy, looked.keypoints[..., 2:]], -1).float().cpu())
    mean = torch.stack(crops).mean(0) if crops else None
    best = _surest(torch.stack(points)) if points else None
    return [
        replace(
            one,
            mask_probs=None if mean is None else mean[i, : len(one)],
            keypoints=None if best is None else best[i, : len(one)],
        )
        for i, one in enumerate(merged)
    ]


def mirror(images: Images) -> Images:
    """Return images mirrored left to right, each inside its own size; proposals as well."""
    regions = images.proposals
    if regions is not None:
        regions = replace(regions, boxes=_mirror_boxes(regions.boxes, regions.valid, images.sizes))
    return replace(mirror_pixels(images), proposals=regions)


def _mirror_boxes(boxes: Tensor, valid: Tensor, sizes: Tensor) -> Tensor:
    """Return (B, K, 4) boxes in mirrored images of `sizes` (B, 2); empty slots stay zero."""
    width = sizes[:, 1:].to(boxes.dtype)
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([width - x2, y1, width - x1, y2], -1) * valid[..., None]


def _unmirror(found: Instances, sizes: Tensor, mirrored: Sequence[int] | None) -> Instances:
    """Return what was found in mirrored images as it lies in the images themselves."""
    points = found.keypoints
    if points is not None:
        width = sizes[:, 1, None, None].to(points.dtype)
        points = torch.stack([width - points[..., 0], *points[..., 1:].unbind(-1)], -1)
        points = points * found.valid[..., None, None]
        if mirrored is not None:
            points = points[:, :, list(mirrored)]
    return replace(
        found,
        boxes=_mirror_boxes(found.boxes, found.valid, sizes),
        mask_crops=None if found.mask_crops is None else found.mask_crops.flip(-1),
        keypoints=points,
    )


def _merge(parts: Sequence[Detections], post: PostProcess) -> Detections:
    """Return the detections of all views of one image after NMS."""

    first, masks, points = parts[0], [p.mask_probs for p in parts], [p.keypoints for p in parts]
    every = Detections(
        first.size,
        torch.cat([part.boxes for part in parts]),
        torch.cat([part.scores for part in parts]),
        torch.cat([part.labels for part in parts]),
        None if first.mask_probs is None else torch.cat([m for m in masks if m is not None]),
        None if first.keypoints is None else torch.cat([p for p in points if p is not None]),
        any(part.short for part in parts),
        mask_reach=first.mask_reach,
    )
    index, scores, kept = suppress_padded(
        every.boxes[None],
        every.scores[None],
        torch.ones_like(every.labels, dtype=torch.bool)[None],
        post.nms_thresh,
        post.max_det,
        labels=every.labels[None],
        soft=post.soft_nms,
    )
    return replace(every.keep(index[kept]), scores=scores[kept])


def _slots(found: Sequence[Detections], images: Images, flipped: bool) -> Instances:
    """Return detections in original pixels as instances of a view, at least one slot."""
    shape = (len(found), max(1, *(len(one) for one in found)))
    boxes = torch.zeros(*shape, 4)
    labels = torch.zeros(shape, dtype=torch.int64)
    valid = torch.zeros(shape, dtype=torch.bool)
    for b, one in enumerate(found):
        boxes[b, : len(one)], labels[b, : len(one)] = one.boxes, one.labels
        valid[b, : len(one)] = True
    ratio = (images.sizes / images.original_sizes).flip(1).repeat(1, 2)[:, None]
    boxes = boxes.to(ratio.device) * ratio
    valid = valid.to(ratio.device)
    if flipped:
        boxes = _mirror_boxes(boxes, valid, images.sizes)
    return Instances(boxes, labels.to(ratio.device), valid)


def _surest(points: Tensor) -> Tensor:
    """Return (B, K, J, 3): each keypoint of (V, B, K, J, 3) in the view of its highest score."""
    view = points[..., 2].argmax(0)[None, ..., None].expand(1, *points.shape[1:])
    return points.gather(0, view)[0]
