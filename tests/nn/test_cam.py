"""Maps of evidence against the published formulas, computed plainly, and by analytic cases."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from maskwright.nn.cam import (
    Evidence,
    cam,
    class_evidence,
    evidence,
    explain,
    gradcam,
    gradcam_plus_plus,
    heatmaps,
)


class Pooled(nn.Module):
    """Mean pooling and one linear layer behind maps of 4 x 5."""

    final = "fc"

    def __init__(self, hidden=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.norm = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Conv2d(6, 8, 3, 2, 1)
        self.hidden = nn.Sequential(nn.Linear(8, 8), nn.Tanh()) if hidden else nn.Identity()
        self.fc = nn.Linear(8, 5)

    def maps(self, x):
        return self.last(self.relu(self.norm(self.stem(x))))

    def head(self, maps):
        return self.fc(self.hidden(self.relu(maps).mean((2, 3))))

    def forward(self, x):
        return self.head(self.maps(x))


class Rectified(Pooled):
    """The same with the ReLU before the maps, as CAM wants it."""

    def maps(self, x):
        return super().maps(x).relu()

    def head(self, maps):
        return self.fc(maps.mean((2, 3)))


class Twice(Rectified):
    """A layer that stands in two places."""

    def maps(self, x):
        return self.relu(self.last(self.relu(self.stem(x))))


@pytest.fixture
def x():
    return torch.randn(3, 3, 16, 20, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = Rectified()
    net.norm.running_mean.uniform_(-0.2, 0.2)
    return net


def plain(maps, gradients, plus):
    """Grad-CAM and Grad-CAM++ of one image, position by position: (K, h, w) twice -> (h, w)."""
    total = np.zeros(maps.shape[1:])
    for f, g in zip(maps, gradients, strict=True):
        weight = 0.0
        for i in range(f.shape[0]):
            for j in range(f.shape[1]):
                if plus and g[i, j] != 0:
                    share = g[i, j] ** 2 / (2 * g[i, j] ** 2 + f.sum() * g[i, j] ** 3)
                    weight += share * max(g[i, j], 0)
                elif not plus:
                    weight += g[i, j] / f.size
        total += weight * f
    return np.maximum(total, 0)


def test_cam_is_the_last_layer_at_each_position(network, x):
    classes = torch.tensor([[0, 4], [2, 2], [1, 3]])
    found = cam(network, x, classes)
    assert found.shape == (2, 3, 4, 5)
    network.eval().requires_grad_(False)
    maps = network.maps(x)
    for number in range(2):
        for i in range(3):
            c = classes[i, number]
            wanted = sum(network.fc.weight[c, k] * maps[i, k] for k in range(8))
            assert torch.allclose(found[number, i], wanted, atol=1e-6)
            # Its mean and the bias are the logit.
            logit = network(x)[i, c]
            assert float(found[number, i].mean() + network.fc.bias[c]) == pytest.approx(
                float(logit), abs=1e-5
            )


def test_gradcam_of_a_pooled_network_is_its_cam(network, x):
    classes = torch.tensor([1, 0, 4])
    raw = cam(network, x, classes[:, None])[0]
    found = gradcam(class_evidence(network, x, classes[:, None]))[0]
    assert torch.allclose(found, raw.relu() / 20, atol=1e-7)  # 4 x 5 positions


@pytest.mark.parametrize("layer", [None, "stem", "last"])
def test_both_equal_the_formulas(x, layer):
    torch.manual_seed(3)
    net = Pooled(hidden=True).double().eval()
    pixels, classes = x.double(), torch.tensor([3, 1, 0])
    # The same by a graph of our own, without hooks and without anything in place.
    stem = net.stem(pixels)
    last = net.last(net.norm(stem).relu())
    maps = (stem if layer == "stem" else last).detach().requires_grad_()
    after = net.last(net.norm(maps).relu()) if layer == "stem" else maps
    logits = net.fc(net.hidden(after.relu().mean((2, 3))))
    found = class_evidence(net, pixels, classes[:, None], layer=layer)
    (gradients,) = torch.autograd.grad(logits[range(3), classes].sum(), maps)
    assert torch.allclose(found.maps, maps) and torch.allclose(found.gradients[0], gradients)
    for i in range(3):
        f, g = maps[i].detach().numpy(), gradients[i].numpy()
        assert np.allclose(gradcam(found)[0, i], plain(f, g, False), atol=1e-12)
        assert np.allclose(gradcam_plus_plus(found)[0, i], plain(f, g, True), atol=1e-12)


def test_plus_plus_with_tiny_and_vanishing_gradients():
    maps = torch.rand(1, 2, 3, 3)
    gradients = torch.randn(1, 2, 3, 3) * 1e-20  # whose squares and cubes are 0 in float32
    gradients[0, 0, 0] = 0
    found = gradcam_plus_plus(Evidence(maps, gradients))
    wanted = plain(maps[0].double().numpy(), gradients[0].double().numpy(), True)
    assert np.allclose(found[0], wanted, rtol=1e-4, atol=0) and found.max() > 0
    nothing = gradcam_plus_plus(Evidence(maps, torch.zeros_like(maps)))
    assert torch.equal(nothing, torch.zeros(1, 3, 3))


def test_the_model_stays_as_it_is(network, x):
    network.train()
    network.norm.eval()
    network.requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    for layer in (None, "stem"):
        for method in ("gradcam", "gradcam++"):
            maps = explain(network, x, torch.tensor([0, 1, 2]), method, layer=network.stem)
            assert maps.shape == (3, 16, 20) and maps.amin() == 0 and maps.amax() == 1
        explain(network, x, torch.tensor([0, 1, 2]), layer=layer)
    explain(network, x, torch.tensor([0, 1, 2]), "cam")
    assert network.training and not network.norm.training and network.last.training
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks for m in network.modules())


def test_gradients_are_on_wherever_one_asks(network, x):
    wanted = explain(network, x, torch.tensor([0, 1, 2]), "gradcam++", layer="last")
    with torch.no_grad():
        assert torch.equal(
            explain(network, x, torch.tensor([0, 1, 2]), "gradcam++", layer="last"), wanted
        )
    with torch.inference_mode():
        assert torch.equal(
            explain(network, x + 0, torch.tensor([0, 1, 2]), "gradcam++", layer="last"), wanted
        )
    assert all(p.grad is None for p in network.parameters())


def test_several_classes_of_an_image_at_once(network, x):
    classes = torch.tensor([[0, 4], [2, 3], [1, 0]])
    for method in ("cam", "gradcam", "gradcam++"):
        both = explain(network, x, classes, method)
        assert both.shape == (3, 2, 16, 20)
        for p in range(2):
            assert torch.allclose(both[:, p], explain(network, x, classes[:, p], method), atol=1e-6)
        # Other images do not matter.
        alone = explain(network, x[1:2], classes[1:2], method)
        assert torch.allclose(alone[0], both[1], atol=1e-5)


def test_any_number_of_any_model_can_be_explained(x):
    """Of a segmenter the pixels of a class, of a detector the logit of one region."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
    region = (slice(None), 1, slice(2, 5), slice(3, 7))
    found = evidence(net, "0", lambda: net(x[:1]), lambda logits: logits[region].sum())
    # The gradient of a 1 x 1 convolution: its weight inside of the region, where the ReLU is open.
    wanted = torch.zeros_like(found.maps)
    wanted[..., 2:5, 3:7] = net[2].weight[1]
    assert torch.allclose(found.gradients, wanted * (found.maps > 0))
    assert (found.maps < 0).any()  # what stood there before the ReLU in place


def test_heatmaps_are_enlarged_and_scaled_one_by_one():
    raw = torch.tensor([[[0.0, 2], [4, 2]], [[-5, -5], [-5, -5]], [[7, 7], [7, 7.0]]]) * 1e-3
    found = heatmaps(raw, (6, 4))
    wanted = F.interpolate(raw[:1, None], (6, 4), mode="bilinear", align_corners=False)[0, 0]
    assert torch.allclose(found[0], wanted / 4e-3) and found[0].amin() == 0
    assert not found[1:].any()  # the same everywhere: nothing to see, and no nan
    noise = heatmaps(torch.full((1, 7, 7), 0.1), (224, 224))
    assert not noise.any()
    assert heatmaps(raw[:0], (6, 4)).shape == (0, 6, 4)
    with pytest.raises(ValueError, match="infinite or nan"):
        heatmaps(raw / 0, (6, 4))


def test_padding_has_no_part_in_the_scale():
    raw = torch.rand(2, 4, 4)
    raw[:, 3], raw[:, :, 3] = 9, -9
    sizes = torch.tensor([[20, 16], [32, 32]])
    found = heatmaps(raw, (32, 32), sizes)
    large = F.interpolate(raw[:, None], (32, 32), mode="bilinear", align_corners=False)[:, 0]
    part = large[0, :20, :16]
    assert torch.allclose(found[0, :20, :16], (part - part.min()) / (part.max() - part.min()))
    assert not found[0, 20:].any() and not found[0, :, 16:].any()
    assert torch.equal(found[1], heatmaps(raw, (32, 32))[1])


def test_faults_are_named(network, x):
    classes = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=r"0\.\.4, got 5"):
        explain(network, x, torch.tensor([0, 1, 5]))
    with pytest.raises(ValueError, match=r"0\.\.4, got -1"):
        explain(network, x, torch.tensor([0, -1, 2]), "cam")
    with pytest.raises(ValueError, match=r"classes \(3,\) or \(3, P\), got \(2,\)"):
        explain(network, x, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="did you mean 'gradcam'"):
        explain(network, x, classes, "grad-cam")
    with pytest.raises(ValueError, match="no layer 'lasd'; did you mean 'last'"):
        explain(network, x, classes, layer="lasd")
    with pytest.raises(ValueError, match="relu runs 2 times"):
        explain(Twice(), x, classes, layer="relu")
    with pytest.raises(ValueError, match="no part of Rectified"):
        explain(network, x, classes, layer=nn.ReLU())
    with pytest.raises(ValueError, match=r"fc gives no maps.*\(3, 5\)"):
        explain(network, x, classes, layer="fc")
    with pytest.raises(ValueError, match="name a layer for gradcam"):
        explain(network, x, classes, "cam", layer="last")
    for other in (Pooled(), Pooled(hidden=True)):
        with pytest.raises(ValueError, match="Pooled has more than that"):
            explain(other, x, classes, "cam")
    with pytest.raises(ValueError, match="does not depend on the maps of last"):
        evidence(network, "last", lambda: network(x), lambda y: network.fc.bias.sum())
    assert not any(m._forward_hooks for m in network.modules())


@pytest.mark.parametrize("method", ["gradcam", "gradcam++"])
def test_equals_the_grad_cam_package(method, x):
    package = pytest.importorskip(
        "pytorch_grad_cam", reason="pip install --no-deps grad-cam ttach (see the Makefile)"
    )
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(7)
    net = models.resnet18(num_classes=6).eval()
    with torch.no_grad():
        net.fc.weight *= 1e3  # the package adds 1e-6 to what it divides by
    pixels = F.interpolate(x, (96, 64))
    kind = {"gradcam": package.GradCAM, "gradcam++": package.GradCAMPlusPlus}[method]
    wanted = kind(model=net, target_layers=[net.layer4[-1]])(
        input_tensor=pixels, targets=[targets.ClassifierOutputTarget(c) for c in (5, 0, 2)]
    )
    found = explain(net, pixels, torch.tensor([5, 0, 2]), method, layer=net.layer4[-1])
    assert np.abs(found.numpy() - wanted).max() < 1e-3
