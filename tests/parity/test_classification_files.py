"""Files of torchvision and timm become ours and go back, equal to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from maskwright.hub.loading import convert, load_model
from maskwright.storage.checkpoint import load_checkpoint

# our name, library, its name, what it is built with
CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("resnet18", "torchvision", "resnet18", {}),
    ("resnet18", "timm", "resnet18", {}),
    ("googlenet_bn", "torchvision", "googlenet", {"aux_logits": True, "init_weights": False}),
    ("googlenet_bn", "torchvision", "googlenet", {"aux_logits": False, "init_weights": False}),
    ("resnext50_32x4d", "torchvision", "resnext50_32x4d", {}),
    ("preact_resnet50", "timm", "resnetv2_50", {}),
    ("densenet121", "torchvision", "densenet121", {}),
    ("densenet121", "timm", "densenet121", {}),
    ("classify_mobilenetv2_100", "timm", "mobilenetv2_100", {}),
    ("classify_regnety_002", "timm", "regnety_002", {}),
]

# The logits of these are compared in every run, which no file changes.
LONG = ("googlenet_bn", "resnext50_32x4d", "preact_resnet50", "densenet121")


def theirs(library: str, name: str, **options: Any) -> nn.Module:
    """Return a network of another library with random weights, counters and statistics too."""
    torch.manual_seed(0)
    if library == "timm":
        import timm

        model = timm.create_model(name, num_classes=options.pop("num_classes", 5), **options)
    else:
        import torchvision

        count = options.pop("num_classes", 5)
        model = torchvision.models.get_model(name, weights=None, num_classes=count, **options)
    for key, value in model.state_dict().items():
        if key.endswith("num_batches_tracked"):
            value.fill_(7)
        elif "running" in key:
            value.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize(
    ("ours", "library", "name", "options"),
    [pytest.param(*case, marks=pytest.mark.slow if case[0] in LONG else []) for case in CASES],
)
def test_there_and_back_is_equal_to_the_bit(
    ours: str, library: str, name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    state = theirs(library, name, **options).state_dict()
    torch.save({"state_dict": state}, tmp_path / "theirs.pth")
    report = convert(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", model=ours)
    assert len(report.used) == len(state) and not report.ignored and not report.filled
    convert(tmp_path / "ours.safetensors", tmp_path / "back.pth", model=ours, target=library)
    back: dict[str, Tensor] = torch.load(tmp_path / "back.pth")
    assert back.keys() == state.keys()
    for key, value in state.items():
        assert back[key].dtype == value.dtype and torch.equal(back[key], value), key
    meta = load_checkpoint(tmp_path / "ours.safetensors").meta
    assert meta.args == ({"auxiliary": 0.0} if options.get("aux_logits") is False else {})
    names = meta.names
    assert names == [f"class_{i}" for i in range(1, 6)]


def test_the_thousand_classes_have_their_names(tmp_path: Path) -> None:
    state = theirs("torchvision", "resnet18", num_classes=1000).state_dict()
    older = {key: value for key, value in state.items() if "num_batches" not in key}
    torch.save(older, tmp_path / "older.pth")
    report = convert(tmp_path / "older.pth", tmp_path / "ours.safetensors", model="resnet18")
    assert len(report.filled) == len(state) - len(older)
    model, meta = load_model(tmp_path / "ours.safetensors")
    assert meta.names[0] == "tench" and meta.names[999] == "toilet tissue"
    assert all(
        torch.equal(v, state[k.split(".", 2)[-1]])
        for k, v in model.state_dict().items()
        if k.startswith("network.body.") and "num_batches" not in k
    )


def test_a_file_of_another_network_is_named(tmp_path: Path) -> None:
    torch.save(theirs("torchvision", "alexnet").state_dict(), tmp_path / "alexnet.pth")
    with pytest.raises(ValueError, match=r"no weights of resnet18.*expected names such as conv1"):
        convert(tmp_path / "alexnet.pth", tmp_path / "ours.safetensors", model="resnet18")
