"""Darknet's networks and files against what Darknet itself computed and wrote."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch
from darknet_golden import FOLDER, HERE, INDEX, cases, tensors, truths
from PIL import Image

import maskwright as mw
from maskwright.cli import main
from maskwright.converters.darknet.weights import layers_of, read_weights
from maskwright.errors import OptionError
from maskwright.models import PostProcess
from maskwright.models.detection.yolo import make_head
from maskwright.nn.darknet.network import DarknetNetwork
from maskwright.nn.darknet.table import head_of, read_table
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.structures import Images

CFG, WEIGHTS = HERE / "yolov1.cfg", HERE / "yolov1.weights"


def network(name: str) -> DarknetNetwork:
    made = DarknetNetwork(read_table((FOLDER / INDEX[name]["cfg"]).read_text()))
    found = read_weights(FOLDER / INDEX[name]["weights"], made)
    made.load_state_dict(found.state, strict=False)
    return made


def converted(name: str, folder: Path) -> Path:
    case = INDEX[name]
    path = folder / f"{name}.safetensors"
    mw.convert(FOLDER / case["weights"], path, cfg=FOLDER / case["cfg"])
    return path


@pytest.mark.parametrize("name", cases("network"))
def test_every_layer_gives_what_darknet_gives(name: str) -> None:
    made, wanted = network(name).eval(), tensors(name)
    for layer in made.modules():
        if hasattr(layer, "outside"):
            layer.outside = True
    with torch.no_grad():
        found = list(made.each(wanted["input"][None]))
    checked = 0
    for key, value in wanted.items():
        number = int(key.removeprefix("layer_")) if key.startswith("layer_") else -1
        if 0 <= number < len(found):
            spread = float(value.max() - value.min())
            assert float((found[number].flatten() - value.flatten()).abs().max()) < 1e-4 * spread
            checked += 1
    assert checked > 3


@pytest.mark.parametrize("name", cases("network"))
def test_a_photo_through_the_public_interface(name: str) -> None:
    case, wanted = INDEX[name], tensors(name)
    # The file as it is, its network beside it.
    predictor = mw.load(FOLDER / case["weights"], device="cpu")
    image = wanted["image"].numpy()
    if "final_boxes" not in wanted:  # a classifier, which Darknet stretches
        size = torch.tensor([wanted["input"].shape[1:]])
        images = Images(255 * wanted["input"][None], size, size)
        with torch.no_grad():
            probabilities = predictor.model(images).softmax(1)[0]
        torch.testing.assert_close(probabilities, wanted["raw"].flatten(), rtol=0, atol=1e-5)
        return
    # The input: resized, in the middle of its canvas.
    model = predictor.model
    seen = model.normalise(predictor.task.collate([image], model, model.resize))[0]
    apart = (seen - wanted["input"]).abs()
    assert float(apart[:, :-1].max()) < 2e-6
    assert float(apart.max()) < 2e-5  # Darknet's last row is darker by what its place is rounded
    found = predictor(image, conf=case["thresh"], iou=case["nms"], max_det=2000)
    boxes, width, height = wanted["final_boxes"], image.shape[1], image.shape[0]
    boxes = boxes.minimum(torch.tensor([width, height] * 2)).clamp(min=0)
    assert len(found) == len(boxes)
    scores, labels = torch.as_tensor(found.scores), torch.as_tensor(found.labels)
    # Norms are folded for a prediction, which rounds once more than Darknet does.
    torch.testing.assert_close(scores, wanted["final_scores"], rtol=1e-4, atol=1e-5)
    # Scores that rounding cannot tell apart may change places.
    left = list(range(len(boxes)))
    for box, score, label in zip(torch.as_tensor(found.boxes), scores, labels, strict=True):
        match = [
            k
            for k in left
            if int(wanted["final_labels"][k]) == int(label)
            and abs(float(wanted["final_scores"][k] - score)) < 1e-4
            and float((boxes[k] - box).abs().max()) < 0.01
        ]
        assert match
        left.remove(match[0])


@pytest.mark.parametrize("name", cases("head"))
def test_gradients_of_a_head_alone(name: str) -> None:
    case, wanted = INDEX[name], tensors_of_heads()
    table = read_table(case["cfg"])
    section = head_of(table)
    assert section is not None
    head, size = make_head(section, section["classes"]).eval(), (320, 224)
    for seen in case["seen"]:
        head.seen.fill_(seen)
        raw = wanted[f"{name}.raw"].clone().requires_grad_()
        shape = (table[0]["channels"], table[0]["height"], table[0]["width"])
        maps = raw.view(2, *shape) if section.kind == "region" else raw
        losses = head.losses(head(maps), truths(case["truths"], size), size)
        (2 * torch.stack(list(losses.values())).sum()).backward()  # summed over the batch of two
        assert raw.grad is not None
        gradient = wanted[f"{name}.gradient.{seen}"]
        torch.testing.assert_close(raw.grad, gradient, rtol=1e-5, atol=1e-5)


def tensors_of_heads() -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(FOLDER / "heads.safetensors")


@pytest.mark.parametrize("name", cases("step"))
def test_a_training_step(name: str, tmp_path: Path) -> None:
    """Gradients of all numbers in the order of the file, of the input, and the numbers after it."""
    case, wanted = INDEX[name], tensors(name)
    model = mw.load(converted(name, tmp_path), device="cpu").model.train()
    count = len(wanted["images"])
    model.head.seen.fill_(case["seen"] - count)  # the batch counts as well
    pixels = wanted["images"].permute(0, 3, 1, 2).float().requires_grad_()
    height, width = pixels.shape[-2:]
    size = torch.tensor([[height, width]] * count)
    losses = model.losses(Images(pixels, size, size), truths(case["truths"], (height, width)))
    torch.stack(list(losses.values())).sum().backward()
    assert pixels.grad is not None and int(model.head.seen) == case["seen"]
    close = {"rtol": 0.0, "atol": 1e-4}
    largest = float(wanted["input_gradient"].abs().max())
    found = 255 * count * pixels.grad.view_as(wanted["input_gradient"])
    torch.testing.assert_close(found / largest, wanted["input_gradient"] / largest, **close)
    numbers, after, rate = [], [], case["learning_rate"]
    for _, rows in layers_of(model.backbone.body):
        for key, _, _ in rows:
            value = model.backbone.body.get_parameter(key)
            decay = 0.0 if key.endswith("bias") else case["decay"]
            numbers.append(count * value.grad.flatten())
            after.append((value - rate * (value.grad + decay * value)).detach().flatten())
    gradient = torch.cat(numbers)
    largest = float(wanted["gradient"].abs().max())
    torch.testing.assert_close(gradient / largest, wanted["gradient"] / largest, **close)
    torch.testing.assert_close(torch.cat(after), wanted["after"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", cases("network"))
def test_files_come_back_to_the_bit(name: str, tmp_path: Path) -> None:
    case = INDEX[name]
    ours = converted(name, tmp_path)
    mw.convert(ours, tmp_path / "back.weights")
    assert (tmp_path / "back.weights").read_bytes() == (FOLDER / case["weights"]).read_bytes()
    assert (tmp_path / "back.cfg").read_bytes() == (FOLDER / case["cfg"]).read_bytes()


@pytest.mark.parametrize("name", cases("format"))
def test_older_headers(name: str, tmp_path: Path) -> None:
    case = INDEX[name]
    ours = converted(name, tmp_path)
    assert int(load_checkpoint(ours).model["head.seen"]) == case["seen"]
    mw.convert(ours, tmp_path / "back.weights")
    back, wanted = (tmp_path / "back.weights").read_bytes(), (FOLDER / case["equals"]).read_bytes()
    assert back[20:] == wanted[20:]
    assert struct.unpack_from("<3iq", back) == (0, 2, 0, case["seen"])


def test_a_command_finds_the_cfg_and_the_names_beside(tmp_path: Path) -> None:
    for source in (CFG, WEIGHTS):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    (tmp_path / "yolov1.names").write_text("red\nwhite\nplatelet\n")
    ours, back = tmp_path / "ours.safetensors", tmp_path / "back.weights"
    assert main(["convert", str(tmp_path / "yolov1.weights"), str(ours)]) == 0
    checkpoint = load_checkpoint(ours)
    assert checkpoint.meta.names == ["red", "white", "platelet"]
    assert checkpoint.meta.model == "yolo_v1"
    assert main(["convert", str(ours), str(back)]) == 0
    assert back.read_bytes() == WEIGHTS.read_bytes()


def damaged(tmp_path: Path, data: bytes, cfg: str | None = None) -> Path:
    path = tmp_path / "x.weights"
    path.write_bytes(data)
    path.with_suffix(".cfg").write_text(CFG.read_text() if cfg is None else cfg)
    return path


DATA = WEIGHTS.read_bytes()
LAYER_2 = 20 + 4 * (4 * 8 + 8 * 3 * 49)  # where layer 2 begins
BAD = {
    "cut off in a layer": (DATA[: LAYER_2 + 40], r"within layer 2 \[convolutional\], at byte 4892"),
    "one byte less": (DATA[:-1], r"within layer 11 \[connected\]"),
    "cut off in the header": (DATA[:14], "within its header: 14 bytes"),
    "no number at all": (DATA[:20], r"within layer 0 \[convolutional\]"),
    "four bytes more": (DATA + b"0000", r"4 bytes are left behind layer 11 \[connected\]"),
    "a body": (DATA[:LAYER_2], "ends after layer 0, and the network has 12: it is a body"),
    "a zip archive": (b"PK\3\4" + DATA[4:], "no header of Darknet's"),
    "a negative count": (struct.pack("<3iq", 0, 2, 0, -1) + DATA[20:], "no header of Darknet's"),
    "nan": (DATA[:20] + struct.pack("<f", float("nan")) + DATA[24:], "1 of 8 numbers of layers.0"),
    "a negative variance": (
        DATA[: 20 + 4 * 24] + struct.pack("<f", -1.0) + DATA[24 + 4 * 24 :],
        "numbers of layers.0.norm.running_var cannot be",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_damaged_weights_say_layer_and_bytes(case: str, tmp_path: Path) -> None:
    data, message = BAD[case]
    with pytest.raises(ValueError, match=message) as caught:
        mw.convert(damaged(tmp_path, data), tmp_path / "y.safetensors")
    assert "x.weights" in str(caught.value)
    assert not (tmp_path / "y.safetensors").exists()


def test_weights_of_another_network(tmp_path: Path) -> None:
    cfg = CFG.read_text().replace("filters=24", "filters=20")
    with pytest.raises(ValueError, match=r"left behind layer 11 .connected., from byte \d+ on"):
        mw.convert(damaged(tmp_path, DATA, cfg), tmp_path / "y.safetensors")
    more = CFG.read_text().replace("classes=3", "classes=4")
    for read in (mw.load, lambda path: mw.convert(path, tmp_path / "y.safetensors")):
        with pytest.raises(ValueError, match=r"x\.cfg: layer 12 .detection. takes \d+ numbers"):
            read(damaged(tmp_path, DATA, more))
    with pytest.raises(ValueError, match=r"put its alone\.cfg beside"):
        alone = tmp_path / "alone.weights"
        alone.write_bytes(DATA)
        mw.convert(alone, tmp_path / "y.safetensors")
    with pytest.raises(ValueError, match=r"does not exist; did you mean .*alone\.weights"):
        mw.convert(tmp_path / "alnoe.weights", tmp_path / "y.safetensors")
    with pytest.raises(ValueError, match="its network is a yolo_v1, not a yolo_v2"):
        mw.convert(damaged(tmp_path, DATA), tmp_path / "y.safetensors", model="yolo_v2")
    with pytest.raises(OptionError, match="for weights of Darknet alone"):
        mw.convert(tmp_path / "a.pth", tmp_path / "y.safetensors", model="yolo_v1", cfg=CFG)


def test_a_training_starts_from_a_body(tmp_path: Path) -> None:
    from maskwright.hub.loading import start_model

    path = damaged(tmp_path, DATA[:LAYER_2])
    with torch.no_grad():
        model, options, told = start_model("yolo_v1", ["a", "b"], weights=path)
    assert options["layers"] == CFG.read_text()
    assert "tensors start afresh" in told
    first = model.backbone.body.layers[0]
    whole = network_of_yolov1()
    assert torch.equal(first.conv.weight, whole.layers[0].conv.weight)
    assert not torch.equal(model.backbone.body.layers[2].conv.weight, whole.layers[2].conv.weight)


def network_of_yolov1() -> DarknetNetwork:
    made = DarknetNetwork(read_table(CFG.read_text()))
    made.load_state_dict(read_weights(WEIGHTS, made).state, strict=False)
    return made


def test_classes_of_a_start_go_by_name(tmp_path: Path) -> None:
    """A row of each cell, or of each anchor, belongs to a class; boxes stay as they are."""
    from maskwright.hub.loading import start_model

    for name in ("yolov1", "yolov2"):
        folder = tmp_path / name
        folder.mkdir()
        for ending in ("cfg", "weights"):
            (folder / f"x.{ending}").write_bytes((HERE / f"{name}.{ending}").read_bytes())
        source, _, _ = start_model(f"yolo_v{name[-1]}", named(name), weights=folder / "x.weights")
        own = ["other", "class_2"]
        model, _, told = start_model(f"yolo_v{name[-1]}", own, weights=folder / "x.weights")
        assert "1 of 2 classes by name" in told
        images = photo()
        with torch.no_grad():
            raw = [m.eval().features(images)[0] for m in (source, model)]
        if name == "yolov1":
            (a, sure_a, box_a), (b, sure_b, box_b) = (
                m.head(r) for m, r in zip((source, model), raw, strict=True)
            )
            torch.testing.assert_close((sure_b, box_b), (sure_a, box_a), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(a[..., 1], b[..., 1])
        else:
            a, b = (m.head(r) for m, r in zip((source, model), raw, strict=True))
            torch.testing.assert_close(a[..., :5], b[..., :5])
            torch.testing.assert_close(a[..., 6], b[..., 6])


def named(name: str) -> list[str]:
    return [f"class_{k}" for k in range(1, 4 if name == "yolov1" else 5)]


def photo() -> Images:
    size = torch.tensor([[96, 96]])
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 255
    return Images(pixels, size, size)


def test_predictions_from_files_of_any_shape(tmp_path: Path) -> None:
    ours = tmp_path / "y.safetensors"
    mw.convert(HERE / "yolov2.weights", ours)
    predictor = mw.load(ours, device="cpu")
    for width, height in ((40, 300), (301, 77), (1, 1)):
        path = tmp_path / "photo.png"
        Image.new("RGB", (width, height), (200, 30, 90)).save(path)
        assert predictor(path).size == (height, width)
    assert predictor.model.usual == PostProcess(0.25, 0.45)
