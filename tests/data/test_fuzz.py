"""Thousands of damaged bytes: every reader gives a result or a ValueError, never anything else."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskwright.data import load_image, open_dataset, read_coco, write_voc
from maskwright.data.pixels.images import image_header
from maskwright.models import Meta
from maskwright.ops.rle import decode_rle, measure_rle
from maskwright.storage.checkpoint import load_checkpoint, save_checkpoint
from maskwright.storage.published import read_tensors

Scene = Any  # of conftest.py
pytestmark = pytest.mark.slow


def mutations(content: bytes, count: int, seed: int) -> Iterator[bytes]:
    """Yield copies with a few bytes changed, cut out, doubled, or the end cut off."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        data = bytearray(content)
        for _ in range(int(rng.integers(1, 6))):
            place, kind = int(rng.integers(len(data))), int(rng.integers(6))
            if kind < 3:
                data[place] = int(rng.integers(256))
            elif kind == 3:
                del data[place : place + int(rng.integers(1, 20))]
            elif kind == 4:
                data[place:place] = data[place : place + int(rng.integers(1, 20))]
            elif len(data) > 40 and rng.random() < 0.3:
                del data[place:]
            if not data:
                data = bytearray(b"\0")
        yield bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_images(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # what is allowed is allocated
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **({"exif": exif} if kind != "PPM" else {}))
    file = tmp_path / "a.img"
    outcomes = {True: 0, False: 0}
    for data in mutations(stream.getvalue(), 1500, seed=1):
        file.write_bytes(data)
        try:
            image_header(file)
            found = load_image(file)
            assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
            outcomes[True] += 1
        except ValueError as error:
            assert "a.img" in str(error)
            outcomes[False] += 1
    assert all(outcomes.values()), "some were readable, some not"


def test_annotation_files(scene: Scene) -> None:
    scene.first["segmentation"] = {"size": [30, 40], "counts": [62, 5, 25, 5, 1103]}
    outcomes = {True: 0, False: 0}
    for data in mutations(json.dumps(scene.content).encode(), 8000, seed=2):
        scene.file.write_bytes(data)
        try:
            dataset = read_coco(scene.file)
        except ValueError as error:
            assert str(scene.file) in str(error)
            outcomes[False] += 1
            continue
        outcomes[True] += 1
        for index in range(len(dataset)):
            boxes = dataset[index].boxes
            assert np.isfinite(boxes).all()
            for k in range(len(boxes)):
                dataset.mask(index, k)
    assert all(outcomes.values())


@pytest.mark.parametrize(
    "damaged", ["Annotations/a.xml", "ImageSets/Main/train.txt", "SegmentationObject/a.png"]
)
def test_pascal_voc(damaged: str, scene: Scene, tmp_path: Path) -> None:
    folder = tmp_path / "voc"
    write_voc(read_coco(scene.write()), folder)
    file = folder / damaged
    outcomes = {True: 0, False: 0}
    for data in mutations(file.read_bytes(), 3000, seed=6):
        file.write_bytes(data)
        try:
            dataset = open_dataset(folder)
        except ValueError as error:
            assert str(folder) in str(error)
            outcomes[False] += 1
            continue
        # Whatever is wrong with one of two images, the other is read, and the fault is listed.
        assert 1 <= len(dataset) <= 2
        outcomes[len(dataset) == 2 and not dataset.faults] += 1
        for index in range(len(dataset)):
            boxes = dataset[index].boxes
            assert np.isfinite(boxes).all()
            for k in range(len(boxes)):
                dataset.mask(index, k)
    assert all(outcomes.values())


def test_run_lengths() -> None:
    rng = np.random.default_rng(3)
    codes: list[Any] = [
        bytes(rng.integers(40, 120, int(rng.integers(0, 12))).astype(np.uint8)) for _ in range(9000)
    ]
    for _ in range(9000):
        cuts = np.sort(rng.integers(0, 1200, int(rng.integers(0, 8))))
        counts = np.diff([0, *cuts, 1200])
        counts[rng.integers(len(counts))] += rng.choice([0, 0, 0, 1, -5, 2**40])
        codes.append(counts.tolist())
    outcomes = {True: 0, False: 0}
    for code in codes:
        rle = {"size": [30, 40], "counts": code}
        try:
            area, frame = measure_rle(rle)
        except ValueError as error:
            assert str(error).startswith("RLE: ")
            with pytest.raises(ValueError, match="RLE: "):
                decode_rle(rle)
            outcomes[False] += 1
            continue
        crop, expected = decode_rle(rle)
        assert (area, frame) == (crop.sum(), expected)
        outcomes[True] += 1
    assert all(count > 1000 for count in outcomes.values())


def test_checkpoints(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    state = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}
    whole = save_checkpoint(file, Meta("m", {"a": 1}, ["x", "y"]), state).read_bytes()
    outcomes = {True: 0, False: 0}
    for data in mutations(whole, 6000, seed=4):
        file.write_bytes(data)
        for read in (load_checkpoint, read_tensors):
            try:
                read(file)
                outcomes[True] += 1
            except ValueError as error:
                assert "a.safetensors" in str(error)
                outcomes[False] += 1
    assert all(outcomes.values())


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files(legacy: bool, tmp_path: Path) -> None:
    file = tmp_path / "a.pth"
    state = {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(3)}
    torch.save(state, file, _use_new_zipfile_serialization=not legacy)
    outcomes = {True: 0, False: 0}
    for data in mutations(file.read_bytes(), 2000, seed=5):
        file.write_bytes(data)
        try:
            read_tensors(file)
            outcomes[True] += 1
        except ValueError as error:
            assert "a.pth" in str(error)
            outcomes[False] += 1
    assert all(outcomes.values())
