"""Where weights come from: names, files, fetched files, transfer to other classes."""

from __future__ import annotations

import hashlib
import pickle
import re
from pathlib import Path

import pytest
import torch

from maskwright.hub import backbone_weights
from maskwright.hub import loading as hub
from maskwright.hub.backbone_weights import SHIPPED_BACKBONES
from maskwright.hub.names import SHIPPED_MODELS
from maskwright.models import Meta, build, build_tiny, list_models
from maskwright.models.classification.base import Classifier
from maskwright.models.detection.base import Detector
from maskwright.models.detection.faster_rcnn import TINY
from maskwright.models.localization.base import Localizer
from maskwright.models.registry import PublishedWeights
from maskwright.models.semantic.base import Segmenter
from maskwright.storage.checkpoint import load_checkpoint, save_checkpoint
from maskwright.storage.published import fetch
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.training.train import train

NAME = "mask_rcnn_resnet50_fpn"


def published(path: Path, content: bytes, digest: str | None = None) -> PublishedWeights:
    path.write_bytes(content)
    digest = digest or hashlib.sha256(content).hexdigest()
    return PublishedWeights(path.as_uri(), digest, "torchvision", "MIT", "test")


def test_a_published_file_is_fetched_once_and_checked(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MASKWRIGHT_HOME", str(tmp_path / "cache"))
    weights = published(tmp_path / "file.pth", b"content")
    path = fetch(weights)
    assert path == tmp_path / "cache" / "file.pth" and path.read_bytes() == b"content"
    (tmp_path / "file.pth").unlink()
    assert fetch(weights) == path, "from the cache"
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="SHA-256"):
        fetch(weights)


def test_offline_says_where_to_put_the_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MASKWRIGHT_HOME", str(tmp_path / "cache"))
    gone = PublishedWeights((tmp_path / "no.pth").as_uri(), "00", "torchvision", "MIT", "test")
    with pytest.raises(ValueError, match=r"put it at .*cache/no\.pth"):
        fetch(gone)
    assert not list((tmp_path / "cache").iterdir()), "nothing half-done is left"


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def test_a_pickle_without_tensors_is_refused_and_not_executed(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, write in (
        ("a.pth", lambda f: torch.save({"model": Payload()}, f)),
        ("b.pkl", lambda f: pickle.dump(Payload(), f)),
    ):
        with (tmp_path / name).open("wb") as file:
            write(file)
        with pytest.raises(ValueError, match=r"refused, because it names pathlib\.Path\.touch"):
            hub.read_tensors(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_wrapped_weights_of_training_scripts_are_found(tmp_path) -> None:
    value = torch.arange(3.0)
    torch.save({"model": {"module.a": value}, "epoch": 3}, tmp_path / "a.pth")
    assert torch.equal(hub.read_tensors(tmp_path / "a.pth")["a"], value)


def test_class_rows_are_copied_by_name() -> None:
    torch.manual_seed(0)
    source = build_tiny(NAME, 3)
    target = build_tiny(NAME, 3)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    text = hub.transfer(target, ["dog", "cow", "cat"], source.state_dict(), ["cat", "dog", None])
    assert "2 of 3 classes by name" in text and "cow" in text
    old, new = source.state_dict(), target.state_dict()
    key = "roi_heads.box_head.logits.weight"
    assert torch.equal(new[key][0], old[key][1])
    assert torch.equal(new[key][2], old[key][0])
    assert torch.equal(new[key][3], old[key][3]), "background"
    assert torch.equal(new[key][1], before[key][1]), "the new class starts afresh"
    key = "roi_heads.box_head.deltas.bias"
    assert torch.equal(new[key][8:12], old[key][0:4])
    key = "roi_heads.mask_head.logits.weight"
    assert torch.equal(new[key][0], old[key][1])
    key = "fpn.output.0.0.weight"
    assert torch.equal(new[key], old[key])


def test_weights_of_another_model_are_an_error() -> None:
    target = build_tiny(NAME, 1)
    with pytest.raises(ValueError, match="another model"):
        hub.transfer(target, ["a"], {"x": torch.zeros(1)}, ["a"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(1)
    detector = build(NAME, 2, **TINY)
    meta = Meta(NAME, dict(TINY), ["cat", "dog"], [7, 3])
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return save_checkpoint(path, meta, detector.state_dict())


def test_a_checkpoint_says_itself_what_it_is(checkpoint: Path) -> None:
    detector, meta = hub.load_model(checkpoint)
    assert meta.names == ["cat", "dog"] and meta.category_ids == [7, 3]
    stored = load_checkpoint(checkpoint).model
    assert all(torch.equal(v, stored[k]) for k, v in detector.state_dict().items())
    with pytest.raises(ValueError, match="says itself"):
        hub.load_model(checkpoint, num_classes=3)


def test_training_starts_from_a_checkpoint_with_other_classes(checkpoint: Path) -> None:
    detector, _, report = hub.start_model(NAME, ["dog", "bird"], weights=checkpoint, options=TINY)
    assert "1 of 2 classes by name" in report
    assert detector.num_classes == 2


def test_random_weights_are_not_silent() -> None:
    with pytest.warns(UserWarning, match="random weights"):
        _, meta = hub.load_model(NAME, num_classes=2, backbone="resnet18")
    assert meta.names == ["class_0", "class_1"]


def test_training_without_weights_offline_warns_and_goes_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MASKWRIGHT_HOME", str(tmp_path))
    monkeypatch.setattr(
        backbone_weights, "fetch", lambda weights: (_ for _ in ()).throw(ValueError("no network"))
    )
    with pytest.warns(UserWarning, match="no network"):
        _, _, report = hub.start_model(NAME, ["a"], options=TINY)
    assert "random" in report
    with pytest.raises(ValueError, match="no network"):
        hub.start_model(NAME, ["a"], weights="imagenet", options=TINY)


@pytest.mark.parametrize("backbone", sorted(SHIPPED_BACKBONES))
def test_the_backbones_of_the_package_are_trained(backbone: str) -> None:
    """ImageNet features of real weights: deep maps are sparse and far from their random start."""
    detector, _, report = hub.start_model(
        "mask_rcnn_resnet50_fpn", ["a"], options={**TINY, "backbone": backbone}
    )
    assert "come with the package" in report
    buffers = dict(detector.backbone.named_buffers())
    means = [v for k, v in buffers.items() if k.endswith("running_mean")]
    assert len(means) > 40 and all(bool(m.abs().sum() > 0) for m in means)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("mask_rcn_resnet50_fpn", "did you mean"),
        ("nowhere/last.safetensors", "no such checkpoint"),
    ],
)
def test_unknown_models_are_clear(model: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hub.load_model(model)


def test_unknown_weights_list_what_there_is() -> None:
    with pytest.raises(ValueError, match="coco"):
        hub.load_model(NAME, weights="cocoo")


def test_convert_writes_files_in_both_directions(tmp_path: Path) -> None:
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    torch.manual_seed(0)
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    source, ours, back = (tmp_path / n for n in ("tv.pth", "ours.safetensors", "back.pth"))
    torch.save(model.state_dict(), source)
    name = "faster_rcnn_resnet50_fpn"
    report = hub.convert(source, ours, model=name)
    assert len(report.used) == 295 and not report.filled
    detector, meta = hub.load_model(ours)
    assert meta.names[0] == "person" and detector.paste_mode == "torchvision"
    hub.convert(ours, back, model=name, target="torchvision")
    again = torch.load(back, weights_only=True)
    assert set(again) == set(model.state_dict())
    assert all(torch.equal(again[k], v) for k, v in model.state_dict().items())
    with pytest.raises(ValueError, match="already"):
        hub.convert(ours, tmp_path / "again.safetensors", model=name)
    with pytest.raises(ValueError, match="mask_rcnn"):
        hub.convert(ours, back, model="mask_rcnn_resnet50_fpn", target="torchvision")


def test_weights_of_another_architecture_are_refused() -> None:
    with pytest.raises(ValueError, match="not a faster_rcnn_resnet50_fpn"):
        hub.load_model("faster_rcnn_resnet50_fpn", weights="nuclei")
    with pytest.raises(ValueError, match="has the backbone tf_efficientnet_lite0"):
        hub.load_model("mask_rcnn_lite0_fpn", weights="nuclei", backbone="resnet18")


def test_a_trained_model_is_no_architecture_to_train() -> None:
    with pytest.raises(ValueError, match="model=mask_rcnn_lite0_fpn weights=nuclei"):
        hub.start_model("nuclei", ["a"])
    with pytest.raises(ValueError, match="did you mean 'nuclei'"):
        hub.load_model("nucleii")


def test_a_training_says_that_its_model_is_trained(tmp_path: Path) -> None:
    """Before data, options of a task or anything else is asked for by the name."""
    path = tmp_path / "own.safetensors"
    model = build("lenet5", 2)
    save_checkpoint(path, Meta("lenet5", {}, ["a", "b"]), model.state_dict())
    for name, said, options in (
        ("nuclei", "model=mask_rcnn_lite0_fpn weights=nuclei", {}),
        ("nucleii", "did you mean 'nuclei'", {}),
        (path, f"model=lenet5 weights={path}", {"mixup": 0.2}),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            train(tmp_path / "nothing", model=name, **options)
        with pytest.raises(ValueError, match=re.escape(said)):
            train(DetectionRecipe(data=str(tmp_path / "nothing"), model=str(name)))


def test_the_architecture_of_a_shipped_model_is_that_of_its_file() -> None:
    for shipped in SHIPPED_MODELS.values():
        assert load_checkpoint(shipped.path).meta.model == shipped.model


def test_a_model_is_what_its_class_says() -> None:
    kinds = {
        "detector": Detector,
        "classifier": Classifier,
        "localizer": Localizer,
        "segmenter": Segmenter,
    }
    tiny = [entry for entry in list_models().values() if entry.tiny is not None]
    assert {entry.kind for entry in tiny} == set(kinds)
    for entry in {entry.task: entry for entry in tiny}.values():
        assert isinstance(build_tiny(entry.name), kinds[entry.kind])


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("mask_rcnn_resnet50_fpn", "coco, imagenet, none, nuclei"),
        ("faster_rcnn_resnet18_fpn", "imagenet, none, nuclei"),
        ("resnet18", "imagenet, none"),
        ("locate_resnet18", "imagenet, none"),
    ],
)
def test_names_of_weights_are_those_of_the_task(name: str, known: str) -> None:
    with pytest.raises(ValueError, match=f"{name} knows {known}$"):
        hub.start_model(name, ["a"], weights="cells")


def test_a_classifier_and_a_detector_do_not_start_each_other_by_weights(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    model = build("resnet18", 2)
    save_checkpoint(path, Meta("resnet18", {}, ["a", "b"]), model.state_dict())
    first = next(value for value in model.state_dict().values() if value.dim() == 4)
    for name in ("faster_rcnn_resnet18_fpn", "locate_resnet18"):
        with pytest.raises(ValueError, match="these are a classifier's weights") as caught:
            hub.start_model(name, ["a"], weights=path)
        mend = str(caught.value).rpartition(": ")[2].removeprefix("weights=").split()[0]
        started, _, _ = hub.start_model(name, ["a"], weights=mend)
        assert any(torch.equal(value, first) for value in started.state_dict().values())
    with pytest.raises(ValueError, match=r"these are a detector's weights .*weights=imagenet"):
        hub.start_model("resnet18", ["a"], weights="nuclei")


def test_the_shipped_model_finds_the_nuclei_of_the_mini_set(nuclei_mini: Path) -> None:
    """Real weights on real images outside the training split; AP of the whole split is 0.56."""
    from maskwright import val

    metrics = val("nuclei", nuclei_mini, max_det=300, workers=0)
    assert metrics["mask/AP"] > 0.45
    assert metrics["box/AP50"] > 0.75


def test_a_backbone_starts_from_a_classifier_in_a_local_file(tmp_path: Path) -> None:
    """The last stage, which runs on regions, takes part."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    donor = resnet18(weights=None).state_dict()
    torch.save(donor, tmp_path / "resnet.pth")
    options = {"rpn_width": 8}
    detector, _, report = hub.start_model(
        "faster_rcnn_resnet18_c4",
        ["a"],
        weights=f"imagenet:{tmp_path / 'resnet.pth'}",
        options=options,
    )
    assert "resnet.pth" in report
    own = detector.backbone.body.state_dict()
    assert any(key.startswith("layer4.") for key in own)
    assert all(torch.equal(value, donor[key]) for key, value in own.items())
    donor.pop("layer1.0.conv1.weight")
    torch.save(donor, tmp_path / "less.pth")
    with pytest.raises(ValueError, match=r"lack 1 tensors: layer1.0.conv1.weight"):
        weights = f"imagenet:{tmp_path / 'less.pth'}"
        hub.start_model("faster_rcnn_resnet18_c4", ["a"], weights=weights, options=options)
    with pytest.raises(ValueError, match=r"none.pth: no such file"):
        hub.start_model("faster_rcnn_resnet18_c4", ["a"], weights="imagenet:none.pth")


def test_layers_of_torchvisions_vgg_become_those_of_the_head(tmp_path: Path) -> None:
    import timm

    torch.manual_seed(0)
    donor = timm.create_model("vgg11", mlp_ratio=0.01).eval()
    state = {k: v for k, v in donor.state_dict().items() if k.startswith("features.")}
    first, second = torch.randn(40, 512 * 49) / 100, torch.randn(40, 40)
    state |= {"classifier.0.weight": first, "classifier.0.bias": torch.randn(40)}
    state |= {"classifier.3.weight": second, "classifier.3.bias": torch.randn(40)}
    torch.save(state, tmp_path / "vgg.pth")
    detector, _, report = hub.start_model(
        "faster_rcnn_vgg16",
        ["a"],
        weights=f"imagenet:{tmp_path / 'vgg.pth'}",
        options={"backbone": "vgg11", "box_width": 40, "rpn_width": 8},
    )
    assert report.endswith("2 fully connected layers included")
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        seen = donor.features(x).flatten(1)  # as torchvision's VGG does
        expected = torch.nn.functional.linear(seen, first, state["classifier.0.bias"]).relu()
        expected = torch.nn.functional.linear(expected, second, state["classifier.3.bias"]).relu()
        detector.eval()
        box = torch.tensor([[0.0, 0, 13 * 16, 13 * 16]])  # the last pixel of RoIPool is inside
        heads = detector.roi_heads
        pooled = heads.pool(detector.backbone(x), box, torch.tensor([0]), 7)
        found = heads.box_head.hidden(pooled)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
