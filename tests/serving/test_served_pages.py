"""The page is served whole, asks nobody else, and what is saved from it is training data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving_help import SIDE, encoded, photos, served

import maskwright as mw
from maskwright.data import open_dataset
from maskwright.errors import OptionError

pytest.importorskip("fastapi", reason="needs the extra serve")
httpx = pytest.importorskip("httpx", reason="needs httpx")
PAGE = Path(mw.__file__).parent / "serving" / "page"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("saved") / "set"


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Any]:
    from maskwright.serving.app import create_app
    from maskwright.serving.limits import Limits

    app = create_app({"nuclei": mw.load("nuclei")}, Limits(megapixels=1), corrections=folder)
    with served(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def test_all_that_the_page_names_is_here_and_nothing_is_inline(client: Any) -> None:
    todo, seen = ["", "docs"], set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        reply = client.get(f"/{name}")
        assert reply.status_code == 200, name
        policy = reply.headers["content-security-policy"]
        assert "unsafe" not in policy and "script-src 'self'" in policy
        if reply.headers["content-type"].startswith("image/svg"):
            continue
        text = reply.text
        assert not re.search(
            r"(https?:)?//(?!www\.w3\.org)\w+\.\w", re.sub(r"(?m)^ *//.*", "", text)
        )
        todo += re.findall(r'(?:src|href)="([\w.]+)"|from "\./([\w.]+)"', text) and [
            a or b for a, b in re.findall(r'(?:src|href)="([\w.]+)"|from "\./([\w.]+)"', text)
        ]
        if reply.headers["content-type"].startswith("text/html"):
            assert not re.search(r"<style|<script(?![^>]*src)|\sstyle=|\son\w+=", text)
            ids = re.findall(r'\sid="(\w+)"', text)
            assert len(ids) == len(set(ids))
    shipped = {path.name for path in PAGE.iterdir() if path.suffix in (".js", ".css", ".svg")}
    assert shipped <= seen


def test_samples_are_those_that_were_named(client: Any, tmp_path: Path) -> None:
    from maskwright.serving.pages import find_samples

    listed = client.get("/samples").json()["samples"]
    assert listed
    for name in listed:
        assert client.get(f"/samples/{name}").content == (PAGE / name).read_bytes()
    for name in ("index.html", "..%2Fapp.py", "%2Fetc%2Fpasswd"):
        assert client.get(f"/samples/{name}").status_code == 404
    assert find_samples(None, ["person"]) == {}
    (tmp_path / "b.jpg").touch()
    (tmp_path / "a.txt").touch()
    assert list(find_samples(tmp_path, [])) == ["b.jpg"]
    with pytest.raises(OptionError, match="samples="):
        find_samples(tmp_path / "no", [])


def save(client: Any, data: bytes, name: str, labels: object) -> Any:
    text = labels if isinstance(labels, str) else json.dumps(labels)
    return client.post("/save", files={"file": (name, data)}, data={"labels": text})


def test_saved_objects_are_read_by_a_training(client: Any, folder: Path, nuclei_mini: Path) -> None:
    photo = photos(nuclei_mini, 1)[0]
    answer = client.post("/predict", content=photo, params={"imgsz": SIDE, "conf": 0.5}).json()
    objects = [{"name": one["name"], "box": one["box"]} for one in answer["objects"]]
    reply = save(client, photo, "../../evil.exe", {"objects": objects})
    assert reply.json() == {"file": "evil.png", "folder": str(folder), "objects": len(objects)}
    assert (folder / "images" / "evil.png").read_bytes() == photo
    data = open_dataset(folder, "train")
    found = [box.tolist() for box in data[0].boxes]
    assert np.allclose(found, [one["box"] for one in objects], atol=0.01)
    assert list(data.names) == ["nucleus"]


def test_names_are_those_that_the_page_tells(tmp_path: Path) -> None:
    """Another model of the service has classes of its own, and keypoints without names are lost."""
    from maskwright.serving.limits import Limits
    from maskwright.serving.pages import LABELS, _keep
    from maskwright.serving.uploads import Body, Upload

    image = encoded(np.zeros((20, 30, 3), np.uint8))
    row = {"name": "cat", "box": [1, 1, 9, 9], "points": [[2, 3, 1], [4, 5, 0]]}
    told = {"objects": [row], "names": ["cat"], "keypoint_names": ["eye", "ear"], "bones": [[0, 1]]}
    name = "\N{CJK UNIFIED IDEOGRAPH-4E00}" * 150 + ".png"  # 450 bytes, file systems have 255
    body = Body([Upload(name, image)], {LABELS: json.dumps(told)})
    kept = _keep(body, Limits(), tmp_path, ["nucleus", "dog"])
    assert (tmp_path / "images" / str(kept["file"])).read_bytes() == image
    data = open_dataset(tmp_path, "train")
    assert list(data.names) == ["cat"] and data.skeleton is not None
    assert data.skeleton.names == ("eye", "ear") and data.skeleton.bones == ((0, 1),)
    keypoints = data[0].keypoints
    assert keypoints is not None and keypoints[0].tolist() == [[2, 3, 2], [0, 0, 0]]
    other = {
        **told,
        "objects": [{**row, "points": [[2, 3, 1]]}],
        "keypoint_names": ["eye"],
        "bones": [],
    }
    with pytest.raises(ValueError, match="choose another folder"):
        _keep(Body(body.files, {LABELS: json.dumps(other)}), Limits(), tmp_path, [])


@pytest.mark.parametrize(
    ("labels", "status"),
    [
        ("{", 422),
        ("[]", 422),
        ('{"objects": 5}', 422),
        ('{"objects": [{"name": "a", "box": [0, 0, 1e999, 5]}]}', 422),
        ('{"objects": [{"name": "a", "box": [5, 5, 5, 5]}]}', 422),
        ("[" * 100_000, 422),
        ('{"objects": [], "names": [1]}', 422),
        ('{"objects": [], "keypoint_names": ["a"], "bones": [[0, 5]]}', 422),
        ('{"objects": [], "bones": 5}', 422),
    ],
)
def test_bad_labels_change_nothing(client: Any, folder: Path, labels: str, status: int) -> None:
    before = sorted(folder.rglob("*"))
    image = encoded(np.zeros((20, 30, 3), np.uint8))
    reply = save(client, image, "bad.png", labels)
    assert reply.status_code == status and reply.json()["error"]
    assert sorted(folder.rglob("*")) == before


def test_bad_images_are_not_kept(client: Any, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    assert save(client, b"#!/bin/sh", "a.png", {"objects": []}).status_code == 422
    large = encoded(np.zeros((1100, 1000), np.uint8))
    assert save(client, large, "a.png", {"objects": []}).status_code == 413
    assert client.post("/save", content=large).status_code == 400
    assert sorted(folder.rglob("*")) == before


def test_it_can_be_mounted_below_another_application(nuclei_mini: Path) -> None:
    from fastapi import FastAPI

    from maskwright.serving.app import create_app

    main = FastAPI()
    main.mount("/cells", create_app({"nuclei": mw.load("nuclei")}, token="s3cret"))
    with served(main) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert "<canvas" in client.get("/cells/").text
        assert client.get("/cells/page.js").status_code == 200
        assert client.get("/cells/models").status_code == 401
        headers = {"authorization": "Bearer s3cret"}
        photo = photos(nuclei_mini, 1)[0]
        reply = client.post(
            "/cells/predict", content=photo, params={"imgsz": SIDE}, headers=headers
        )
        assert reply.json()["objects"]
        assert client.get("/cells/save", headers=headers).status_code == 404
