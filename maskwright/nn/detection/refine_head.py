"""The network of RefineMask (Zhang et al. 2021): masks refined from 14 to 112 a side.

Each stage predicts a mask, adds fine features of the whole image and the semantic foreground inside
the box, and hands both on at twice the size. Defaults are those of the published checkpoints:
upsampled masks join the features after these are upsampled (in the paper before), and the first
mask is predicted before any fine feature is seen. `fast` is the authors' later, faster variant.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...errors import OptionError
from ...ops.boxes import clip_boxes
from ...ops.mask_crops import crop_masks, unite_masks
from ...ops.pooling.roi_align import roi_align
from ...structures import Instances
from ..convolution import where_wanted
from ..norm import conv_block, init_convs
from ..ragged import covered_pixels, in_parts, read_pixels
from ..winograd import REGIONS
from .mask_head import MaskOutput, MaskTargets, own_rows
from .refine_stages import (
    double,
    mask_loss,
    merge_stages,
    resize_union,
    semantic_loss,
)

_MOST_STAGES = 4
_WEIGHTS = (0.25, 0.5, 0.75, 1.0)
_FAST_WEIGHTS = (0.5, 0.75, 0.75, 1.0)
# Regions of one pass at inference: features of 112 a side are large.
_CHUNK = 100
_COCO = 80
# What a fusion can do without, to see what it is worth.
FUSION_PARTS = ("semantic", "instance_mask", "semantic_mask", "dilation")


class FusionStage(nn.Module):
    """Semantic fusion: the features of a stage with what the whole image knows of its regions.

    Args:
        channels: of the stage.
        semantic_channels: of the fine features of the whole image.
        fast: the faster variant: one sample per bin, no convolution after it, no semantic mask.
        parts: which of `FUSION_PARTS` it has.
        avg_branch: add the mean over the region to the dilated branches.
        masks_first: join masks and features before these are upsampled.
        upsample: hand on at twice the size.
    """

    def __init__(
        self,
        channels: int,
        semantic_channels: int,
        *,
        fast: bool,
        parts: Collection[str],
        avg_branch: bool,
        masks_first: bool,
        upsample: bool,
    ) -> None:
        super().__init__()
        masks = sum(part in parts for part in ("instance_mask", "semantic_mask"))
        self.fast = fast
        self.avg_branch = avg_branch
        self.masks_first = masks_first
        self.upsample = upsample
        semantic = "semantic" in parts
        self.semantic_in = nn.Conv2d(semantic_channels, channels, 1) if semantic else None
        self.semantic_out = nn.Conv2d(channels, channels, 1) if semantic and not fast else None
        self.fuse = nn.Conv2d((1 + semantic) * channels + masks, channels, 1)
        dilations = (1, 3, 5) if "dilation" in parts else (1,)
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d) for d in dilations
        )
        self.merge = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels // 2 - masks, 1)

    def semantic_map(self, semantic: Tensor) -> Tensor | None:
        """Return the whole image's features for this stage, (B, C, h, w), if it wants them."""
        if self.semantic_in is None:
            return None
        return F.relu(self.semantic_in(semantic), inplace=True)

    def crop(
        self, fmap: Tensor, boxes: Tensor, batch_index: Tensor, stride: int, side: int
    ) -> Tensor:
        """Return the features of regions: (R, C, side, side), channels as in `fmap`."""
        ratio = 0
        if self.fast:
            # One sample in the centre of a bin, zeros outside the map: a frame of zeros.
            fmap, boxes, ratio = F.pad(fmap, (1, 1, 1, 1)), boxes + stride, 1
        return roi_align(
            fmap, boxes, batch_index, strides=(stride,), output_size=side, sampling_ratio=ratio
        )

    def forward(self, x: Tensor, semantic: Tensor | None, masks: list[Tensor]) -> Tensor:
        """Return the features of the next stage.

        Args:
            x: (R, C, S, S) features of this stage.
            semantic: (R, C, S, S) from `crop`, if this stage has a `semantic_map`.
            masks: (R, 1, S, S) each, of the instance and of the semantic foreground; those that
                the fusion has.

        Returns:
            (R, C / 2, 2 S, 2 S), or (R, C / 2, S, S) without upsampling.
        """
        if semantic is not None and self.semantic_out is not None:
            semantic = F.relu(self.semantic_out(semantic), inplace=True)
        seen = [x, *masks] if semantic is None else [x, semantic, *masks]
        x = F.relu(self.fuse(torch.cat(seen, 1)), inplace=True)
        parts = [F.relu(branch(x), inplace=True) for branch in self.branches]
        if self.avg_branch:
            parts.append(x.mean((2, 3), keepdim=True))
        x = F.relu(self.merge(sum(parts[1:], parts[0])), inplace=True)
        x = F.relu(self.out(x), inplace=True)
        if self.masks_first:
            x = torch.cat([x, *masks], 1)
        if self.upsample:
            # Features as the published weights know them: corners not aligned. Masks: aligned.
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            masks = masks if self.masks_first else [double(mask) for mask in masks]
        return x if self.masks_first else torch.cat([x, *masks], 1)


class RefineMaskHead(nn.Module):
    """The mask head of RefineMask; satisfies `nn.mask_head.MaskHead`.

    Args:
        in_channels: channels of the region features and of P2.
        num_classes: real classes.
        stages: 1 to 4: masks up to 14, 28, 56 or 112 a side.
        class_agnostic_last: the last stage has one mask for all classes.
        fast: the authors' faster variant, whose published weights have a class-agnostic last stage.
        sigmoid_masks: fusion sees probabilities, not logits.
        avg_branch: fusion adds the mean over the region (always so in the faster variant).
        masks_first: masks join the features before these are upsampled, as in the paper (always
            so in the faster variant).
        upsample_features: the last stage of the faster variant upsamples features, not logits.
        width: channels at 14 a side, halved at every stage; None: `in_channels`.
        norm: norm of the 3x3 convolutions before the stages: None, "bn" or "gn".
        parts: what the fusions have: a choice of `FUSION_PARTS`. "semantic": features of the whole
            image; "instance_mask", "semantic_mask": the masks of the stage before and of the
            image's foreground (not in the faster variant); "dilation": three dilated convolutions
            in place of one plain.
        boundary: later stages learn and decide near boundaries only; else everywhere.
        loss_width: width of the boundary regions in the loss, pixels of the coarser stage.
        merge_width: the same when stages are merged.
        stride: of P2.

    Raises:
        OptionError: for other numbers of stages, too few channels for them, unknown parts.

    Reference: Zhang et al. 2021, section 3.
    """

    pool = 14

    def __init__(
        self,
        in_channels: int = 256,
        num_classes: int = 80,
        *,
        stages: int = 4,
        class_agnostic_last: bool = False,
        fast: bool = False,
        sigmoid_masks: bool = True,
        avg_branch: bool = False,
        masks_first: bool = False,
        upsample_features: bool = False,
        width: int | None = None,
        norm: str | None = None,
        parts: Collection[str] = FUSION_PARTS,
        boundary: bool = True,
        loss_width: int = 2,
        merge_width: int = 1,
        stride: int = 4,
    ) -> None:
        super().__init__()
        width = in_channels if width is None else width
        if not 1 <= stages <= _MOST_STAGES:
            raise OptionError(f"stages must be 1 to {_MOST_STAGES}, got {stages}")
        if upsample_features and not fast:
            raise OptionError("upsample_features belongs to the faster variant: set fast as well")
        fusions = stages - 1
        if width % 2**fusions or (fusions and width // 2**fusions < 3):
            least = 3 * 2**fusions
            raise OptionError(
                f"{stages} stages halve the channels {fusions} times and add masks to the rest: "
                f"their width must be a multiple of {2**fusions} and at least {least}, got {width}"
            )
        parts = [parts] if isinstance(parts, str) else parts
        for part in parts:
            if part not in FUSION_PARTS:
                raise OptionError(f"a fusion has no part {part!r}: {', '.join(FUSION_PARTS)}")
        parts = [part for part in parts if part != "semantic_mask" or not fast]
        self.stride = stride
        self.fast = fast
        self.sigmoid_masks = sigmoid_masks
        self.instance_mask = "instance_mask" in parts
        self.loss_width = loss_width if boundary else None
        self.merge_width = merge_width if boundary else None
        self.loss_weights = _FAST_WEIGHTS if fast else _WEIGHTS
        self.upsample_logits = fast and not upsample_features and fusions > 0
        self.instance_convs = nn.Sequential(
            *(conv_block(c, width, norm=norm, tiles=REGIONS) for c in (in_channels, width))
        )
        # The fine features of the whole image serve the fusions, and the semantic logits.
        self.semantic_convs: nn.Sequential | None = None
        if "semantic_mask" in parts or (fusions and "semantic" in parts):
            self.semantic_convs = nn.Sequential(
                *(conv_block(c, width, norm=norm) for c in (in_channels, width, width, width))
            )
        self.semantic_logits = nn.Conv2d(width, 1, 1) if "semantic_mask" in parts else None
        self.stages = nn.ModuleList(
            FusionStage(
                width >> k,
                width,
                fast=fast,
                parts=parts,
                avg_branch=avg_branch or fast,
                masks_first=masks_first or fast,
                upsample=k < fusions - 1 or not self.upsample_logits,
            )
            for k in range(fusions)
        )
        rows = [num_classes] * fusions + [1 if class_agnostic_last else num_classes]
        self.logits = nn.ModuleList(nn.Conv2d(width >> k, n, 1) for k, n in enumerate(rows))
        agnostic = 1 if class_agnostic_last else 0
        self.class_rows = {f"logits.{k}": (1, False) for k in range(stages - agnostic)}
        init_convs(self)
        # In the published code a layer of fewer outputs starts with larger weights. The logits of
        # COCO's 80 classes begin small; those of one class would be 9 times as large, and hold up
        # everything else in a short training.
        for layer in filter(None, (*self.logits, self.semantic_logits)):
            nn.init.normal_(layer.weight, std=math.sqrt(2 / max(layer.out_channels, _COCO)))

    def forward(
        self,
        roi_feats: Tensor,
        p2: Tensor | Sequence[Tensor],
        boxes: Tensor,
        batch_index: Tensor,
        labels: Tensor,
    ) -> MaskOutput:
        """Return the masks of one class per region, at the size of every stage.

        Args:
            roi_feats: (R, in_channels, 14, 14).
            p2: (B, in_channels, h, w), or a pyramid whose first map it is.
            boxes: (R, 4) xyxy, padded-image pixels.
            batch_index: (R,) int64, image of each region.
            labels: (R,) int64, class of each region.

        Returns:
            `MaskOutput` with (R, 1, S, S) for S = 14, 28, 56, 112 and (B, 1, h, w) semantic logits,
            None without semantic masks; at inference they hold where regions are.
        """
        fine = p2 if isinstance(p2, Tensor) else p2[0]
        foreground = semantic = None
        if self.semantic_convs is not None:
            read = partial(read_pixels, boxes, batch_index, fine.shape, self.stride)
            fine = where_wanted(self.semantic_convs, fine, read)
        maps = [stage.semantic_map(fine) for stage in self._fusions()]
        if self.semantic_logits is not None:
            semantic = self.semantic_logits(fine)
            foreground = semantic.sigmoid() if self.sigmoid_masks else semantic
        refine = partial(self._refine, maps, foreground)
        logits = in_parts(refine, _CHUNK, roi_feats, boxes, batch_index, labels)
        return MaskOutput(logits, semantic)

    def _fusions(self) -> list[FusionStage]:
        return [stage for stage in self.stages if isinstance(stage, FusionStage)]

    def _refine(
        self,
        maps: list[Tensor | None],
        foreground: Tensor | None,
        x: Tensor,
        boxes: Tensor,
        batch_index: Tensor,
        labels: Tensor,
    ) -> list[Tensor]:
        """Return the logits of every stage for R regions; see `forward`."""
        x = self.instance_convs(x)
        logits = []
        for k, (stage, fmap) in enumerate(zip(self._fusions(), maps, strict=True)):
            logits.append(_own_class(self.logits[k], x, labels))
            where = (boxes, batch_index, self.stride, x.shape[-1])
            masks = []
            if self.instance_mask:
                masks.append(logits[-1].sigmoid() if self.sigmoid_masks else logits[-1])
            if foreground is not None:
                masks.append(stage.crop(foreground, *where))
            x = stage(x, None if fmap is None else stage.crop(fmap, *where), masks)
        last = _own_class(self.logits[-1], x, labels)
        logits.append(double(last) if self.upsample_logits else last)
        return logits

    def targets(
        self,
        gt: Instances,
        boxes: Tensor,
        gt_index: Tensor,
        valid: Tensor,
        sizes: Tensor,
        pyramid: Sequence[Tensor],
    ) -> MaskTargets:
        """Cut the targets of every stage from the full masks, and unite them for the image.

        Args:
            gt: ground truth with masks, (B, K) slots; what only crowds cover does not count.
            boxes: (B, S, 4) xyxy, padded-image pixels.
            gt_index: (B, S) slot of the ground truth of each box.
            valid: (B, S) bool.
            sizes: not used: masks end with the padded image.
            pyramid: for the sizes of the padded image and of P2.
        """
        assert gt.masks is not None
        height, width = pyramid[0].shape[-2:]
        padded = torch.tensor([height, width], device=sizes.device) * self.stride
        limits = padded.expand_as(sizes)
        boxes = clip_boxes(boxes, limits[:, None])
        cuts = []
        for k in range(len(self.logits)):
            side = self.pool << k
            cut = crop_masks(gt.masks, boxes, gt_index, valid, side, image_sizes=limits)
            cuts.append((cut.flatten(0, 1) >= 0.5).to(cut.dtype))
        semantic = None
        if self.semantic_logits is not None:
            use = gt.valid if gt.crowd is None else gt.valid & ~gt.crowd
            union = unite_masks(gt.masks, use, (height * self.stride, width * self.stride))
            semantic = resize_union(union, (height, width))
            if gt.crowd is not None:
                ignored = covered_pixels(
                    gt.boxes, gt.valid & gt.crowd, (height, width), self.stride
                )
                semantic = torch.where(ignored & (semantic == 0), -1, semantic)
        return MaskTargets(tuple(cuts), semantic)

    def loss(self, output: MaskOutput, targets: MaskTargets, valid: Tensor) -> dict[str, Tensor]:
        """Return `roi/mask` and, with semantic logits, `roi/semantic`."""
        losses = {
            "roi/mask": mask_loss(
                output.logits,
                targets.masks,
                weights=self.loss_weights,
                width=self.loss_width,
                merge_width=self.merge_width,
                valid=valid,
            )
        }
        if output.semantic is not None:
            assert targets.semantic is not None
            losses["roi/semantic"] = semantic_loss(output.semantic, targets.semantic)
        return losses

    def decode(self, output: MaskOutput) -> Tensor:
        """Return mask probabilities (R, M, M) of the merged stages."""
        return merge_stages(output.logits, self.merge_width)[:, 0].sigmoid()


def _own_class(layer: nn.Module, x: Tensor, labels: Tensor) -> Tensor:
    """Return the channel of each region's class: (R, 1, S, S), a 1x1 convolution of one row."""
    assert isinstance(layer, nn.Conv2d)
    weight, bias = own_rows(layer, labels, x.dtype)
    logits = torch.bmm(weight[:, None], x.flatten(2)).reshape(-1, 1, *x.shape[2:])
    return logits + bias[:, None, None, None]
