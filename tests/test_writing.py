"""Files are written whole or not at all, and every refusal of the disk is told in one way."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.cli import main
from maskwright.data import open_dataset
from maskwright.data.batch_file import save_batch
from maskwright.data.formats.voc.write import write_voc
from maskwright.data.loader import make_loader
from maskwright.errors import WriteError
from maskwright.files import replacing, replacing_picture, require_space, write_whole, writing
from maskwright.proposals.files import write_proposals
from maskwright.structures import Detections, Resize
from maskwright.tasks.detection.result import Result

ROOT = Path(__file__).resolve().parents[1]
NOISE = np.random.default_rng(0).integers(0, 255, (600, 800, 3), dtype=np.uint8)


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(path)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def noisy_result() -> Result:
    nothing = Detections(
        (600, 800), torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64)
    )
    return Result(nothing, NOISE, ["cell"])


def noisy_batch(path: Path) -> None:
    data = open_dataset(ROOT / "examples" / "nuclei_mini").select([0, 1])
    loader = make_loader(
        data,
        batch=2,
        resize=Resize(None, None, 1.0),
        augment=None,
        seed=0,
        workers=0,
        shuffle=False,
    )
    save_batch(path, next(iter(loader)), {})


def figure(path: Path) -> None:
    from maskwright.drawing.figures import new_figure, save_figure

    made = new_figure(8, 6)
    made.subplots().imshow(NOISE)
    save_figure(made, path)


WRITERS: dict[str, Callable[[Path], Any]] = {
    "picture.png": lambda path: noisy_result().save(path),
    "picture.jpg": lambda path: noisy_result().save(path),
    "picture.webp": lambda path: noisy_result().save(path),
    "picture.tif": lambda path: noisy_result().save(path),
    "figure.png": figure,
    "text.csv": lambda path: write_whole(path, "x" * 300_000),
    "batch.safetensors": noisy_batch,
    "regions.npz": lambda path: write_proposals(
        path, {"a": (np.zeros((20_000, 4)), np.zeros(20_000))}
    ),
}


@pytest.mark.figures
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_leaves_what_was_there(full: Path, name: str) -> None:
    path = full / "runs" / name
    path.parent.mkdir()
    path.write_text("old")
    with pytest.raises(WriteError, match=r"No space left on device.*MB free.*free space") as caught:
        WRITERS[name](path)
    assert str(path) in str(caught.value) and caught.value.number == errno.ENOSPC
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]


def test_a_data_set_on_a_full_disk_has_no_list_of_images(full: Path) -> None:
    data = open_dataset(ROOT / "examples" / "nuclei_mini")
    with pytest.raises(WriteError, match="No space left on device"):
        write_voc(data, full / "voc")
    assert not list((full / "voc").glob("ImageSets/Main/*.txt"))


@pytest.mark.parametrize(
    "line",
    [
        "data check data={data} project={disk}",
        "proposals data={data} source=sliding_window project={disk} split=val",
        "convert nuclei {disk}/x.pth model=mask_rcnn_lite0_fpn target=torchvision",
        "export model=nuclei format=pt2 imgsz=64 path={disk}/x.pt2",
        "predict model=nuclei source={data}/images/val project={disk} imgsz=64",
    ],
)
def test_commands_on_a_full_disk(
    line: str,
    full: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MASKWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with (full / "fill").open("wb") as file, pytest.raises(OSError, match="No space"):
        for _ in range(100):
            file.write(bytes(10_000))
            file.flush()
    nuclei = ROOT / "maskwright" / "weights" / "mask_rcnn_lite0_nuclei.safetensors"
    line = line.replace("convert nuclei", f"convert {nuclei}")
    data = ROOT / "examples" / "nuclei_mini"
    assert main(line.format(data=data, disk=full).split()) == 1
    err = " ".join(capsys.readouterr().err.split())
    assert "free space on that disk" in err and str(full) in err and "Errno" not in err
    assert not [p for p in full.rglob("*") if p.is_file() and p.name != "fill" and p.stat().st_size]


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "free space on that disk"),
        (errno.EDQUOT, "free space in your quota"),
        (errno.EROFS, "that disk is read-only"),
        (errno.EACCES, "change the permissions"),
        (errno.EFBIG, "ulimit -f"),
    ],
)
def test_refusals_are_told_with_their_mend(tmp_path: Path, number: int, mend: str) -> None:
    """As the system says it, and as libraries pass it on."""
    path = tmp_path / "a.bin"
    text = os.strerror(number)
    for error in (
        OSError(number, text),
        Exception(f"Error while serializing: I/O error: {text} (os error {number})"),
        RuntimeError(f"[Errno {number}] {text}"),
    ):
        with pytest.raises(WriteError) as caught, writing(path):
            raise error
        assert mend in str(caught.value) and text in str(caught.value)
        assert str(path) in str(caught.value) and caught.value.number == number


def test_what_is_no_refusal_stays_what_it_is(tmp_path: Path) -> None:
    for error in (
        ValueError("[Errno 2] in a file that was read"),
        RuntimeError("a bug"),
        KeyError(),
    ):
        with pytest.raises(type(error)) as caught, replacing(tmp_path / "a"):
            raise error
        assert caught.value is error and not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt), replacing_picture(tmp_path / "a.png"):
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_real_refusals(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="a file where a folder is needed"):
        write_whole(tmp_path / "file" / "x.txt", "")
    with pytest.raises(WriteError, match="choose a shorter name"):
        write_whole(tmp_path / ("x" * 300), "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="a folder where a file is needed"):
        write_whole(tmp_path / "folder", "")
    with pytest.raises(WriteError, match=r"MB are needed.*MB free.*free space"):
        require_space(tmp_path / "new" / "x.pt2", 10**18)
    long = tmp_path / ("ä" * 120 + ".txt")  # near the longest name that there is
    write_whole(long, "whole")
    assert long.read_text() == "whole"
    picture = tmp_path / "a" / "b.JPG"
    with replacing_picture(picture) as temporary:
        Image.fromarray(NOISE).save(temporary)
    with Image.open(picture) as written:
        assert written.format == "JPEG"
    assert len(list(picture.parent.iterdir())) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full")
def test_output_into_a_file_on_a_full_disk() -> None:
    with Path("/dev/full").open("w") as nowhere:
        done = subprocess.run(
            [sys.executable, "-m", "maskwright", "models", "mask_rcnn_lite0_fpn"],
            stdout=nowhere,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "the output: No space left on device; free space" in done.stderr
