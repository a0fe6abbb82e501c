"""FCN on any backbone against a plain reference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from maskwright.errors import OptionError
from maskwright.models import build, get_entry
from maskwright.models.semantic.fcn_scores import Scores, ScoresOptions


def doubled(x: torch.Tensor) -> torch.Tensor:
    """Twice the size, as the transposed convolution of the paper with a bilinear kernel, but for
    the border, where half a cell of the map is repeated."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    channels = x.shape[1]
    kernel = (line[:, None] * line).expand(channels, 1, 4, 4)
    large = F.conv_transpose2d(padded, kernel, stride=2, groups=channels)
    return large[..., 3:-3, 3:-3]


@pytest.mark.parametrize("stride", [32, 16, 8])
def test_scores_of_coarse_maps_are_doubled_and_added(stride: int) -> None:
    torch.manual_seed(0)
    network = Scores(3, ScoresOptions(stride=stride)).eval()
    for layer in network.scores:
        torch.nn.init.normal_(layer.weight)
        torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = list(network.backbone(x))
        assert maps[0].shape[-2:] == (64 // stride, 96 // stride)
        expected = torch.zeros(2, 3, 1, 1)
        for layer in network.scores:
            single = maps.pop()
            here = torch.einsum("bchw,kc->bkhw", single, layer.weight[..., 0, 0])
            here = here + layer.bias[:, None, None]
            expected = here + (doubled(expected) if expected.shape[-1] > 1 else 0)
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)
    assert not maps


def test_names_say_the_stride_and_any_backbone_will_do() -> None:
    for stride in (32, 16, 8):
        entry = get_entry(f"fcn{stride}s_lite0")
        assert entry.arguments()["stride"] == stride
        made = get_entry(f"fcn{stride}s_mobilenetv2_100")
        assert (made.presets["stride"], made.family) == (stride, "fcn_scores")
    assert get_entry("fcn8s_vgg16").family == "fcn"  # the published network
    # EfficientNet-Lite0 without its classifier, and a row of weights and a bias for each class.
    counts = [
        sum(p.numel() for p in build(f"fcn{stride}s_lite0", 11).parameters())
        for stride in (32, 16, 8)
    ]
    assert counts[1] - counts[0] == 11 * (112 + 1)
    assert counts[2] - counts[1] == 11 * (40 + 1)


def test_an_unknown_stride_is_an_error() -> None:
    with pytest.raises(OptionError, match="stride is 32, 16 or 8; got 4"):
        ScoresOptions(stride=4)
