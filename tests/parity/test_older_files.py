"""Files of older libraries: Detectron's blobs, mmdetection 1, its SSD; and ImageNet backbones.

Each is made from the tensors of a newer layout by a renaming that is written out here.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2_forms import lively, theirs
from plain_detectron import as_blobs
from torch import Tensor
from torchvision.models import resnet50

from maskwright.cli import main
from maskwright.converters import detect_format
from maskwright.converters.anatomy import find_model
from maskwright.converters.mmdetection import from_maskwright, to_maskwright
from maskwright.errors import OptionError
from maskwright.hub import loading as hub
from maskwright.models import Meta, build
from maskwright.storage.checkpoint import load_checkpoint, save_checkpoint

State = dict[str, Tensor]


@pytest.mark.parametrize("form", ["fpn", "c4"])
@torch.no_grad()
def test_blobs_of_detectron(form: str, tmp_path: Path) -> None:
    """The same network by other rules; what it finds is tested in `test_detectron_plain`."""
    source, ours = tmp_path / "model_final.pkl", tmp_path / "ours.safetensors"
    source.write_bytes(pickle.dumps({"blobs": as_blobs(theirs(form)), "cfg": "x: 1"}, 2))
    report = hub.convert(source, ours)
    assert report.ignored == {"fc6_w_momentum": "what the optimiser kept"}
    assert "res_conv1_bn_s" in report.used and len(report.filled) == 2 * 53
    made, meta = hub.load_model(ours)
    wanted = lively(form)
    assert meta.args["conventions"] == {"fpn": "detectron", "c4": "detectron_c4"}[form]
    assert meta.model.endswith(form)
    assert made.bgr and made.fill == pytest.approx((122.7717, 115.9465, 102.9801))
    assert not made.roi_heads.pooler.aligned
    assert made.roi_heads.pooler.sampling_ratio == {"fpn": 2, "c4": 0}[form]
    pixels = torch.rand(1, 3, 64, 64) * 100
    for mine, other in zip(made.backbone(pixels), wanted.backbone(pixels), strict=True):
        assert float((mine - other).norm()) < 1e-5 * float(other.norm())
    rest = {key: value for key, value in wanted.state_dict().items() if "backbone" not in key}
    own = made.state_dict()
    assert all(torch.equal(own[key], value) for key, value in rest.items())
    source.write_bytes(pickle.dumps({"blobs": as_blobs(theirs(form)) | {"odd_w": pixels.numpy()}}))
    with pytest.raises(ValueError, match="odd_w is no tensor of a model"):
        hub.convert(source, ours)


@pytest.mark.parametrize("form", ["fpn", pytest.param("c4", marks=pytest.mark.slow)])
def test_names_that_detectron2_matches_by_their_ends(form: str, tmp_path: Path) -> None:
    """`matching_heuristics`: a whole detector without what stands before its names, or in blobs."""
    state = theirs(form)
    before = r"^(backbone\.(bottom_up\.)?|roi_heads\.|proposal_generator\.)"
    ends = {re.sub(before, "", key): value.numpy() for key, value in state.items()}
    assert len(ends) == len(state)
    path, ours = tmp_path / "model.pkl", tmp_path / "ours.safetensors"
    path.write_bytes(
        pickle.dumps({"model": ends, "__author__": "x", "matching_heuristics": True}, 2)
    )
    report = hub.convert(path, ours)
    assert set(report.used) == set(ends) and not report.filled
    made, meta = hub.load_model(ours)
    assert meta.args["conventions"] == "detectron2" and meta.model.endswith(form)
    own = lively(form).state_dict()
    assert all(torch.equal(value, own[key]) for key, value in made.state_dict().items())
    blobs = {"model": as_blobs(state), "__author__": "Caffe2", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(blobs, 2))
    rules = "detectron" if form == "fpn" else "detectron_c4"
    assert hub.load_model(path)[1].args["conventions"] == rules


NARROW = {"width": 16, "box_width": 32}


def version2(kind: str, **options: Any) -> State:
    torch.manual_seed(1)
    model = build(f"{kind}_rcnn_resnet50_fpn", 3, **NARROW, **options)
    return from_maskwright(model.state_dict(), {}, [1, 2, 3])[0]


def version1(state: State) -> State:
    """The background first, and no `roi_head`."""
    found = {}
    for key, value in state.items():
        if "fc_cls" in key:
            value = value.roll(1, 0)
        elif "fc_reg" in key or "conv_logits" in key:
            extra = 4 if "fc_reg" in key else 1
            value = torch.cat([torch.full_like(value[:extra], 7.0), value])
        found[key.removeprefix("roi_head.")] = value
    return found


CONFIG = """
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
test_pipeline = [dict(type='MultiScaleFlipAug', img_scale=(1000, 600), transforms=[])]
"""


def test_mmdetection_1(tmp_path: Path) -> None:
    second = version2("mask")
    first = version1(second)
    assert detect_format(first) == "mmdetection"
    with torch.device("meta"):
        names = list(build("mask_rcnn_resnet50_fpn", 1, **NARROW).state_dict())
    older, newer = to_maskwright(first, names), to_maskwright(second, names)
    assert older.options["conventions"] == "mmdetection_v1"
    assert older.names == newer.names and older.state.keys() == newer.state.keys()
    assert all(torch.equal(older.state[key], value) for key, value in newer.state.items())
    made = build("mask_rcnn_resnet50_fpn", 3, **NARROW, **older.options)
    pooler = made.roi_heads.pooler
    assert (pooler.aligned, pooler.sampling_ratio, made.bgr) == (False, 2, False)
    with pytest.raises(ValueError, match=r"fc_reg.weight needs 16; got 12"):
        to_maskwright({**first, "bbox_head.fc_reg.weight": torch.zeros(12, 32)}, names)
    with pytest.raises(ValueError, match=r"neck.more is no tensor of this model"):
        to_maskwright({**second, "neck.more": torch.zeros(1)}, names)


@pytest.mark.parametrize("key", ["config", "cfg"])
def test_what_a_configuration_tells_travels_along(key: str, tmp_path: Path) -> None:
    """Colours, statistics and sizes, class names and the model, from the file alone."""
    meta = {"CLASSES": ("a", "b", "c"), key: CONFIG, "mmdet_version": "2.25.0"}
    path, ours = tmp_path / "epoch_12.pth", tmp_path / "ours.safetensors"
    torch.save({"meta": meta, "state_dict": version2("faster"), "optimizer": {}}, path)
    hub.convert(path, ours)
    found = load_checkpoint(ours).meta
    assert (found.model, found.names) == ("faster_rcnn_resnet50_fpn", ["a", "b", "c"])
    made, _ = hub.load_model(path)
    assert made.bgr and made.fill == pytest.approx((123.675, 116.28, 103.53))
    assert made.std.flatten().tolist() == [1, 1, 1]
    assert (made.resize.short, made.resize.long) == (600, 1000)
    assert made.backbone.body.layer2[0].conv1.stride == (2, 2)
    torch.save(
        {"meta": {"config": CONFIG.replace("103.53", "90.0")}} | {"m": version2("mask")}, path
    )
    assert hub.load_model(path)[0].fill == pytest.approx((123.675, 116.28, 90.0))


def test_classes_get_names_where_the_file_has_none(tmp_path: Path) -> None:
    """And a training keeps their rows by these names."""
    path, ours = tmp_path / "epoch_12.pth", tmp_path / "ours.safetensors"
    state = version2("faster")
    torch.save(state, path)
    assert main(["convert", str(path), str(ours), "names=cat,dog,great auk"]) == 0
    assert load_checkpoint(ours).meta.names == ["cat", "dog", "great auk"]
    made, _, report = hub.start_model("faster_rcnn_resnet50_fpn", ["great auk"], weights=ours)
    assert "1 of 1 classes by name" in report
    rows = state["roi_head.bbox_head.fc_cls.weight"]
    assert torch.equal(made.roi_heads.box_head.logits.weight, rows[2:])
    for names in (("cat", "dog"), ("cat", "dog", "dog")):
        with pytest.raises(OptionError, match=r"epoch_12.pth has 3 classes, .* got \d"):
            hub.convert(path, ours, names=names)
    with pytest.raises(OptionError, match="become ours"):
        hub.convert(ours, path, target="mmdetection", names="cat")


def test_a_training_starts_from_it_by_its_rules(tmp_path: Path) -> None:
    meta = {"CLASSES": ("a", "b", "c"), "config": CONFIG}
    path = tmp_path / "epoch_12.pth"
    state = version2("faster")
    torch.save({"meta": meta, "state_dict": state}, path)
    made, options, report = hub.start_model("faster_rcnn_resnet50_fpn", ["z", "b"], weights=path)
    assert options["conventions"] == "mmdetection_caffe" and options["width"] == 16
    assert made.bgr and made.resize.long == 1000 and "1 of 2 classes by name" in report
    rows = state["roi_head.bbox_head.fc_cls.weight"]
    own = made.roi_heads.box_head.logits.weight
    assert torch.equal(own[1], rows[1]) and torch.equal(own[2], rows[3])
    with pytest.raises(OptionError, match=r"give model=faster_rcnn_resnet50_fpn weights=.*pth"):
        hub.start_model(str(path), ["a"])


def test_resnext_of_caffe_is_told_by_its_shapes() -> None:
    with torch.device("meta"):
        for name, rules in (
            ("resnext101_32x4d", "mmdetection"),
            ("resnext101_32x8d", "mmdetection_caffe"),
            ("resnext101_64x4d", "mmdetection"),
        ):
            model = build(f"faster_rcnn_{name}_fpn", 2, **NARROW)
            state, _ = from_maskwright(model.state_dict(), {}, [1, 2])
            told = find_model(state, "mmdetection")
            assert told is not None and told[0] == f"faster_rcnn_{name}_fpn"
            found = to_maskwright(state, list(model.state_dict()))
            assert found.options == {"conventions": rules}
            made = build(f"faster_rcnn_{name}_fpn", 2, **NARROW, conventions=rules)
            assert made.bgr == rules.endswith("caffe")
            assert made.backbone.body.layer2[0].conv1.stride == (1, 1)


SSD = {
    "backbone.features.21.weight": (512, 512, 3, 3),
    "backbone.features.31.weight": (1024, 512, 3, 3),
    "backbone.features.33.bias": (1024,),
    "neck.l2_norm.weight": (512,),
    "neck.extra_layers.0.0.conv.weight": (256, 1024, 1, 1),
    "neck.extra_layers.0.1.conv.weight": (512, 256, 3, 3),
    "neck.extra_layers.3.1.conv.bias": (256,),
    "bbox_head.cls_convs.0.0.weight": (4 * 6, 512, 3, 3),
    "bbox_head.reg_convs.5.0.weight": (16, 256, 3, 3),
}


def test_ssd_of_mmdetection(tmp_path: Path) -> None:
    with torch.device("meta"):
        names = list(build("ssd300_vgg16", 1).state_dict())
    torch.manual_seed(0)
    model = build("ssd300_vgg16", 5, conventions="mmdetection")
    state, _ = from_maskwright(model.state_dict(), {}, [1, 2, 3, 4, 5])
    assert {key: tuple(state[key].shape) for key in SSD} == SSD and len(state) == 71
    assert find_model(state, "mmdetection") == ("ssd300_vgg16", {})
    came = to_maskwright(state, names)
    own = model.state_dict()
    assert came.options == {"conventions": "mmdetection"} and came.state.keys() == own.keys()
    assert all(torch.equal(value, own[key]) for key, value in came.state.items())
    # Rows of a cell by box and then by class, the background last; in version 1 first.
    rows = state["bbox_head.cls_convs.0.0.bias"].view(4, 6)
    assert torch.equal(own["head.logits.0.bias"].view(6, 4), rows.T)
    older: State = {}
    for key, value in state.items():
        key = re.sub(
            r"neck\.extra_layers\.(\d)\.(\d)\.conv",
            lambda m: f"backbone.extra.{2 * int(m[1]) + int(m[2])}",
            key,
        ).replace("neck.l2_norm", "backbone.l2_norm")
        if "cls_convs" in key:
            value = value.unflatten(0, (-1, 6)).roll(1, 1).flatten(0, 1)
        older[re.sub(r"(_convs\.\d)\.0", r"\1", key)] = value
    path = tmp_path / "ssd300.pth"
    torch.save({"meta": {"mmdet_version": "1.0rc0"}, "state_dict": older}, path)
    made, meta = hub.load_model(path)
    assert meta.model == "ssd300_vgg16" and len(meta.names) == 5
    assert all(torch.equal(value, own[key]) for key, value in made.state_dict().items())
    assert made.mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert made.std.flatten().tolist() == [1, 1, 1] and not made.bgr
    assert meta.args["conventions"] == "mmdetection_v1" and made.head.box.border == 1
    corner = model.head.anchors([(38, 38)], (300, 300))[0]
    torch.testing.assert_close(corner[0], torch.tensor([4 - 10.5, 4 - 10.5, 4 + 10.5, 4 + 10.5]))
    config = (
        "bbox_head=dict(anchor_generator=dict(input_size=300, basesize_ratio_range=(0.2, 0.9)))"
    )
    torch.save({"meta": {"mmdet_version": "2.3.0", "config": config}, "state_dict": state}, path)
    assert hub.load_model(path)[1].args["anchor_sizes"] == (30, 60, 111, 162, 213, 264, 315)


@pytest.mark.parametrize("size", [300, 512])
def test_default_boxes_of_mmdetection(size: int) -> None:
    """Sides cut to whole pixels, on COCO and on VOC; in version 1 corners are whole, too."""
    name, maps = (
        f"ssd{size}_vgg16",
        {300: (38, 19, 10, 5, 3, 1), 512: (64, 32, 16, 8, 4, 2, 1)}[size],
    )
    steps = (8, 16, 32, 64, 100, 300) if size == 300 else (8, 16, 32, 64, 128, 256, 512)
    coco = (21, 45, 99, 153, 207, 261, 315), (20, 51, 133, 215, 296, 378, 460, 542)
    voc = (30, 60, 111, 162, 213, 264, 315), (35, 76, 153, 230, 307, 384, 460, 537)
    for classes, sizes in ((4, coco[size == 512]), (20, voc[size == 512])):
        with torch.device("meta"):
            blank = build(name, classes, conventions="mmdetection")
        state, _ = from_maskwright(blank.state_dict(), {}, list(range(1, classes + 1)))
        told = to_maskwright(state, list(blank.state_dict()), conventions="mmdetection_v1").options
        assert told.get("anchor_sizes", coco[0]) == sizes
        made = build(name, classes, **told).head.anchors([(m, m) for m in maps], (size, size))
        for i, (step, found) in enumerate(zip(steps, made, strict=True)):
            middle, cell = 0.5 * (step - 1), []
            long = (2,) if i in (0, len(maps) - 2, len(maps) - 1) else (2, 3)
            forms = [(1.0, 1.0), (1.0, (sizes[i + 1] / sizes[i]) ** 0.5)]
            forms += [(r, 1.0) for ratio in long for r in (1 / ratio, ratio)]
            for ratio, scale in forms:  # height over width
                w, h = sizes[i] * scale / ratio**0.5, sizes[i] * scale * ratio**0.5
                half = 0.5 * (w - 1), 0.5 * (h - 1)
                cell.append([*(middle - x for x in half), *(middle + x for x in half)])
            whole = torch.tensor(cell).round() + torch.tensor([0, 0, 1, 1])
            assert torch.equal(found[: len(cell)], whole)
            last = (maps[i] - 1) * step
            assert torch.equal(found[-len(cell) :], whole + last)


def imagenet(kind: str) -> tuple[Any, State]:
    """A file as it is published, and the tensors by torchvision's names that it stands for."""
    torch.manual_seed(2)
    net = resnet50(weights=None)
    for key, value in net.state_dict().items():
        if "bn" in key or "downsample.1" in key:
            value.copy_(torch.rand(value.shape) + 0.5)
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    theirs_: State = {}
    for key, value in state.items():
        key = re.sub(r"^layer(\d)", lambda m: f"res{int(m[1]) + 1}", key)
        key = re.sub(r"^(conv1|bn1)", r"stem.\1", key)
        key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        theirs_[re.sub(r"bn(\d)", r"conv\1.norm", key)] = value
    if kind == "torchvision":
        content: Any = {
            "model": {k: v.numpy() for k, v in theirs_.items()},
            "__author__": "torchvision",
            "matching_heuristics": True,
        }
        return content, state
    blobs = as_blobs({k if k.startswith("fc") else f"backbone.{k}": v for k, v in theirs_.items()})
    return {**blobs, "conv1_b": torch.zeros(64).numpy()}, state


@pytest.mark.parametrize(
    ("kind", "rules", "way"),
    [
        ("msra", "detectron2", "{}"),
        ("torchvision", "detectron2_rgb", "imagenet:{}"),
        pytest.param("msra", "detectron2", "imagenet:{}", marks=pytest.mark.slow),
        pytest.param("torchvision", "detectron2_rgb", "{}", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_backbones_bring_their_rules(kind: str, rules: str, way: str, tmp_path: Path) -> None:
    content, state = imagenet(kind)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(content, 2))
    made, options, report = hub.start_model(
        "faster_rcnn_resnet50_fpn", ["a"], weights=way.format(path), options=dict(NARROW)
    )
    assert options["conventions"] == rules and "R-50.pkl" in report
    assert made.bgr == (kind == "msra")
    first = made.backbone.body.layer2[0]
    assert (first.conv1.stride, first.conv2.stride) == (
        ((2, 2), (1, 1)) if made.bgr else ((1, 1), (2, 2))
    )
    own = made.backbone.body.state_dict()
    for key in ("conv1.weight", "layer3.2.conv2.weight", "layer4.0.downsample.0.weight"):
        assert torch.equal(own[key], state[key])
    scale, shift = made.backbone.body.layer4[2].bn3.affine()
    bn = [state[f"layer4.2.bn3.{k}"] for k in ("weight", "bias", "running_mean", "running_var")]
    wanted = bn[0] / (bn[3] + 1e-5).sqrt()
    torch.testing.assert_close(scale, wanted)
    torch.testing.assert_close(shift, bn[1] - bn[2] * wanted)
    other = "torchvision" if kind == "msra" else "detectron2"
    with pytest.raises(OptionError, match="this backbone needs images with"):
        hub.start_model(
            "faster_rcnn_resnet50_fpn", ["a"], weights=way.format(path),
            options={**NARROW, "conventions": other},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("faster_rcnn_resnet101_fpn", r"lack \d+ tensors: layer3.6.*R-50.pkl holds another"),
        ("faster_rcnn_resnet18_fpn", "R-50.pkl"),
    ],
)
def test_another_depth_is_no_start(name: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(imagenet("msra")[0], 2))
    with pytest.raises(ValueError, match=said):
        hub.start_model(name, ["a"], weights=path, options=dict(NARROW))


def test_a_deeper_resnet_is_not_cut_short(tmp_path: Path) -> None:
    state = {**imagenet("torchvision")[1], "layer3.6.conv1.weight": torch.zeros(256, 1024, 1, 1)}
    path = tmp_path / "resnet101.pth"
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"layer3.6.conv1.weight of .*resnet101.pth is no tensor"):
        hub.start_model("faster_rcnn_resnet50_fpn", ["a"], weights=path, options=dict(NARROW))


def test_torchvisions_resnet_is_a_start_without_rules(tmp_path: Path) -> None:
    """What mmdetection starts from: the same names, below `state_dict`."""
    _, state = imagenet("torchvision")
    path = tmp_path / "resnet50.pth"
    torch.save({"state_dict": state, "meta": {}}, path)
    for given in ({}, {"conventions": "mmdetection_caffe"}):
        made, options, _ = hub.start_model(
            "faster_rcnn_resnet50_fpn", ["a"], weights=path, options={**NARROW, **given}
        )
        assert options == {**NARROW, **given} and made.bgr == bool(given)
        key = "layer3.2.conv2.weight"
        assert torch.equal(made.backbone.body.state_dict()[key], state[key])


def test_what_another_library_must_be_told_is_said(tmp_path: Path) -> None:
    """A model trained here has red first and RoIAlign with two samples."""
    name = "mask_rcnn_resnet50_fpn"
    args = {**NARROW, "imgsz": (600, 1000)}
    ours_ = tmp_path / "ours.safetensors"
    save_checkpoint(ours_, Meta(name, args, ["a"]), build(name, 1, **args).state_dict())
    report = hub.convert(ours_, tmp_path / "there.pkl", target="detectron2")
    assert "conventions=maskwright" in report.notes[0]
    for text in (
        "INPUT.FORMAT RGB",
        "MODEL.PIXEL_MEAN [123.675, 116.28, 103.53]",
        "MODEL.RESNETS.STRIDE_IN_1X1 False",
        "MODEL.ANCHOR_GENERATOR.SIZES [[32.0], [64.0], [128.0], [256.0], [512.0]]",
        "INPUT.MIN_SIZE_TEST 600",
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO 2",
        "MODEL.ROI_BOX_HEAD.POOLER_TYPE ROIAlignV2",
    ):
        assert text in report.notes[1]
    for target, text in (
        ("mmdetection", "bgr_to_rgb=True"),
        ("torchvision", "image_mean=[0.485, 0.456, 0.406]"),
    ):
        report = hub.convert(ours_, tmp_path / "there.pth", target=target)
        assert text in report.notes[-1]


@pytest.mark.parametrize(
    ("rules", "target", "text"),
    [
        ("detectron2_rgb", "detectron2", "INPUT.FORMAT RGB"),
        ("detectron2_legacy", "detectron2", "POOLER_TYPE ROIAlign"),
        ("mmdetection_caffe", "mmdetection", "bgr_to_rgb=False"),
        ("mmdetection_v1", "mmdetection", "RoIAlign sampling_ratio=2 aligned=False"),
        ("mmdetection_v1", "mmdetection", "[[32.0], [64.0], [128.0], [256.0], [512.0]]"),
        ("torchvision_v1", "torchvision", "FrozenBatchNorm2d eps=0"),
        ("detectron2", "detectron2", None),
    ],
)
def test_a_variant_of_the_rules_is_told_as_well(
    rules: str, target: str, text: str | None, tmp_path: Path
) -> None:
    name, args = "faster_rcnn_resnet18_fpn", {**NARROW, "conventions": rules}
    ours_ = tmp_path / "ours.safetensors"
    save_checkpoint(ours_, Meta(name, args, ["a"]), build(name, 1, **args).state_dict())
    report = hub.convert(ours_, tmp_path / "there.pth", target=target)
    assert [text in note for note in report.notes] == ([] if text is None else [True])
