"""Every task answers in its forms, and a page gets what it draws."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving_help import encoded, served
from tiny_models import fresh

from maskwright.models.meta import Meta
from maskwright.prediction.predictor import Predictor
from maskwright.serving.limits import RefusedError
from maskwright.tasks import tasks_with

httpx = pytest.importorskip("httpx", reason="needs httpx")
pytest.importorskip("fastapi", reason="needs the extra serve")

NAMES = ["cat", "dog", "tree"]
IMAGE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def tiny(name: str) -> Predictor:
    return Predictor(fresh(name, len(NAMES)), Meta(name, {}, [*NAMES]), device="cpu")


@pytest.fixture(scope="module")
def predictors() -> dict[str, Predictor]:
    return {name: tiny(name) for name in ("alexnet", "unet", "locate_resnet18")}


@pytest.fixture(scope="module")
def client(predictors: dict[str, Predictor]) -> Iterator[Any]:
    from maskwright.serving.app import create_app

    with (
        served(create_app(predictors)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client


def post(client: Any, **options: Any) -> Any:
    return client.post("/predict", content=encoded(IMAGE), params=options)


@pytest.mark.parametrize("name", ["alexnet", "unet", "locate_resnet18"])
def test_json_is_that_of_the_result(
    client: Any, predictors: dict[str, Predictor], name: str
) -> None:
    expected = json.loads(predictors[name](encoded(IMAGE)).to_json())
    answer = post(client, model=name).json()
    for data in (expected, answer):
        del data["speed"]
    assert answer == expected
    drawn = post(client, model=name, format="overlay")
    assert Image.open(io.BytesIO(drawn.content)).format == "PNG"
    refused = post(client, model=name, format="coco")
    assert refused.status_code == 422 and "it has json, overlay" in refused.json()["error"]
    (listed,) = [one for one in client.get("/models").json()["models"] if one["name"] == name]
    for option in listed["options"]:
        assert option in predictors[name].task.options or not tasks_with(option)
    assert "imgsz" in listed["options"] and "max_det" not in listed["options"]


def test_a_page_gets_the_label_map(client: Any, predictors: dict[str, Predictor]) -> None:
    expected = predictors["unet"](encoded(IMAGE))
    answer = post(client, model="unet", format="page").json()
    grey = Image.open(io.BytesIO(base64.b64decode(answer["label_map"])))
    assert grey.mode == "L" and (np.asarray(grey) == expected.labels).all()
    assert answer["colors"] == expected.palette.tolist()
    labels = post(client, model="unet", format="labels").content
    assert (np.asarray(Image.open(io.BytesIO(labels))) == expected.labels).all()
    shapes = post(client, model="unet", format="geojson").json()
    assert shapes == json.loads(expected.to_geojson())


def test_evidence(client: Any, predictors: dict[str, Predictor]) -> None:
    rule = predictors["locate_resnet18"].resize_rule()
    plain = predictors["locate_resnet18"](encoded(IMAGE))
    expected = predictors["locate_resnet18"].explainer("gradcam", "tree", rule)(plain)
    options = {"model": "locate_resnet18", "explain": "gradcam", "explain_target": "tree"}
    answer = post(client, format="page", **options).json()
    grey = Image.open(io.BytesIO(base64.b64decode(answer["heatmap"])))
    assert abs(np.asarray(grey) / 255 - expected.heatmap).max() <= 0.5 / 255 + 1e-6
    assert answer["explained"] == "tree"
    assert post(client, format="heatmap", **options).headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    ("accept", "format"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("image/*", "overlay"),
        ("application/json;q=0.1, image/png", "overlay"),
        ("application/coco+json, application/json", "coco"),
        ("text/html, application/*;q=0.2", "json"),
        ("image/png;q=0, */*;q=0.1", "json"),
        ("image/png;q=x, application/geo+json;q=.1", "geojson"),
    ],
)
def test_accept_chooses(accept: str, format: str) -> None:
    from maskwright.serving.answers import choose_format

    assert choose_format(None, accept) == format
    assert choose_format("labels", accept) == "labels"
    with pytest.raises(RefusedError, match="known are"):
        choose_format("xml", accept)
