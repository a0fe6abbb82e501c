"""Checkpoints of earlier versions: what was called otherwise is read by its present name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from maskwright.hub.foreign import convert_weights
from maskwright.hub.loading import load_model
from maskwright.models import Meta, build, get_entry
from maskwright.nn.backbones.backbone import TimmBody
from maskwright.storage.checkpoint import TrainingState, load_checkpoint, save_checkpoint

OPTIONS = {"backbone": "vgg11_bn", "box_width": 16, "imgsz": 64}


def as_before(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the state by the names of earlier versions, in which a VGG was a network of timm's."""
    old = {key.replace("body.features.", "body.body.features_"): v for key, v in state.items()}
    names = {f"backbone.body.{key}" for key in TimmBody("vgg11_bn", 16).state_dict()}
    assert names == {key for key in old if key.startswith("backbone.")}
    return old


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(build("fast_rcnn_vgg16", 1, **OPTIONS).state_dict())


def test_a_detector_whose_vgg_was_timms_loads(state: dict, tmp_path: Path) -> None:
    meta = Meta("fast_rcnn_vgg16", OPTIONS, ["coin"])
    path = save_checkpoint(tmp_path / "old.safetensors", meta, as_before(state))
    detector, _ = load_model(path)
    own = detector.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[key], value) for key, value in state.items())


def test_so_do_averages_and_what_the_optimiser_keeps(state: dict, tmp_path: Path) -> None:
    meta = Meta("fast_rcnn_vgg16", OPTIONS, ["coin"])
    old = as_before(state)
    slots = {f"{key}.momentum_buffer": value.clone() for key, value in old.items()}
    training = TrainingState({}, slots, {key: value + 1 for key, value in old.items()})
    path = save_checkpoint(tmp_path / "last.safetensors", meta, old, training=training)
    read = load_checkpoint(path, training=True)
    assert read.training is not None
    key = "backbone.body.features.4.weight"
    assert torch.equal(read.model[key], state[key])
    assert torch.equal(read.training.ema[key], state[key] + 1)
    assert torch.equal(read.training.optimizer[f"{key}.momentum_buffer"], state[key])
    assert read.model.keys() == read.training.ema.keys() == state.keys()


def test_so_do_weights_without_a_description(state: dict, tmp_path: Path) -> None:
    torch.save(as_before(state), tmp_path / "old.pth")
    with pytest.warns(UserWarning, match="says nothing of its model"):
        found = convert_weights(tmp_path / "old.pth", get_entry("fast_rcnn_vgg16"), OPTIONS)
    assert found.state.keys() == state.keys()


def test_networks_of_timm_keep_their_names(tmp_path: Path) -> None:
    meta = Meta("fast_rcnn_vgg16", {**OPTIONS, "backbone": "rexnet_100"}, ["coin"])
    key = "backbone.body.body.features_0.conv.weight"
    path = save_checkpoint(tmp_path / "rex.safetensors", meta, {key: torch.ones(2, 2)})
    assert list(load_checkpoint(path).model) == [key]
