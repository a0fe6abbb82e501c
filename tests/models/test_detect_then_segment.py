"""Boxes first, then the pixels in each: where masks lie, what trains, and from which weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

import maskwright
from maskwright.errors import OptionError
from maskwright.hub.loading import start_model
from maskwright.models import Meta, build, build_tiny, get_entry
from maskwright.models.detection.detect_then_segment import DetectThenSegment
from maskwright.models.semantic.base import PixelNetwork, Segmenter, SegmenterOptions
from maskwright.models.semantic.encoder import Encoder
from maskwright.nn.random import ImageNoise
from maskwright.ops.masks import paste_masks
from maskwright.prediction.memory import bytes_per_pixel
from maskwright.storage.checkpoint import save_checkpoint
from maskwright.structures import Images, Instances, PackedMasks
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.tasks.detection.task import TASK
from maskwright.tasks.detection.views import to_detections

NAME = "detect_then_segment_resnet50_fpn"
TINY = dict(get_entry(NAME).tiny or {})
LITE = "tf_efficientnet_lite0"


class ByColour(PixelNetwork):
    """What is red is object; keeps what it was shown."""

    final = "none"

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Encoder([nn.Identity()], statistics="unit")
        self.seen = torch.zeros(0)

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return torch.stack([0 * x[:, 0], 40 * (x[:, 0] - 0.5)], 1)


class TwoHeads(ByColour):
    """Two convolutions, one of which only training has."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.other = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def all_logits(self, x: Tensor) -> list[tuple[Tensor, float]]:
        return [(self.main(x), 1.0), (F.avg_pool2d(self.other(x), 2), 0.4)]


def with_network(network: PixelNetwork, crops: int = 4, side: int = 96) -> DetectThenSegment:
    torch.manual_seed(0)
    detector = build_tiny("faster_rcnn_resnet50_fpn", 2)
    segmenter = Segmenter(2, network, SegmenterOptions())
    return DetectThenSegment(detector, segmenter, side=side, crops=crops).eval()


@pytest.fixture(scope="module")
def tiny() -> DetectThenSegment:
    torch.manual_seed(0)
    model: DetectThenSegment = build_tiny(NAME, 2).eval()
    return model


def draw(boxes: list[list[list[int]]], sizes: list[tuple[int, int]], seed: int = 0) -> Any:
    """Images in red and black with objects of any shape, their boxes, and masks of whole images."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (-(-max(size[axis] for size in sizes) // 32) * 32 for axis in (0, 1))
    pixels = torch.zeros(len(sizes), 3, height, width)
    slots = max(len(own) for own in boxes)
    box = torch.zeros(len(sizes), slots, 4)
    valid = torch.zeros(len(sizes), slots, dtype=torch.bool)
    offsets = torch.zeros(len(sizes), slots, dtype=torch.int64)
    truth, data, total = torch.zeros(len(sizes), slots, height, width, dtype=torch.bool), [], 0
    for b, own in enumerate(boxes):
        for k, (x1, y1, x2, y2) in enumerate(own):
            noise = torch.rand(1, 1, 5, 5, generator=generator)
            crop = F.interpolate(noise, (y2 - y1, x2 - x1), mode="bicubic")[0, 0] > 0.45
            truth[b, k, y1:y2, x1:x2] = crop
            pixels[b, 0, y1:y2, x1:x2] = 255.0 * crop
            box[b, k], valid[b, k] = torch.tensor([x1, y1, x2, y2]), True
            offsets[b, k], total = total, total + crop.numel()
            data.append(crop.flatten().to(torch.uint8))
    masks = PackedMasks(torch.cat([*data, torch.zeros(0, dtype=torch.uint8)]), offsets, box.long())
    table = torch.tensor(sizes)
    targets = Instances(box, torch.zeros_like(offsets), valid, torch.ones(valid.shape), masks=masks)
    return Images(pixels, table, table), targets, truth


SIZES = [(100, 130), (90, 96)]
# Their sides make the cells of a mask halves, wholes or quarters of pixels; some at the border.
BOXES = [
    [[10, 8, 74, 72], [98, 20, 130, 84], [76, 2, 92, 34]],
    [[32, 26, 96, 90], [0, 0, 32, 16], [4, 40, 20, 56]],
]


def pasted(model: DetectThenSegment, images: Images, found: Instances) -> list[Tensor]:
    with torch.no_grad():
        made = model.refine(images, found)
    return [paste_masks(one.mask_probs, one.boxes, one.size) for one in to_detections(made, images)]


def test_a_segmenter_that_knows_gives_the_objects_to_the_pixel() -> None:
    images, targets, truth = draw(BOXES, SIZES)
    assert truth.flatten(2).float().mean(2).min() > 0.002, "there is something to find"
    for b, masks in enumerate(pasted(with_network(ByColour()), images, targets)):
        height, width = SIZES[b]
        assert torch.equal(masks, truth[b, :, :height, :width])


def test_masks_in_other_boxes_are_off_by_parts_of_a_pixel_alone() -> None:
    """Where a cell of a mask is no simple part of a pixel: at borders only, and to no side."""
    model, off = with_network(ByColour()), []
    for seed in range(12):
        images, targets, truth = draw([[[7, 9, 64, 80]], [[20, 5, 91, 88]]], SIZES, seed)
        for b, (mask,) in enumerate(pasted(model, images, targets)):
            goal = truth[b, 0, : SIZES[b][0], : SIZES[b][1]]
            near = [F.max_pool2d(one[None].float(), 3, 1, 1)[0] for one in (goal, ~goal)]
            assert bool((near[0] * near[1])[mask != goal].all())
            assert (mask & goal).sum() > 0.98 * (mask | goal).sum()
            off.append(mask.nonzero().float().mean(0) - goal.nonzero().float().mean(0))
    assert torch.stack(off).mean(0).abs().max() < 0.03


def test_what_is_learned_lies_where_the_pixels_do() -> None:
    """A segmenter that knows loses little, and much where the image is moved by a pixel."""
    model = with_network(ByColour(), crops=16)
    images, targets, _ = draw([[[10, 8, 74, 72]], [[0, 26, 40, 90]]], SIZES)
    noise = ImageNoise(torch.tensor([1, 2]))
    right = model.losses(images, targets, generator=noise)["roi/mask"]
    assert right < 0.02
    for step, axis in ((1, 2), (-1, 2), (1, 3), (-1, 3)):
        moved = replace(images, pixels=images.pixels.roll(step, axis))
        assert model.losses(moved, targets, generator=noise)["roi/mask"] > 10 * right


def coloured(boxes: list[list[list[int]]]) -> tuple[Images, Instances]:
    """Full boxes, each of a red of its own: 0.1, 0.2, ... of the whole, from the first on."""
    images, targets, _ = draw(boxes, [(96, 128)] * len(boxes))
    images.pixels.zero_()
    assert targets.masks is not None
    targets.masks.data.fill_(1)
    for b, own in enumerate(boxes):
        for k, (x1, y1, x2, y2) in enumerate(own):
            images.pixels[b, 0, y1:y2, x1:x2] = 25.5 * (k + 1)
    return images, targets


ROW = [[20 * k + 2, 30, 20 * k + 18, 60] for k in range(6)]


def shown(model: DetectThenSegment, images: Images, targets: Instances, key: int = 5) -> Tensor:
    """Return which object stands in the middle of each crop, (B, S), from 1 on."""
    noise = ImageNoise(torch.arange(len(images)) + key)
    model.losses(images, targets, generator=noise)
    middle = model.segmenter.network.seen[:, 0, 48, 48]
    return (10 * middle).round().long().view(len(images), -1)


def test_objects_take_turns() -> None:
    few, many = with_network(ByColour(), crops=4), with_network(ByColour(), crops=8)
    three, six = coloured([ROW[:3]]), coloured([ROW])
    counts = shown(many, *three).flatten().bincount(minlength=4)
    assert counts[0] == 0 and counts[1:].min() == 2 and counts.sum() == 8
    drawn = [shown(few, *six, key=key)[0].tolist() for key in range(4)]
    assert all(len(set(own)) == 4 for own in drawn), "none twice while others wait"
    assert len({tuple(own) for own in drawn}) > 1, "another order for another key"


def test_boxes_are_moved_by_a_tenth_and_stay_inside() -> None:
    """The edges of the object in the crops: a sixth and five sixths, moved by a tenth of a box."""
    model = with_network(ByColour(), crops=64)
    images, targets = coloured([[[40, 32, 72, 64]], [[0, 0, 32, 32]]])
    images.pixels.mul_(10)  # red
    shown(model, images, targets)
    seen = model.segmenter.network.seen[:, 0].view(2, 64, 96, 96)
    edges = (seen[0].amax(1) > 0.5).float().argmax(1) / 96  # from the left
    # A box from a to b, in sides of the true one, has a margin of (b - a) / 4: the object begins at
    # ((b - a) / 4 - a) / (1.5 (b - a)).
    least, most = (((b - a) / 4 - a) / (1.5 * (b - a)) for a, b in ((0.1, 0.9), (-0.1, 1.1)))
    assert least - 0.02 < edges.min() < 1 / 6 - 0.03 and 1 / 6 + 0.03 < edges.max() < most + 0.02
    corner = (seen[1].amax(1) > 0.5).float().argmax(1) / 96
    assert corner.max() < 1 / 6 + 0.02, "no box begins outside of the image"


def test_only_known_masks_are_learned() -> None:
    model = with_network(ByColour(), crops=8)
    images, targets = coloured([ROW[:3], ROW[:3]])
    assert targets.masks is not None
    frames = targets.masks.frames.clone()
    frames[:, 1] = 0  # no mask
    crowd = torch.tensor([False, False, True]).expand(2, -1)
    hard = replace(targets, crowd=crowd, masks=replace(targets.masks, frames=frames))
    assert set(shown(model, images, hard).flatten().tolist()) == {1}
    alone = coloured([ROW[:1], ROW[:1]])[1]
    noise = ImageNoise(torch.tensor([1, 2]))
    ours, theirs = (model.losses(images, one, generator=noise)["roi/mask"] for one in (hard, alone))
    assert torch.equal(ours, theirs)


def test_an_image_without_objects_shows_itself_and_counts_for_nothing() -> None:
    model = with_network(ByColour(), crops=4)
    images, targets = coloured([ROW[:1], []])
    both = model.losses(images, targets, generator=ImageNoise(torch.tensor([1, 2])))["roi/mask"]
    assert torch.equal(model.segmenter.network.seen[4:].amax((1, 2, 3)), torch.zeros(4))
    first = model.losses(*coloured([ROW[:1]]), generator=ImageNoise(torch.tensor([1])))["roi/mask"]
    torch.testing.assert_close(both, first)


def test_the_loss_of_an_image_hangs_on_its_key_alone() -> None:
    """Two processes with an image each have the mean loss of one with both, whatever the slots."""
    model = with_network(TwoHeads(), crops=8)
    boxes, keys = [ROW, ROW[2:4]], [11, 12]
    together = model.losses(*coloured(boxes), generator=ImageNoise(torch.tensor(keys)))
    alone = [
        model.losses(*coloured([own]), generator=ImageNoise(torch.tensor([key])))
        for own, key in zip(boxes, keys, strict=True)
    ]
    for term in ("roi/mask", "roi/auxiliary"):
        mean = (alone[0][term] + alone[1][term]) / 2
        torch.testing.assert_close(together[term], mean)


def test_auxiliary_heads_train() -> None:
    network = TwoHeads()
    losses = with_network(network).losses(*coloured([ROW]))
    losses["roi/auxiliary"].backward(retain_graph=True)
    assert network.other.weight.grad is not None and network.main.weight.grad is None
    losses["roi/mask"].backward()
    assert network.main.weight.grad is not None


def test_masks_do_not_see_what_lies_beside_the_image(tiny: DetectThenSegment) -> None:
    images, targets, _ = draw(BOXES, SIZES)
    pixels = images.pixels.clone()
    for b, (height, width) in enumerate(SIZES):
        pixels[b, :, height:], pixels[b, :, :, width:] = 200, 100
    with torch.no_grad():
        wanted = tiny.refine(images, targets).mask_crops
        dirty = tiny.refine(replace(images, pixels=pixels), targets).mask_crops
        first, alone = images.first(1), targets.first(1)
        cut = replace(first, pixels=first.pixels[..., :100, :130])  # without padding
        tight = tiny.refine(cut, alone).mask_crops
        parts = [
            tiny.refine(first, replace(alone, valid=alone.valid & (torch.arange(3) == k)))
            for k in range(3)
        ]
    assert wanted is not None and torch.equal(dirty, wanted)
    torch.testing.assert_close(tight, wanted[:1])
    torch.testing.assert_close(sum(part.mask_crops for part in parts), wanted[:1])


def test_both_backbones_freeze() -> None:
    model = build_tiny(NAME, 2)
    model.freeze(2)
    for backbone in (model.backbone, model.segmenter.backbone):
        stages = backbone.body.stages()
        for number, modules in enumerate(stages):
            own = [p.requires_grad for module in modules for p in module.parameters()]
            assert not any(own) if number < 2 else any(own)
    model.train_only("rpn")
    assert not any(parameter.requires_grad for parameter in model.segmenter.parameters())
    losses = model.losses(*coloured([ROW]))
    assert set(losses) == {"rpn/objectness", "rpn/box"}
    network = Segmenter(2, ByColour(), SegmenterOptions())
    mixed = DetectThenSegment(build_tiny("faster_rcnn_resnet50_fpn"), network, side=96, crops=2)
    mixed.freeze(3)  # more stages than the encoder has, which starts from random weights
    assert mixed.parts == (mixed,)


def test_learning_rates_of_both_backbones() -> None:
    model = build_tiny(NAME, 2)
    recipe = DetectionRecipe(data="somewhere", backbone_lr=0.25)
    rates = TASK.rates(model, recipe, fresh=False)
    assert set(rates.values()) == {0.25}
    beginnings = ("backbone.", "segmenter.network.backbone.")
    assert set(rates) == {n for n, _ in model.named_parameters() if n.startswith(beginnings)}


def test_both_backbones_start_from_the_weights_of_the_package() -> None:
    model, _, report = start_model("detect_then_segment_lite0_fpn", ["cell"])
    assert report == "backbone starts from ImageNet weights that come with the package"
    file = Path(maskwright.__file__).parent / "weights" / f"{LITE}_imagenet.safetensors"
    given = load_file(file)
    for backbone in (model.backbone, model.segmenter.backbone):
        body = getattr(backbone.body, "body", backbone.body)
        own = body.state_dict()
        same = [key for key in own if key in given and own[key].is_floating_point()]
        assert len(same) > 200
        for key in same:
            assert torch.equal(own[key], given[key].float()), key


def test_weights_of_a_classifier_go_to_every_backbone_of_its_kind(tmp_path: Path) -> None:
    torch.manual_seed(1)
    donor = build("classify_test_efficientnet", 10)
    file = tmp_path / "classifier.safetensors"
    save_checkpoint(file, Meta("classify_test_efficientnet", {}, ["x"] * 10), donor.state_dict())
    options = {**TINY, "backbone": "test_efficientnet"}
    model, _, _ = start_model(NAME, ["a"], weights=f"imagenet:{file}", options=options)
    first, second = (part.backbone.body.state_dict() for part in model.parts)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_rows_of_classes_move_by_name_and_those_of_the_segmenter_stay(tmp_path: Path) -> None:
    torch.manual_seed(1)
    donor = build_tiny(NAME, 2)
    file = tmp_path / "donor.safetensors"
    save_checkpoint(file, Meta(NAME, TINY, ["a", "b"]), donor.state_dict())
    model, _, report = start_model(NAME, ["b", "c", "d"], weights=file, options=TINY)
    count = len(donor.state_dict())
    assert report.startswith(f"{file}: {count} of {count} tensors copied, 1 of 3 classes by name")
    logits, theirs = model.roi_heads.box_head.logits.weight, donor.roi_heads.box_head.logits.weight
    assert torch.equal(logits[0], theirs[1]) and torch.equal(logits[-1], theirs[-1])
    mine, other = model.segmenter.state_dict(), donor.segmenter.state_dict()
    assert all(torch.equal(mine[key], other[key]) for key in other)


def test_starts_from_a_detector_of_boxes(tmp_path: Path) -> None:
    torch.manual_seed(1)
    boxes = "faster_rcnn_resnet50_fpn"
    own = dict(get_entry(boxes).tiny or {})
    donor = build_tiny(boxes, 2)
    file = tmp_path / "donor.safetensors"
    save_checkpoint(file, Meta(boxes, own, ["a", "b"]), donor.state_dict())
    model, _, report = start_model(NAME, ["a", "b"], weights=file, options=TINY)
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in donor.state_dict().items())
    new = [key for key in state.keys() - donor.state_dict().keys() if "num_batches" not in key]
    assert f"{len(new)} tensors start afresh" in report


def test_memory_does_not_grow_with_the_crops(tiny: DetectThenSegment) -> None:
    torch.manual_seed(0)
    plain = build_tiny("faster_rcnn_resnet50_fpn", 2).eval()
    assert bytes_per_pixel(tiny) == bytes_per_pixel(plain)


@pytest.mark.parametrize("name", ["rfcn_resnet50", "faster_rcnn_vgg16"])
def test_any_two_stage_detector_serves(name: str) -> None:
    torch.manual_seed(0)
    segmenter = Segmenter(2, ByColour(), SegmenterOptions())
    model = DetectThenSegment(build_tiny(name, 2), segmenter, side=24, crops=2).eval()
    images, targets, _ = draw(BOXES, SIZES)
    with torch.no_grad():
        found = model(images)
    assert found.mask_crops is not None and found.mask_crops.shape[2:] == (16, 16)
    assert bool(torch.isfinite(model.losses(images, targets)["roi/mask"]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"side": 100}, "side=100: expected a multiple of 96"),
        ({"side": 48}, "side=48: expected a multiple of 96"),
        ({"side": 0}, "side must be a whole number from 24 to 1536"),
        ({"crops": 0}, "crops must be a whole number from 1 to 1024"),
        ({"segmenter": "resnet18"}, "segmenter=resnet18 is a classifier"),
        ({"segmenter": "unet_lite"}, "no model is called 'unet_lite'"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(NAME, 2, **{**TINY, **options})
    if "segmenter" not in options:
        with pytest.raises(OptionError):
            build(NAME, 2, **{**TINY, **options})
