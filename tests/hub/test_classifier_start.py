"""What classifiers start from, and detectors that start from classifiers."""

from __future__ import annotations

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_models import random_norms
from torch import nn

import maskwright as mw
from maskwright import hub
from maskwright.data import open_dataset
from maskwright.errors import OptionError
from maskwright.hub.backbone_weights import fetch_timm
from maskwright.hub.loading import convert, load_model, start_model
from maskwright.models import Meta, build
from maskwright.storage.checkpoint import load_checkpoint, save_checkpoint
from maskwright.storage.published import read_tensors
from maskwright.tasks import task_of
from maskwright.tasks.classification.freezing import learning_rates
from maskwright.tasks.classification.recipe import ClassificationRecipe
from maskwright.training.prepare import build_model

NAMES = ["cat", "dog", "hen"]
WEIGHTS = Path(hub.__file__).parents[1] / "weights"


def trained(name: str, path: Path, names: list[str] = NAMES, **options: object) -> nn.Module:
    """Write a checkpoint of a classifier with random weights and statistics."""
    torch.manual_seed(0)
    model = build(name, len(names), **options)
    random_norms(model)
    save_checkpoint(path, Meta(name, options, list(names)), model.state_dict())
    return model.eval()


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d"])
def test_a_detector_starts_from_our_classifier(name: str, tmp_path: Path) -> None:
    """Without conversion: its maps are those of the classifier."""
    model = trained(name, tmp_path / "a.safetensors")
    options = {"backbone": name, "width": 16, "box_width": 32, "imgsz": 64}
    detector, _, report = start_model(
        "faster_rcnn_resnet18_fpn",
        ["thing"],
        weights=f"imagenet:{tmp_path / 'a.safetensors'}",
        options=options,
    )
    assert "a.safetensors" in report
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found, expected = detector.eval().backbone(x)[-1], model.network.maps(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "detector", "bins"),
    [("vgg16_bn", "fast_rcnn_vgg16", 7), ("alexnet", "rcnn_alexnet", 6)],
)
def test_hidden_layers_of_our_classifier_become_those_of_the_head(
    name: str, detector: str, bins: int, tmp_path: Path
) -> None:
    """The last map, pooled as in the classifier, through both hidden layers."""
    model = trained(name, tmp_path / "a.safetensors", width=24)
    options = {"backbone": name, "box_width": 24, "pool": bins}
    built, _, report = start_model(
        detector,
        ["thing"],
        weights=f"imagenet:{tmp_path / 'a.safetensors'}",
        options=options,
    )
    assert report.endswith("2 fully connected layers included")
    x = torch.randn(1, 3, 224, 224)
    network = model.network
    with torch.no_grad():
        (single,) = built.eval().backbone(x)
        kernel = single.shape[-1] - 2 * (bins - 1)  # every second pixel: 2 of 14, 3 of 13
        pooled = torch.nn.functional.max_pool2d(single, kernel, 2)
        found = built.roi_heads.box_head.hidden(pooled)
        hidden = network.classifier[:-1](network.maps(x).flatten(1))
    assert hidden.std() > 1e-4
    torch.testing.assert_close(found, hidden, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ssd300_vgg16", "deeplabv2_vgg16"])
def test_hidden_layers_of_our_classifier_are_thinned_for_dilated_ones(
    name: str, tmp_path: Path
) -> None:
    """Every fourth channel, every third weight, where the classifier had them on a finer map."""
    model = trained("vgg16", tmp_path / "a.safetensors", width=24)
    options: dict[str, object] = {"fc_width" if "ssd" in name else "width": 6}
    built, _, report = start_model(
        name,
        ["thing"],
        weights=f"imagenet:{tmp_path / 'a.safetensors'}",
        options=options,
    )
    assert report.endswith("2 fully connected layers included")
    first, second = (model.network.classifier[place] for place in (0, 3))
    kept = torch.zeros(7, 7)
    kept[::3, ::3] = 1
    weight = first.weight.unflatten(1, (512, 7, 7)) * kept
    x = torch.randn(1, 512, 19, 19)
    if "ssd" in name:
        pairs = [(built.fpn.fc6, built.fpn.fc7)]
    else:
        pairs = [(branch[0], branch[3]) for branch in built.network.branches]
    assert len(pairs) == (1 if "ssd" in name else 4)
    with torch.no_grad():
        for fc6, fc7 in pairs:
            step = fc6.dilation[0] // 3
            whole = torch.nn.functional.conv2d(
                x, weight, first.bias, padding=3 * step, dilation=step
            )
            found = fc6.eval()(x)
            torch.testing.assert_close(found, whole[:, ::4], rtol=1e-4, atol=1e-5)
            others = torch.zeros_like(whole)
            others[:, ::4] = whole[:, ::4]
            expected = second(others.movedim(1, -1)).movedim(-1, 1)[:, ::4]
            torch.testing.assert_close(fc7(found), expected, rtol=1e-4, atol=1e-5)
    refused = dict.fromkeys(options, 7)
    path = f"imagenet:{tmp_path / 'a.safetensors'}"
    assert "0 fully" in start_model(name, ["thing"], weights=path, options=refused)[2]


@pytest.mark.parametrize("backbone", ["convnext_atto", "mobilenetv2_100"])
def test_a_detector_on_timm_starts_from_our_classifier(backbone: str, tmp_path: Path) -> None:
    model = trained(f"classify_{backbone}", tmp_path / "a.safetensors", imgsz=64)
    detector, _, _ = start_model(
        "faster_rcnn_resnet18_fpn",
        ["thing"],
        weights=f"imagenet:{tmp_path / 'a.safetensors'}",
        options={"backbone": backbone, "width": 16, "box_width": 32, "imgsz": 64},
    )
    x = torch.randn(1, 3, 64, 64)
    body = model.network.body
    with torch.no_grad():
        maps = detector.eval().backbone(x)
        if backbone == "convnext_atto":
            expected = body.forward_features(x)
        else:
            expected = body.blocks(body.bn1(body.conv_stem(x)))
    torch.testing.assert_close(maps[-1], expected, rtol=1e-4, atol=1e-5)


def test_a_detector_starts_from_what_stochastic_depth_gave(tmp_path: Path) -> None:
    """Branches that count p at test go into the weights of a backbone that knows no p."""
    model = trained("resnet18", tmp_path / "a.safetensors", drop_path=0.5)
    detector, _, _ = start_model(
        "faster_rcnn_resnet18_fpn",
        ["thing"],
        weights=f"imagenet:{tmp_path / 'a.safetensors'}",
        options={"width": 16, "box_width": 32, "imgsz": 64},
    )
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        found, expected = detector.eval().backbone(x)[-1], model.network.maps(x)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    # The same on the way to another library, and into a model without it.
    convert(tmp_path / "a.safetensors", tmp_path / "b.pth", model="resnet18", target="timm")
    theirs = timm.create_model("resnet18", num_classes=3).eval()
    theirs.load_state_dict(torch.load(tmp_path / "b.pth"))
    plain, options, _ = start_model(
        "resnet18", NAMES, weights=tmp_path / "a.safetensors", options={"drop_path": 0.0}
    )
    kept, _, _ = start_model("resnet18", NAMES, weights=tmp_path / "a.safetensors")
    assert options["drop_path"] == 0.0
    with torch.no_grad():
        for other in (theirs, plain.eval().network, kept.eval().network):
            torch.testing.assert_close(other(x), model.network(x), rtol=1e-4, atol=1e-5)


def test_classes_keep_their_rows_by_name(tmp_path: Path) -> None:
    model = trained("resnet20_cifar", tmp_path / "a.safetensors", depth=8)
    path = tmp_path / "a.safetensors"
    started, options, report = start_model("resnet20_cifar", ["hen", "owl"], weights=path)
    assert options == {"depth": 8} and "1 of 2 classes by name" in report
    assert torch.equal(started.final.weight[0], model.final.weight[2])
    assert torch.equal(started.network.conv1.weight, model.network.conv1.weight)
    again, _ = load_model(path)
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(again.eval().network(x), model.network(x))


@pytest.mark.parametrize(
    ("name", "fresh"),
    [
        ("tf_efficientnet_lite0", {"conv_head", "bn2", "classifier"}),
        ("mobilenetv2_100", {"conv_head", "bn2", "classifier"}),
    ],
)
@pytest.mark.parametrize("weights", [None, "imagenet"])
def test_the_backbones_of_the_package_start_classifiers(
    name: str, fresh: set[str], weights: str | None
) -> None:
    model, options, report = start_model(f"classify_{name}", NAMES, weights=weights)
    assert options == {} and report.startswith("ImageNet weights (the package")
    own = read_tensors(WEIGHTS / f"{name}_imagenet.safetensors")
    for key, value in model.network.body.state_dict().items():
        if key in own:
            assert torch.equal(value, own[key].to(value.dtype))
        else:
            assert key.split(".")[0] in fresh or key.endswith("num_batches_tracked")
    assert model.final.out_features == 3
    assert {key.split(".")[2] for key in model.fresh} == fresh


def test_what_the_weights_lack_trains_with_the_head() -> None:
    """The last convolution, which the package does not have: at the head's rate, never frozen."""
    model, _, _ = start_model("classify_mobilenetv2_100", NAMES)
    late = {f"network.body.{name}" for name in ("conv_head.weight", "bn2.weight", "bn2.bias")}
    head = {f"network.body.classifier.{kind}" for kind in ("weight", "bias")}
    assert model.fresh == late | head
    rates = learning_rates(model, ClassificationRecipe(data="x", layer_decay=0.5), fresh=False)
    assert {name for name, rate in rates.items() if rate == 1} == late
    assert rates["network.body.conv_stem.weight"] == 0.1 * 0.5**5
    model.freeze(-1)
    model.train()
    training = {name for name, value in model.named_parameters() if value.requires_grad}
    assert training == late | head
    body = model.network.body
    assert body.bn2.training and not body.bn1.training and not body.blocks[6][0].bn1.training


def test_a_training_that_goes_on_knows_what_the_weights_lacked(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in NAMES[:2]:
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(3):
            pixels = rng.integers(0, 256, (40, 40, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    made = mw.train(
        tmp_path / "data",
        "classify_mobilenetv2_100",
        imgsz=64,
        freeze=-1,
        epochs=2,
        steps=1,
        batch=2,
        workers=0,
        device="cpu",
        project=tmp_path / "runs",
    )
    checkpoint = load_checkpoint(made.last, training=True)
    changed = {key for key in checkpoint.training.optimizer if key.endswith("exp_avg")}
    late = ("conv_head.weight", "bn2.weight", "bn2.bias", "classifier.weight", "classifier.bias")
    assert changed == {f"network.body.{name}.exp_avg" for name in late}
    recipe = ClassificationRecipe(data=str(tmp_path / "data"), model="classify_mobilenetv2_100")
    task = task_of(recipe.model)
    data = open_dataset(tmp_path / "data", records="labels")
    model, _, _ = build_model(task, replace(recipe, freeze=-1), data, checkpoint)
    assert model.network.body.conv_head.weight.requires_grad
    assert not model.network.body.conv_stem.weight.requires_grad


def test_without_a_network_weights_of_timm_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="timm's weights for convnext_atto could not be fetched"):
        start_model("classify_convnext_atto", NAMES, weights="imagenet")
    with pytest.warns(UserWarning, match="starts from random weights"):
        _, _, report = start_model("classify_convnext_atto", NAMES)
    assert report.startswith("starting from random weights")


class Hub(BaseHTTPRequestHandler):
    """A hub with one file for every network, which counts what it is asked for."""

    content = b""
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        here = self.path == "/" or self.path.endswith("model.safetensors")
        self.send_response(200 if here else 404)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", '"abc"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def test_a_hub_that_answers_is_asked_and_one_that_does_not_but_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What was fetched comes from the cache afterwards; the rest is told without waiting."""
    from huggingface_hub import constants

    network = timm.create_model("test_resnet", pretrained=False)
    save_file(network.state_dict(), tmp_path / "a.safetensors")
    monkeypatch.setattr(Hub, "content", (tmp_path / "a.safetensors").read_bytes())
    monkeypatch.setattr(Hub, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    try:
        fetched = fetch_timm("test_resnet")
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert any(line.startswith("GET") for line in Hub.asked)
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)  # between tries
    again = fetch_timm("test_resnet")
    for key, value in network.state_dict().items():
        assert torch.equal(fetched[key], value) and torch.equal(again[key], value)
    with pytest.raises(ValueError, match=rf"test_vit could not be fetched \({url} does not answer"):
        fetch_timm("test_vit")
    assert waits == [] and constants.HF_HUB_OFFLINE is False


def test_published_files_bring_their_options(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file of torchvision's second version in the cache: its short side, but with imgsz."""
    import hashlib

    import torchvision

    from maskwright.models import get_entry
    from maskwright.models.registry import PublishedWeights

    theirs = torchvision.models.resnet18()
    torch.save(theirs.state_dict(), tmp_path / "resnet18-test.pth")
    digest = hashlib.sha256((tmp_path / "resnet18-test.pth").read_bytes()).hexdigest()
    published = PublishedWeights(
        "https://example.invalid/resnet18-test.pth",
        digest,
        "torchvision",
        "BSD",
        "a test",
        options={"short": 232},
    )
    monkeypatch.setenv("MASKWRIGHT_HOME", str(tmp_path))
    monkeypatch.setitem(get_entry("resnet18").weights, "imagenet", published)
    model, options, report = start_model("resnet18", ["tench", "zebra mussel"])
    assert options == {"short": 232} and model.preprocess.short == 232
    assert "1 of 2 classes by name" in report
    assert torch.equal(model.final.weight[0], theirs.fc.weight[0])
    larger, _, _ = start_model("resnet18", ["tench"], options={"imgsz": 448})
    assert (larger.preprocess.crop, larger.preprocess.short) == (448, 512)


def test_networks_without_published_weights_say_so() -> None:
    with pytest.raises(ValueError, match="nobody publishes ImageNet weights of resnet20_cifar"):
        start_model("resnet20_cifar", NAMES, weights="imagenet")
    _, _, report = start_model("resnet20_cifar", NAMES)
    assert report.startswith("starting from random weights")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("preact_resnet50", {"order": "b"}, "order=b; other libraries have full pre-activation"),
        ("resnet50", {"stride_in_1x1": True}, "stride_in_1x1=True; other libraries have bottle"),
    ],
)
def test_what_other_libraries_cannot_build_is_not_written(
    name: str, options: dict[str, object], message: str, tmp_path: Path
) -> None:
    trained(name, tmp_path / "a.safetensors", **options)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "a.safetensors", tmp_path / "b.pth", model=name, target="timm")
    assert not (tmp_path / "b.pth").exists()


def test_options_of_the_command_are_checked_for_the_network() -> None:
    with pytest.raises(OptionError, match="imgsz must be at least"):
        start_model("densenet121", NAMES, weights="none", options={"imgsz": 16})
