"""Images with more objects than a model usually has proposals for: found, or said to be missing."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import maskwright as mw
from maskwright.data.pixels.images import load_image
from maskwright.models import PostProcess, build_tiny
from maskwright.nn.detection.rpn import RPNOutput
from maskwright.structures import Images, Instances
from maskwright.tasks.detection.views import detect_views

CROWD, USUAL = "00ae65c1c6631ae6.png", "0c6507d493bf79b2.png"
PHOTOS = Path(__file__).parents[2] / "examples" / "nuclei_mini" / "images" / "val"


@pytest.fixture(scope="module")
def nuclei():
    return mw.load("nuclei", device="cpu")


@pytest.fixture(scope="module")
def tile() -> np.ndarray:
    """A crowd, of whole strides of the network."""
    return load_image(PHOTOS / CROWD)[:256, :256]


@pytest.mark.slow
def test_more_than_a_thousand_objects_are_found(nuclei) -> None:
    """As many as in the tiles alone."""
    tile = load_image(PHOTOS / USUAL)[:256, :256]
    wanted = 42 * len(nuclei(tile, conf=0.5, max_det=200))
    assert wanted > 1000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = len(nuclei(np.tile(tile, (6, 7, 1)), conf=0.5, max_det=2000))
    assert abs(found - wanted) <= 0.02 * wanted


def test_where_proposals_run_out_it_says_so_and_how_to_have_more(nuclei, tile: np.ndarray) -> None:
    crowd = np.tile(tile, (3, 3, 1))
    with pytest.warns(UserWarning, match=r"more objects than the \d+ found.*max_det=2000"):
        fewer = len(nuclei(crowd, conf=0.5, max_det=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(nuclei(crowd, conf=0.5, max_det=2000)) > 1.1 * fewer


@pytest.mark.slow
def test_merged_views_say_it_as_well(nuclei, tile: np.ndarray) -> None:
    crowd = np.tile(tile, (3, 3, 1))
    with pytest.warns(UserWarning, match="more objects than the"):
        list(mw.predict(nuclei, crowd, conf=0.5, max_det=900, tta="flip"))


def test_few_objects_are_not_warned_of(nuclei, tile: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(nuclei(tile, conf=0.5, max_det=300)) > 50


@pytest.mark.parametrize(
    ("name", "own", "levels"),
    [
        ("mask_rcnn_resnet50_fpn", 1000, 5),
        ("mask_rcnn_lite0_fpn", 300, 5),
        ("faster_rcnn_resnet18_c4", 300, 1),
        ("rfcn_lite0", 300, 1),
    ],
)
def test_proposals_follow_what_is_asked_for(name: str, own: int, levels: int) -> None:
    with torch.device("meta"):
        model = mw.models.build(name, 2)
    before = model.rpn.pre_nms[1]
    for max_det in (1, 100):  # to the bit what the model was made for
        assert model.rpn.kept(max_det) == (before, own)
    for max_det, count in ((101, 1000), (own, 1000), (1000, 1000)):
        assert model.rpn.kept(max_det)[1] == count == model.num_proposals(max_det)
    assert model.rpn.kept(1001)[1] == 10010
    for max_det in (101, 1001):
        seen, kept = model.rpn.kept(max_det)
        assert seen >= before and (kept == own or seen * levels >= 5 * kept)


def test_a_number_below_the_usual_stays_until_more_is_asked_for() -> None:
    model = build_tiny("mask_rcnn_resnet50_fpn")
    assert model.rpn.kept(100)[1] == 50 and model.rpn.kept(101)[1] == 1000


def flat_output(model, side: int) -> tuple[RPNOutput, Images]:
    """What an RPN says that finds the same everywhere, in an image of side x side."""
    images = Images(torch.zeros(1, 3, side, side), *[torch.tensor([[side, side]])] * 2)
    with torch.no_grad():
        output = model.rpn(model.features(images))
    logits = [torch.linspace(1, 0, x.shape[1])[None] for x in output.logits]
    return RPNOutput(logits, [torch.zeros_like(x) for x in output.deltas], output.anchors), images


def test_late_are_the_last_of_the_slots_and_of_a_level() -> None:
    model = build_tiny("mask_rcnn_resnet50_fpn").eval()
    output, images = flat_output(model, 128)
    found = model.rpn.propose(output, images)
    assert bool(found.valid.all())  # more survive than there are slots
    assert found.late.tolist() == [[False] * 45 + [True] * 5]
    model.rpn.pre_nms = model.rpn.post_nms = (5000, 5000)  # nothing is left out: nothing is late
    found = model.rpn.propose(output, images)
    assert not bool(found.valid[0, -1]) and not bool(found.late.any())
    model.rpn.pre_nms = (100, 100)  # but where a level is cut
    found = model.rpn.propose(output, images)
    assert bool(found.late.any()) and not bool((found.late & ~found.valid).any())
    assert model.rpn.propose(output, images, training=True).late is None


def test_regions_from_outside() -> None:
    """A detector that was given all the regions that it takes, and finds something in most."""
    torch.manual_seed(0)
    model = build_tiny("fast_rcnn_vgg16").eval()
    with torch.no_grad():
        model.roi_heads.box_head.logits.bias[:2] += 3.0  # an object in each region
    corner = torch.arange(0, 160, 10.0)
    low = torch.stack(torch.meshgrid(corner, corner, indexing="ij"), -1).reshape(1, -1, 2)
    boxes = torch.cat([low, low + 9], 2)
    count = boxes.shape[1]
    regions = Instances(boxes, torch.zeros(1, count).long(), torch.ones(1, count).bool())
    size = torch.tensor([[160, 160]])
    images = Images(torch.rand(1, 3, 160, 160) * 255, size, size, regions)
    post = PostProcess(0.25, 0.5, 2 * count)
    short = {}
    with torch.no_grad():
        for most in (count, 2 * count):
            model.max_proposals = most
            (found,) = detect_views(model, [images], post, flip=False)
            short[most] = found.short
            assert len(found) > count / 2
    assert short == {count: True, 2 * count: False}
    model.max_proposals = count
    assert f"best {count} regions" in model.short_advice(300)
    assert f"proposals={2 * count}" in model.short_advice(300)
