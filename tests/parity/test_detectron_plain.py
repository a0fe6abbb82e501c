"""Detectron's Faster and Mask R-CNN against a plain second implementation on its own blobs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2_forms import as_images, photo, theirs
from plain_detectron import Traps, as_blobs, detect
from torch import Tensor

from maskwright.hub import loading as hub
from maskwright.models import PostProcess

LAST_PIXEL = torch.tensor([0, 0, 1, 1])  # where boxes end that count it


@cache
def blobs(form: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in as_blobs(theirs(form)).items()}


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Tensor]]:
    """What our model of a file finds."""

    @cache
    def found(form: str) -> list[Tensor]:
        path: Path = tmp_path_factory.mktemp("blobs") / f"{form}.pkl"
        path.write_bytes(pickle.dumps({"blobs": as_blobs(theirs(form))}, 2))
        model, meta = hub.load_model(path)
        assert meta.args["conventions"] == {"fpn": "detectron", "c4": "detectron_c4"}[form]
        out = model(as_images(pixels(), model.eval().size_divisor), PostProcess())
        values = (out.boxes, out.scores, out.labels, out.mask_crops)
        return [value[0][out.valid[0]] for value in values]

    return found


def pixels() -> Tensor:
    return torch.from_numpy(photo()).permute(2, 0, 1).float()


def far(found: Any, plain: tuple[Tensor, ...]) -> float:
    """Pixels between boxes of the same place, infinite where the detections are not the same."""
    if len(found[0]) != len(plain[0]) or not torch.equal(found[2], plain[2]):
        return float("inf")
    return float((found[0] - plain[0] - LAST_PIXEL).abs().max())


C4 = pytest.param("c4", marks=pytest.mark.slow)


@pytest.mark.parametrize("form", ["fpn", C4])
@torch.no_grad()
def test_finds_what_a_plain_implementation_finds(form: str, ours: Any) -> None:
    found, plain = ours(form), detect(blobs(form), pixels())
    assert len(plain[0]) > 10 and len(plain[2].unique()) > 1
    assert far(found, plain) < 1e-2
    torch.testing.assert_close(found[1], plain[1], rtol=1e-3, atol=1e-5)
    # A crop of almost a whole number of pixels a bin takes one sample more or less.
    assert ((found[3] - plain[3]).abs() < 1e-3).float().mean() > 0.999


TRAPS = [
    *(("fpn", trap) for trap in Traps._fields if trap not in ("size_outer", "samples")),
    *(
        pytest.param("c4", trap, marks=pytest.mark.slow)
        for trap in ("size_outer", "samples", "exact", "background_last")
    ),
]


@pytest.mark.parametrize(("form", "trap"), TRAPS)
@torch.no_grad()
def test_each_trap_gives_other_detections(form: str, trap: str, ours: Any) -> None:
    wrong = Traps(**{trap: 2 if trap == "samples" else True})
    boxes_alone = {key: value for key, value in blobs(form).items() if "mask" not in key}
    assert not far(ours(form), detect(boxes_alone, pixels(), wrong)) < 1e-2
