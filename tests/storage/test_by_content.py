"""Files of weights are told by their content, whatever they are called."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import MODEL, TINY

from maskwright.hub.reading import is_ours
from maskwright.models import Meta, build
from maskwright.storage.checkpoint import save_checkpoint
from maskwright.storage.published import is_safetensors, read_tensors

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.bin", "w"])
@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle"])
def test_tensors_are_read_from_any_name(kind: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if kind == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=kind == "zip")
    assert is_safetensors(path) == (kind == "safetensors") and not is_ours(path)
    torch.testing.assert_close(read_tensors(path, lambda key: True), TENSORS, rtol=0, atol=0)


def test_a_checkpoint_is_ours_under_another_name(tmp_path: Path) -> None:
    meta = Meta(MODEL, TINY, ["a", "b"])
    with torch.device("cpu"):
        state = build(MODEL, 2, **TINY).state_dict()
    path = save_checkpoint(tmp_path / "a.safetensors", meta, state).rename(tmp_path / "a.pth")
    assert is_ours(path)


def test_what_is_neither_is_told_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"nothing of the kind")
    (tmp_path / "a.pth").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        read_tensors(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="cannot be read as a torch file"):
        read_tensors(tmp_path / "a.pth")
