"""torchvision's detectors beside ours with the same weights; and random weights that find much.

What `benchmark` compares detectors with. Every detection of torchvision is looked for among ours.
Random weights are scaled layer by layer on a photo, so that a detector without training finds many
objects of many classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...converters.torchvision import from_maskwright
from ...models.base import Model
from ...models.detection.base import Detector, PostProcess, TwoStageDetector
from ...models.detection.one_stage import OneStageDetector
from ...models.detection.regions import ProposalDetector
from ...models.meta import Meta
from ...nn.detection.dense.head import DenseHead
from ...nn.norm import FrozenBatchNorm2d
from ...ops.masks import paste_masks
from ...structures import Resize
from ..peer import Peer, Stages
from .exporting.agreement import (
    BOX_PX,
    KEYPOINT_PX,
    MASK_IOU,
    SCORE,
    UNDECIDED,
    Match,
    pair,
)
from .result import Result
from .settings import DetectionSettings

# torchvision's name of a model.
BUILDERS = {
    "faster_rcnn_resnet50_fpn": "fasterrcnn_resnet50_fpn",
    "faster_rcnn_resnet50_fpn_v2": "fasterrcnn_resnet50_fpn_v2",
    "mask_rcnn_resnet50_fpn": "maskrcnn_resnet50_fpn",
    "mask_rcnn_resnet50_fpn_v2": "maskrcnn_resnet50_fpn_v2",
    "keypoint_rcnn_resnet50_fpn": "keypointrcnn_resnet50_fpn",
    "retinanet_resnet50_fpn": "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2": "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16": "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large": "ssdlite320_mobilenet_v3_large",
}
SAME = ("num_keypoints",)  # options of ours that torchvision's builders have too
# Those of a model as torchvision has it without weights, beside its conventions.
OWN: dict[str, dict[str, Any]] = {"ssdlite320_mobilenet_v3_large": {"reduced_tail": True}}
SIDES = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}  # which they do not change


def has_peer(meta: Meta, rule: Resize) -> bool:
    """Whether torchvision has a model for images resized by a rule; see `torchvision_model`."""
    own = OWN.get(meta.model, {})
    known = meta.model in BUILDERS and not set(meta.args) - {*SAME, *own, "conventions", "imgsz"}
    ours = str(meta.args.get("conventions", "")).startswith("torchvision")
    side = SIDES.get(meta.model)
    sized = rule.short is not None if side is None else rule.stretch == (side, side)
    return known and ours and sized and all(meta.args.get(key) == own[key] for key in own)


def torchvision_model(
    detector: Detector,
    meta: Meta,
    post: PostProcess,
    rule: Resize,
    device: torch.device,
) -> Any | None:
    """Return torchvision's model with the weights of a detector; None if it has no such model.

    Args:
        detector: one that torchvision builds too, with its conventions.
        meta: what its checkpoint says of it.
        post: thresholds.
        rule: how images become network input.
        device: where it computes.
    """
    if not has_peer(meta, rule):
        return None
    from torchvision.models import detection

    state, _ = from_maskwright(detector.state_dict(), {}, meta.category_ids)
    own: dict[str, Any] = {
        "score_thresh": post.score_thresh,
        "nms_thresh": post.nms_thresh,
        "detections_per_img": post.max_det,
    }
    if isinstance(detector, OneStageDetector):
        ends = ("cls_logits.bias", "module_list.0.bias", "module_list.0.1.bias")
        heads = (f"head.classification_head.{end}" for end in ends)
        rows = next(len(state[key]) for key in heads if key in state)
        classes = rows // detector.head.anchors.per_level[0]
    else:
        own = {f"box_{name}": value for name, value in own.items()}
        classes = len(state["roi_heads.box_predictor.cls_score.bias"])
    if rule.short is not None:
        own |= {"min_size": rule.short, "max_size": rule.long}
    if "num_keypoints" in meta.args:
        own["num_keypoints"] = meta.args["num_keypoints"]
    peer: Any = getattr(detection, BUILDERS[meta.model])(
        weights=None,
        weights_backbone=None,
        num_classes=classes,
        **own,
    )
    if meta.args["conventions"] == "torchvision_v1":
        for module in peer.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    missing = peer.load_state_dict(state, strict=False)[0]
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    return peer.eval().to(device)


class DetectionPeer(Peer):
    """torchvision's two-stage detectors, RetinaNet, SSD and SSDLite."""

    stages = (
        "backbone",
        "pyramid",
        "dense head",
        "proposal head",
        "proposals",
        "pool for boxes",
        "last stage on regions",
        "box head",
        "choose boxes",
        "pool for masks, keypoints",
        "mask head",
        "keypoint head",
        "find keypoints",
    )
    attaching = "find regions"
    finishing = "paste masks"
    # torchvision's conventions: with ours, its model could not give the same numbers.
    options: ClassVar[Mapping[str, Any]] = {"conventions": "torchvision"}
    needs = (
        "torchvision has no such model, weights, options and image size (its imgsz is SHORT,LONG)"
    )

    def options_of(self, model: str) -> Mapping[str, Any]:
        """Return the options of a model of torchvision; see `Peer`."""
        return {**self.options, **OWN.get(model, {})}

    def has(self, meta: Meta, rule: Resize) -> bool:
        """Whether torchvision has the model; see `has_peer`."""
        return has_peer(meta, rule)

    def build(
        self,
        model: Detector,
        meta: Meta,
        settings: DetectionSettings,
        rule: Resize,
        device: torch.device,
    ) -> nn.Module:
        """Return torchvision's model; see `torchvision_model`."""
        peer = torchvision_model(model, meta, settings.post, rule, device)
        assert isinstance(peer, nn.Module)
        return peer

    def run(self, peer: Any, image: Tensor) -> dict[str, Tensor]:
        """Return the boxes, scores, labels, masks and keypoints that torchvision finds."""
        found: dict[str, Tensor] = peer([image])[0]
        return found

    def watch_ours(self, stages: Stages, network: Model) -> None:
        """Time the parts of a detector with regions or without; of others only the whole."""
        if isinstance(network, OneStageDetector):
            stages.watch(network.backbone, "forward", "backbone")
            stages.watch(network.fpn, "forward", "pyramid")
            stages.watch(network.head, "forward", "dense head")
            stages.watch(network.head, "detect", "choose boxes")
        if not isinstance(network, TwoStageDetector | ProposalDetector):
            return
        heads = network.roi_heads

        def pool_stage(*args: Any, **_: Any) -> str:
            for_boxes = args[3] == heads.box_head.pool * heads.trunk_stride
            return "pool for boxes" if for_boxes else "pool for masks, keypoints"

        stages.watch(network.backbone, "forward", "backbone")
        if isinstance(network, TwoStageDetector):
            if network.fpn is not None:
                stages.watch(network.fpn, "forward", "pyramid")
            if network.trunk is not None:
                stages.watch(network.backbone, "tail", "last stage on regions")
            stages.watch(network.rpn, "forward", "proposal head")
            stages.watch(network.rpn, "propose", "proposals")
        stages.watch(heads.box_head, "maps", "box head")
        stages.watch(heads, "pool", pool_stage)
        stages.watch(heads.box_head, "forward", "box head")
        stages.watch(heads.box_head, "decode", "choose boxes")
        if heads.mask_head is not None:
            stages.watch(heads.mask_head, "forward", "mask head")
        if heads.keypoint_head is not None:
            stages.watch(heads.keypoint_head, "forward", "keypoint head")
            stages.watch(heads.keypoint_head, "decode", "find keypoints")

    def watch_theirs(self, stages: Stages, peer: Any) -> None:
        """Time the parts of torchvision's detector."""
        stages.watch(peer.transform, "forward", "read and resize")
        stages.watch(peer.transform, "postprocess", "paste masks")
        if hasattr(peer.backbone, "extra"):
            extra, *behind = peer.backbone.extra
            body, ends = [*peer.backbone.features], [extra, *behind]
            if hasattr(peer.backbone, "scale_weight"):  # VGG's last block, and fc6 and fc7
                body, ends = [*body, *extra[:-1]], [extra[-1], *behind]
            for part in body:
                stages.watch(part, "forward", "backbone")
            for part in ends:
                stages.watch(part, "forward", "pyramid")
        else:
            stages.watch(peer.backbone.body, "forward", "backbone")
            stages.watch(peer.backbone.fpn, "forward", "pyramid")
        if not hasattr(peer, "roi_heads"):
            stages.watch(peer.head, "forward", "dense head")
            stages.watch(peer, "postprocess_detections", "choose boxes")
            return
        heads = peer.roi_heads
        stages.watch(peer.rpn.head, "forward", "proposal head")
        stages.watch(peer.rpn, "filter_proposals", "proposals")
        stages.watch(heads.box_roi_pool, "forward", "pool for boxes")
        stages.watch(heads.box_head, "forward", "box head")
        stages.watch(heads.box_predictor, "forward", "box head")
        stages.watch(heads, "postprocess_detections", "choose boxes")
        if heads.has_mask():
            stages.watch(heads.mask_roi_pool, "forward", "pool for masks, keypoints")
            stages.watch(heads.mask_head, "forward", "mask head")
            stages.watch(heads.mask_predictor, "forward", "mask head")
        if heads.has_keypoint():
            stages.watch(heads.keypoint_roi_pool, "forward", "pool for masks, keypoints")
            stages.watch(heads.keypoint_head, "forward", "keypoint head")
            stages.watch(heads.keypoint_predictor, "forward", "keypoint head")

    def finish(self, result: Result) -> Tensor | None:
        """Return the masks at full size."""
        return result.masks

    def match(self, ours: Result, theirs: dict[str, Tensor]) -> Match:
        """Look for each of torchvision's detections among ours; see `match`."""
        return match(ours, theirs)

    def told(self, match: Match) -> list[str]:
        """Return how many were found again, how near, and what rounding decided."""
        wanted = [f"{BOX_PX} px", f"score {SCORE}"]
        furthest = [f"{match.box:.1e} px", f"score {match.score:.1e}"]
        if match.mask is not None:
            wanted.append(f"mask IoU {MASK_IOU}")
            furthest.append(f"mask IoU {match.mask:.5f}")
        if match.keypoint is not None:
            wanted.append(f"keypoints {KEYPOINT_PX} px")
            furthest.append(f"keypoint {match.keypoint:.1e} px")
        notes = [
            f"{match.found} of torchvision's {match.total} detections found again within "
            f"{', '.join(wanted)} (ours: {match.ours}; furthest: {', '.join(furthest)})"
        ]
        if match.undecided:
            notes.append(
                f"in {match.undecided} of them the masks differ only in pixels whose probability "
                f"is within {UNDECIDED} of the threshold, or by a box whose side rounding puts on "
                "another whole pixel, which counts as equal"
            )
        return notes

    def calibrate(self, model: Detector, look: Callable[[Any], object]) -> None:
        """Scale random weights; see `calibrate`."""
        calibrate(model, look)


def match(ours: Result, theirs: dict[str, Tensor]) -> Match:
    """Look for each of torchvision's detections among ours; each of ours serves once."""
    theirs = {key: value.cpu() for key, value in theirs.items()}
    masks = ours.masks if "masks" in theirs else None
    points = ours.keypoints if "keypoints" in theirs else None
    found = Match(
        0,
        len(theirs["boxes"]),
        len(ours),
        mask=None if masks is None else 1.0,
        keypoint=None if points is None else 0.0,
    )
    for i, j, box, score in pair(
        theirs["boxes"],
        theirs["scores"],
        theirs["labels"] - 1,
        ours.boxes,
        ours.scores,
        ours.labels,
    ):
        iou, rounding, point = 1.0, False, 0.0
        if masks is not None:
            probability = theirs["masks"][i, 0]
            iou, rounding = _agree(probability, masks[j])
            if iou < MASK_IOU and not rounding and ours.paste_mode == "torchvision":
                # Its paste cuts the box to whole pixels: a side that lies on one jumps by
                # rounding. In its own box, our mask must be the same.
                crops = ours.detections.mask_probs
                assert crops is not None
                size, place = ours.detections.size, theirs["boxes"][i : i + 1]
                moved = paste_masks(crops[j : j + 1], place, size, mode=ours.paste_mode)[0]
                again, decided = _agree(probability, moved)
                rounding = again >= MASK_IOU or decided
        if points is not None:
            point = float((theirs["keypoints"][i] - points[j])[:, :2].abs().max())
        found.add(box, score, iou, rounding, point)
    return found


def _agree(probability: Tensor, mask: Tensor) -> tuple[float, bool]:
    """Return the IoU of two masks, and whether only undecided pixels differ."""
    other = probability >= 0.5
    union = int((other | mask).sum())
    differ = other != mask
    iou = 1 - int(differ.sum()) / union if union else 1.0
    return iou, bool(((probability[differ] - 0.5).abs() <= UNDECIDED).all())


@torch.no_grad()
def calibrate(detector: Detector, look: Callable[[Any], object]) -> None:
    """Scale random weights so that activations stay in range and many classes are found.

    Args:
        detector: the model; all but those with an RPN or a dense head stay as they are.
        look: lets it look at a photo with the given settings.
    """
    spreads: dict[nn.Module, float]
    mask_head: Any = None
    if isinstance(detector, OneStageDetector) and isinstance(detector.head, DenseHead):
        logits, deltas = detector.head.last_layers
        background = detector.head.scores.background
        spreads = {
            **dict.fromkeys(logits, 2.5 if background else 0.7),
            **dict.fromkeys(deltas, 0.2),
        }
        if background:  # which wins in most places, as after a training
            for layer, boxes in zip(logits, detector.head.anchors.per_level, strict=True):
                assert layer.bias is not None
                layer.bias[-boxes:] = 10.0
    elif isinstance(detector, TwoStageDetector):
        mask_head = detector.roi_heads.mask_head
        spreads = {
            detector.rpn.logits: 1.0,
            detector.rpn.deltas: 0.3,
            detector.roi_heads.box_head.logits: 2.5,
            detector.roi_heads.box_head.deltas: 0.7,
        }
    else:
        return

    def fit(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].shape[0] * inputs[0].shape[2:].numel() > 1:  # one cell has no spread
            norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
            norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    def scale(layer: Any, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # Once: of the pyramid, the finest level decides.
        if layer not in spreads:
            return output
        bias = layer.bias[:, None, None] if output.dim() == 4 else layer.bias
        factor = spreads.pop(layer) / (output - bias).std()
        layer.weight.mul_(factor)
        scaled: Tensor = (output - bias) * factor + bias
        return scaled

    def sharpen(head: Any, _: tuple[Tensor, ...], output: Any) -> None:
        layers = head.logits if isinstance(head.logits, nn.ModuleList) else [head.logits]
        for layer, logits in zip(layers, output.logits, strict=True):
            layer.weight.mul_(4.0 / logits.std())

    norms = [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    handles = [norm.register_forward_pre_hook(fit) for norm in norms]
    handles += [layer.register_forward_hook(scale) for layer in list(spreads)]
    if mask_head is not None:
        handles.append(mask_head.register_forward_hook(sharpen))
    look(DetectionSettings(PostProcess(0.05, 0.5, 100)))
    for handle in handles:
        handle.remove()


PEER = DetectionPeer()
