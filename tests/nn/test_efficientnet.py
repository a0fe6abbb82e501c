"""EfficientNet-Lite beside timm's: the same names, maps, gradients and stages, to the bit."""

from __future__ import annotations

import pytest
import torch

from maskwright.nn.backbones.backbone import TimmBody
from maskwright.nn.backbones.efficientnet import LITES, EfficientNetLite

NAME = "tf_efficientnet_lite0"
FORMS = [
    {},
    {"deepest": 16},
    {"deepest": 8, "finest": 2},
    {"output_stride": 16},
    {"output_stride": 8, "full_dilation": True},
    {"deepest": 16, "tail": True},
]


def pair(name: str, form: dict[str, int | bool]) -> tuple[TimmBody, EfficientNetLite]:
    torch.manual_seed(0)
    theirs, ours = TimmBody(name, **form), EfficientNetLite(name, **form)
    state = theirs.state_dict()
    for key, value in state.items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith("running_var"):
            value.uniform_(0.5, 2)
    assert list(state) == list(ours.state_dict())
    ours.load_state_dict(state)
    return theirs, ours


@pytest.mark.parametrize("form", FORMS)
def test_lite0_equals_timm(form: dict[str, int | bool]) -> None:
    theirs, ours = pair(NAME, form)
    x = torch.randn(2, 3, 97, 130, generator=torch.Generator().manual_seed(1))
    for training in (False, True):
        a, b = theirs.train(training)(x), ours.train(training)(x)
        for one, other in zip(a, b, strict=True):
            assert torch.equal(one, other)
    if form.get("tail"):
        assert torch.equal(theirs.tail(a[-1]), ours.tail(b[-1]))
    sum(m.square().mean() for m in theirs(x)).backward()
    sum(m.square().mean() for m in ours(x)).backward()
    for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or torch.equal(one.grad, other.grad)
    for attribute in ("channels", "strides", "tail_channels", "mean", "std"):
        assert getattr(theirs, attribute) == getattr(ours, attribute)

    def parts(body: TimmBody | EfficientNetLite) -> list[set[int]]:
        order = {id(p): i for i, p in enumerate(body.parameters())}
        return [{order[id(p)] for m in stage for p in m.parameters()} for stage in body.stages()]

    assert parts(theirs) == parts(ours)


@pytest.mark.parametrize("name", [name for name in LITES if name != NAME])
def test_wider_and_deeper_ones_have_the_shapes_of_timm(name: str) -> None:
    with torch.device("meta"):
        theirs, ours = TimmBody(name), EfficientNetLite(name)
    shapes = {key: value.shape for key, value in theirs.state_dict().items()}
    assert shapes == {key: value.shape for key, value in ours.state_dict().items()}


def test_random_weights_are_as_wide_as_those_of_timm() -> None:
    torch.manual_seed(0)
    theirs, ours = TimmBody(NAME, 16), EfficientNetLite(NAME, 16)
    for (key, one), other in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        if one.numel() > 5000:
            assert (other.std() / one.std()).item() == pytest.approx(1, abs=0.05), key
