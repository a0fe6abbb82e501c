"""Broken files are found before a training, all at once, whole ones are not accused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskwright.data.checking.inspection import inspect_images, looks_whole
from maskwright.data.discover import open_dataset
from maskwright.data.records import Dataset

KINDS = ("jpg", "png", "bmp", "webp", "gif", "tif", "ppm")


def make_data(root: Path, kinds: list[str]) -> Dataset:
    rng = np.random.default_rng(0)
    root.mkdir(exist_ok=True)
    images = []
    for number, kind in enumerate(kinds):
        pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
        name = f"{number}.{kind}"
        if kind == "tif":
            tifffile.imwrite(root / name, pixels, photometric="rgb")
        else:
            Image.fromarray(pixels).save(root / name)
        images.append({"id": number + 1, "file_name": name, "height": 40, "width": 50})
    ann = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [3, 3, 9, 9], "area": 81, "iscrowd": 0}
    content = {"images": images, "annotations": [ann], "categories": [{"id": 1, "name": "a"}]}
    (root / "a.json").write_text(json.dumps(content))
    return open_dataset(root / "a.json")


def cut(file: Path, share: float = 0.7) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])


def test_all_broken_files_are_found(tmp_path: Path) -> None:
    data = make_data(tmp_path, list(KINDS) * 3)
    seen: list[int] = []
    found = inspect_images(data, progress=seen.append)
    assert (found.images, found.decoded, found.broken) == (21, 21, ())
    assert seen == list(range(1, 22))
    broken = [0, 3, 8, 9, 12, 13, 19]
    for index in broken[:-1]:
        cut(data[index].path)
    Image.new("RGB", (9, 9)).save(data[19].path)
    found = inspect_images(data)
    assert [index for index, _ in found.broken] == broken
    for index, message in found.broken:
        assert data[index].path.name in message and "image id" not in message
    assert "damaged" in found.broken[0][1] and "9x9" in found.broken[-1][1]
    shares = [inspect_images(data, rank=rank, world=3) for rank in range(3)]
    assert sorted(e for share in shares for e in share.broken) == list(found.broken)
    assert sum(share.images for share in shares) == 21


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.99])
def test_beyond_the_bound_what_was_cut_off_is_found(
    tmp_path: Path, kind: str, share: float
) -> None:
    data = make_data(tmp_path, [kind] * 5)
    whole = inspect_images(data, pixels=1)
    # Where the ends of a file tell nothing it is decoded.
    assert whole.decoded == (1 if kind in ("jpg", "png", "bmp", "webp") else 5)
    assert not whole.broken
    cut(data[3].path, share)
    assert not looks_whole(data[3].path)
    assert [index for index, _ in inspect_images(data, pixels=1).broken] == [3]


def test_the_bound_is_spread_over_the_data(tmp_path: Path) -> None:
    data = make_data(tmp_path, ["jpg"] * 12)
    for pixels, decoded in ((2000 * 12, 12), (2000 * 6, 6), (2000 * 5, 4), (0, 1)):
        assert inspect_images(data, pixels=pixels).decoded == decoded


def test_the_warnings_of_a_program_are_as_before(tmp_path: Path) -> None:
    data = make_data(tmp_path, ["jpg"] * 12)
    for index in range(len(data)):
        exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x05broken"
        Image.new("RGB", (50, 40)).save(data[index].path, exif=exif)
    before, show = list(warnings.filters), warnings.showwarning
    for _ in range(5):
        assert not inspect_images(data).broken
    assert (warnings.filters, warnings.showwarning) == (before, show)
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", stacklevel=1)


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    data = make_data(tmp_path, ["png"] * 60)

    def press(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_images(data, progress=press)
