"""Tiny models with much to find, and photos for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maskwright.exporters.report import ExportReport
from maskwright.models import Meta, build_tiny
from maskwright.models.detection.base import Detector
from maskwright.models.detection.detect_then_segment import DetectThenSegment
from maskwright.models.detection.yolo import Yolo
from maskwright.nn.detection.dense.head import DenseHead
from maskwright.nn.detection.svm_head import SVMHead
from maskwright.prediction.predictor import Predictor
from maskwright.structures import COCO_PERSON, Skeleton


def tiny_predictor(name: str = "mask_rcnn_resnet50_fpn") -> Predictor:
    """A tiny model with random weights whose scores spread over the threshold."""
    torch.manual_seed(0)
    detector = build_tiny(name, 2)
    if isinstance(detector, Yolo):
        return _predictor(name, spread_scores(detector))
    dense = isinstance(getattr(detector, "head", None), DenseHead)
    head = detector.head if dense else detector.roi_heads.box_head
    if detector.proposal_source is not None:
        detector.proposal_source = "sliding_window:24"  # few: small maps make ties of many
    with torch.no_grad():
        if isinstance(head, SVMHead):
            svm, ridge = (
                tuple(0.05 * torch.randn_like(value) for value in part)
                for part in ((head.svm_weight, head.svm_bias), (head.ridge_weight, head.ridge_bias))
            )
            head.set_fit(svm, ridge)
        else:
            layers = head.last_layers if dense else ([head.logits], [head.deltas])
            # A finest map of length 20 in each pixel would make scores of 1, all alike.
            spreads = (0.02 if hasattr(getattr(detector, "fpn", None), "scale") else 0.3, 0.001)
            for last, spread in zip(layers, spreads, strict=True):
                for layer in last:
                    layer.weight.normal_(std=spread)
                    layer.bias.zero_()
            for layer in layers[0] if dense else ():  # of a thousand places a few
                layer.bias.fill_(-3.0)
                if head.scores.background:
                    layer.bias[-len(layer.bias) // 3 :] = 1.0
        if isinstance(detector, DetectThenSegment):
            network = detector.segmenter.network
            network.get_submodule(network.final).weight.normal_(std=1.0)
    return _predictor(name, detector)


def spread_scores(detector: Yolo) -> Yolo:
    """Let the layer before the boxes of a YOLO differ more from place to place."""
    with torch.no_grad():
        for key in detector.class_places(2):
            if key.endswith("weight"):
                detector.get_parameter(key).normal_(std=0.3)
    return detector


def _predictor(name: str, detector: Detector) -> Predictor:
    skeleton = None
    if detector.num_keypoints:
        skeleton = Skeleton(COCO_PERSON.names[: detector.num_keypoints])
    meta = Meta(name, {}, ["cell", None], [7, 3], skeleton, licence="CC0", source="a test")
    return Predictor(detector, meta, device="cpu")


def photos(folder: Path) -> Path:
    """A folder of three pictures of different sizes and shapes."""
    rng = np.random.default_rng(3)
    for i, (height, width) in enumerate([(60, 90), (96, 70), (40, 50)]):
        coarse = rng.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((width, height)).save(folder / f"{i}.png")
    return folder


@dataclass
class Exported:
    """An exported file, the predictor it is from, the photos, and the report."""

    path: Path
    predictor: Predictor
    photos: Path
    report: ExportReport
