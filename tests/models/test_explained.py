"""Registered classifiers under maps of evidence: their parts are those that `nn.cam` asks for."""

import pytest
import torch

from maskwright.models.registry import build
from maskwright.nn.cam import cam, class_evidence, explain, gradcam

POOLED = ["resnet20_cifar", "preact_resnet20_cifar", "resnet18", "classify_mobilenetv2_100"]


@pytest.mark.parametrize("name", POOLED)
def test_cam_is_the_logit_and_gradcam_its_positive_part(name):
    torch.manual_seed(0)
    model = build(name, 4)
    pixels = torch.randn(2, 3, 96, 96)
    classes = torch.tensor([[1], [3]])
    raw = cam(model.network, pixels, classes)[0]
    with torch.no_grad():
        logits = model.eval().network(pixels).gather(1, classes)[:, 0]
        bias = model.final.bias[classes[:, 0]]
    assert torch.allclose(raw.mean((1, 2)) + bias, logits, atol=1e-4 * float(raw.abs().max()))
    positions = raw.shape[1] * raw.shape[2]
    found = gradcam(class_evidence(model.network, pixels, classes))[0] * positions
    assert torch.allclose(found, raw.relu(), atol=1e-4 * float(raw.abs().max()))


def test_cam_of_hidden_layers_is_refused_where_gradcam_serves():
    model = build("alexnet", 4)
    pixels = torch.randn(1, 3, 224, 224)
    with pytest.raises(ValueError, match="take gradcam"):
        explain(model.network, pixels, torch.tensor([2]), "cam")
    for method in ("gradcam", "gradcam++"):
        found = explain(model.network, pixels, torch.tensor([2]), method)
        assert found.shape == (1, 224, 224) and found.max() == 1
