"""torchvision's model beside one of ours with the same weights; and random ones that find much.

What `benchmark` compares with. Random weights are scaled layer by layer on a photo, so that a
detector without training finds many objects of many classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..converters.torchvision import from_maskwright
from ..models.detection.base import PostProcess, TwoStageDetector
from ..models.meta import Meta
from ..models.registry import build
from ..nn.norm import FrozenBatchNorm2d
from ..prediction.predictor import Predictor
from ..prediction.reading import Loaded
from ..prediction.sources import one_source
from ..tasks.detection.settings import DetectionSettings

# torchvision's name of a model.
BUILDERS = {
    "faster_rcnn_resnet50_fpn": "fasterrcnn_resnet50_fpn",
    "faster_rcnn_resnet50_fpn_v2": "fasterrcnn_resnet50_fpn_v2",
    "mask_rcnn_resnet50_fpn": "maskrcnn_resnet50_fpn",
    "mask_rcnn_resnet50_fpn_v2": "maskrcnn_resnet50_fpn_v2",
    "keypoint_rcnn_resnet50_fpn": "keypointrcnn_resnet50_fpn",
}
SAME = ("num_keypoints",)  # options of ours that torchvision's builders have too


def has_peer(predictor: Predictor, short: int | None) -> bool:
    """Whether torchvision has the predictor's model: see `torchvision_model`."""
    args = predictor.meta.args
    known = predictor.meta.model in BUILDERS and not set(args) - {*SAME, "conventions", "imgsz"}
    ours = str(args.get("conventions", "")).startswith("torchvision")
    return known and ours and short is not None


def torchvision_model(
    predictor: Predictor, post: PostProcess, short: int | None, long: int | None
) -> Any | None:
    """Return torchvision's model with the predictor's weights; None if it has no such model.

    Args:
        predictor: with a model that torchvision builds too, and its conventions.
        post: thresholds.
        short: short side of the network input.
        long: longest long side.
    """
    if not has_peer(predictor, short):
        return None
    name, conventions = predictor.meta.model, predictor.meta.args["conventions"]
    from torchvision.models import detection

    state, _ = from_maskwright(predictor.detector.state_dict(), {}, predictor.meta.category_ids)
    sizes: dict[str, int] = {}
    if "num_keypoints" in predictor.meta.args:
        sizes["num_keypoints"] = predictor.meta.args["num_keypoints"]
    peer: Any = getattr(detection, BUILDERS[name])(
        weights=None,
        weights_backbone=None,
        num_classes=len(state["roi_heads.box_predictor.cls_score.bias"]),
        min_size=short,
        max_size=long,
        box_score_thresh=post.score_thresh,
        box_nms_thresh=post.nms_thresh,
        box_detections_per_img=post.max_det,
        **sizes,
    )
    if conventions == "torchvision_v1":
        for module in peer.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    missing = peer.load_state_dict(state, strict=False)[0]
    assert all(key.endswith("num_batches_tracked") for key in missing), missing
    return peer.eval().to(predictor.device)


def drawn_scene(height: int = 800, width: int = 1216) -> np.ndarray:
    """Return a (H, W, 3) uint8 picture of discs and boxes on a gradient, always the same."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    picture = np.stack([y * 255 / height, x * 255 / width, (x + y) % 256], 2)
    for i in range(60):
        cy, cx = rng.integers(0, height), rng.integers(0, width)
        ry, rx = rng.integers(8, 120, 2)
        colour = rng.integers(0, 256, 3)
        if i % 2:
            inside = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < 1
        else:
            inside = (abs(y - cy) < ry) & (abs(x - cx) < rx)
        picture[inside] = 0.3 * picture[inside] + 0.7 * colour
    noisy: np.ndarray = np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
    return noisy


def random_predictor(
    model: str,
    num_classes: int,
    photo: np.ndarray,
    *,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> Predictor:
    """Return a model with random weights, always the same, that finds many objects in a photo.

    Args:
        model: registered name.
        num_classes: real classes.
        photo: (H, W, 3) uint8.
        options: of the model's builder.
        device: see `pick_device`.
    """
    options = dict(options or {})
    torch.manual_seed(0)
    detector = build(model, num_classes, **options)
    meta = Meta(model, options, [f"class_{i}" for i in range(num_classes)])
    predictor = Predictor(detector, meta, device=device)
    calibrate(predictor, photo)
    return predictor


@torch.no_grad()
def calibrate(predictor: Predictor, photo: np.ndarray) -> None:
    """Scale random weights so that activations stay in range and many classes are found."""
    detector = predictor.detector
    if not isinstance(detector, TwoStageDetector):
        return
    heads = detector.roi_heads
    mask_head: Any = heads.mask_head

    def fit(norm: Any, inputs: tuple[Tensor, ...]) -> None:
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(inputs[0].var((0, 2, 3)))

    spreads: dict[nn.Module, float] = {
        detector.rpn.logits: 1.0,
        detector.rpn.deltas: 0.3,
        heads.box_head.logits: 2.5,
        heads.box_head.deltas: 0.7,
    }

    def scale(layer: Any, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # Once: of the pyramid, the finest level decides.
        factor = spreads.pop(layer) / output.std() if layer in spreads else 1.0
        layer.weight.mul_(factor)
        return output * factor

    def sharpen(head: Any, _: tuple[Tensor, ...], output: Any) -> None:
        layers = head.logits if isinstance(head.logits, nn.ModuleList) else [head.logits]
        for layer, logits in zip(layers, output.logits, strict=True):
            layer.weight.mul_(4.0 / logits.std())

    norms = [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d | FrozenBatchNorm2d)]
    handles = [norm.register_forward_pre_hook(fit) for norm in norms]
    handles += [layer.register_forward_hook(scale) for layer in list(spreads)]
    if mask_head is not None:
        handles.append(mask_head.register_forward_hook(sharpen))
    loaded = Loaded(one_source(photo, 0), photo, 0.0)
    predictor.fast = False
    predictor.infer([loaded], detector.resize, DetectionSettings(PostProcess(0.05, 0.5, 100)))
    predictor.fast = True
    for handle in handles:
        handle.remove()
