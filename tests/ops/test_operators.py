"""Operators with a short way: the same answers, and the long way for whoever watches."""

from __future__ import annotations

import subprocess
import sys

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from maskwright.ops.nms import nms_padded
from maskwright.ops.operators import Operator
from maskwright.ops.pooling.roi_align import roi_align


def double(x: Tensor) -> Tensor:
    return x * 2


OPERATOR = Operator("maskwright_tests::double", double)
OPERATOR.register_fake(torch.empty_like)
OPERATOR.register_autograd(lambda ctx, grad: grad * 2, setup_context=lambda ctx, inputs, output: 0)


class Names(TorchDispatchMode):
    """Keeps which operators torch sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.seen.add(str(func))
        return func(*args, **(kwargs or {}))


def seen(x: Tensor) -> bool:
    with Names() as names:
        y = OPERATOR(x)
    assert torch.equal(y, 2 * x)
    return any("maskwright_tests" in name for name in names.seen)


def test_the_node_is_passed_by_unless_there_is_a_gradient() -> None:
    x = torch.ones(3)
    assert not seen(x)
    wanted = torch.ones(3, requires_grad=True)
    assert seen(wanted)
    with torch.no_grad():
        assert not seen(wanted)
    OPERATOR(wanted).sum().backward()
    assert wanted.grad is not None and wanted.grad.tolist() == [2, 2, 2]


def test_exporters_see_the_node() -> None:
    class Net(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return OPERATOR(x) + 1

    graph = torch.export.export(Net(), (torch.ones(3),)).graph
    assert any("maskwright_tests.double" in str(node.target) for node in graph.nodes)
    with torch.device("meta"):
        assert OPERATOR(torch.ones(3)).is_meta


def test_kernels_are_there_without_torchvision_and_with_it() -> None:
    code = (
        "import sys, torch\n"
        "from maskwright.ops.operators import kernels\n"
        "box, score = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2]]), torch.tensor([0.1, 0.2])\n"
        "assert kernels().nms(box, score, 0.5).tolist() == [1]\n"
        "assert 'torchvision' not in sys.modules\n"
        "import torchvision\n"
        "assert torchvision.ops.nms(box, score, 0.5).tolist() == [1]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_both_ways_of_our_operators_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1, 40, 2, generator=generator) * 30
    boxes = torch.cat([corner, corner + 8], 2)
    scores, valid = torch.rand(1, 40, generator=generator), torch.ones(1, 40, dtype=torch.bool)
    short = nms_padded(boxes, scores, valid, 0.5, 20)
    long = torch.ops.maskwright.nms_padded(boxes, scores, valid, 0.5, 20, None)
    assert torch.equal(short[0], long[0]) and torch.equal(short[1], long[1])
    fmap = torch.rand(1, 3, 16, 16, generator=generator)
    index = torch.zeros(40, dtype=torch.int64)
    fast = roi_align([fmap], boxes[0], index, strides=[4], output_size=7)
    slow = roi_align([fmap.requires_grad_()], boxes[0], index, strides=[4], output_size=7)
    assert slow.requires_grad and torch.equal(fast, slow.detach())
