"""Weights with detectron2's names: lists of names and shapes, and a plain second implementation.

The plain one is written from what is known of detectron2's conventions, on its own tensors: blue
first, pixels not divided, the stride in the 1x1, a crop aligned to half pixels with as many samples
as it has pixels, anchors by size and then by ratio.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from plain_detectron2 import pyramid
from torch import Tensor
from torchvision.models import resnet50
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import FrozenBatchNorm2d, batched_nms, clip_boxes_to_image, roi_align

from maskwright.converters import detect_format
from maskwright.converters.detectron2 import from_maskwright, to_maskwright
from maskwright.hub import loading as hub
from maskwright.models import Meta, PostProcess, build
from maskwright.nn.norm import FrozenBatchNorm2d as OurFrozen
from maskwright.storage.checkpoint import load_checkpoint, save_checkpoint
from maskwright.structures import Images

Shapes = dict[str, tuple[int, ...]]
BLOCKS = {"R50": (3, 4, 6, 3), "R101": (3, 4, 23, 3), "X101": (3, 4, 23, 3)}
MODELS = {
    "mask_rcnn_resnet50_fpn": ("R50", 307),
    "faster_rcnn_resnet50_fpn": ("R50", 295),
    "keypoint_rcnn_resnet50_fpn": ("R50", 313),
    "retinanet_resnet50_fpn": ("R50", 301),
    "mask_rcnn_resnet101_fpn": ("R101", 562),
    "mask_rcnn_resnext101_32x8d_fpn": ("X101", 562),
}


REGRESSION = "roi_heads.box_predictor.bbox_pred"


def body_shapes(kind: str) -> Shapes:
    shapes: Shapes = {}

    def conv(name: str, shape: tuple[int, ...]) -> None:
        shapes[f"backbone.bottom_up.{name}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"backbone.bottom_up.{name}.norm.{part}"] = shape[:1]

    conv("stem.conv1", (64, 3, 7, 7))
    channels = 64
    for stage, count in enumerate(BLOCKS[kind]):
        out = 256 << stage
        width, groups = (out, 32) if kind == "X101" else (out // 4, 1)
        for i in range(count):
            at = f"res{stage + 2}.{i}"
            conv(f"{at}.conv1", (width, channels, 1, 1))
            conv(f"{at}.conv2", (width, width // groups, 3, 3))
            conv(f"{at}.conv3", (out, width, 1, 1))
            if i == 0:
                conv(f"{at}.shortcut", (out, channels, 1, 1))
            channels = out
    return shapes


def shapes_of(model: str, classes: int) -> Shapes:
    layers: Shapes = {}
    dense = model.startswith("retinanet")
    for level in range(3 if dense else 2, 6):
        layers[f"backbone.fpn_lateral{level}"] = (256, 64 << level, 1, 1)
        layers[f"backbone.fpn_output{level}"] = (256, 256, 3, 3)
    if dense:
        layers["backbone.top_block.p6"] = (256, 2048, 3, 3)
        layers["backbone.top_block.p7"] = (256, 256, 3, 3)
        for i in (0, 2, 4, 6):
            layers[f"head.cls_subnet.{i}"] = layers[f"head.bbox_subnet.{i}"] = (256, 256, 3, 3)
        layers["head.cls_score"] = (9 * classes, 256, 3, 3)
        layers["head.bbox_pred"] = (36, 256, 3, 3)
    else:
        layers["proposal_generator.rpn_head.conv"] = (256, 256, 3, 3)
        layers["proposal_generator.rpn_head.objectness_logits"] = (3, 256, 1, 1)
        layers["proposal_generator.rpn_head.anchor_deltas"] = (12, 256, 1, 1)
        layers["roi_heads.box_head.fc1"] = (1024, 12544)
        layers["roi_heads.box_head.fc2"] = (1024, 1024)
        layers["roi_heads.box_predictor.cls_score"] = (classes + 1, 1024)
        layers["roi_heads.box_predictor.bbox_pred"] = (4 * classes, 1024)
    if model.startswith("mask"):
        for i in range(1, 5):
            layers[f"roi_heads.mask_head.mask_fcn{i}"] = (256, 256, 3, 3)
        layers["roi_heads.mask_head.deconv"] = (256, 256, 2, 2)
        layers["roi_heads.mask_head.predictor"] = (classes, 256, 1, 1)
    if model.startswith("keypoint"):
        for i in range(1, 9):
            layers[f"roi_heads.keypoint_head.conv_fcn{i}"] = (512, 256 if i == 1 else 512, 3, 3)
        layers["roi_heads.keypoint_head.score_lowres"] = (512, 17, 4, 4)
    shapes = body_shapes(MODELS[model][0])
    for name, shape in layers.items():
        outputs = shape[1] if name.endswith("score_lowres") else shape[0]
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, (outputs,)
    return shapes


def unequal(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors that cost nothing to make, and of which no two are equal."""
    state = {}
    for number, (name, shape) in enumerate(shapes.items()):
        count = torch.Size(shape).numel()
        state[name] = (torch.arange(count, dtype=torch.float32) + 7 * number).view(shape)
    return state


@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_comes_in_and_goes_out_equal_to_the_bit(model: str) -> None:
    classes = 1 if model.startswith("keypoint") else 3
    state = unequal(shapes_of(model, classes))
    assert len(state) == MODELS[model][1]
    assert detect_format(state) == "detectron2"
    beside = {"pixel_mean": torch.zeros(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    beside["proposal_generator.anchor_generator.cell_anchors.0"] = torch.zeros(3, 4)
    with torch.device("meta"):
        names = list(build(model, 1).state_dict())
    found = to_maskwright({**state, **beside}, names)
    assert set(found.report.used) == set(state) and set(found.report.ignored) == set(beside)
    with torch.device("meta"):
        own = build(model, classes, **found.options).state_dict()
    assert {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in found.state.items()}
    back, report = from_maskwright(found.state, found.extras, found.category_ids)
    assert back.keys() == state.keys() and len(report.used) == len(state)
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_classes_and_keypoints_have_names() -> None:
    with torch.device("meta"):
        names = list(build("faster_rcnn_resnet50_fpn", 1).state_dict())
        people = list(build("keypoint_rcnn_resnet50_fpn", 1).state_dict())
        state = {k: torch.empty(s) for k, s in shapes_of("faster_rcnn_resnet50_fpn", 80).items()}
        person = {k: torch.empty(s) for k, s in shapes_of("keypoint_rcnn_resnet50_fpn", 1).items()}
    found = to_maskwright(state, names)
    names_of = [found.names[i] for i in (0, 11, 79)]
    assert names_of == ["person", "stop sign", "toothbrush"]
    assert (found.category_ids[11], found.category_ids[79]) == (13, 90)
    found = to_maskwright(person, people)
    assert found.names == ["person"] and found.skeleton is not None and len(found.skeleton) == 17
    own = {"num_keypoints": 17, "box_beta": 0.5, "train_proposals": 1500}
    assert found.options == {"conventions": "detectron2", **own}
    made = build("keypoint_rcnn_resnet18_fpn", 1, **found.options)
    assert made.rpn.post_nms == (1500, 1000) and made.rpn.pre_nms == (2000, 1000)
    older = to_maskwright(person, people, conventions="detectron2_legacy")
    assert older.options["box_beta"] == 1.0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("backbone.fpn_output4.bias"), "fpn_output4.bias"),
        (lambda s: s.update({"roi_heads.mask_head.deconv.bias": torch.zeros(1)}), "is no tensor"),
        (lambda s: s.update({f"{REGRESSION}.weight": torch.zeros(9, 4)}), "needs 20"),
    ],
)
def test_a_file_of_another_model_names_the_tensor(damage: Any, message: str) -> None:
    with torch.device("meta"):
        names = list(build("faster_rcnn_resnet50_fpn", 1).state_dict())
        state = {k: torch.empty(s) for k, s in shapes_of("faster_rcnn_resnet50_fpn", 5).items()}
    damage(state)
    with pytest.raises(ValueError, match=message):
        to_maskwright(state, names)


# The plain second implementation.

Params = dict[str, Tensor]
ANCHOR_CODES, BOX_CODES = BoxCoder((1.0, 1.0, 1.0, 1.0)), BoxCoder((10.0, 10.0, 5.0, 5.0))


def conv(state: Params, name: str, x: Tensor, **options: Any) -> Tensor:
    return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)


def linear(state: Params, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def plain_maps(state: Params, pixels: Tensor) -> list[Tensor]:
    """C2 to C5 of (3, H, W) RGB, by torchvision's ResNet with the strides moved."""
    net: Any = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    for stage in (net.layer2, net.layer3, net.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    own = {}
    for name in net.state_dict():
        if name.startswith("fc."):
            continue
        parts = name.split(".")
        at = f"res{int(parts[0][5:]) + 1}.{parts[1]}." if parts[0].startswith("layer") else "stem."
        rest = parts[2:] if parts[0].startswith("layer") else parts
        layer = {"downsample.0": "shortcut", "downsample.1": "shortcut.norm"}.get(
            ".".join(rest[:-1]), rest[0].replace("bn", "conv") + ".norm" * rest[0].startswith("bn")
        )
        own[name] = state[f"backbone.bottom_up.{at}{layer}.{rest[-1]}"]
    net.load_state_dict(own, strict=False)
    net.eval()
    mean = torch.tensor([103.53, 116.28, 123.675])[:, None, None]
    x = net.maxpool(net.relu(net.bn1(net.conv1((pixels.flip(0) - mean)[None]))))
    maps = []
    for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = stage(x)
        maps.append(x)
    return maps


def plain_anchors(sizes: list[float], stride: int, height: int, width: int) -> Tensor:
    """(height * width * A, 4), by size and then by ratio, around the corners of the cells."""
    cell = []
    for size in sizes:
        for ratio in (0.5, 1.0, 2.0):
            w = (size**2 / ratio) ** 0.5
            cell.append([-w / 2, -w * ratio / 2, w / 2, w * ratio / 2])
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    shift = torch.stack([x, y, x, y], -1).view(-1, 1, 4) * stride
    return (shift + torch.tensor(cell)).view(-1, 4)


def plain_rcnn(state: Params, pixels: Tensor, classes: int) -> tuple[Tensor, ...]:
    """Boxes, scores, labels and masks (N, 28, 28) of one image."""
    size = tuple(pixels.shape[1:])
    levels = pyramid(state, plain_maps(state, pixels), 2)
    head = "proposal_generator.rpn_head."
    boxes, scores, level_of = [], [], []
    for i, level in enumerate([*levels, levels[-1][:, :, ::2, ::2]]):
        x = F.relu(conv(state, head + "conv", level, padding=1))
        logits = conv(state, head + "objectness_logits", x)[0].permute(1, 2, 0).flatten()
        deltas = conv(state, head + "anchor_deltas", x)[0].permute(1, 2, 0).reshape(-1, 4)
        anchors = plain_anchors([32.0 * 2**i], 4 * 2**i, *level.shape[2:])
        top, at = logits.topk(min(1000, len(logits)))
        found = ANCHOR_CODES.decode(deltas[at], [anchors[at]])[:, 0]
        boxes.append(clip_boxes_to_image(found, size))
        scores.append(top)
        level_of.append(torch.full((len(at),), i))
    box, score, of = torch.cat(boxes), torch.cat(scores), torch.cat(level_of)
    whole = ((box[:, 2:] - box[:, :2]) > 0).all(1)
    box, score, of = box[whole], score[whole], of[whole]
    box = box[batched_nms(box, score, of, 0.7)[:1000]]
    x = plain_crops(levels, box, 7).flatten(1)  # channel, row, column
    for name in ("fc1", "fc2"):
        x = F.relu(linear(state, f"roi_heads.box_head.{name}", x))
    probs = linear(state, "roi_heads.box_predictor.cls_score", x).softmax(1)[:, :-1]
    deltas = linear(state, "roi_heads.box_predictor.bbox_pred", x)
    every = BOX_CODES.decode(deltas, [box]).view(-1, classes, 4)
    every = clip_boxes_to_image(every.view(-1, 4), size).view(-1, classes, 4)
    row, label = (probs > 0.05).nonzero(as_tuple=True)
    keep = batched_nms(every[row, label], probs[row, label], label, 0.5)[:100]
    box, score, label = every[row, label][keep], probs[row, label][keep], label[keep]
    x = plain_crops(levels, box, 14)
    for i in range(1, 5):
        x = F.relu(conv(state, f"roi_heads.mask_head.mask_fcn{i}", x, padding=1))
    up = "roi_heads.mask_head.deconv"
    x = F.relu(F.conv_transpose2d(x, state[f"{up}.weight"], state[f"{up}.bias"], stride=2))
    masks = conv(state, "roi_heads.mask_head.predictor", x).sigmoid()
    return box, score, label, masks[torch.arange(len(label)), label]


def plain_crops(levels: list[Tensor], boxes: Tensor, side: int) -> Tensor:
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    level = (4 + (area.sqrt() / 224 + 1e-8).log2()).floor().clamp(2, 5)
    found = boxes.new_zeros(len(boxes), 256, side, side)
    for i in range(4):
        own = level == i + 2
        rois = torch.cat([torch.zeros(int(own.sum()), 1), boxes[own]], 1)
        found[own] = roi_align(levels[i], rois, side, 0.25 / 2**i, 0, aligned=True)
    return found


def plain_retinanet(state: Params, pixels: Tensor, classes: int) -> tuple[Tensor, ...]:
    """Boxes, scores and labels of one image; the NMS sees the whole boxes."""
    maps = plain_maps(state, pixels)
    levels = pyramid(state, maps, 3)
    levels.append(conv(state, "backbone.top_block.p6", maps[-1], stride=2, padding=1))
    last = F.relu(levels[-1])
    levels.append(conv(state, "backbone.top_block.p7", last, stride=2, padding=1))
    boxes, scores, labels = [], [], []
    for i, level in enumerate(levels):
        x = y = level
        for k in (0, 2, 4, 6):
            x = F.relu(conv(state, f"head.cls_subnet.{k}", x, padding=1))
            y = F.relu(conv(state, f"head.bbox_subnet.{k}", y, padding=1))
        probs = conv(state, "head.cls_score", x, padding=1)[0].permute(1, 2, 0)
        probs = probs.reshape(-1, classes).sigmoid().flatten()
        deltas = conv(state, "head.bbox_pred", y, padding=1)[0].permute(1, 2, 0).reshape(-1, 4)
        sizes = [32.0 * 2**i * 2 ** (k / 3) for k in range(3)]
        anchors = plain_anchors(sizes, 8 * 2**i, *level.shape[2:])
        top, at = probs.topk(min(1000, int((probs > 0.05).sum())))
        place = at // classes
        boxes.append(ANCHOR_CODES.decode(deltas[place], [anchors[place]])[:, 0])
        scores.append(top)
        labels.append(at % classes)
    box, score, label = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
    keep = batched_nms(box, score, label, 0.5)[:100]
    return clip_boxes_to_image(box[keep], tuple(pixels.shape[1:])), score[keep], label[keep]


def lively(model: str, classes: int, images: Images) -> Any:
    """A model by detectron2's rules whose weights and statistics are anything."""
    torch.manual_seed(3)
    extra = {"p6_of_p5": False} if model.startswith("retinanet") else {}
    made = build(model, classes, conventions="detectron2", imgsz="1x", **extra).eval()
    for layer in made.modules():
        if isinstance(layer, OurFrozen):
            layer.weight.uniform_(0.6, 1.2)
            layer.bias.normal_(std=0.1)
            layer.running_mean.normal_(std=0.1)
            layer.running_var.uniform_(0.7, 1.4)
    with torch.no_grad():
        made.backbone.body.conv1.weight /= 60  # pixels are not divided
        pyramid = made.features(images)
        for level, feature in zip(made.fpn.output, pyramid, strict=False):
            level[0].weight /= feature.std()
        pyramid = made.features(images)
        dense = model.startswith("retinanet")
        head = made.head if dense else made.rpn
        out = head(pyramid, (128, 160)) if dense else head(pyramid)
        for layer, values, spread in (
            (head.logits, out.logits, 1.5),
            (head.deltas, out.deltas, 0.2),
        ):
            layer.weight *= spread / torch.cat([v.flatten() for v in values]).std()
        if dense:
            head.logits.bias.fill_(-4.0)
        else:
            made.roi_heads.box_head.logits.weight *= 30
            made.roi_heads.box_head.deltas.weight *= 10
    return made


@pytest.mark.parametrize("model", ["mask_rcnn_resnet50_fpn", "retinanet_resnet50_fpn"])
@torch.no_grad()
def test_finds_what_a_plain_implementation_finds(model: str) -> None:
    pixels = torch.rand(3, 128, 160, generator=torch.Generator().manual_seed(0)) * 255
    pixels = F.interpolate(pixels[None, :, ::8, ::8], size=(128, 160), mode="bilinear")[0]
    size = torch.tensor([[128, 160]])
    images = Images(pixels[None], size, size)
    made = lively(model, 4, images)
    state, _ = from_maskwright(made.state_dict(), {}, [1, 2, 3, 4])
    found = made(images, PostProcess())
    plain = plain_retinanet if model.startswith("retinanet") else plain_rcnn
    box, score, label, *masks = plain(state, pixels, 4)
    valid = found.valid[0]
    assert valid.sum() == len(box) > 10
    torch.testing.assert_close(found.scores[0][valid], score, rtol=1e-3, atol=1e-5)
    assert torch.equal(found.labels[0][valid], label)
    torch.testing.assert_close(found.boxes[0][valid], box, rtol=0, atol=1e-2)
    if masks:
        torch.testing.assert_close(found.mask_crops[0][valid], masks[0], rtol=0, atol=1e-3)


def test_through_files(tmp_path: Path) -> None:
    """As the model zoo has them: a pickle of NumPy arrays beside the author's name."""
    name = "faster_rcnn_resnet50_fpn"
    theirs = {k: v.numpy() for k, v in unequal(shapes_of(name, 3)).items()}
    with (tmp_path / "model_final.pkl").open("wb") as file:
        pickle.dump({"model": theirs, "__author__": "nobody"}, file)
    ours, again = tmp_path / "ours.safetensors", tmp_path / "again.pth"
    hub.convert(tmp_path / "model_final.pkl", ours, model=name)
    checkpoint = load_checkpoint(ours)
    assert checkpoint.meta.args == {"conventions": "detectron2"}
    hub.convert(ours, again, target="detectron2")
    back = torch.load(again, weights_only=True)
    assert all((back[key].numpy() == value).all() for key, value in theirs.items())
    made, _ = hub.load_model(ours)
    assert made.bgr and made.fill == pytest.approx((123.675, 116.28, 103.53))
    assert made.std.flatten().tolist() == [1, 1, 1]
    assert made.backbone.body.layer2[0].conv1.stride == (2, 2)
    other = build("mask_rcnn_lite0_fpn", 1)
    save_checkpoint(ours, Meta("mask_rcnn_lite0_fpn", {}, ["a"]), other.state_dict())
    with pytest.raises(ValueError, match="no counterpart of 'backbone"):
        hub.convert(ours, again, target="detectron2")
