"""Images and data that are not as they should be, as somebody who classifies comes across them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import maskwright as mw
from maskwright.cli import main
from maskwright.data import open_dataset
from maskwright.models import Meta
from maskwright.models.registry import build
from maskwright.nn.norm import starved_norm
from maskwright.storage.checkpoint import save_checkpoint
from maskwright.tasks.classification.training_data import warn_of

NAMES = ["ants", "bees"]
QUICK = {"workers": 0, "device": "cpu", "weights": "none", "epochs": 1}
ORIENTATION = 0x0112
CLOCKWISE = 6  # its value for a picture that has to be turned by a quarter


def noise(size: tuple[int, int, int] = (40, 52, 3)) -> np.ndarray:
    return np.random.default_rng(sum(size)).integers(0, 256, size, np.uint8)


def folders(root: Path, **counts: dict[str, int]) -> Path:
    """Write a folder of pictures for each class of each split; `{"ants": 0}` is an empty one."""
    for split, classes in counts.items():
        for name, count in classes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(noise()).save(folder / f"{number}.png")
    return root


def turned(folder: Path) -> tuple[Path, dict[str, Any]]:
    exif = Image.Exif()
    exif[ORIENTATION] = CLOCKWISE
    stored = np.rot90(noise())  # counter-clockwise
    Image.fromarray(stored).save(folder / "a.png", exif=exif)
    return folder / "a.png", {}


def transparent(folder: Path) -> tuple[Path, dict[str, Any]]:
    alpha = noise((40, 52, 1)) // 128 * 255
    Image.fromarray(np.concatenate([noise(), alpha], 2)).save(folder / "a.png")
    return folder / "a.png", {}


def of_16_bits(folder: Path) -> tuple[Path, dict[str, Any]]:
    Image.fromarray(noise()[..., 0].astype(np.uint16) * 16).save(folder / "a.png")
    return folder / "a.png", {"window": (0, 255 * 16)}


def grey(folder: Path) -> tuple[Path, dict[str, Any]]:
    Image.fromarray(noise()[..., 0]).save(folder / "a.png")
    return folder / "a.png", {}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    options = {"imgsz": 32}
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    network = build("resnet20_cifar", 2, **options)
    save_checkpoint(file, Meta("resnet20_cifar", options, list(NAMES)), network.state_dict())
    return file


@pytest.mark.parametrize(
    ("write", "seen"),
    [
        (turned, noise()),
        (transparent, noise()),
        (of_16_bits, noise()[..., :1].repeat(3, 2)),
        (grey, noise()[..., :1].repeat(3, 2)),
    ],
)
def test_a_file_is_seen_as_what_it_shows(
    file: Path,
    tmp_path: Path,
    write: Callable[[Path], tuple[Path, dict[str, Any]]],
    seen: np.ndarray,
) -> None:
    model = mw.load(file, device="cpu")
    picture, options = write(tmp_path)
    # Deep images keep what lies between the 256 steps when they are made smaller.
    atol = 1e-3 if options else 0
    probs = model(picture, **options).probs
    torch.testing.assert_close(probs, model(seen).probs, rtol=0, atol=atol)
    if options:
        floats = model(seen.astype(np.float32), window=(0, 255)).probs
        torch.testing.assert_close(probs, floats, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({"train": {"ants": 1}}, {}, "at least two are needed to hold out"),
        ({"train": {"ants": 1, "bees": 1}}, {}, r"1 class only.*other 1 of its classes"),
        ({"train": {"ants": 3}, "val": {"ants": 1}}, {}, r"1 class only.*add images of others"),
        (
            {"train": {"ants": 2, "bees": 2}, "val": {"ants": 1, "wasps": 1}},
            {},
            r"val has images of the class\(es\) \['wasps'\], but the known classes are \['ants'",
        ),
        ({"train": {"ants": 0, "bees": 0}}, {}, "no annotation file and no image"),
        (
            {"train": {"ants": 2, "bees": 2}, "val": {"ants": 1}},
            {"batch": 1},
            "batch=1: each batch has one image.*batch=2, or a larger imgsz",
        ),
        (
            {"train": {"ants": 2, "bees": 3}, "val": {"ants": 1}},
            {"batch": 2},
            "batch=2: the last batch of 5 images has one image.*batch=3",
        ),
        (
            {"train": {"ants": 2, "bees": 2}, "val": {"ants": 1}},
            {"imgsz": 16, "model": "classify_mobilenetv2_100"},
            "imgsz must be at least 32",
        ),
        (
            {"train": {"ants": 2, "bees": 2}, "val": {"ants": 1}},
            {"label_smoothing": 0.1, "model_args": {"multilabel": True}},
            "label_smoothing=0.1 divides one label",
        ),
    ],
)
def test_what_cannot_be_learned_is_said_before_the_first_step(
    tmp_path: Path, counts: dict[str, dict[str, int]], options: dict[str, Any], message: str
) -> None:
    data = folders(tmp_path / "data", **counts)
    given = {"model": "resnet18", "imgsz": 32, **QUICK, **options, "project": tmp_path / "runs"}
    with pytest.raises(ValueError, match=message):
        mw.train(data, **given)
    assert not (tmp_path / "runs").exists()


def test_an_empty_class_is_told(tmp_path: Path) -> None:
    data = folders(tmp_path, train={"ants": 2, "bees": 2, "wasps": 0}, val={"ants": 1, "bees": 0})
    train = open_dataset(data, "train", records="labels")
    val = open_dataset(data, "val", records="labels", names=train.names)
    assert warn_of(train, val) == ["no training image of 1 of 3 classes: wasps"]
    assert "no image of 'bees', 'wasps'" in val.faults[0].message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "MODEL", "DATA/nowhere"], "does not exist"),
        (["predict", "MODEL", "DATA/train/wasps"], "holds no image"),
        (["predict", "MODEL", "DATA/train"], "did you mean 'DATA/train/ants'"),
        (["predict", "MODELS", "DATA/train/ants"], "did you mean 'MODEL'"),
        (["predict", "MODEL", "DATA/train/ants", "imgsz=0"], "imgsz=0"),
        (["predict", "MODEL", "DATA/train/ants", "topk=0"], "topk must be at least 1"),
        (["predict", "MODEL", "DATA/train/ants", "tpok=1"], "did you mean 'topk'"),
        (
            ["predict", "MODEL", "DATA/train/ants", "explain=gradcam", "explain_target=ant"],
            "explain_target=ant: the network knows no such class; did you mean 'ants'",
        ),
        (
            ["predict", "MODEL", "DATA/train/ants", "explain=gradcam", "explain_target=2"],
            "explain_target=2: the network knows no such class",
        ),
        (["val", "MODEL", "DATA", "split=val", "localize=cam"], "labels of their own and no"),
    ],
)
def test_what_cannot_be_answered_is_one_line(
    file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    data = folders(tmp_path, train={"ants": 1, "wasps": 0}, val={"ants": 1})
    here = {"MODEL": str(file), "DATA": str(data)}

    def filled(text: str) -> str:
        for word, place in here.items():
            text = text.replace(word, place)
        return text

    assert main([*map(filled, words), "device=cpu"]) in (1, 2)
    assert filled(message) in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("side", "batch", "norm", "starved"),
    [
        (2, 1, nn.BatchNorm2d, True),
        (3, 1, nn.BatchNorm2d, False),
        (2, 2, nn.BatchNorm2d, False),
        (2, 1, nn.Identity, False),
    ],
)
def test_norms_are_starved_where_torch_refuses_them(
    side: int, batch: int, norm: Callable[[int], nn.Module], starved: bool
) -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 2), norm(4))
    state = {name: value.clone() for name, value in layers.state_dict().items()}
    x = torch.rand(batch, 3, side, side)
    assert starved_norm(layers, lambda: layers(x)) is starved
    assert layers[1].training
    for name, value in layers.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    try:
        layers(x)
        refused = False
    except ValueError:
        refused = True
    assert refused is starved
