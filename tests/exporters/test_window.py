"""The window of sample values in exported files: all readers see the same pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image
from tiny_exports import Exported

import maskwright as mw
from maskwright import runtime
from maskwright.data.pixels.depth import own_window, to_pixels
from maskwright.data.pixels.images import load_samples
from maskwright.errors import OptionError
from maskwright.exporters.export import export
from maskwright.graphs.sessions import open_graph


def deep_photo(folder: Path, scale: float = 13.0) -> np.ndarray:
    """A photo of the exported model's kind as 16-bit grey values."""
    with Image.open(folder / "0.png") as image:
        return np.asarray(image.convert("L")).astype(np.uint16) * np.uint16(scale) + np.uint16(400)


@pytest.mark.parametrize("kind", ["u2", "i2", "i4", "f4", "f8", "f2"])
@pytest.mark.parametrize("shape", [(90, 70), (90, 70, 3)])
@pytest.mark.parametrize("window", [None, (3.0, 51.5)])
def test_the_runtime_stretches_alike(
    kind: str, shape: tuple[int, ...], window: tuple[float, float] | None
) -> None:
    samples = np.random.default_rng(0).gamma(2.0, 8.0, shape).astype(kind)
    if kind[0] == "f":
        samples[0, :3] = np.array([np.nan, np.inf, -np.inf]).reshape(3, *[1] * (len(shape) - 2))
    np.testing.assert_array_equal(runtime.to_pixels(samples, window), to_pixels(samples, window))


def test_the_runtime_reads_alike_or_refuses(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    grey = rng.integers(0, 5000, (30, 41), np.uint16)
    for suffix, samples in (
        (".png", grey),
        (".pgm", grey),
        (".tif", grey),
        (".tif", grey.astype("f4")),
        (".tif", grey.astype("i2")),
        (".tif", grey.astype("i4")),
    ):
        file = tmp_path / f"grey{suffix}"
        if suffix == ".tif":
            tifffile.imwrite(file, samples)
        else:
            assert cv2.imwrite(str(file), samples)
        np.testing.assert_array_equal(runtime.read_samples(file), load_samples(file))
    colour = rng.integers(0, 2**16, (30, 41, 3), np.uint16)
    refused: list[tuple[str, Any]] = [("colour.png", colour), ("colour.ppm", colour)]
    for name, samples in refused:
        assert cv2.imwrite(str(tmp_path / name), samples)
    for name, samples, options in (
        ("colour.tif", colour, {"photometric": "rgb"}),
        ("white.tif", grey, {"photometric": "miniswhite"}),
        ("unsigned.tif", grey.astype("u4"), {}),
        ("half.tif", grey.astype("f2"), {}),
        ("signed.tif", grey.astype("i1"), {}),
    ):
        tifffile.imwrite(tmp_path / name, samples, **options)
        refused.append((name, samples))
    for name, _ in refused:
        with pytest.raises(ValueError, match=name):
            runtime.read_samples(tmp_path / name)


@pytest.mark.filterwarnings("ignore:max_det")
def test_without_a_window_each_image_has_its_own(exported: Exported) -> None:
    photo = deep_photo(exported.photos)
    scale = own_window(photo)
    model, graph = runtime.load(exported.path, threads=1), mw.load(exported.path)
    found = []
    for reader in (model, graph, exported.predictor):
        with pytest.warns(UserWarning, match=r"8-bit images.*window="):
            found.append(reader(photo, conf=0.05, max_det=20).boxes)
        assert len(found[-1])
        named = reader(photo, conf=0.05, max_det=20, window=scale).boxes
        np.testing.assert_array_equal(found[-1], named)
    np.testing.assert_allclose(found[0], found[1], atol=1e-3)  # one graph in two programs


@pytest.mark.filterwarnings("ignore:max_det")
def test_a_window_is_kept_in_the_file(own: Exported, exported: Exported, tmp_path: Path) -> None:
    trained, path = own.predictor, own.path
    photo = deep_photo(own.photos)
    limits: dict[str, Any] = {"conf": 0.3, "max_det": 15}
    assert open_graph(path).spec.meta.window == (300.0, 5001.5)
    expected = exported.predictor(photo, window=(300.0, 5001.5), **limits)
    # Without a warning: they know the scale.
    np.testing.assert_array_equal(trained(photo, **limits).boxes, expected.boxes)
    one, two = (
        reader(photo, **limits) for reader in (runtime.load(path, threads=1), mw.load(path))
    )
    assert len(one)
    np.testing.assert_allclose(one.boxes, two.boxes, atol=1e-3)
    with pytest.warns(UserWarning, match=r"window=0,9000 stands in place of .*window=300,5001\.5"):
        other = trained(photo, window="0,9000", **limits)
    again = exported.predictor(photo, window=(0, 9000), **limits)
    np.testing.assert_array_equal(other.boxes, again.boxes)
    changed = runtime.load(path, threads=1)(photo, window=(0, 9000), **limits)
    assert len(changed)
    with pytest.raises(ValueError, match="window"):
        runtime.load(path, threads=1)(photo, window=(5, 5))
    with pytest.raises(OptionError, match=r"window=minmax.*percentile"):
        export(trained, "onnx", tmp_path / "no.onnx", window="minmax")


def test_a_graph_that_cannot_fit_is_refused(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskwright.prediction import memory

    monkeypatch.setattr(memory, "available_memory", lambda device: 10**6)
    graph = mw.load(exported.path)
    assert memory.bytes_per_pixel(graph.detector) == memory.PIXELS
    with pytest.raises(memory.TooLittleMemoryError, match="imgsz="):
        graph(np.zeros((4000, 4000, 3), np.uint8), imgsz="1x")


@pytest.mark.filterwarnings("ignore:max_det")
def test_streams_and_tensors_reach_the_predictor(exported: Exported) -> None:
    import torch

    file = exported.photos / "1.png"
    expected = exported.predictor(file, conf=0.05, max_det=500).boxes
    stream = io.BytesIO(file.read_bytes())
    pixels = load_samples(file)
    for image in (stream, bytearray(file.read_bytes()), torch.from_numpy(pixels).permute(2, 0, 1)):
        found = exported.predictor(image, conf=0.05, max_det=500)
        np.testing.assert_array_equal(found.boxes, expected)
        assert found.path is None
    with file.open("rb") as opened:
        found = exported.predictor(opened, conf=0.05, max_det=500)
        np.testing.assert_array_equal(found.boxes, expected)
    two = exported.predictor([stream, pixels], conf=0.05, max_det=500)
    assert [len(one) for one in two] == [len(expected)] * 2
    with pytest.raises(ValueError, match="empty"):
        exported.predictor(io.BytesIO())
