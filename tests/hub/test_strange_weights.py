"""Files of networks that do not come in, or of other ones than was thought."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from maskwright.converters.anatomy import refuse_strange
from maskwright.hub.loading import convert
from maskwright.models import build

# Tensors of detectron2, mmdetection and torchvision, in their words.
STRANGE = {
    "roi_heads.box_predictor.0.cls_score.weight": "a cascade",
    "roi_head.bbox_head.2.fc_cls.bias": "a cascade",
    "bbox_head.1.fc_cls.bias": "a cascade",  # of mmdetection 1
    "sem_seg_head.p2.0.weight": "panoptic segmentation",
    "roi_head.semantic_head.conv_logits.weight": "HTC",
    "roi_heads.mask_head.point_head.fc1.weight": "PointRend",
    "roi_heads.densepose_head.body_conv_fcn1.weight": "DensePose",
    "proposal_generator.fcos_head.cls_logits.weight": "FCOS",
    "bbox_head.conv_centerness.weight": "FCOS",
    "head.regression_head.bbox_ctrness.bias": "FCOS",
    "bbox_head.atss_cls.weight": "ATSS",
    "bbox_head.multi_level_conv_cls.0.weight": "YOLOX",
    "bbox_head.transformer.encoder.layers.0.norms.0.weight": "DETR",
    "encoder.layers.0.self_attn.attn.in_proj_weight": "DETR",
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_network_that_does_not_come_in_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(
        {"state_dict": {"backbone.conv1.weight": torch.zeros(1), name: torch.zeros(1)}}, path
    )
    with pytest.raises(ValueError, match=rf"w\.pth: {name} is of .*{STRANGE[name]}.*migrate"):
        convert(path, tmp_path / "x.safetensors")


@pytest.mark.parametrize("version", ["", "_v2"])
def test_names_of_torchvision_are_not_strange(version: str) -> None:
    from torchvision.models import detection

    with torch.device("meta"):
        for make in (f"fasterrcnn_resnet50_fpn{version}", f"maskrcnn_resnet50_fpn{version}"):
            net = getattr(detection, make)(weights=None, weights_backbone=None)
            refuse_strange(net.state_dict())
        refuse_strange(build("mask_rcnn_resnet18_fpn", 2).state_dict())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("R-50.pkl", {"conv1_w": 0, "res2_0_branch2a_w": 0}),
        ("R-50.pkl", {"model": {"stem.conv1.weight": 0, "res2.0.conv1.weight": 0}}),
        ("resnet50.pth", {"conv1.weight": 0, "layer1.0.conv1.weight": 0, "fc.weight": 0}),
    ],
)
def test_a_backbone_is_told_from_a_detector(name: str, content: dict, tmp_path: Path) -> None:
    def filled(node: object) -> object:
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        return torch.zeros(2).numpy()

    path = tmp_path / name
    path.write_bytes(pickle.dumps(filled(content), 2))
    with pytest.raises(ValueError, match=rf"holds a classifier.*weights=.*{name} starts"):
        convert(path, tmp_path / "x.safetensors")


def test_weights_of_keras_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mask_rcnn_coco.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ValueError, match=r"coco\.h5: .*HDF5 .*Matterport"):
        convert(path, tmp_path / "x.safetensors")
