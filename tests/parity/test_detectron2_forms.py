"""detectron2's C4, DC5, new-baseline and keypoint forms: names, rows, and what a photo gives.

Networks are narrow where shapes allow it; the plain implementation is `plain_detectron2`.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2_forms import FORMS, MORE, as_images, lively, photo, theirs
from plain_detectron import as_blobs
from plain_detectron2 import Traps, anchors, detect, pasted, resized
from torch import Tensor

from maskwright.converters import detect_format, detectron2, mmdetection
from maskwright.converters.anatomy import find_model
from maskwright.converters.detectron2 import to_maskwright
from maskwright.hub import loading as hub
from maskwright.models import PostProcess, build
from maskwright.prediction.load import load


@cache
@torch.no_grad()
def ours(form: str) -> list[Tensor]:
    made = lively(form)
    images = as_images(torch.from_numpy(photo()).permute(2, 0, 1).float(), made.size_divisor)
    found = made(images, PostProcess())
    valid = found.valid[0]
    assert found.scores is not None
    values = [found.boxes, found.scores, found.labels, found.mask_crops, found.keypoints]
    return [value[0][valid] for value in values if value is not None]


def same(found: list[Tensor], plain: tuple[Tensor, ...]) -> bool:
    """Whether these are the same detections in the same order."""
    if len(found[0]) != len(plain[0]) or not torch.equal(found[2], plain[2]):
        return False
    far = max(float((a - b).abs().max()) for a, b in zip(found[:2], plain[:2], strict=True))
    return far < 1e-2


@pytest.mark.parametrize("form", [*FORMS, *MORE])
@torch.no_grad()
def test_finds_what_a_plain_implementation_finds(form: str) -> None:
    pixels = torch.from_numpy(photo()).permute(2, 0, 1).float()
    rules = Traps(divided=True, red_first=True, stride_in_3x3=True) if form in MORE else Traps()
    found, plain = ours(form), detect(theirs(form), pixels, rules)
    assert len(found[0]) == len(plain[0]) > 10
    assert torch.equal(found[2], plain[2])
    torch.testing.assert_close(found[1], plain[1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found[0], plain[0], rtol=0, atol=1e-2)
    if form != "keypoints":
        # A crop of almost a whole number of pixels a bin takes one sample more or less.
        near = (found[3] - plain[3]).abs() < 1e-3
        assert near.float().mean() > 0.999
        return
    # Where two pixels are almost equally high, rounding decides which is the keypoint.
    place = (found[3][..., :2] - plain[3][..., :2]).abs().amax(-1)
    assert (place < 1e-2).float().mean() > 0.98
    torch.testing.assert_close(found[3][..., 2], plain[3][..., 2], rtol=1e-3, atol=1e-5)


TRAPS = [
    ("dc5", Traps(divided=True)), ("dc5", Traps(red_first=True)),
    ("dc5", Traps(stride_in_3x3=True)), ("dc5", Traps(eps=1e-3)), ("fpn", Traps(eps=0.0)),
    ("dc5", Traps(ratio_outer=True)), ("dc5", Traps(rounded=True)), ("fpn", Traps(rounded=True)),
    ("dc5", Traps(aligned=False)), ("dc5", Traps(samples=2)), ("fpn", Traps(samples=2)),
    ("dc5", Traps(background_first=True)), ("fpn", Traps(background_first=True)),
    ("dc5", Traps(padded=True)),
    ("mmdetection", Traps(red_first=True, stride_in_3x3=True)),
    ("mmdetection", Traps(divided=True, stride_in_3x3=True)),
    ("mmdetection", Traps(divided=True, red_first=True)),
]  # fmt: skip


@pytest.mark.parametrize(("form", "trap"), TRAPS, ids=str)
@torch.no_grad()
def test_each_trap_gives_other_detections(form: str, trap: Traps) -> None:
    """So the test above fails when the trap is put back."""
    pixels = torch.from_numpy(photo()).permute(2, 0, 1).float()
    boxes_alone = {key: value for key, value in theirs(form).items() if "mask_head" not in key}
    assert not same(ours(form), detect(boxes_alone, pixels, trap))


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_comes_in_and_goes_out_equal_to_the_bit(form: str) -> None:
    name, options = FORMS[form]
    state = theirs(form)
    assert detect_format(state) == "detectron2"
    found = find_model(state, "detectron2")
    assert found is not None and found[0] == name
    assert all(options.get(key, value) == value for key, value in found[1].items())
    # New baselines train on squares of 1024 and are tested on 800 by 1333, as all others.
    assert "imgsz" not in found[1]
    with torch.device("meta"):
        names = list(build(name, 1, **{**options, "conventions": "maskwright"}).state_dict())
    came = to_maskwright(state, names)
    assert set(came.report.used) == set(state) and not came.report.filled
    own = lively(form).state_dict()
    assert came.state.keys() == own.keys()
    assert all(torch.equal(value, own[key]) for key, value in came.state.items())


@pytest.mark.parametrize("source", ["detectron2", "mmdetection"])
def test_one_box_and_one_mask_for_all_classes(source: str) -> None:
    """`CLS_AGNOSTIC_BBOX_REG`, `CLS_AGNOSTIC_MASK`, and those of mmdetection: each class has it."""
    (names, own), several = convert_of(source), lively("fpn").state_dict()
    layers = {
        "roi_heads.box_head.deltas": (names["roi_heads.box_head.deltas.weight"], 4),
        "roi_heads.mask_head.logits": (names["roi_heads.mask_head.logits.weight"], 1),
    }
    state = {names[key]: value for key, value in several.items()}
    for theirs_, rows in layers.values():
        for key in (theirs_, theirs_.replace("weight", "bias")):
            state[key] = state[key][:rows]
    came = own(state, list(several))
    assert set(came.report.used) == set(state) and len(came.report.notes) == 2
    for ours_, (theirs_, rows) in layers.items():
        for ending in ("weight", "bias"):
            value = came.state[f"{ours_}.{ending}"]
            assert value.shape == several[f"{ours_}.{ending}"].shape
            for part in value.split(rows):
                assert torch.equal(part, state[theirs_.replace("weight", ending)])


def convert_of(source: str) -> tuple[dict[str, str], Any]:
    """A library's names of the tensors of the detector on a pyramid, and its way in."""
    module = {"detectron2": detectron2, "mmdetection": mmdetection}[source]
    return module.their_names(lively("fpn").state_dict()), module.to_maskwright


# Of the model zoo's tables, in their words: what is where, with which shape.
C4 = {
    "backbone.stem.conv1.weight": (64, 3, 7, 7),
    "backbone.res4.5.conv3.norm.running_var": (1024,),
    "roi_heads.res5.0.shortcut.weight": (2048, 1024, 1, 1),
    "proposal_generator.rpn_head.objectness_logits.bias": (15,),
    "proposal_generator.rpn_head.anchor_deltas.weight": (60, 24, 1, 1),
    "roi_heads.box_predictor.cls_score.weight": (4, 2048),
    "roi_heads.mask_head.deconv.weight": (2048, 256, 2, 2),
}
DC5 = {
    "backbone.res5.2.conv2.weight": (512, 512, 3, 3),
    "roi_heads.box_head.fc1.weight": (16, 100352),
    "roi_heads.mask_head.mask_fcn1.weight": (256, 2048, 3, 3),
    "roi_heads.mask_head.predictor.weight": (3, 256, 1, 1),
}
NEW = {
    "backbone.bottom_up.stem.conv1.norm.num_batches_tracked": (),
    "backbone.fpn_lateral5.norm.running_mean": (16,),
    "proposal_generator.rpn_head.conv.conv1.bias": (16,),
    "roi_heads.box_head.conv4.norm.weight": (16,),
    "roi_heads.box_head.fc1.weight": (32, 784),
    "roi_heads.mask_head.mask_fcn4.norm.bias": (16,),
}


@pytest.mark.parametrize(
    ("form", "table", "count"), [("c4", C4, 279), ("dc5", DC5, 291), ("baseline", NEW, 432)]
)
def test_names_are_those_of_the_model_zoo(form: str, table: Any, count: int) -> None:
    state = theirs(form)
    assert len(state) == count
    assert {key: tuple(state[key].shape) for key in table} == table
    assert not {"backbone.fpn_lateral2.bias", "roi_heads.box_head.fc2.weight"} & set(
        state if form == "baseline" else ()
    )


@pytest.mark.parametrize("form", [pytest.param("dc5", marks=pytest.mark.slow), "baseline"])
@torch.no_grad()
def test_a_photo_gives_the_same_through_a_file(form: str, tmp_path: Path) -> None:
    """`model=FILE`: resized as there, found in the same order, masks pasted as there."""
    state = theirs(form)
    path = tmp_path / "model_final.pkl"
    arrays = {key: value.numpy() for key, value in state.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "nobody"}, 2))
    predictor = load(path)
    whole = photo((66, 33))
    result = predictor(whole, imgsz=(40, 79), conf=0.05)
    pixels = resized(whole, 40, 79)
    assert pixels.shape[1:] == (79, 40)
    box, score, label, masks = detect(state, pixels)
    box = box * torch.tensor([33 / 40, 66 / 79] * 2)
    assert len(result.boxes) == len(box) > 5
    np.testing.assert_allclose(result.boxes, box, atol=1e-2)
    np.testing.assert_allclose(result.scores, score, rtol=1e-3)
    assert list(result.labels) == label.tolist()
    wanted = pasted(masks, box, (66, 33)).numpy()
    assert (np.asarray(result.masks) != wanted).mean() < 1e-3
    # And back into such a file.
    ours_, again = tmp_path / "ours.safetensors", tmp_path / "again.pkl"
    hub.convert(path, ours_)
    hub.convert(ours_, again, target="detectron2")
    content = pickle.loads(again.read_bytes())
    assert content["__author__"] == "maskwright" and content["model"].keys() == arrays.keys()
    assert all((content["model"][key] == value).all() for key, value in arrays.items())


def test_sides_that_end_on_a_half_are_rounded_as_there() -> None:
    """A photo twice as wide as high: 666.5 rows, which a division in one step rounds down."""
    rule = build("mask_rcnn_resnet18_fpn", 1, conventions="detectron2").resize
    for height, width in ((44, 22), (500, 1000), (83, 166), (480, 640), (427, 640)):
        expected = resized(np.zeros((height, width, 3), np.uint8), 800, 1333).shape[1:]
        assert rule.target_size(height, width) == tuple(expected)
    assert replace(rule, rounding="nearest").target_size(44, 22) == (1333, 667)
    assert rule.target_size(44, 22) == (1333, 666)


def test_constants_of_older_files_are_heeded() -> None:
    """Statistics of pixels and anchors that are not those of the model zoo."""
    state = theirs("dc5")
    names = list(lively("dc5").state_dict())

    def told(mean: list[float], std: list[float], **more: Tensor) -> dict[str, Any]:
        pixels = {"pixel_mean": torch.tensor(mean), "pixel_std": torch.tensor(std)}
        pixels = {key: value.view(3, 1, 1) for key, value in pixels.items()}
        found = to_maskwright({**state, **pixels, **more}, names)
        assert {"pixel_mean", "pixel_std", *more} == set(found.report.ignored)
        return found.options

    usual = told([103.53, 116.28, 123.675], [1.0, 1.0, 1.0])
    assert usual["conventions"] == "detectron2" and "pixel_mean" not in usual
    red_first = told([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    assert red_first["conventions"] == "detectron2_rgb" and "pixel_mean" not in red_first
    own = told([10.0, 20.0, 30.0], [1.0, 2.0, 3.0])
    assert own["pixel_mean"] == (30, 20, 10) and own["pixel_std"] == (3, 2, 1)
    cells = anchors((16.0, 48.0, 96.0, 200.0, 400.0), 16, 1, 1, Traps())
    key = "proposal_generator.anchor_generator.cell_anchors.0"
    assert told([103.53, 116.28, 123.675], [1.0] * 3, **{key: cells})["anchor_sizes"] == (
        pytest.approx((16, 48, 96, 200, 400), abs=0.01)
    )
    logits = "proposal_generator.rpn_head.objectness_logits.weight"
    deltas = "proposal_generator.rpn_head.anchor_deltas.weight"
    with pytest.raises(ValueError, match=r"has 12 rows, .*; 5 sizes of 3 ratios make 15"):
        to_maskwright({**state, logits: state[logits][:12], deltas: state[deltas][:48]}, names)
    with pytest.raises(ValueError, match=r"roi_heads.more is no tensor of this model"):
        to_maskwright({**state, "roi_heads.more": torch.zeros(1)}, names)


@pytest.mark.parametrize(
    ("form", "blobs"),
    [
        ("fpn", False),
        pytest.param("c4", False, marks=pytest.mark.slow),
        pytest.param("fpn", True, marks=pytest.mark.slow),
    ],
)
def test_a_training_starts_from_the_whole_detector(form: str, blobs: bool, tmp_path: Path) -> None:
    """Not from its backbone alone, of which a file has most names."""
    state, path = theirs(form), tmp_path / "model_final.pkl"
    arrays = {key: value.numpy() for key, value in state.items()}
    path.write_bytes(pickle.dumps({"blobs": as_blobs(state)} if blobs else {"model": arrays}, 2))
    classes = ["class_1", "class_2", "class_3"]
    made, options, report = hub.start_model(FORMS[form][0], classes, weights=path)
    own = made.state_dict()
    assert f"{len(own)} of {len(own)} tensors copied" in report
    assert options["conventions"] == ("detectron" if blobs else "detectron2")
    wanted = lively(form).state_dict()
    rest = [key for key in wanted if not key.startswith("backbone") or not blobs]
    assert len(rest) > 20 and all(torch.equal(own[key], wanted[key]) for key in rest)
