"""What every registered detector keeps to, on the tiny instance of its family."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from tiny_models import fresh
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.utils._pytree import tree_map

from maskwright.errors import OptionError
from maskwright.models import PostProcess, build, build_tiny, get_entry, list_models
from maskwright.models.detection.one_stage import OneStageDetector
from maskwright.models.inference import fast_network
from maskwright.nn.random import ImageNoise
from maskwright.ops import SoftNMS
from maskwright.structures import Images, Instances, PackedMasks
from maskwright.tasks import FOLDERS

FAMILIES = [
    name
    for name, entry in list_models().items()
    if entry.tiny is not None and FOLDERS.get(entry.task) == "detection"
]


def make_images(sizes: list[tuple[int, int]], seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    height, width = (max(s[i] for s in sizes) for i in (0, 1))
    height, width = -(-height // 32) * 32, -(-width // 32) * 32
    pixels = torch.rand(len(sizes), 3, height, width, generator=generator) * 255
    table = torch.tensor(sizes)
    return Images(pixels, table, table, make_regions(sizes))


def make_regions(sizes: list[tuple[int, int]], count: int = 12) -> Instances:
    """Regions for the detectors that take them: a grid in each image, one of them its whole."""
    steps = torch.tensor(
        [[x, y, x + 2, y + 2] for x in range(3) for y in range(3)] + [[0, 0, 4, 4]]
    )
    limits = torch.tensor(sizes).reshape(-1, 2).flip(1).repeat(1, 2)
    boxes = torch.zeros(len(sizes), count, 4)
    boxes[:, : len(steps)] = steps / 4 * limits[:, None]
    valid = (torch.arange(count) < len(steps)).expand(len(sizes), -1)
    ids = torch.arange(count).expand(len(sizes), -1)
    return Instances(boxes, torch.zeros_like(ids), valid, ids=ids)


def pick(images: Images, rows: list[int]) -> Images:
    """Return some of the images, in this order."""
    return tree_map(lambda value: value[rows], images)


def make_targets(boxes: list[list[list[float]]], slots: int = 3) -> Instances:
    """Rectangular objects: the mask fills the box, keypoints on its border and in its centre."""
    count = len(boxes)
    box = torch.zeros(count, slots, 4)
    valid = torch.zeros(count, slots, dtype=torch.bool)
    offsets = torch.zeros(count, slots, dtype=torch.int64)
    crops = []
    total = 0
    for i, image in enumerate(boxes):
        for k, values in enumerate(image):
            box[i, k] = torch.tensor(values)
            valid[i, k] = True
            offsets[i, k] = total
            crops.append(torch.ones(int((values[2] - values[0]) * (values[3] - values[1]))))
            total += len(crops[-1])
    data = torch.cat([*crops, torch.zeros(0)]).to(torch.uint8)
    labels = torch.arange(slots).expand(count, slots) % 2 * valid
    masks = PackedMasks(data, offsets, box.long())
    corner, side = box[:, :, None, :2], (box[..., 2:] - box[..., :2])[:, :, None]
    points = corner + side * torch.tensor([[0, 0], [1, 0.2], [0.5, 0.5], [0.1, 1], [0.7, 0.3]])
    shown = torch.tensor([1.0, 2, 2, 0, 1])[:, None] * valid[..., None, None]
    keypoints = torch.cat([points, shown], -1)
    crowd = torch.zeros_like(valid)
    return Instances(box, labels, valid, crowd=crowd, masks=masks, keypoints=keypoints)


def draws(detector: nn.Module) -> bool:
    """Whether chance plays a part in its training: others count every place, and drop nothing."""
    drops = any(isinstance(layer, nn.Dropout) for layer in detector.modules())
    return drops or not isinstance(detector, OneStageDetector)


SIZES = [(90, 96), (64, 80)]
FEW = PostProcess(max_det=20)
OBJECTS = [[[8.0, 8, 40, 48], [50, 20, 90, 80]], [[4.0, 4, 30, 60]]]


# Made of the parts of others, of which nothing is left out; they take long.
LIKE_OTHERS = (
    *("cascade_rcnn_resnet50_fpn", "detect_then_segment_resnet50_fpn", "faster_rcnn_resnet50_c4"),
    *("mask_keypoint_rcnn_resnet50_fpn", "refine_mask_fast_resnet50_fpn"),
)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=pytest.mark.slow if n in LIKE_OTHERS else []) for n in FAMILIES],
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def detector(name: str) -> torch.nn.Module:
    return fresh(name, 2)


def test_forward_fills_fixed_slots(name: str, detector) -> None:
    images = make_images(SIZES)
    with torch.no_grad():
        out = detector.eval()(images, PostProcess(score_thresh=0.01, max_det=30))
    assert out.boxes.shape == (2, 30, 4)
    assert out.valid.any()
    limit = images.sizes.flip(1).repeat(1, 2)[:, None]
    assert bool(((out.boxes >= 0) & (out.boxes <= limit)).all())
    scores = out.scores
    assert bool((scores.diff(dim=1) <= 0).all()), "by falling score"
    assert bool((scores[out.valid] > 0.01).all())
    assert bool(((out.labels >= 0) & (out.labels < 2)).all())
    empty = ~out.valid
    assert not out.boxes[empty].any() and not scores[empty].any() and not out.labels[empty].any()
    assert (out.keypoints is None) == ("keypoints" not in get_entry(name).task)
    if out.keypoints is not None:
        assert out.keypoints.shape == (2, 30, 5, 3)
        xy, scores = out.keypoints[out.valid].split([2, 1], -1)
        box = out.boxes[out.valid][:, None]
        # A box under one pixel counts as one pixel wide.
        assert bool(((xy >= box[..., :2]) & (xy <= box[..., 2:].maximum(box[..., :2] + 1))).all())
        assert bool(((scores > 0) & (scores <= 1)).all())
        assert not out.keypoints[empty].any()
    assert (out.mask_crops is None) == ("segment" not in get_entry(name).task)
    if out.mask_crops is not None:
        assert out.mask_crops.shape[:2] == (2, 30)
        assert bool(((out.mask_crops >= 0) & (out.mask_crops <= 1)).all())
        assert not out.mask_crops[empty].any()


def test_prediction_of_an_image_does_not_depend_on_its_batch(detector) -> None:
    both = make_images(SIZES)
    alone = pick(both, [1])
    with torch.no_grad():
        together, single = detector.eval()(both, FEW), detector(alone, FEW)
    torch.testing.assert_close(together.scores[1], single.scores[0])
    torch.testing.assert_close(together.boxes[1], single.boxes[0], rtol=1e-4, atol=1e-3)


def test_what_lies_in_the_padding_is_ignored(detector) -> None:
    images = make_images([(64, 64), (96, 96)])
    pixels = images.pixels.clone()
    pixels[0, :, 64:] = 255
    pixels[0, :, :, 64:] = 7
    dirty = replace(images, pixels=pixels)
    with torch.no_grad():
        a, b = detector.eval()(images, FEW), detector(dirty, FEW)
    assert torch.equal(a.boxes, b.boxes)


BETAS = {"rpn_beta": "rpn/box", "box_beta": "roi/box", "beta": "roi/box"}
WITH_BETA = [
    (name, option)
    for name in ("faster_rcnn_resnet50_fpn", "rfcn_resnet50", "fast_rcnn_vgg16")
    for option in BETAS
    if option in get_entry(name).arguments()
]


@pytest.mark.parametrize(("name", "option"), WITH_BETA)
def test_beta_bends_one_box_loss(name: str, option: str) -> None:
    """Below beta the loss is x^2 / (2 beta): where that holds for all, twice beta is half of it."""
    losses = []
    for beta in (1e4, 2e4):
        torch.manual_seed(0)
        tiny = {**(get_entry(name).tiny or {}), option: beta}
        detector = build(name, 2, **tiny).train()
        noise = ImageNoise(torch.tensor([1, 2]))
        losses.append(detector.losses(make_images(SIZES), make_targets(OBJECTS), generator=noise))
    assert losses[0][BETAS[option]] > 0
    for key, value in losses[0].items():
        factor = 0.5 if key == BETAS[option] else 1.0
        torch.testing.assert_close(losses[1][key], factor * value)
    with pytest.raises(OptionError, match=option):
        build(name, 2, **{option: -1.0})


def test_losses_reach_every_trainable_parameter(detector) -> None:
    detector.train()
    # Large ones as well: a head with a layer for each map learns where there are objects.
    objects = [[*OBJECTS[0], [1.0, 1, 88, 92]], [*OBJECTS[1], [2.0, 2, 78, 62]]]
    losses = detector.losses(make_images(SIZES), make_targets(objects))
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    assert all(key.count("/") == 1 for key in losses)
    sum(losses.values()).backward()
    for key, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
            assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("objects", [[[], []], [OBJECTS[0], []]])
def test_images_without_objects_train(detector, objects) -> None:
    """Every parameter stays in the graph, which distributed training relies on."""
    detector.train()
    losses = detector.losses(make_images(SIZES), make_targets(objects))
    assert all(torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    missing = [k for k, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


def test_no_slots_at_all_train_as_empty_ones(detector) -> None:
    """Targets (B, 0, ...) are those of images without objects; proposals (B, 0, 4) are none."""
    detector.train()
    images, empty = make_images(SIZES), make_targets([[], []])
    noise = ImageNoise(torch.tensor([1, 2]))
    none = tree_map(lambda value: value if value.ndim == 1 else value[:, :0], empty)
    assert none.boxes.shape == (2, 0, 4) and none.masks.frames.shape == (2, 0, 4)
    expected = detector.losses(images, empty, generator=noise)
    losses = detector.losses(images, none, generator=noise)
    torch.testing.assert_close(losses, expected)
    assert not any(value.any() for key, value in losses.items() if key.endswith(("box", "mask")))
    sum(losses.values()).backward()
    for key, parameter in detector.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), key
    regions = images.proposals
    without = tree_map(lambda value: value[:, :0], regions)
    invalid = replace(regions, valid=torch.zeros_like(regions.valid))
    for targets in (none, empty, make_targets(OBJECTS)):
        torch.testing.assert_close(
            detector.losses(replace(images, proposals=without), targets, generator=noise),
            detector.losses(replace(images, proposals=invalid), targets, generator=noise),
        )


def test_images_without_a_region_find_nothing(detector) -> None:
    images = make_images(SIZES)
    if detector.proposal_source is None:  # makes its own regions; boxes from elsewhere may lack
        blank = Instances(*(torch.zeros(2, 0, *rest) for rest in [(4,), (), ()]))
        blank = replace(blank, labels=blank.labels.long(), valid=blank.valid.bool())
        with torch.no_grad():
            refined = detector.eval().refine(images, blank)
        if refined is None:
            assert isinstance(detector, OneStageDetector)
            return
        assert refined.boxes.shape == (2, 0, 4)
        for more in (refined.mask_crops, refined.keypoints):
            assert more is None or more.shape[:2] == (2, 0)
        return
    none = replace(images, proposals=tree_map(lambda value: value[:, :0], images.proposals))
    with torch.no_grad():
        out = detector.eval()(none, PostProcess(score_thresh=0.01, max_det=5))
    assert out.boxes.shape == (2, 5, 4)
    assert not out.valid.any() and not out.boxes.any() and not out.scores.any()


def test_crowds_train_as_neither_object_nor_background(detector) -> None:
    images, targets = make_images(SIZES), make_targets(OBJECTS)
    crowd = targets.valid.clone()
    only_crowds = replace(targets, crowd=crowd)
    losses = detector.losses(images, only_crowds, generator=torch.Generator().manual_seed(0))
    boxes = [value for key, value in losses.items() if key.endswith("/box")]
    assert not any(value.any() for value in boxes)


def test_the_same_generator_gives_the_same_losses(detector) -> None:
    images, targets = make_images(SIZES), make_targets(OBJECTS)
    runs = [
        detector.losses(images, targets, generator=torch.Generator().manual_seed(seed))
        for seed in (5, 5, 6)
    ]
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])
    differ = any(not torch.equal(runs[0][key], runs[2][key]) for key in runs[0])
    assert differ == draws(detector)


def test_losses_by_image_do_not_depend_on_the_batch(detector) -> None:
    """Noise keyed by image: the sums over the images of a batch are those of one at a time."""
    detector.train()
    images, targets = make_images(SIZES), make_targets(OBJECTS)
    keys = torch.tensor([3, 4])
    swapped = pick(images, [1, 0])
    masks = replace(
        targets.masks, offsets=targets.masks.offsets.flip(0), frames=targets.masks.frames.flip(0)
    )
    boxes, labels, valid, points = (
        t.flip(0) for t in (targets.boxes, targets.labels, targets.valid, targets.keypoints)
    )
    other = Instances(boxes, labels, valid, crowd=targets.crowd, masks=masks, keypoints=points)
    a = detector.losses(images, targets, generator=ImageNoise(keys))
    b = detector.losses(swapped, other, generator=ImageNoise(keys.flip(0)))
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    # One other sample may chance to have nearly the same losses, as so few boxes are left out.
    others = [
        detector.losses(images, targets, generator=ImageNoise(keys + more)) for more in (9, 10, 20)
    ]
    differ = any(not torch.allclose(a[key], c[key], rtol=1e-4) for c in others for key in a)
    assert differ == draws(detector)


def test_a_batch_without_images_trains(detector) -> None:
    """What a process gets for whom no image is left: zeros, and every parameter in the graph."""
    detector.train()
    targets = make_targets([[]])
    none = Instances(targets.boxes[:0], targets.labels[:0], targets.valid[:0])
    none = replace(
        none,
        crowd=targets.crowd[:0],
        masks=make_targets([]).masks,
        keypoints=targets.keypoints[:0],
    )
    sizes = torch.zeros(0, 2, dtype=torch.int64)
    images = Images(torch.zeros(0, 3, 64, 96), sizes, sizes, make_regions([]))
    losses = detector.losses(images, none, generator=ImageNoise(sizes[:, 0]))
    assert not any(value.any() for value in losses.values())
    sum(losses.values()).backward()
    missing = [k for k, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing


# Graphs take long; their parts are those of this one for the most part.
ONE_COMPILED = [
    pytest.param(name, marks=[] if name == "mask_rcnn_resnet50_fpn" else [pytest.mark.slow])
    for name in FAMILIES
]


@pytest.mark.contract("compiles")
@pytest.mark.parametrize("name", ONE_COMPILED)
def test_losses_compile_to_one_graph(detector) -> None:
    torch._dynamo.reset()
    detector.train()
    images, targets = make_images(SIZES), make_targets(OBJECTS)
    noise = ImageNoise(torch.tensor([1, 2]))
    compiled = torch.compile(detector.losses, fullgraph=True, backend="eager")
    expected = detector.losses(images, targets, generator=noise)
    torch.testing.assert_close(compiled(images, targets, generator=noise), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_COMPILED)
def test_one_graph_serves_all_batches_of_a_size(detector) -> None:
    """No recompilation for other images, objects or batch sizes."""
    post = PostProcess(score_thresh=0.01, max_det=20)
    # No size equals another by chance: equal ones would be taken for the same variable.
    sizes = [(90, 128), (64, 100), (96, 120), (65, 65), (50, 50), (30, 128)]
    objects = [*OBJECTS, [], [[4.0, 4, 50, 20], [10, 10, 60, 60], [3, 3, 9, 9]], [], OBJECTS[1]]
    for train in (False, True):
        torch._dynamo.reset()
        counter = CompileCounter()
        detector.train(train)
        call = detector.losses if train else detector
        compiled = torch.compile(call, fullgraph=True, backend=counter, dynamic=True)
        for seed, (first, count, slots) in enumerate([(0, 5, 7), (1, 5, 8), (0, 6, 9)]):
            images = make_images(sizes[first : first + count], seed)
            images = replace(images, pixels=images.pixels[..., :96, :128])
            if train:
                targets = make_targets(objects[first : first + count], slots)
                noise = ImageNoise(torch.arange(count))
                compiled(images, targets, generator=noise)
            else:
                with torch.no_grad():
                    compiled(images, post)
            assert counter.frame_count == 1, seed


def test_train_and_eval_return_the_same_type(detector) -> None:
    images = make_images(SIZES)
    with torch.no_grad():
        kinds = {type(detector.train(mode)(images, FEW)) for mode in (True, False)}
    assert kinds == {Instances}


@pytest.mark.parametrize(
    "name",
    ONE_COMPILED,
    indirect=True,
)
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_graph_equals_eager(detector, backend: str) -> None:
    """One graph without breaks; the second image is black, and finds nothing above 0.9."""
    torch._dynamo.reset()
    detector.eval()
    compiled = torch.compile(detector, fullgraph=True, backend=backend)
    for post in (PostProcess(score_thresh=0.01, max_det=20), PostProcess(score_thresh=0.9)):
        images = make_images(SIZES)
        images.pixels[1] = 0
        with torch.no_grad():
            expected, out = detector(images, post), compiled(images, post)
        assert torch.equal(expected.valid, out.valid)
        assert torch.equal(expected.labels, out.labels)
        torch.testing.assert_close(out.scores, expected.scores)
        torch.testing.assert_close(out.boxes, expected.boxes, rtol=1e-4, atol=1e-3)
        if expected.mask_crops is not None:
            torch.testing.assert_close(out.mask_crops, expected.mask_crops, rtol=1e-3, atol=1e-4)
        if expected.keypoints is not None:
            torch.testing.assert_close(out.keypoints, expected.keypoints, rtol=1e-3, atol=1e-3)
    assert not expected.valid.any()


def test_given_boxes_get_the_masks_and_keypoints_of_a_prediction(detector) -> None:
    images = make_images(SIZES)
    with torch.no_grad():
        found = detector.eval()(images, PostProcess(score_thresh=0.01, max_det=10))
        bare = Instances(found.boxes, found.labels, found.valid, found.scores)
        again = detector.refine(images, bare)
    cannot = detector.proposal_source is not None or isinstance(detector, OneStageDetector)
    assert (again is None) == cannot
    if again is not None:
        for name in ("boxes", "labels", "valid", "scores", "mask_crops", "keypoints"):
            one, other = getattr(again, name), getattr(found, name)
            assert (one is None) == (other is None)
            if other is not None:
                torch.testing.assert_close(one, other)


def test_all_layers_compute_in_bfloat16(detector) -> None:
    detector.eval()
    network = fast_network(detector, dtype=torch.bfloat16)
    seen: dict[str, torch.dtype] = {}
    for key, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_pre_hook(
                lambda _, inputs, key=key: seen.__setitem__(key, inputs[0].dtype)
            )
    images, post = make_images([(64, 96), (50, 60)]), PostProcess(0.0, 0.5, 5)
    with torch.inference_mode():
        found, maps = network(images, post), network.features(images)
        types = dict(seen)  # hooks of a copy are hooks of the original
        expected, exact = detector(images, post), detector.features(images)
    assert len(types) > 5
    assert set(types.values()) == {torch.bfloat16}
    for mine, other in zip(maps, exact, strict=True):
        assert float((mine - other).abs().max()) < 0.05 * float(other.abs().max())
    for field in fields(found):
        mine, other = getattr(found, field.name), getattr(expected, field.name)
        assert (mine is None) == (other is None)
        if mine is not None:
            assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
            assert bool(torch.isfinite(mine).all())
    assert {weight.dtype for weight in detector.parameters()} == {torch.float32}


def test_soft_nms_lowers_scores(detector) -> None:
    """A rule that lowers nothing is no NMS at all; a real one keeps the best box of each class."""
    images = make_images(SIZES)
    every = PostProcess(score_thresh=0.01, nms_thresh=1.0, max_det=20)
    soft = PostProcess(0.01, 0.5, 20, SoftNMS("gaussian", 0.3, floor=0.01))
    with torch.no_grad():
        plain = detector.eval()(images, every)
        same = detector(images, replace(every, soft_nms=SoftNMS("linear", floor=0.0)))
        lowered = detector(images, soft)
    for name in ("boxes", "scores", "labels", "valid"):
        assert torch.equal(getattr(plain, name), getattr(same, name)), name
    assert torch.equal(lowered.boxes[:, 0], plain.boxes[:, 0])
    assert torch.equal(lowered.scores[:, 0], plain.scores[:, 0])
    assert bool((lowered.scores <= plain.scores).all()) and lowered.valid.any()
    assert bool((lowered.scores < plain.scores).any())
    assert bool((lowered.scores.diff(dim=1) <= 0).all())


def test_soft_nms_is_part_of_the_graph() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    detector = build_tiny("faster_rcnn_resnet50_fpn", 2).eval()
    compiled = torch.compile(detector, fullgraph=True, backend="eager")
    images, post = make_images(SIZES), PostProcess(0.01, 0.5, 20, SoftNMS())
    with torch.no_grad():
        expected, out = detector(images, post), compiled(images, post)
    for name in ("boxes", "scores", "labels", "valid"):
        torch.testing.assert_close(getattr(out, name), getattr(expected, name))


@pytest.mark.parametrize(
    "key", [k for k, e in list_models().items() if FOLDERS.get(e.task) == "detection"]
)
def test_every_name_builds_and_says_its_task(key: str) -> None:
    with torch.device("meta"):
        detector = build(key, 3)
    assert detector.task == get_entry(key).task
    assert detector.num_classes == 3


@pytest.mark.parametrize("name", ["fast_rcnn_lite0", "sppnet_lite0"])
def test_scales_take_the_place_of_the_size_of_a_preset(name: str) -> None:
    model = build(name, 2, scales=(320, 480))
    assert (model.resize.short, model.resize.long) == (480, 800)
    with pytest.raises(ValueError, match="scales and imgsz both"):
        build(name, 2, scales=(320, 480), imgsz=640)


def test_unknown_names_and_options_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match="mask_rcnn_resnet50_fpn"):
        build("mask_rcnn_resnet_50_fpn", 1)
    with pytest.raises(ValueError, match="did you mean 'anchor_sizes'"):
        build("mask_rcnn_resnet18_fpn", 1, anchor_size=(1, 2))
    with pytest.raises(ValueError, match="num_classes"):
        build("mask_rcnn_resnet18_fpn", 0)


def test_each_head_needs_what_it_learns(detector, name: str) -> None:
    targets = make_targets(OBJECTS)
    boxes_only = Instances(targets.boxes, targets.labels, targets.valid)
    task = get_entry(name).task
    if task == "detect":
        detector.losses(make_images(SIZES), boxes_only)
        return
    with pytest.raises(ValueError, match="no masks" if "segment" in task else "no keypoints"):
        detector.losses(make_images(SIZES), boxes_only)
    if "keypoints" in task:
        assert targets.keypoints is not None
        fewer = replace(targets, keypoints=targets.keypoints[:, :, :3])
        with pytest.raises(ValueError, match="head for 5 keypoints, but the targets have 3"):
            detector.losses(make_images(SIZES), fewer)


def test_no_keypoint_to_be_seen_costs_nothing(detector, name: str) -> None:
    """Objects without a labelled keypoint: the term is 0, finite, and has a gradient."""
    if "keypoints" not in get_entry(name).task:
        pytest.skip("no keypoints")
    targets = make_targets(OBJECTS)
    assert targets.keypoints is not None
    hidden = targets.keypoints * torch.tensor([1.0, 1, 0])
    losses = detector.losses(make_images(SIZES), replace(targets, keypoints=hidden))
    assert losses["roi/keypoints"].item() == 0
    losses["roi/keypoints"].backward()
    for parameter in detector.roi_heads.keypoint_head.parameters():
        assert parameter.grad is not None and not parameter.grad.any()


def test_objects_without_a_mask_teach_no_mask(name: str, detector) -> None:
    if "segment" not in get_entry(name).task:
        pytest.skip("no masks")
    targets = make_targets(OBJECTS)
    frames = torch.zeros_like(targets.masks.frames)
    targets = replace(targets, masks=replace(targets.masks, frames=frames))
    losses = detector.train().losses(make_images(SIZES), targets)
    assert losses["roi/mask"] == 0
    assert all(bool(value.isfinite()) for value in losses.values())
    losses["roi/mask"].backward(retain_graph=True)  # no mask, but a graph to it
