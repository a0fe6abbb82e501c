"""How a photo becomes the input of a classifier: sizes as torchvision has them."""

from __future__ import annotations

import pytest
import torch

from maskwright.errors import OptionError
from maskwright.models.classification.base import ClassifierOptions
from maskwright.structures import Preprocess


@pytest.mark.parametrize("size", [(480, 640), (375, 500), (500, 333), (256, 256)])
@pytest.mark.parametrize("short", [232, 256, 342])
def test_the_size_before_the_cut_is_torchvisions(size: tuple[int, int], short: int) -> None:
    from torchvision.transforms.v2 import functional as transforms

    scaled = transforms.resize(torch.empty(1, *size), [short], antialias=True)
    assert Preprocess(short=short).target_size(*size) == scaled.shape[-2:]


def test_the_short_side_follows_the_square() -> None:
    assert ClassifierOptions().preprocess() == Preprocess()
    assert ClassifierOptions(imgsz=112).preprocess().short == 128
    assert ClassifierOptions(short=232).preprocess().short == 232


@pytest.mark.parametrize(
    "wrong", [{"imgsz": 0}, {"short": 200}, {"interpolation": "nearest"}, {"statistics": "mine"}]
)
def test_wrong_options_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(wrong))):
        ClassifierOptions(**wrong)  # type: ignore[arg-type]
