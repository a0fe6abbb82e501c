"""Prediction without torch, in an interpreter that has none."""

from __future__ import annotations

import json
import subprocess
import venv
import warnings
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_exports import Exported

from maskwright import load, runtime
from maskwright.data.pixels.images import load_image
from maskwright.data.pixels.resizing import resize_image as torch_resize
from maskwright.models import PostProcess
from maskwright.ops import paste_masks
from maskwright.structures import Detections, Resize
from maskwright.tasks.detection.exporting.agreement import agrees, compare

ROOT = Path(__file__).resolve().parents[2]
# What a bare installation of NumPy, Pillow and onnxruntime brings along.
PACKAGES = ("numpy", "PIL", "onnxruntime", "google", "flatbuffers", "packaging")
LIBRARIES = ("numpy.libs", "pillow.libs")


def as_detections(found: runtime.Found) -> Detections:
    return Detections(
        found.size,
        torch.from_numpy(found.boxes),
        torch.from_numpy(found.scores),
        torch.from_numpy(found.labels),
        None if found.mask_probs is None else torch.from_numpy(found.mask_probs),
    )


@pytest.mark.filterwarnings("ignore:max_det")
def test_it_finds_what_the_predictor_finds(exported: Exported) -> None:
    model = runtime.load(exported.path, threads=1)
    post = PostProcess(0.05, 0.5, 20)
    total = 0
    for photo in sorted(exported.photos.iterdir()):
        found = model(photo, conf=0.05, max_det=20)
        expected = exported.predictor(photo, conf=0.05, max_det=20)
        match = compare(expected.detections, as_detections(found), post, found.paste_mode)
        assert agrees([match]) and len(found) == len(expected)
        assert found.names == [model.names[i] for i in found.labels]
        assert found.masks.shape == expected.masks.shape
        total += len(found)
    assert total > 10
    assert len(model(photo, conf=0.05, max_det=3)) == 3
    with pytest.raises(ValueError, match=r"from conf=0\.05 on"):
        model(photo, conf=0.01)


def test_limits_of_the_graph_are_said_where_they_may_have_cut(exported: Exported) -> None:
    """The graph looks at 50 proposals: with ten objects and more, some may have had none."""
    model = runtime.load(exported.path, threads=1)
    assert model.spec["proposals"] == 50
    loaded, photo = load(exported.path), exported.photos / "2.png"
    for predictor in (model, loaded):
        with pytest.warns(UserWarning, match=r"^max_det=3 was reached"):
            predictor(photo, conf=0.3, max_det=3)
        with pytest.warns(UserWarning, match="there may be more objects than the 1[1-9]"):
            assert 11 <= len(predictor(photo, conf=0.35, max_det=20)) < 20
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(predictor(photo, conf=0.4, max_det=20)) <= 10


@pytest.mark.parametrize("mode", ["grid", "torchvision"])
def test_masks_are_pasted_as_by_torch(mode: str) -> None:
    rng = np.random.default_rng(0)
    probs = rng.random((40, 14, 14), np.float32)
    low = rng.uniform(-20, 90, (40, 2))
    boxes = np.concatenate([low, low + rng.uniform(0.2, 60, (40, 2))], 1).astype(np.float32)
    boxes[0] = [5, 5, 5, 5]  # without area
    boxes[1] = [-10, -10, 120, 130]
    size = (96, 101)
    found = runtime.paste_masks(probs, boxes, size, mode=mode)
    expected = paste_masks(torch.from_numpy(probs), torch.from_numpy(boxes), size, mode=mode)
    differ = found != expected.numpy()
    assert expected.any() and differ.mean() < 1e-5  # pixels at the threshold
    assert np.array_equal(found[1:].any((1, 2)), expected.numpy()[1:].any((1, 2)))


@pytest.mark.parametrize(
    "rule",
    [
        Resize(),
        Resize(antialias=False),
        Resize(antialias=False, corners=True),
        Resize(antialias=False, fixed_point=True),
    ],
)
@pytest.mark.parametrize("size", [(30, 77), (120, 50), (64, 64), (32, 32), (1, 1)])
def test_images_are_resized_as_by_torch(rule: Resize, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = torch_resize(pixels, size, rule)
    found = runtime.resize_image(pixels, size, asdict(rule))
    np.testing.assert_allclose(
        found, expected, atol=0 if rule.antialias or rule.fixed_point else 1e-3
    )


@pytest.mark.parametrize(
    "rule",
    [
        Resize(800, 1333),
        Resize(None, 640, rounding="floor", antialias=False),
        Resize(None, None, 1.25),
        Resize(800, 1333, within=(800, 1216)),
        Resize(None, None, 2.0, within=(96, 320)),
        Resize(None, None, stretch=(300, 200)),
        Resize(None, None, within=(96, 320), rounding="whole"),
        Resize(None, 416, rounding="whole", antialias=False, corners=True),
        Resize(800, 1333, rounding="steps"),
    ],
)
def test_sizes_follow_the_rule_of_the_model(rule: Resize) -> None:
    written = json.loads(json.dumps(asdict(rule)))
    for height, width in ((480, 640), (640, 480), (100, 1000), (1, 3000), (2000, 2001), (44, 22)):
        size = runtime.target_size(written, height, width)
        assert size == rule.target_size(height, width)
        if rule.within is not None:
            assert size[0] <= rule.within[0] and size[1] <= rule.within[1]


def test_images_are_read_upright_and_faults_are_told(tmp_path: Path, exported: Exported) -> None:
    from PIL import Image

    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(runtime.read_samples(tmp_path / "turned.png"), np.rot90(pixels, -1))
    assert np.array_equal(load_image(tmp_path / "turned.png"), np.rot90(pixels, -1))
    (tmp_path / "bad.png").write_bytes(b"no image")
    for name, message in (
        ("bad.png", "cannot be read"),
        ("a.png", "a.png"),
    ):
        with pytest.raises(ValueError, match=message):
            runtime.read_samples(tmp_path / name)
    with pytest.raises(ValueError, match="RGB or "):
        runtime.read_samples(np.zeros((3, 3, 2), np.uint8))
    (tmp_path / "bad.onnx").write_bytes(exported.path.read_bytes()[:1000])
    for name, message in (("bad.onnx", "damaged"), ("none.onnx", "does not exist")):
        with pytest.raises(ValueError, match=message):
            runtime.load(tmp_path / name)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment with NumPy, Pillow and onnxruntime alone."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, symlinks=True, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    home = Path(np.__file__).parents[1]
    for name in (*PACKAGES, *LIBRARIES):
        if (home / name).exists():
            (site / name).symlink_to(home / name)
    (site / "maskwright").symlink_to(ROOT / "maskwright")
    return folder / "bin" / "python"


@pytest.mark.filterwarnings("ignore:max_det")
def test_it_runs_where_there_is_no_torch(bare: Path, exported: Exported) -> None:
    photo = exported.photos / "0.png"
    script = (
        "import sys, json, importlib.util\n"
        "assert importlib.util.find_spec('torch') is None\n"
        "from maskwright import runtime\n"
        f"found = runtime.load({str(exported.path)!r})({str(photo)!r}, conf=0.05, max_det=20)\n"
        "print(json.dumps([found.scores.tolist(), found.boxes.tolist(), found.names,\n"
        "                  found.masks.sum((1, 2)).tolist()]))\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([bare, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    scores, boxes, names, areas = json.loads(done.stdout)
    here = runtime.load(exported.path)(photo, conf=0.05, max_det=20)
    assert len(scores) > 2 and names == here.names
    np.testing.assert_allclose(scores, here.scores, rtol=1e-5)
    np.testing.assert_allclose(boxes, here.boxes, rtol=1e-5, atol=1e-4)
    assert areas == here.masks.sum((1, 2)).tolist()


@pytest.mark.filterwarnings("ignore:max_det")
def test_one_copied_file_is_enough(bare: Path, exported: Exported, tmp_path: Path) -> None:
    copied = tmp_path / "detect.py"
    copied.write_text((ROOT / "maskwright" / "runtime.py").read_text())
    photo = exported.photos / "2.png"
    done = subprocess.run(
        [bare, "-I", copied, exported.path, photo], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["path"] == str(photo)
    assert len(found["objects"]) == len(runtime.load(exported.path)(photo))
    done = subprocess.run([bare, "-I", copied], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "usage" in done.stderr
    done = subprocess.run(
        [bare, "-I", copied, photo, photo], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "damaged" in done.stderr
