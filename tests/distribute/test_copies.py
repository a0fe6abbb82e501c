"""Data sets in an object store: a copy on this machine, fetched once and kept equal."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from maskwright.data import open_dataset
from maskwright.stores import local_copy
from maskwright.stores.addresses import told

fsspec = pytest.importorskip("fsspec")


def test_a_data_set_is_fetched_once_and_kept_equal(
    coins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKWRIGHT_HOME", str(tmp_path))
    memory, address = fsspec.filesystem("memory"), f"memory://{uuid.uuid4().hex}/coins"
    files = sorted(path for path in coins.rglob("*") if path.is_file())
    for path in files:
        memory.put_file(str(path), f"{address}/{path.relative_to(coins).as_posix()}")
    fetched, original = list[str](), type(memory).get_file

    def get_file(self: Any, name: str, *args: Any, **options: Any) -> None:
        fetched.append(name)
        original(self, name, *args, **options)

    monkeypatch.setattr(type(memory), "get_file", get_file)
    here, there = open_dataset(coins, "val"), open_dataset(address, "val")
    assert [one.path.name for one in here] == [one.path.name for one in there]
    assert all(
        one.path.read_bytes() == two.path.read_bytes() for one, two in zip(here, there, strict=True)
    )
    assert len(fetched) == len(set(fetched)) == len(files)
    folder = local_copy(f"{address}/")
    assert len(fetched) == len(files), "nothing is fetched twice"
    memory.pipe_file(f"{address}/images/train/train0.png", b"another")
    memory.rm(f"{address}/images/train/train1.png")
    assert local_copy(address) == folder
    assert len(fetched) == len(files) + 1
    assert (folder / "images/train/train0.png").read_bytes() == b"another"
    kept = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert kept == {path.relative_to(coins) for path in files} - {Path("images/train/train1.png")}
    assert (
        local_copy(f"{address}/annotations/val.json").read_bytes()
        == (coins / "annotations/val.json").read_bytes()
    )
    with pytest.raises(ValueError, match=f"{address}x does not exist, or is an empty folder"):
        open_dataset(f"{address}x")
    memory.rm(address, recursive=True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError("The specified bucket does not exist"), r" \(The specified bucket"),
        (FileNotFoundError(2, "No such file", "no/run.json"), "$"),
        (PermissionError("Access Denied"), ".*rights"),
    ],
)
def test_what_a_store_says_is_one_sentence(error: OSError, said: str) -> None:
    """s3fs raises the first where a bucket to write into is not there."""
    between = " may not" if isinstance(error, PermissionError) else " does not exist"
    sentence = f"^s3://no/run.json{between}{said}"
    with pytest.raises(ValueError, match=sentence), told("s3://no/run.json"):
        raise error
