"""Weights with mmdetection's names: files made from lists of names and shapes, both directions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import detection

from maskwright.converters import detect_format
from maskwright.converters.mmdetection import from_maskwright, to_maskwright
from maskwright.converters.torchvision import from_maskwright as to_torchvision
from maskwright.converters.torchvision import to_maskwright as from_torchvision
from maskwright.hub import loading as hub
from maskwright.models import Meta, build
from maskwright.storage.checkpoint import load_checkpoint, save_checkpoint
from maskwright.storage.published import read_weights

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def backbone_shapes(depth: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}

    def pair(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        shapes[f"backbone.{conv}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"backbone.{norm}.{part}"] = shape[:1]
        shapes[f"backbone.{norm}.num_batches_tracked"] = ()

    pair("conv1", "bn1", (64, 3, 7, 7))
    channels = 64
    for stage, count in enumerate(BLOCKS[depth]):
        w = 64 << stage
        for i in range(count):
            at = f"layer{stage + 1}.{i}"
            pair(f"{at}.conv1", f"{at}.bn1", (w, channels, 1, 1))
            pair(f"{at}.conv2", f"{at}.bn2", (w, w, 3, 3))
            pair(f"{at}.conv3", f"{at}.bn3", (4 * w, w, 1, 1))
            if i == 0:
                pair(f"{at}.downsample.0", f"{at}.downsample.1", (4 * w, channels, 1, 1))
            channels = 4 * w
    return shapes


def detector_shapes(depth: int, classes: int) -> dict[str, tuple[int, ...]]:
    shapes = backbone_shapes(depth)
    weights: dict[str, tuple[int, ...]] = {}
    for i in range(4):
        weights[f"neck.lateral_convs.{i}.conv"] = (256, 256 << i, 1, 1)
        weights[f"neck.fpn_convs.{i}.conv"] = (256, 256, 3, 3)
    weights["rpn_head.rpn_conv"] = (256, 256, 3, 3)
    weights["rpn_head.rpn_cls"] = (3, 256, 1, 1)
    weights["rpn_head.rpn_reg"] = (12, 256, 1, 1)
    weights["roi_head.bbox_head.shared_fcs.0"] = (1024, 12544)
    weights["roi_head.bbox_head.shared_fcs.1"] = (1024, 1024)
    weights["roi_head.bbox_head.fc_cls"] = (classes + 1, 1024)
    weights["roi_head.bbox_head.fc_reg"] = (4 * classes, 1024)
    return {**shapes, **with_biases(weights)}


def with_biases(weights: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    full = {}
    for name, shape in weights.items():
        full[f"{name}.weight"], full[f"{name}.bias"] = shape, shape[:1]
    return full


def refine_table(classes: int, last: int, fast: bool) -> dict[str, tuple[tuple[int, ...], str]]:
    """Their name in the mask head: shape and our name, as the authors' code has them."""
    table: dict[str, tuple[tuple[int, ...], str]] = {}
    for part, count in (("instance", 2), ("semantic", 4)):
        for i in range(count):
            table[f"{part}_convs.{i}.conv"] = (256, 256, 3, 3), f"{part}_convs.{i}.0"
    masks = 1 if fast else 2
    for k in range(3):
        c, at = 256 >> k, f"stages.{k}."
        table[at + "semantic_transform_in"] = (c, 256, 1, 1), at + "semantic_in"
        table[at + "fuse_conv.0"] = (c, 2 * c + masks, 1, 1), at + "fuse"
        for i in range(3):
            dilated = f"{at}fuse_conv.1.dilation_conv_{i + 1}.conv"
            table[dilated] = (c, c, 3, 3), f"{at}branches.{i}"
        table[at + "fuse_conv.1.merge_conv.conv"] = (c, c, 1, 1), at + "merge"
        table[at + "fuse_transform_out"] = (c // 2 - masks, c, 1, 1), at + "out"
        if fast:
            table[f"stage_instance_logits.{k}"] = (classes, c, 1, 1), f"logits.{k}"
        else:
            table[at + "semantic_transform_out"] = (c, c, 1, 1), at + "semantic_out"
            table[at + "instance_logits"] = (classes, c, 1, 1), f"logits.{k}"
    if fast:
        table["stage_instance_logits.3"] = (last, 32, 1, 1), "logits.3"
    else:
        table["semantic_logits"] = (1, 256, 1, 1), "semantic_logits"
        table["final_instance_logits"] = (last, 32, 1, 1), "logits.3"
    return table


def random_file(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=generator) if shape else torch.tensor(7)
        for name, shape in shapes.items()
    }


REFINE = [
    # name, depth, classes, rows of the last stage, tensors of the head, of the file
    ("refine_mask_resnet50_fpn", 50, 80, 80, 70, 418),
    ("refine_mask_resnet101_fpn", 101, 8, 8, 70, 724),
    ("refine_mask_resnet50_fpn", 50, 1203, 1, 70, 418),
    ("refine_mask_fast_resnet50_fpn", 50, 80, 1, 62, 410),
    ("refine_mask_fast_resnet50_fpn", 50, 8, 8, 62, 410),
]


@pytest.mark.parametrize(("name", "depth", "classes", "last", "head", "total"), REFINE)
def test_refine_mask_comes_in_and_goes_out_equal_to_the_bit(
    name: str, depth: int, classes: int, last: int, head: int, total: int
) -> None:
    table = refine_table(classes, last, "fast" in name)
    prefix = "roi_head.mask_head."
    shapes = with_biases({prefix + key: shape for key, (shape, _) in table.items()})
    assert len(shapes) == head
    state = random_file({**detector_shapes(depth, classes), **shapes})
    assert len(state) == total
    assert detect_format(state) == "mmdetection"
    with torch.device("meta"):
        names = list(build(name, 1).state_dict())
    converted = to_maskwright(state, names)
    assert len(converted.names) == classes
    assert converted.options == {
        "conventions": "mmdetection",
        "class_agnostic_last": last < classes,
    }
    with torch.device("meta"):
        ours = build(name, classes, **converted.options).state_dict()
    assert {k: v.shape for k, v in converted.state.items()} == {k: v.shape for k, v in ours.items()}
    for key, (_, own) in table.items():
        for kind in ("weight", "bias"):
            found = converted.state[f"roi_heads.mask_head.{own}.{kind}"]
            assert torch.equal(found, state[f"{prefix}{key}.{kind}"])
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    assert set(converted.report.ignored) == set(converted.extras) == counters
    assert set(converted.report.used) | counters == set(state)
    back, report = from_maskwright(converted.state, converted.extras, converted.category_ids)
    assert set(back) == set(state) and not report.filled
    assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.slow
def test_refine_mask_through_files(tmp_path: Path) -> None:
    table = refine_table(80, 80, False)
    shapes = with_biases({f"roi_head.mask_head.{key}": shape for key, (shape, _) in table.items()})
    state = random_file({**detector_shapes(50, 80), **shapes})
    source, ours, back = (tmp_path / file for file in ("r.pth", "o.safetensors", "back.pth"))
    torch.save({"meta": {"epoch": 12}, "state_dict": state, "optimizer": {"state": {}}}, source)
    name = "refine_mask_resnet50_fpn"
    report = hub.convert(source, ours, model=name)
    assert len(report.used) == 365
    meta = load_checkpoint(ours).meta
    assert meta.names[11:13] == ["stop sign", "parking meter"]
    assert meta.category_ids[11:13] == [13, 14]
    hub.convert(ours, back, model=name, target="mmdetection")
    again = torch.load(back, weights_only=True)["state_dict"]
    assert set(again) == set(state)
    assert all(torch.equal(again[key], state[key]) for key in state)
    with pytest.raises(ValueError, match=r"no counterpart of 'roi_heads.mask_head"):
        hub.convert(ours, back, model=name, target="torchvision")
    with pytest.raises(ValueError, match="stage_instance_logits"):
        hub.convert(source, ours, model="refine_mask_fast_resnet50_fpn")


SMALL = {
    "backbone": "resnet18",
    "width": 32,
    "box_width": 32,
    "mask_width": 32,
    "conventions": "mmdetection",
}


def save_refine_mask(path: Path, name: str, **options: object) -> None:
    args = {**SMALL, **options}
    detector = build(name, 3, **args)
    meta = Meta(name, args, ["cat", "dog", "cow"], [1, 2, 3])
    save_checkpoint(path, meta, detector.state_dict())


@pytest.mark.parametrize("name", ["refine_mask_resnet50_fpn", "refine_mask_fast_resnet50_fpn"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_stages": 3}, "mask_stages=4, not 3"),
        ({"boundary": False}, "boundary=True, not False"),
        ({"fusion_parts": ("semantic", "instance_mask", "semantic_mask")}, "without dilation"),
        ({"fusion_parts": ("dilation", "instance_mask", "semantic_mask")}, "without semantic"),
        ({"masks_first": True}, "masks_first=False, not True"),
        ({"fusion_parts": ("semantic", "instance_mask", "dilation")}, "without semantic_mask"),
    ],
)
def test_what_mmdetection_would_compute_otherwise_is_refused(
    tmp_path: Path, name: str, options: dict, message: str
) -> None:
    ours, theirs = tmp_path / "o.safetensors", tmp_path / "t.pth"
    save_refine_mask(ours, name, **options)
    if "fast" in name and ("masks_first" in options or "semantic_mask" in message):
        hub.convert(ours, theirs, model=name, target="mmdetection")  # so it always is there
        return
    with pytest.raises(ValueError, match=message):
        hub.convert(ours, theirs, model=name, target="mmdetection")
    assert not theirs.exists()


@pytest.mark.slow
def test_names_of_classes_go_through_files(tmp_path: Path) -> None:
    ours, theirs, again = (tmp_path / file for file in ("o.safetensors", "t.pth", "a.safetensors"))
    name = "refine_mask_resnet50_fpn"
    options = {key: value for key, value in SMALL.items() if key != "conventions"}
    detector = build(name, 3, **options)
    save_checkpoint(ours, Meta(name, options, ["cat", "dog", "cow"]), detector.state_dict())
    report = hub.convert(ours, theirs, model=name, target="mmdetection")
    assert "conventions=maskwright" in report.notes[0]
    content = torch.load(theirs, weights_only=True)
    assert content["meta"] == {"CLASSES": ("cat", "dog", "cow")}
    assert read_weights(theirs).names == ["cat", "dog", "cow"]
    shapes = refine_table(3, 3, False)
    full = {f"roi_head.mask_head.{key}": shape for key, (shape, _) in shapes.items()}
    state = random_file({**detector_shapes(50, 3), **with_biases(full)})
    for classes, expected in (
        (("cat", "dog", "cow"), ["cat", "dog", "cow"]),
        (("cat", "dog"), ["class_1", "class_2", "class_3"]),
    ):
        meta = {"dataset_meta": {"classes": classes}}
        torch.save({"meta": meta, "state_dict": state}, theirs)
        report = hub.convert(theirs, again, model=name)
        assert load_checkpoint(again).meta.names == expected
        assert bool(report.notes) == (len(classes) != 3)
    with pytest.raises(ValueError, match="has the format 'mmdetection', not 'torchvision'"):
        hub.convert(theirs, again, model=name, source="torchvision")
    key = "roi_head.mask_head.semantic_logits.weight"
    torch.save({**state, key: state[key].long()}, theirs)
    with pytest.raises(ValueError, match=r"semantic_logits.weight holds torch.int64"):
        hub.convert(theirs, again, model=name)


@pytest.mark.parametrize("kind", ["faster_rcnn", "mask_rcnn"])
def test_plain_detectors_agree_with_torchvision(kind: str) -> None:
    """Both libraries flatten alike and have the same tensors: through ours from one to another."""
    name = f"{kind}_resnet50_fpn"
    theirs = getattr(detection, name.replace("_", "", 1))(
        weights=None, weights_backbone=None, num_classes=6
    ).state_dict()
    with torch.device("meta"):
        names = list(build(name, 1).state_dict())
    first = from_torchvision(theirs, names)
    found, _ = from_maskwright(first.state, first.extras, first.category_ids)
    shapes = detector_shapes(50, 5)
    if kind == "mask_rcnn":
        head = {f"convs.{i}.conv": (256, 256, 3, 3) for i in range(4)}
        head |= {"upsample": (256, 256, 2, 2), "conv_logits": (5, 256, 1, 1)}
        shapes |= with_biases({f"roi_head.mask_head.{key}": s for key, s in head.items()})
        assert len(shapes) == 360
    counters = {key for key in shapes if key.endswith("num_batches_tracked")}
    assert {k: tuple(v.shape) for k, v in found.items()} == {
        key: shape for key, shape in shapes.items() if key not in counters
    }
    pairs = {
        "roi_head.bbox_head.shared_fcs.0.weight": "roi_heads.box_head.fc6.weight",
        "neck.fpn_convs.2.conv.bias": "backbone.fpn.layer_blocks.2.0.bias",
        "backbone.layer3.0.downsample.1.weight": "backbone.body.layer3.0.downsample.1.weight",
    }
    for mm, tv in pairs.items():
        assert torch.equal(found[mm], theirs[tv])
    classes = theirs["roi_heads.box_predictor.cls_score.weight"]
    assert torch.equal(found["roi_head.bbox_head.fc_cls.weight"], classes.roll(-1, 0))
    full = {**found, **{key: torch.tensor(3) for key in counters}}
    second = to_maskwright(full, names)
    assert all(torch.equal(second.state[key], first.state[key]) for key in names)
    back, _ = to_torchvision(second.state, second.extras, second.category_ids)
    assert set(back) <= set(theirs), "counters of one library do not go to the other"


def retinanet_shapes(classes: int) -> dict[str, tuple[int, ...]]:
    layers: dict[str, tuple[int, ...]] = {}
    for i in range(3):
        layers[f"neck.lateral_convs.{i}.conv"] = (256, 512 << i, 1, 1)
    for i in range(5):
        layers[f"neck.fpn_convs.{i}.conv"] = (256, 2048 if i == 3 else 256, 3, 3)
    for i in range(4):
        layers[f"bbox_head.cls_convs.{i}.conv"] = (256, 256, 3, 3)
        layers[f"bbox_head.reg_convs.{i}.conv"] = (256, 256, 3, 3)
    layers["bbox_head.retina_cls"] = (9 * classes, 256, 3, 3)
    layers["bbox_head.retina_reg"] = (36, 256, 3, 3)
    return {**backbone_shapes(50), **with_biases(layers)}


@torch.no_grad()
def test_retinanet_comes_in_and_goes_out_equal_to_the_bit() -> None:
    name = "retinanet_resnet50_fpn"
    theirs = random_file(retinanet_shapes(5))
    with torch.device("meta"):
        names = list(build(name, 1).state_dict())
    found = to_maskwright(theirs, names)
    assert found.options == {"conventions": "mmdetection", "p6_of_p5": False}
    back, _ = from_maskwright(found.state, found.extras, found.category_ids)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)
    ours = build(name, 5, **found.options).eval()
    ours.load_state_dict(found.state)
    # P6 and P7, without a ReLU between, and what the head says of one level.
    c5, p5 = torch.randn(1, 2048, 8, 8), torch.randn(1, 256, 8, 8)
    keys = [f"neck.fpn_convs.{i}.conv" for i in (3, 4)]
    p6 = conv(theirs, keys[0], c5, stride=2)
    torch.testing.assert_close(ours.fpn.last(c5, p5), (p6, conv(theirs, keys[1], p6, stride=2)))
    score = box = p5
    for i in range(4):
        score = conv(theirs, f"bbox_head.cls_convs.{i}.conv", score).relu()
        box = conv(theirs, f"bbox_head.reg_convs.{i}.conv", box).relu()
    score, box = (
        conv(theirs, f"bbox_head.retina_{part}", x).permute(0, 2, 3, 1)
        for part, x in (("cls", score), ("reg", box))
    )
    output = ours.head([p5] * 5, (64, 64))
    torch.testing.assert_close(output.logits[0], score.reshape(1, -1, 5))
    torch.testing.assert_close(output.deltas[0], box.reshape(1, -1, 4))
    # Nine anchors by ratio and then by size, exact, around the corner of the first cell.
    sides = [32 * 2 ** (k / 3) for k in range(3)]
    wanted = [(side / r**0.5, side * r**0.5) for r in (0.5, 1.0, 2.0) for side in sides]
    shape = output.anchors[0][:9, 2:] - output.anchors[0][:9, :2]
    torch.testing.assert_close(shape, torch.tensor(wanted))
    theirs["bbox_head.retina_reg.weight"] = torch.zeros(24, 256, 3, 3)
    with pytest.raises(ValueError, match="nine anchors"):
        to_maskwright(theirs, names)


def conv(state: dict[str, Tensor], name: str, x: Tensor, stride: int = 1) -> Tensor:
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    return F.conv2d(x, weight, bias, stride=stride, padding=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: s.pop("roi_head.bbox_head.fc_cls.weight"), "fc_cls.weight"),
        (lambda s: s.pop("neck.lateral_convs.3.conv.bias"), "lateral_convs.3.conv.bias"),
        (lambda s: s.update({"roi_head.bbox_head.fc_reg.weight": torch.zeros(9, 4)}), "needs 20"),
    ],
)
def test_incomplete_weights_name_the_tensor(damage, message: str) -> None:
    with torch.device("meta"):
        names = list(build("faster_rcnn_resnet50_fpn", 5).state_dict())
        state = {key: torch.empty(shape) for key, shape in detector_shapes(50, 5).items()}
    damage(state)
    with pytest.raises(ValueError, match=message):
        to_maskwright(state, names)


def test_parts_that_mmdetection_has_not_are_named() -> None:
    with torch.device("meta"):
        state = build("mask_rcnn_lite0_fpn", 2).state_dict()
    with pytest.raises(ValueError, match="no counterpart of 'backbone"):
        from_maskwright(state, {}, [1, 2])
