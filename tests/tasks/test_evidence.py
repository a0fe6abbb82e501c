"""Heat maps of predictions: where they lie, what they explain, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import maskwright as mw
from maskwright.errors import OptionError
from maskwright.models import Meta, build_tiny
from maskwright.ops.boxes import box_iou
from maskwright.prediction.predictor import Predictor
from maskwright.structures import Images
from maskwright.tasks.detection.explain import explain_detection, last_stage
from maskwright.tasks.evidence import on_image

pytestmark = pytest.mark.filterwarnings("ignore:max_det")


def test_a_map_lies_where_the_network_looked() -> None:
    found = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    whole = on_image(found, (4, 8), (0, 0, 8, 4))
    wanted = torch.nn.functional.interpolate(
        found[None, None], (4, 8), mode="bilinear", align_corners=False
    )[0, 0]
    np.testing.assert_allclose(whole, wanted.numpy(), atol=1e-6)
    part = on_image(torch.ones(2, 2), (4, 8), (2, 1, 6, 3))
    assert part[1:3, 2:6].min() == 1 and part.sum() == 8


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (60, 90, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def detector() -> Predictor:
    torch.manual_seed(0)
    model = build_tiny("faster_rcnn_resnet50_fpn", 2)
    return Predictor(model, Meta("faster_rcnn_resnet50_fpn", {}, ["cat", "dog"]), device="cpu")


def test_a_detection_is_explained_as_by_plain_hooks(detector: Predictor, photo: np.ndarray) -> None:
    result = detector(photo, conf=0.01)
    images = detector.task.collate([photo], detector.model, detector.resize_rule())
    box, label = result.boxes[0], int(result.labels[0])
    heat = explain_detection(detector.model, images, box, label)
    kept: dict[str, torch.Tensor] = {}

    def keep(module: object, given: object, made: torch.Tensor) -> None:
        kept["maps"] = made
        made.retain_grad()

    hook = last_stage(detector.model).register_forward_hook(keep)
    with torch.enable_grad():
        found = detector.model(Images(images.pixels.requires_grad_(), images.sizes, images.sizes))
        ratio = (images.sizes[0] / torch.tensor(photo.shape[:2])).flip(0).repeat(2)
        same = found.valid[0] & (found.labels[0] == label)
        overlap = box_iou((box * ratio)[None], found.boxes[0])[0]
        score = found.scores[0, torch.where(same, overlap, -1).argmax()]
        (score / (1 - score)).log().backward()
    hook.remove()
    weights = kept["maps"].grad.mean((2, 3), keepdim=True)
    raw = (weights * kept["maps"]).sum(1, keepdim=True).relu().detach()
    size = images.pixels.shape[-2:]
    large = torch.nn.functional.interpolate(raw, size, mode="bilinear", align_corners=False)[0, 0]
    h, w = images.sizes[0].tolist()
    large = large[:h, :w]
    large = (large - large.min()) / (large.max() - large.min())
    assert heat.shape == photo.shape[:2] and heat.dtype == np.float32
    np.testing.assert_allclose(heat, on_image(large, photo.shape[:2], (0, 0, 90, 60)), atol=2e-3)


def test_which_detection_is_explained(
    detector: Predictor, photo: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    options = {"conf": 0.01, "explain": "gradcam"}

    def heat(**more: object) -> np.ndarray:
        (result,) = mw.predict(detector, tmp_path / "a.png", **{**options, **more})
        return result.heatmap

    plain = next(mw.predict(detector, tmp_path / "a.png", conf=0.01))
    assert plain.heatmap is None
    names = [plain.names[label] for label in plain.labels.tolist()]
    first = heat()
    assert first.shape == photo.shape[:2] and first.min() >= 0 and first.max() <= 1
    assert np.array_equal(first, heat(explain_target=0))
    other = next(i for i, name in enumerate(names) if name != names[0])
    assert np.array_equal(heat(explain_target=names[other]), heat(explain_target=other))
    assert not np.array_equal(first, heat(explain_target=other))
    assert not np.array_equal(first, heat(explain="gradcam++"))
    with pytest.warns(UserWarning, match=r"a\.png: nothing of explain_target=1000 was found"):
        assert heat(explain_target=1000) is None


def test_the_picture_marks_the_detection(
    detector: Predictor, photo: np.ndarray, tmp_path: Path
) -> None:
    """Three sides of its box, which no label hides, have the colour of the mark."""
    options = {"conf": 0.01, "explain": "gradcam", "explain_target": 1}
    photo = np.tile(photo, (6, 4, 1))  # not so small that it is enlarged
    (result,) = mw.predict(detector, [photo], **options)
    x, y, w, h = result.explained[2]
    name = result.names[int(result.labels[1])]
    assert result.explained[:2] == (name, int(1000 * float(result.scores[1])))
    assert [x, y, x + w, y + h] == result.boxes[1].round().int().tolist()
    with Image.open(result.save_heatmap(tmp_path / "a.png")) as picture:
        marked = (np.asarray(picture).astype(int) == (64, 224, 255)).all(-1)
    x2, y2 = x + w - 1, y + h - 1
    edges = (marked[y2, x : x2 + 1], marked[y : y2 + 1, x2], marked[y : y2 + 1, x])
    assert all(edge.mean() > 0.5 for edge in edges)


def test_the_class_of_pixels_is_marked_and_missed(photo: np.ndarray, tmp_path: Path) -> None:
    """Of a segmenter: the class by name, number or size; what no pixel has is told."""
    torch.manual_seed(0)
    names = ["ground", "disc", "square"]
    model = build_tiny("unet_resnet18", 3)
    with torch.no_grad():
        model.network.head.bias.copy_(torch.tensor([0.0, 0.0, -1e4]))
    predictor = Predictor(model, Meta("unet_resnet18", {}, names), device="cpu")

    def explained(**more: object) -> Any:
        (result,) = mw.predict(predictor, [photo], explain="gradcam", **more)
        return result

    result = explained()
    assert result.explained[0] == "disc" and result.explained[2] is None
    assert result.explained[1] == int(1000 * result.shares["disc"])
    for target in ("disc", "1", 1):
        assert np.array_equal(explained(explain_target=target).heatmap, result.heatmap)
    assert explained(explain_target="ground").explained[0] == "ground"
    with pytest.warns(UserWarning, match="nothing of explain_target=square was found"):
        assert explained(explain_target="square").explained is None
    norms = [m for m in model.network.last_stage().modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:  # a map of zeros speaks for nothing
        nn.init.zeros_(norm.weight)
        nn.init.zeros_(norm.bias)
    with pytest.warns(UserWarning, match="the heat map of .* is empty, as at the last stage"):
        assert not explained().heatmap.any()
    with pytest.raises(OptionError, match="explain_target=3: the network knows no such class"):
        explained(explain_target=3)
    with Image.open(result.save_heatmap(tmp_path / "a.png")) as picture:
        assert picture.width > 320, "a small picture is enlarged, so that its label has room"


def test_pictures_of_heat_maps_go_beside_the_others(
    detector: Predictor, photo: np.ndarray, tmp_path: Path
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    out = tmp_path / "out"
    list(mw.predict(detector, tmp_path / "a.png", conf=0.01, explain="gradcam", save=out))
    with Image.open(out / "heatmaps" / "a.jpg") as picture:
        assert picture.height == 213  # enlarged to 320 pixels: the label has room
    assert (out / "a.png").is_file() and (out / "a.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"explain": "gradcan"}, "did you mean 'gradcam'"),
        ({"explain": "cam"}, "take gradcam or gradcam"),
        ({"explain": "gradcam", "explain_target": "dgo"}, "no such class; did you mean 'dog'"),
        ({"explain_target": "dog"}, "needs explain="),
    ],
)
def test_what_cannot_be_explained_is_one_error(
    detector: Predictor, photo: np.ndarray, options: dict[str, str], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        mw.predict(detector, [photo], **options)


def test_the_class_of_a_localizer_is_explained_by_its_branch(photo: np.ndarray) -> None:
    torch.manual_seed(0)
    model = build_tiny("locate_resnet18", 2)
    predictor = Predictor(model, Meta("locate_resnet18", {}, ["cat", "dog"]), device="cpu")
    (result,) = mw.predict(predictor, [photo], explain="cam", explain_target="dog")
    assert result.explained[:2] == ("dog", int(1000 * float(result.place.probs[1])))
    assert len(result.explained[2]) == 4
    images = predictor.task.collate([photo], model, predictor.resize_rule())
    with torch.no_grad():
        maps = model.maps(images)[0]
        raw = (maps * model.head.classes.weight[1][:, None, None]).sum(0)[None, None]
    size = images.pixels.shape[-2:]
    large = torch.nn.functional.interpolate(raw, size, mode="bilinear", align_corners=False)[0, 0]
    h, w = images.sizes[0].tolist()
    large = large[:h, :w]
    large = (large - large.min()) / (large.max() - large.min())
    wanted = on_image(large, photo.shape[:2], (0, 0, 90, 60))
    np.testing.assert_allclose(result.heatmap, wanted, atol=1e-4)
    for method in ("gradcam", "gradcam++"):
        (other,) = mw.predict(predictor, [photo], explain=method, explain_target="dog")
        assert other.heatmap.shape == (60, 90)
    points = build_tiny("locate_keypoints_resnet18", 1)
    other = Predictor(points, Meta("locate_keypoints_resnet18", {}, ["face"]), device="cpu")
    with pytest.raises(OptionError, match="names none"):
        mw.predict(other, [photo], explain="gradcam")


@pytest.fixture(scope="module")
def classifier() -> Predictor:
    torch.manual_seed(0)
    model = build_tiny("resnet18", 2)
    return Predictor(model, Meta("resnet18", {}, ["cat", "dog"]), device="cpu")


def test_a_classifier_is_explained_where_it_looked(
    classifier: Predictor, photo: np.ndarray
) -> None:
    (result,) = mw.predict(classifier, [photo], explain="cam", explain_target="dog")
    assert result.explained == ("dog", int(1000 * float(result.probs[1])), None)
    model, network = classifier.model, classifier.model.network
    images = classifier.task.collate([photo], model, classifier.resize_rule())
    with torch.no_grad():
        maps = network.maps(model.normalise(images))[0]
        raw = (maps * network.fc.weight[1][:, None, None]).sum(0)[None, None]
    side = model.crop
    large = torch.nn.functional.interpolate(
        raw, (side, side), mode="bilinear", align_corners=False
    )[0, 0]
    large = (large - large.min()) / (large.max() - large.min())
    height, width = model.preprocess.target_size(60, 90)
    top, left = round((height - side) / 2), round((width - side) / 2)
    y, x = 60 / height, 90 / width
    window = (left * x, top * y, (left + side) * x, (top + side) * y)
    np.testing.assert_allclose(result.heatmap, on_image(large, (60, 90), window), atol=1e-4)
    assert not result.heatmap[:, : int(window[0]) - 1].any(), "what was cut off convinced nobody"


@pytest.mark.filterwarnings("ignore:.*heat map of .* is empty")  # of random weights
def test_a_classifier_that_cam_does_not_fit_is_told_of_gradcam(photo: np.ndarray) -> None:
    torch.manual_seed(0)
    model = build_tiny("vgg16", 2)
    predictor = Predictor(model, Meta("vgg16", {}, ["cat", "dog"]), device="cpu")
    with pytest.raises(OptionError, match="take gradcam"):
        list(mw.predict(predictor, [photo], explain="cam"))
    (result,) = mw.predict(predictor, [photo], explain="gradcam++")
    assert result.heatmap.shape == (60, 90)
