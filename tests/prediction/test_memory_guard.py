"""Images that cannot fit into memory are refused before, those that fit are not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import make_split, tiny_options

import maskwright as mw
from maskwright.models import Meta, build, build_tiny
from maskwright.prediction import memory
from maskwright.prediction.memory import (
    MemoryGuard,
    TooLittleMemoryError,
    available_memory,
    bytes_per_pixel,
)
from maskwright.prediction.predictor import Predictor
from maskwright.structures import Images, Resize

CPU = torch.device("cpu")


def fake_system(
    root: Path, *, free: int, groups: str = "", files: dict[str, str] | None = None
) -> tuple[str, str]:
    (root / "proc/self").mkdir(parents=True)
    text = f"MemTotal: 99 kB\nMemAvailable: {free // 1024} kB\nSwapFree: 2 kB\nHugePages_Free: 0\n"
    (root / "proc/meminfo").write_text(text)
    (root / "proc/self/cgroup").write_text(groups)
    for name, content in (files or {}).items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return str(root / "proc"), str(root / "sys")


def test_free_memory_of_a_machine_and_of_control_groups(tmp_path: Path) -> None:
    plain = fake_system(tmp_path / "plain", free=10**9 // 1024 * 1024)
    assert available_memory(CPU, *plain) == 10**9 // 1024 * 1024 + 2048
    two = {  # the group above has the tighter limit
        "job/memory.max": "500000\n",
        "job/memory.current": "300000\n",
        "job/memory.stat": "anon 1\ninactive_file 50000\n",
        "job/step/memory.max": "max\n",
        "job/step/memory.current": "9\n",
        "job/step/memory.stat": "inactive_file 0\n",
    }
    second = fake_system(tmp_path / "2", free=10**9, groups="0::/job/step\n", files=two)
    assert available_memory(CPU, *second) == 500000 - 300000 + 50000 + 2048
    one = {
        "memory/box/memory.limit_in_bytes": "700000",
        "memory/box/memory.usage_in_bytes": "900000",
        "memory/box/memory.stat": "total_inactive_file 0\n",
    }
    first = fake_system(tmp_path / "1", free=10**9, groups="4:cpu:/x\n3:memory:/box\n", files=one)
    assert available_memory(CPU, *first) == 2048
    outside = fake_system(tmp_path / "o", free=10**9, groups="0::/../elsewhere\n")
    assert available_memory(CPU, *outside) == 10**9 // 1024 * 1024 + 2048
    assert available_memory(CPU, str(tmp_path / "nothing")) is None
    assert available_memory(torch.device("mps")) is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="measures with /proc")
@pytest.mark.parametrize("name", ["mask_rcnn_lite0_fpn", "mask_rcnn_resnet18_fpn"])
def test_no_more_is_foreseen_than_is_taken(name: str) -> None:
    """The peak of a process of its own, with the images of one size against those of another."""
    script = f"""
import re, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import torch
torch.set_num_threads(1)
from maskwright.prediction.memory import bytes_per_pixel
from maskwright.models import PostProcess, build
from maskwright.prediction.predictor import Predictor
from maskwright.structures import Images, Resize
network = build({name!r}, 1).eval()
rate = bytes_per_pixel(network)
size = torch.tensor([[1024, 1024]])
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on, not that of imports
before = peak()
with torch.inference_mode():
    network(Images(torch.zeros(1, 3, 1024, 1024), size, size), PostProcess(0.5, 0.5, 1))
print(rate, (peak() - before) / 1024**2)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    rate, taken = map(float, done.stdout.split())
    assert 0.3 * taken < rate < taken


def test_regions_and_in_place_layers_do_not_count_twice() -> None:
    vgg = bytes_per_pixel(build("faster_rcnn_vgg16", 1).eval())
    # The widest place is between the first two layers: 64 channels of float32 on both sides.
    assert vgg == memory.PIXELS + memory.SURE * 2 * 64 * 4


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name, side in (("a", 96), ("b", 900), ("c", 80)):
        pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def test_an_image_that_cannot_fit_is_refused(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = mw.load("nuclei", device="cpu")
    monkeypatch.setattr(memory, "available_memory", lambda device: 40_000_000)
    with pytest.raises(TooLittleMemoryError, match=r"b\.png: .*GB of memory.*imgsz=\d+") as caught:
        predictor(photos / "b.png")
    side = int(str(caught.value).split("imgsz=")[1].split()[0])
    assert len(predictor(photos / "b.png", imgsz=side, conf=0.9)) >= 0  # the advice is followed
    with pytest.warns(UserWarning) as warned:
        results = list(mw.predict(predictor, photos, conf=0.9))
    assert [Path(str(result.path)).name for result in results] == ["a.png", "c.png"]
    assert any("skipped" in str(w.message) and "b.png" in str(w.message) for w in warned)
    with pytest.raises(TooLittleMemoryError, match=r"40 images of up to .*smaller batch"):
        predictor.memory.require([(96, 96)] * 40, [predictor.detector.resize], "a")
    monkeypatch.setattr(memory, "available_memory", lambda device: None)
    assert len(predictor(photos / "a.png", conf=0.99)) >= 0


def test_memory_that_runs_out_concerns_one_image(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the estimate lets pass may still be too much."""
    predictor = mw.load("nuclei", device="cpu")
    own = predictor.network()
    monkeypatch.setattr(predictor, "fast", False)

    def too_much(module: torch.nn.Module, given: tuple[object, ...]) -> None:
        images = given[0]
        assert isinstance(images, Images)
        if images.pixels.shape[-1] > 800:
            torch.empty(2**62, dtype=torch.uint8)  # what torch raises, not a copy of it

    hook = own.register_forward_pre_hook(too_much)
    monkeypatch.setattr(predictor, "network", lambda: own)
    for batch in (1, 3):
        with pytest.warns(UserWarning) as warned:
            results = list(mw.predict(predictor, photos, conf=0.9, batch=batch))
        assert [Path(str(result.path)).name for result in results] == ["a.png", "c.png"]
        skipped = [str(w.message) for w in warned if "skipped" in str(w.message)]
        assert len(skipped) == 1 and "b.png: the memory did not suffice" in skipped[0]
    with pytest.raises(TooLittleMemoryError, match="imgsz="):
        predictor(photos / "b.png")
    hook.remove()


def test_windows_need_the_memory_of_a_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an image of 50 times the pixels, a window and the blended map of two classes."""

    def guard() -> MemoryGuard:
        return MemoryGuard(lambda: model, CPU)

    model = build_tiny("unet").eval()
    rate, rule, size = bytes_per_pixel(model), [Resize(None, None, 1.0)], [(2000, 4000)]
    enough = 400 * 400 * rate + 2000 * 4000 * (memory.PIXELS + 2 * 2)
    assert enough < 2000 * 4000 * rate / 2
    monkeypatch.setattr(memory, "available_memory", lambda device: int(enough * 1.01))
    guard().require(size, rule, "photo", part=400)
    guard().require([(300, 400)], rule, "smaller than a window", part=4000)
    for part in (None, 800):
        with pytest.raises(TooLittleMemoryError, match="photo: 4000 x 2000 pixels"):
            guard().require(size, rule, "photo", part=part)
    monkeypatch.setattr(memory, "available_memory", lambda device: int(enough * 0.99))
    with pytest.raises(TooLittleMemoryError):
        guard().require(size, rule, "photo", part=400)


def test_predictions_say_that_they_look_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(build_tiny("unet"), Meta("unet", {}, ["a", "b"]), device="cpu")
    rate, photo = bytes_per_pixel(predictor.network()), np.zeros((128, 320, 3), np.uint8)
    enough = 64 * 64 * rate + 128 * 320 * (memory.PIXELS + 2 * 2)
    monkeypatch.setattr(memory, "available_memory", lambda device: int(enough * 1.01))
    with pytest.raises(TooLittleMemoryError):
        predictor(photo, imgsz="1x")
    assert predictor(photo, imgsz="1x", slide=64).labels.shape == (128, 320)
    (result,) = mw.predict(predictor, photo, imgsz="1x", slide=64)
    assert result.labels.shape == (128, 320)


def test_what_has_sufficed_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Freed memory that the process keeps does not look free."""
    predictor = mw.load("nuclei", device="cpu")
    rule = [predictor.detector.resize]
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**9)
    predictor.memory.require([(1200, 1200)], rule, "first")
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**6)
    predictor.memory.require([(1200, 1200)], rule, "again")
    with pytest.raises(TooLittleMemoryError):
        predictor.memory.require([(2400, 2400)], rule, "larger")


def test_training_and_validation_ask_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    make_split(data, "train", 2, 0)
    make_split(data, "val", 1, 1)
    nuclei = shutil.copytree(data, tmp_path / "nuclei")
    for file in nuclei.rglob("*.json"):
        file.write_text(file.read_text().replace('"coin"', '"nucleus"'))
    monkeypatch.setattr(memory, "available_memory", lambda device: 10**5)
    for run in (
        lambda: mw.val("nuclei", nuclei, device="cpu", workers=0),
        lambda: mw.train(**tiny_options(data, tmp_path)),
    ):
        with pytest.raises(TooLittleMemoryError, match=r"largest images.*imgsz="):
            run()
    assert not list(tmp_path.glob("train*"))
