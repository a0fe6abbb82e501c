from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from maskwright.models import PostProcess, build, build_tiny
from maskwright.models.inference import fast_network
from maskwright.nn.convolution import WinogradConv2d
from maskwright.nn.inference import fold_norms, share
from maskwright.nn.norm import FrozenBatchNorm2d
from maskwright.prediction.network import FastNetwork
from maskwright.structures import Images


def randomise(module: nn.Module) -> nn.Module:
    """Give every norm statistics and weights of its own."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point() and ("bn" in name or "running" in name or "norm" in name):
            value.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def norms(module: nn.Module) -> int:
    kinds = (nn.BatchNorm2d, FrozenBatchNorm2d)
    return sum(isinstance(layer, kinds) for layer in module.modules())


def images(height: int = 96, width: int = 128) -> Images:
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor([[height, width]])
    return Images(torch.rand(1, 3, height, width, generator=generator) * 255, size, size)


class Awkward(nn.Module):
    """Pairs that may be folded beside such that may not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.bn_a = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.b, self.bn_b = nn.Conv2d(8, 8, 1), FrozenBatchNorm2d(8)  # its input is read again
        self.c, self.bn_c = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)  # runs twice
        self.d, self.bn_d = nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, affine=False)
        self.bn_e = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn_a(self.a(x)).relu_()
        y = self.b(x)
        x = self.bn_b(y) + 3 * y
        x = self.bn_c(self.c(self.bn_c(self.c(x))))
        return self.bn_e(self.bn_d(self.d(x)).relu())


def test_only_pairs_that_stay_equal_are_folded() -> None:
    module = randomise(Awkward())
    x = torch.randn(2, 3, 12, 12)
    with torch.no_grad():
        before = module(x)
    copied = share(module)
    # b is folded and put back: what else reads its output shows in the pairs that follow.
    assert fold_norms(copied, lambda net: net(x)) == 2  # a and d
    with torch.no_grad():
        torch.testing.assert_close(copied(x), before, rtol=1e-4, atol=1e-4)
        assert torch.equal(module(x), before)
    assert isinstance(copied.get_submodule("bn_a"), nn.Identity)
    for name in ("bn_b", "bn_c", "bn_e"):
        assert not isinstance(copied.get_submodule(name), nn.Identity), name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mask_rcnn_resnet50_fpn", {"backbone": "resnet18", "width": 64}),
        ("mask_rcnn_resnet50_fpn_v2", {"backbone": "resnet18", "width": 64}),
        ("mask_rcnn_lite0_fpn", {}),
        ("faster_rcnn_mobilenet_v2_fpn", {}),
    ],
)
def test_detectors_lose_their_batch_norms_and_keep_their_maps(name: str, options: dict) -> None:
    torch.manual_seed(0)
    detector = randomise(build(name, 3, **options))
    state = {key: value.clone() for key, value in detector.state_dict().items()}
    fast = fast_network(detector)
    assert norms(detector) > 10
    assert norms(fast) == 0
    batch = images()
    with torch.no_grad():
        for mine, other in zip(fast.features(batch), detector.features(batch), strict=True):
            limit = 1e-4 * float(other.abs().max())
            torch.testing.assert_close(mine, other, rtol=0, atol=limit)
    after = detector.state_dict()
    assert all(torch.equal(after[key], value) for key, value in state.items())
    assert fast.rpn.logits.weight is detector.rpn.logits.weight  # shared, not copied


def test_changed_weights_are_noticed() -> None:
    detector = randomise(build_tiny("mask_rcnn_resnet50_fpn"))
    network = FastNetwork(detector)
    first = network.get()
    assert network.get() is first
    with torch.no_grad():
        detector.backbone.body.conv1.weight.mul_(2)
    second = network.get()
    assert second is not first
    batch, post = images(), PostProcess(0.0, 0.5, 5)
    with torch.no_grad():
        expected, found = detector(batch, post), second(batch, post)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-4)


def fused_step(detector: nn.Module) -> None:
    optimiser = torch.optim.SGD(detector.parameters(), lr=0.05, fused=True)
    for parameter in detector.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()


def other_layer(detector: nn.Module) -> None:
    old = detector.roi_heads.box_head.logits
    new = nn.Linear(old.in_features, old.out_features)
    detector.roi_heads.box_head.logits = new.requires_grad_(False)


def bigger(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output * 1.5


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "assigned": lambda d: d.load_state_dict(
        {k: 1.1 * v if v.is_floating_point() else v for k, v in d.state_dict().items()},
        assign=True,
    ),
    "fused optimiser": fused_step,
    "data": lambda d: [p.data.mul_(1.1) for p in d.parameters()],
    "layer": other_layer,
    "setting": lambda d: setattr(d.rpn, "nms_thresh", 0.1),
    "pruned": lambda d: prune.l1_unstructured(d.roi_heads.box_head.logits, "weight", amount=0.9),
    "hook on a convolution": lambda d: d.backbone.body.conv1.register_forward_hook(bigger),
    "hook on a norm": lambda d: d.backbone.body.bn1.register_forward_hook(bigger),
    "hook on a 3x3 convolution": lambda d: d.rpn.convs[0].register_forward_hook(bigger),
}


@pytest.mark.parametrize(
    "change",
    [
        name
        if name in ("fused optimiser", "layer", "hook on a norm")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in CHANGES
    ],
)
def test_whatever_changed_counts(change: str) -> None:
    torch.manual_seed(0)
    detector = randomise(build_tiny("mask_rcnn_resnet50_fpn"))
    network = FastNetwork(detector)
    batch, post = images(), PostProcess(0.0, 0.5, 5)
    with torch.no_grad():
        network.get()(batch, post)
        CHANGES[change](detector)
        expected, found = detector(batch, post), network.get()(batch, post)
    torch.testing.assert_close(found.boxes, expected.boxes, rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-4)
    assert network.get() is network.get()


def test_hooks_of_the_detector_are_called() -> None:
    detector = build("mask_rcnn_resnet50_fpn", 3, backbone="resnet18", width=128)
    detector = randomise(detector)
    seen: list[str] = []
    layers = {"norm": detector.backbone.body.bn1, "winograd": detector.rpn.convs[0]}
    kinds = [type(fast_network(detector).get_submodule("rpn.convs.0"))]
    for name, layer in layers.items():
        layer.register_forward_hook(lambda *_, name=name: seen.append(name))
    made = FastNetwork(detector).get()
    kinds.append(type(made.get_submodule("rpn.convs.0")))
    assert kinds == [WinogradConv2d, type(detector.rpn.convs[0])]
    seen.clear()  # what the making ran
    with torch.no_grad():
        made(images(), PostProcess(0.0, 0.5, 5))
    assert set(seen) == set(layers)


def test_threads_get_the_same_folded_network() -> None:
    detector = randomise(build("mask_rcnn_lite0_fpn", 3))
    networks = [FastNetwork(detector), FastNetwork(detector)]
    found: list[nn.Module] = []

    def run(i: int) -> None:
        with torch.no_grad():
            made = networks[i % 2].get()
            made(images(64, 64), PostProcess(0.0, 0.5, 5))
        found.append(made)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [norms(net) for net in found] == [0] * 6
    assert len({id(net) for net in found}) == 2


def test_folding_sees_through_autocast() -> None:
    detector = randomise(build("mask_rcnn_lite0_fpn", 3))
    with torch.autocast("cpu", torch.bfloat16):
        assert norms(FastNetwork(detector).get()) == 0


def test_copies_and_pickles_follow_their_own_detector() -> None:
    detector = randomise(build_tiny("mask_rcnn_resnet50_fpn"))
    pair = (detector, FastNetwork(detector))
    made = pair[1].get()
    for other, network in (copy.deepcopy(pair), pickle.loads(pickle.dumps(pair))):
        assert network.model is other and other is not detector
        assert network.get() is not made
