"""YOLO: what it is made of, where it puts images, and what its options change."""

from __future__ import annotations

import pytest
import torch

from maskwright.errors import OptionError
from maskwright.models import PostProcess, build, build_tiny
from maskwright.nn.darknet.table import write_table
from maskwright.nn.detection.dense.canvas import Canvas
from maskwright.nn.detection.dense.region_head import pick_best
from maskwright.structures import Images, Instances


def images(sizes: list[tuple[int, int]]) -> Images:
    generator = torch.Generator().manual_seed(0)
    height, width = (-(-max(size[k] for size in sizes) // 32) * 32 for k in (0, 1))
    pixels = torch.rand(len(sizes), 3, height, width, generator=generator) * 255
    return Images(pixels, torch.tensor(sizes), torch.tensor(sizes))


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [("yolo_v1", 20, 271.7), ("yolo_v2", 80, 50.96), ("yolo_v2_tiny", 20, 15.86)],
)
def test_as_many_parameters_as_published(name: str, classes: int, millions: float) -> None:
    with torch.device("meta"):
        count = sum(p.numel() for p in build(name, classes).parameters())
    assert count / 1e6 == pytest.approx(millions, rel=1e-3)


@pytest.mark.parametrize("sizes", [[(50, 96), (96, 31)], [(96, 96)], [(1, 96)]])
def test_images_lie_in_the_middle_of_grey(sizes: list[tuple[int, int]]) -> None:
    model, batch = build_tiny("yolo_v2", 2), images(sizes)
    seen = model.normalise(batch)
    assert seen.shape == (len(sizes), 3, 96, 96)
    for b, (height, width) in enumerate(sizes):
        top, left = (96 - height) // 2, (96 - width) // 2
        wanted = torch.full((3, 96, 96), 0.5)
        wanted[:, top : top + height, left : left + width] = (
            batch.pixels[b, :, :height, :width] / 255
        )
        assert torch.equal(seen[b], wanted)


@pytest.mark.parametrize(
    ("unit", "batch", "canvas"),
    [
        ((96, 128), (96, 128), (96, 128)),
        ((96, 128), (96, 96), (96, 128)),
        ((96, 128), (128, 128), (192, 256)),
        ((32, 32), (416, 320), (416, 416)),
        ((100, 100), (128, 128), (100, 100)),
    ],
)
def test_a_canvas_is_the_smallest_of_its_shape(unit, batch, canvas) -> None:
    assert Canvas(unit=unit).size(*batch) == canvas


def test_a_larger_padding_changes_nothing() -> None:
    """Boxes come back to the image, whatever is beside it."""
    model, one = build_tiny("yolo_v2", 2).eval(), images([(60, 96)])
    pixels = torch.zeros(1, 3, 96, 96)
    pixels[..., :64, :] = one.pixels
    more = Images(pixels, one.sizes, one.original_sizes)
    post = PostProcess(0.01, 0.5, 20)
    with torch.no_grad():
        a, b = model(one, post), model(more, post)
    assert torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores)


def test_targets_lie_where_the_image_does() -> None:
    """A step towards an object lowers its loss where the object is found in a prediction."""
    torch.manual_seed(0)
    model, batch = build_tiny("yolo_v2", 1).train(), images([(48, 96)])
    goal = torch.tensor([[[20.0, 10, 60, 40]]])
    targets = Instances(goal, torch.zeros(1, 1).long(), torch.ones(1, 1, dtype=torch.bool))
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    model.head.seen.fill_(20_000)
    for _ in range(120):
        optimiser.zero_grad()
        sum(model.losses(batch, targets).values()).backward()
        optimiser.step()
    # Statistics that forget slowly are not those of this image yet.
    for layer in model.modules():
        if hasattr(layer, "running_var"):
            layer.momentum = 1.0
    with torch.no_grad():
        model.losses(batch, targets)
        found = model.eval()(batch, PostProcess(0.3, 0.5, 5))
    assert bool(found.valid[0, 0])
    assert float((found.boxes[0, 0] - goal[0, 0]).abs().max()) < 6


def test_a_grid_takes_one_size_alone() -> None:
    model = build_tiny("yolo_v1", 2).eval()
    with pytest.raises(ValueError, match="takes images of 128x128 pixels and no others"):
        model(images([(128, 160)]))
    with pytest.raises(OptionError, match="imgsz of this network is 448,448 alone"):
        build("yolo_v1_tiny", 2, imgsz=320)
    assert build("yolo_v1_tiny", 2).resize.stretch == (448, 448)
    assert build("yolo_v2_tiny", 2, imgsz=(320, 448)).canvas.unit == (160, 224)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("yolo_v2", {"form": "v3"}, "form is one of v1, v1_local"),
        ("yolo_v2", {"anchors": (1.0, 2.0)}, "needs width and height of 5 anchors"),
        ("yolo_v2", {"anchors": (1.0, -2.0)}, "all above 0"),
        ("yolo_v1_tiny", {"anchors": (1.0, 2.0)}, "for networks that end with .region."),
        ("yolo_v2", {"imgsz": 100}, "multiples of 32"),
        ("yolo_v2", {"conventions": "caffe"}, "conventions is one of darknet, darknet_cpu"),
        ("yolo_v2", {"layers": "[net]\nwidth=32\nheight=32\n[maxpool]"}, "neither .region. nor"),
        ("yolo_lite", {"width": 20}, "width must be a whole number from 32"),
        ("yolo_lite", {"width": 40}, "multiple of 32"),
    ],
)
def test_wrong_options_say_what_is_right(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        build(name, 2, **options)


def test_a_last_layer_that_does_not_fit_is_named() -> None:
    from maskwright.models.darknet import TINY

    text = write_table(TINY["v2"]).replace("num=2", "num=3").replace("0.5,0.7,", "0.5,0.7,1,1,")
    with pytest.raises(ValueError, match=r"layer 17 \[region\] takes 18 channels"):
        build("yolo_v2", 1, layers=text)


def test_thresholds_are_darknets_where_nobody_asks() -> None:
    grid, anchors = build_tiny("yolo_v1", 2), build_tiny("yolo_v2", 2)
    looking, scoring = PostProcess(0.25, 0.5, 100), PostProcess(0.001, 0.5, 100)
    assert (grid.nms_thresh, anchors.nms_thresh) == (0.4, 0.45)
    assert grid.limits(looking, looking) == PostProcess(0.2, 0.5, 100)
    assert anchors.limits(looking, looking) == looking
    assert grid.limits(scoring, scoring) == scoring
    asked = PostProcess(0.6, 0.7, 30)
    assert grid.limits(asked, looking) == asked


@torch.no_grad()
def test_boxes_that_lie_in_the_padding_alone_are_none() -> None:
    boxes = torch.tensor([[[10.0, 10, 20, 20], [5, 70, 20, 90], [40, 10, 60, 20], [30, 0, 40, 9]]])
    scores = torch.tensor([[[0.5], [0.9], [0.8], [0.7]]])
    options = {"score_thresh": 0.1, "nms_thresh": 0.5, "max_det": 4}
    found = pick_best(boxes, scores, torch.tensor([[64, 40]]), **options)
    assert found.boxes[0][found.valid[0]].tolist() == [[30, 0, 40, 9], [10, 10, 20, 20]]
    every = pick_best(boxes, scores, torch.tensor([[64, 40]]), outside=True, **options)
    assert every.valid.sum() == 4
