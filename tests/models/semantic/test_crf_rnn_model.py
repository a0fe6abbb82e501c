"""CRF-RNN: what its CRF is given, and what it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskwright.errors import OptionError
from maskwright.hub.loading import start_model
from maskwright.models import Meta, build
from maskwright.models.semantic.crf_rnn import CRFRNNOptions
from maskwright.models.semantic.fcn import FCN
from maskwright.models.transfer import transfer
from maskwright.storage.checkpoint import save_checkpoint
from maskwright.structures import Images

TINY = {"backbone": "vgg11", "width": 8, "imgsz": 64}


@pytest.mark.parametrize("statistics", [None, "caffe", "unit"])
def test_the_crf_sees_colours_in_steps_of_8_bits(statistics: str | None) -> None:
    torch.manual_seed(0)
    model = build("crf_rnn", 3, **TINY, statistics=statistics, test_iterations=2).eval()
    network = model.network
    network.score_fr.weight.data.normal_(std=0.3)
    size = torch.tensor([[32, 32]])
    images = Images(torch.randint(0, 256, (1, 3, 32, 32)).float(), size, size)
    x = model.normalise(images)
    colours = x * model.std
    order = [2, 1, 0] if model.bgr else [0, 1, 2]
    steps = images.pixels[:, order].diff(dim=3)
    torch.testing.assert_close(colours.diff(dim=3), steps, rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        scores = FCN.forward(network, x)
        found, expected = model(images), network.crfrnn(scores, colours)
    assert float((expected - scores).abs().max()) > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_starts_from_a_run_of_fcn8s(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    before = build("fcn8s_vgg16", 2, **TINY)
    before.network.score_pool4.weight.data.normal_()
    save_checkpoint(path, Meta("fcn8s_vgg16", TINY, ["a", "b"]), before.state_dict())
    model, _, _ = start_model("crf_rnn", ["a", "b"], weights=path, options=TINY)
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in before.state_dict().items())
    fresh = own.keys() - before.state_dict().keys()
    assert {key.split(".")[1] for key in fresh} == {
        "upscore2",
        "upscore_pool4",
        "upscore8",
        "crfrnn",
    }
    x = torch.randn(1, 3, 20, 30)
    with torch.no_grad():  # the transposed convolutions, which are learned here, begin the same
        scores = FCN.forward(model.eval().network, x)
        torch.testing.assert_close(scores, before.eval().network(x), rtol=1e-4, atol=1e-5)


def test_compatibilities_follow_the_classes() -> None:
    source = build("crf_rnn", 3, **TINY)
    matrix = source.network.crfrnn.compatibility_matrix
    matrix.data = torch.arange(9.0).view(3, 3)
    model = build("crf_rnn", 2, **TINY)
    transfer(model, ["c", "a"], source.state_dict(), ["a", "b", "c"])
    found = model.network.crfrnn.compatibility_matrix
    assert found.tolist() == [[8.0, 6.0], [2.0, 0.0]]


def test_options_that_cannot_be() -> None:
    with pytest.raises(OptionError, match="alpha is a standard deviation above 0"):
        CRFRNNOptions(alpha=0.0)
    with pytest.raises(OptionError, match="test_iterations"):
        CRFRNNOptions(test_iterations=0)
