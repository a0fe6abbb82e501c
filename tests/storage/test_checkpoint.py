from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from maskwright.models.meta import Meta
from maskwright.storage.checkpoint import (
    TrainingState,
    load_checkpoint,
    load_state,
    resolve_checkpoint,
    save_checkpoint,
)

META = Meta("mask_rcnn_x", {"imgsz": [320, 480]}, ["cell", None], [7, 9], licence="CC0-1.0")


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3, generator=generator).to(
            memory_format=torch.channels_last
        ),
        "bn.running_var": torch.rand(4, generator=generator),
        "bn.count": torch.tensor(12),
    }


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype, key


def save_raw(path: Path, tensors: dict[str, torch.Tensor], description: Any) -> Path:
    safetensors.torch.save_file(tensors, path, {"maskwright": json.dumps(description)})
    return path


def test_round_trip_to_the_bit_and_readable_by_safetensors(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "a" / "w.safetensors", META, weights())
    loaded = load_checkpoint(path)
    assert loaded.meta == META and loaded.training is None
    assert_same(loaded.model, weights())
    plain = safetensors.torch.load_file(path)
    assert set(plain) == {f"model.{key}" for key in weights()}
    assert [p.name for p in path.parent.iterdir()] == ["w.safetensors"]  # nothing temporary left


def test_tensors_without_a_place_in_the_model_are_kept(tmp_path: Path) -> None:
    extras = {"head.background": torch.arange(3.0)}
    path = save_checkpoint(tmp_path / "w.safetensors", META, weights(), extras=extras)
    assert_same(load_checkpoint(path).extras, extras)
    assert_same(load_checkpoint(path).model, weights())


def test_training_state_round_trip(tmp_path: Path) -> None:
    optimizer = {
        "conv.weight.exp_avg": torch.ones(4, 3, 3, 3),
        "conv.weight.step": torch.tensor(3.0),
    }
    ema = {key: value + 1 for key, value in weights().items()}
    scalars = {"place": {"step": 3, "sum": 0.1 + 0.2, "best": float("nan")}}
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, META, weights(), training=TrainingState(scalars, optimizer, ema))

    loaded = load_checkpoint(path, training=True)
    assert loaded.training is not None
    assert loaded.training.scalars == {"place": {"step": 3, "sum": 0.1 + 0.2, "best": None}}
    assert_same(loaded.model, weights())
    assert_same(loaded.training.optimizer, optimizer)
    assert_same(loaded.training.ema, ema)
    # Prediction takes the averaged weights, and nothing of the training.
    plain = load_checkpoint(path)
    assert_same(plain.model, ema)
    assert plain.training is None


def test_only_the_tensors_asked_for_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = TrainingState({}, {"conv.weight.exp_avg": torch.ones(2)}, {})
    path = save_checkpoint(tmp_path / "w.safetensors", META, weights(), training=state)
    read: list[str] = []
    original = safetensors.safe_open

    class Spy:
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.file = original(*args, **kwargs).__enter__()

        def __enter__(self) -> Spy:
            return self

        def __exit__(self, *args: object) -> None:
            self.file.__exit__(*args)

        def get_tensor(self, key: str) -> torch.Tensor:
            read.append(key)
            return self.file.get_tensor(key)

    monkeypatch.setattr(safetensors, "safe_open", Spy)
    load_checkpoint(path)
    assert sorted(read) == sorted(f"model.{key}" for key in weights())


def test_half_precision_for_shipping(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "w.safetensors", META, weights(), dtype=torch.float16)
    stored = safetensors.torch.load_file(path)
    assert stored["model.conv.weight"].dtype == torch.float16
    assert stored["model.bn.running_var"].dtype == torch.float32  # few and sensitive
    loaded = load_checkpoint(path).model
    assert loaded["conv.weight"].dtype == torch.float32
    assert torch.equal(loaded["conv.weight"], weights()["conv.weight"].half().float())
    assert torch.equal(loaded["bn.running_var"], weights()["bn.running_var"])
    with pytest.raises(ValueError, match="does not fit"):
        save_checkpoint(
            tmp_path / "x.safetensors", META, {"w": torch.full((1, 1), 1e6)}, dtype=torch.float16
        )


def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_checkpoint(tmp_path / "w.safetensors", META, weights())
    before = path.read_bytes()

    def crash(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(ValueError, match="No space left"):
        save_checkpoint(path, META, {"other": torch.zeros(3)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_checkpoint_before_is_kept_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last, previous = tmp_path / "last.safetensors", tmp_path / "previous.safetensors"

    def save(value: float) -> None:
        save_checkpoint(last, META, {"w": torch.full((2,), value)}, previous=previous)

    def found(path: Path) -> float:
        return float(load_checkpoint(path).model["w"][0])

    save(1)
    assert not previous.exists()
    save(2)
    assert (found(previous), found(last)) == (1, 2)

    def no_links(*args: Any) -> None:
        raise OSError(95, "Operation not supported")  # as on some network disks and sticks

    monkeypatch.setattr(os, "link", no_links)
    save(3)
    assert (found(previous), found(last)) == (2, 3)
    assert len(list(tmp_path.iterdir())) == 2


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "w.safetensors", META, weights())
    whole = path.read_bytes()
    for position in range(8 + int.from_bytes(whole[:8], "little"), len(whole), 29):
        content = bytearray(whole)
        content[position] ^= 4
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"w\.safetensors: .* does not match its checksum"):
            load_checkpoint(path)


def test_where_nothing_can_be_written_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "weights"
    with pytest.raises(
        ValueError, match=f"w.safetensors: cannot be written .*folder {folder}: there is"
    ):
        save_checkpoint(folder / "w.safetensors", META, weights())


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_pickles_are_refused_and_never_executed(tmp_path: Path) -> None:
    trap, sprung = tmp_path / "trap.safetensors", tmp_path / "sprung"
    trap.write_bytes(pickle.dumps(Trap(sprung)))
    zipped = tmp_path / "zip.safetensors"
    torch.save({"w": torch.zeros(2)}, zipped)
    assert zipfile.is_zipfile(zipped)
    for path in (trap, zipped):
        with pytest.raises(ValueError, match="may execute code; use `maskwright convert`"):
            load_checkpoint(path)
    assert not sprung.exists()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    whole = save_checkpoint(tmp_path / "w.safetensors", META, weights()).read_bytes()
    damaged = {
        "empty": (b"", "not a safetensors file"),
        "text": (b"hello, this is no checkpoint", "header is too large"),
        "short": (whole[:-10], "truncated"),
        "header": (whole[:60], "truncated inside its header"),
        "huge": (struct.pack("<Q", 10**12) + b"{}", "header is too large"),
        "json": (struct.pack("<Q", 4) + b"abcd", "no JSON"),
        "list": (struct.pack("<Q", 4) + b"[1] ", "no JSON"),
    }
    for name, (content, message) in damaged.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)
    with pytest.raises(ValueError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("asked", ["runs/train/coinz", "runs/train", "runs"])
def test_a_run_folder_that_was_nearly_named(tmp_path: Path, asked: str) -> None:
    (tmp_path / "runs" / "train" / "coins" / "weights").mkdir(parents=True)
    run = tmp_path / "runs" / "train" / "coins"
    save_checkpoint(run / "weights" / "best.safetensors", META, weights())
    with pytest.raises(ValueError, match="did you mean") as caught:
        load_checkpoint(tmp_path / asked)
    assert str(caught.value).endswith(f"did you mean {str(run)!r}?")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"best\.safetensors\)$"):
        load_checkpoint(tmp_path / "empty")


def test_any_cut_or_flipped_header_byte_is_a_value_error(tmp_path: Path) -> None:
    whole = save_checkpoint(tmp_path / "w.safetensors", META, weights()).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    path = tmp_path / "damaged.safetensors"
    for position in range(0, header, 7):
        for content in (whole[:position], whole[:position] + b"\xff" + whole[position + 1 :]):
            path.write_bytes(content)
            with pytest.raises(ValueError, match=r"damaged\.safetensors"):
                load_checkpoint(path)


def test_foreign_and_newer_files_say_what_to_do(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(2)}, foreign)
    with pytest.raises(ValueError, match="maskwright convert"):
        load_checkpoint(foreign)
    newer = save_raw(tmp_path / "n.safetensors", {}, {"format": 99, "meta": {}})
    with pytest.raises(ValueError, match="format 99 by a newer maskwright"):
        load_checkpoint(newer)
    broken = save_raw(tmp_path / "b.safetensors", {}, {"format": 1})
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(broken)


def test_a_first_format_file_stays_readable(tmp_path: Path) -> None:
    """The layout of format 1, spelled out: files in the world look like this."""
    description = {
        "format": 1,
        "meta": {"model": "m", "args": {}, "names": ["a"], "added_later": 5},
        "training": {"place": {}},
    }
    tensors = {"model.w": torch.ones(2), "optimizer.w.exp_avg": torch.zeros(2)}
    path = save_raw(tmp_path / "old.safetensors", tensors, description)
    loaded = load_checkpoint(path, training=True)
    assert loaded.meta.names == ["a"] and loaded.meta.category_ids == [1]
    assert set(loaded.model) == {"w"}
    assert loaded.training is not None and set(loaded.training.optimizer) == {"w.exp_avg"}


def test_weights_that_do_not_fit_name_the_first_keys() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    state = module.state_dict()
    state["0.weight"] = torch.zeros(5, 2)
    del state["1.bias"]
    state |= {f"extra.{i}": torch.zeros(1) for i in range(9)}
    with pytest.raises(ValueError) as caught:
        load_state(module, state, "w.safetensors")
    text = str(caught.value)
    assert "1 missing: 1.bias" in text
    assert "9 not in the model: extra.0, extra.1, extra.2, extra.3, ..." in text
    assert "0.weight is (5, 2), expected (3, 2)" in text
    load_state(module, nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4)).state_dict(), "x")


def test_run_folder_means_its_best_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint in this folder"):
        resolve_checkpoint(tmp_path)
    last = save_checkpoint(tmp_path / "weights" / "last.safetensors", META, weights())
    assert resolve_checkpoint(tmp_path) == last
    best = save_checkpoint(tmp_path / "weights" / "best.safetensors", META, weights())
    assert resolve_checkpoint(tmp_path) == best
    assert resolve_checkpoint(tmp_path, "last") == last
    assert load_checkpoint(tmp_path).meta == META
