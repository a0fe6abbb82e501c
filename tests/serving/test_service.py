"""The service answers what `predict` finds, refuses what it should, and loses nobody's image."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from serving_help import SIDE, photos, served

import maskwright as mw
from maskwright.errors import OptionError
from maskwright.serving.limits import Limits, network_pixels
from maskwright.serving.serve import is_loopback, listening, load_all
from maskwright.serving.threads import single_threads
from maskwright.structures import Tiling
from maskwright.tasks.base import Settings

pytest.importorskip("fastapi", reason="needs the extra serve")
httpx = pytest.importorskip("httpx", reason="needs httpx")
PNG = {"content-type": "image/png"}


def create_app(*args: Any, **options: Any) -> Any:
    from maskwright.serving.app import create_app

    return create_app(*args, **options)


@pytest.fixture(scope="module")
def predictor() -> Any:
    return mw.load("nuclei")


@pytest.fixture(scope="module")
def client(predictor: Any) -> Iterator[Any]:
    app = create_app({"nuclei": predictor}, Limits(megabytes=1, megapixels=4, files=4, batch=4))
    with served(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def photo(nuclei_mini: Path) -> bytes:
    return photos(nuclei_mini, 1)[0]


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("speed", "name")}


def post(client: Any, data: bytes, **options: Any) -> Any:
    return client.post("/predict", content=data, params={"imgsz": SIDE, **options}, headers=PNG)


def test_an_answer_is_what_predict_finds(client: Any, predictor: Any, photo: bytes) -> None:
    with pytest.warns(UserWarning, match="max_det"):
        expected = predictor(photo, imgsz=SIDE, conf=0.6, max_det=3)
    reply = post(client, photo, conf=0.6, max_det=3)
    assert reply.status_code == 200 and reply.headers["content-type"] == "application/json"
    answer = reply.json()
    (note,) = answer.pop("notes")
    assert "max_det" in note
    assert without_times(answer) == without_times(json.loads(expected.to_json()))
    assert len(answer["objects"]) == 3 and set(answer["speed"]) == set(expected.speed)


def test_each_format_is_that_of_the_result(client: Any, predictor: Any, photo: bytes) -> None:
    expected = predictor(photo, imgsz=SIDE)

    def picture(reply: Any) -> np.ndarray:
        assert reply.headers["content-type"] == "image/png"
        return np.asarray(Image.open(io.BytesIO(reply.content)))

    assert (picture(post(client, photo, format="labels")) == expected.label_image()).all()
    assert (picture(post(client, photo, format="overlay")) == np.asarray(expected.plot())).all()
    assert (picture(post(client, photo, format="image")) == expected.image).all()
    accept = {**PNG, "accept": "text/html;q=0.9, application/geo+json;q=0.8"}
    reply = client.post("/predict", content=photo, params={"imgsz": SIDE}, headers=accept)
    assert reply.headers["content-type"] == "application/geo+json"
    assert reply.json() == json.loads(expected.to_geojson())
    coco = post(client, photo, format="coco").json()
    rows = expected.to_coco(1)
    assert [one["segmentation"] for one in coco["annotations"]] == expected.rle
    assert [one["bbox"] for one in coco["annotations"]] == [row["bbox"] for row in rows]
    areas = [int(mask.sum()) for mask in expected.masks]
    assert [one["area"] for one in coco["annotations"]] == areas
    refused = post(client, photo, format="heatmap")
    assert refused.status_code == 422 and "explain=" in refused.json()["error"]


def test_files_of_a_form_fail_alone(client: Any, predictor: Any, nuclei_mini: Path) -> None:
    first, second = photos(nuclei_mini, 2)
    files = [
        ("file", ("../../a.png", first)),
        ("file", ("cut.png", second[: len(second) // 2])),
        ("file", ("b.png", second)),
    ]
    reply = client.post("/predict", files=files, data={"imgsz": SIDE, "conf": 0.5})
    one, broken, two = reply.json()["images"]
    assert (one["name"], broken["name"], two["name"]) == ("a.png", "cut.png", "b.png")
    assert set(broken) == {"name", "error"} and "damaged" in broken["error"]
    for answer, data in ((one, first), (two, second)):
        expected = json.loads(predictor(data, imgsz=SIDE, conf=0.5).to_json())
        assert_same(answer, expected)


def assert_same(answer: dict[str, Any], expected: dict[str, Any]) -> None:
    """A batch may add in another order: the same objects, scores to the fifth digit."""
    found, wanted = answer["objects"], expected["objects"]
    assert [one["name"] for one in found] == [one["name"] for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=2e-5)
        assert one["box"] == pytest.approx(other["box"], abs=0.02)


def test_requests_that_come_together_become_a_batch(predictor: Any, nuclei_mini: Path) -> None:
    images = photos(nuclei_mini, 1) * 4
    expected = json.loads(predictor(images[0], imgsz=SIDE).to_json())
    held = Held(predictor)
    app = create_app({"nuclei": held}, Limits(batch=4, wait=0))
    with (
        served(app) as address,
        httpx.Client(base_url=address, timeout=60) as client,
        ThreadPoolExecutor(5) as pool,
    ):
        first = pool.submit(post, client, images[0])
        assert held.entered.wait(30)
        others = [pool.submit(post, client, data) for data in images]
        worker = app.state.service.workers["nuclei"]
        wait_for(lambda: len(worker._jobs) == 4)
        held.go.set()
        for reply in (first, *others):
            assert_same(reply.result().json(), expected)
        assert held.sizes == [1, 4]
        text = client.get("/metrics").text
        assert 'maskwright_batch_images_bucket{le="1.0",model="nuclei"} 1.0' in text
        assert 'maskwright_images_total{model="nuclei",outcome="done"} 5.0' in text


class Held(mw.Predictor):
    """A model that waits before it computes."""

    def __init__(self, other: Any) -> None:
        self.__dict__.update(other.__dict__)
        self.entered, self.go = threading.Event(), threading.Event()
        self.sizes: list[int] = []
        self.threads: list[tuple[int, int]] = []

    def infer(self, batch: Any, *args: Any, **options: Any) -> list[Any]:
        self.sizes.append(len(batch))
        self.threads.append((threading.get_ident(), torch.get_num_threads()))
        self.entered.set()
        assert self.go.wait(60)
        return super().infer(batch, *args, **options)


def wait_for(true: Any) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_full_queue_says_when_to_come_again(predictor: Any, photo: bytes) -> None:
    held = Held(predictor)
    app = create_app({"nuclei": held}, Limits(queue=2, files=2))
    with (
        served(app) as address,
        httpx.Client(base_url=address, timeout=60) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        waiting = [pool.submit(post, client, photo) for _ in range(2)]
        worker = app.state.service.workers["nuclei"]
        wait_for(lambda: worker._held == 2)
        refused = post(client, photo)
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) >= 1
        assert client.get("/health").json() == {"status": "ok", "models": 1}
        held.go.set()
        assert [reply.result().status_code for reply in waiting] == [200, 200]
        wait_for(lambda: worker._held == 0)
        assert post(client, photo).status_code == 200


def test_who_is_late_or_gone_is_not_computed(predictor: Any, photo: bytes) -> None:
    held = Held(predictor)
    app = create_app({"nuclei": held}, Limits(deadline=1.0))
    with (
        served(app) as address,
        httpx.Client(base_url=address, timeout=60) as client,
        httpx.Client(base_url=address, timeout=0.3) as hasty,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(post, client, photo)
        assert held.entered.wait(30)
        worker = app.state.service.workers["nuclei"]
        with pytest.raises(httpx.ReadTimeout):  # this client goes
            post(hasty, photo)
        late = post(client, photo)
        assert late.status_code == first.result().status_code == 504
        assert "1 s" in late.json()["error"]
        wait_for(lambda: worker._held == 0 and not worker._jobs)
        held.go.set()
        app.state.service.limits = Limits()
        assert post(client, photo).status_code == 200
        assert held.sizes == [1, 1]  # the first, and the last


def header_of(side: int) -> bytes:
    """Return a PNG of few bytes that says it has so many pixels a side."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    size = side.to_bytes(4, "big") * 2
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "status", "said"),
    [
        (b"", 400, "no image"),
        (b"GIF89a", 422, "image"),
        (b"https://example.org/a.png", 422, "not an image"),
        (b"/etc/passwd", 422, "not an image"),
        (b"\x80\x04\x95cposix\nsystem\n", 422, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 422, "image"),
        (header_of(30_000), 422, "refused"),
        (header_of(3_000), 413, "megapixels"),
        (bytes(1_000_001), 413, "1 MB"),
    ],
    ids=["empty", "cut", "address", "path", "pickle", "postscript", "bomb", "large", "bytes"],
)
def test_bad_bytes_are_one_sentence(client: Any, data: bytes, status: int, said: str) -> None:
    reply = post(client, data)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert said in error and "\n" not in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"conf": "2"}, "between 0 and 1"),
        ({"confidence": "0.5"}, "did you mean 'conf'"),
        ({"max_det": "many"}, "INT"),
        ({"imgsz": "0"}, "imgsz"),
        ({"imgsz": "60000"}, "lower imgsz"),
        ({"imgsz": "2000"}, "smaller imgsz"),
        ({"tile": "64", "overlap": "0.9", "imgsz": "1000"}, "larger tiles"),
        ({"tile": "64", "overlap": "2"}, "overlap"),
        ({"topk": "3"}, "leave it out"),
        ({"slide": "64"}, "leave it out"),
        ({"format": "xml"}, "known are"),
        ({"weights": "/etc/passwd"}, "no option"),
        ({"source": "/etc/passwd"}, "no option"),
        ({"explain": "nonsense"}, "explain"),
        ({"explain_target": "0"}, "needs explain"),
        ({"window": "5,1"}, "window"),
    ],
)
def test_bad_options_are_one_sentence(
    client: Any, photo: bytes, options: dict[str, str], said: str
) -> None:
    reply = post(client, photo, **options)
    assert reply.status_code in (413, 422), reply.text
    assert said in reply.json()["error"]


def test_other_refusals(client: Any, photo: bytes) -> None:
    assert post(client, photo, model="nucleus").json()["error"].startswith("there is no model")
    assert post(client, photo, model="nucleus").status_code == 404
    reply = client.post("/predict", json={"url": "http://localhost/"})
    assert reply.status_code == 415 and "never opened" in reply.json()["error"]
    reply = client.post("/predict", files=[("file", ("a", photo))] * 5)
    assert reply.status_code == 400 and "files" in reply.json()["error"]
    reply = client.post("/predict", files=[("file", ("a", photo))] * 2, params={"format": "coco"})
    assert reply.status_code == 422 and "singly" in reply.json()["error"]
    reply = client.post("/predict", content=photo, headers={**PNG, "accept": "text/csv"})
    assert reply.status_code == 406
    reply = client.get("/nowhere")
    assert reply.status_code == 404 and "POST /predict" in reply.json()["error"]
    reply = client.get("/predict")
    assert reply.status_code == 405 and reply.headers["allow"] == "POST"
    assert "POST is" in reply.json()["error"]
    assert client.head("/health").status_code == 200  # as checks of other programs ask
    empty = client.post("/predict", files={"file": ("a.png", b"")})
    assert empty.status_code == 422 and "a.png is empty" in empty.json()["error"]
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--x--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", content=form, headers=kind).status_code == 400
    for address, field in (("/predict?conf=0.1&conf=0.9", {}), ("/predict?conf=0.1", {"conf": 1})):
        reply = client.post(address, files={"file": ("a", photo)}, data=field)
        assert reply.status_code == 422 and "conf is given twice" in reply.json()["error"]


def test_a_body_without_a_length_is_bounded_too(client: Any) -> None:
    sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 1
            yield bytes(100_000)

    try:
        reply = client.post("/predict", content=parts(), headers=PNG)
        assert reply.status_code == 413
    except httpx.TransportError:  # it hung up while the client was sending
        pass
    assert sent < 1000


def test_what_is_said_of_the_service(client: Any) -> None:
    (model,) = client.get("/models").json()["models"]
    assert model["name"] == "nuclei" and model["names"] == ["nucleus"]
    assert model["task"] == "detection" and model["explains"]
    described = client.get("/openapi.json").json()
    operation = described["paths"]["/predict"]["post"]
    names = {one["name"] for one in operation["parameters"]}
    assert {"conf", "iou", "max_det", "imgsz", "format", "model"} <= names
    assert not names & {"source", "save", "weights", "device", "proposal_source", "trust"}
    assert operation["responses"]["200"]["content"]["application/json"]["example"]
    policy = client.get("/health").headers["content-security-policy"]
    assert "unsafe" not in policy and "default-src 'none'" in policy


def test_secret_names_and_other_sites(predictor: Any, photo: bytes) -> None:
    app = create_app({"nuclei": predictor}, token="s3cret", hosts=["127.0.0.1"])
    with served(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.get("/health").status_code == 200
        for path in ("/models", "/metrics", "/openapi.json", "/nowhere"):
            assert client.get(path).status_code == 401
        for wrong in ("", "Bearer", "Bearer s3cre", "Basic s3cret", "Bearer s3cret2", "Bearer é"):
            headers = {**PNG, "authorization": wrong.encode()}
            reply = client.post("/predict", content=photo, headers=headers)
            assert reply.status_code == 401 and reply.headers["www-authenticate"] == "Bearer"
        right = {**PNG, "authorization": "Bearer s3cret"}
        options = {"imgsz": SIDE}
        assert client.post("/predict", content=photo, params=options, headers=right).is_success
        other = {**right, "origin": "https://example.org"}
        assert client.post("/predict", content=photo, headers=other).status_code == 403
        same = {**right, "origin": address}
        assert client.post("/predict", content=photo, params=options, headers=same).is_success
        named = {**right, "host": "evil.example:80"}
        assert client.get("/models", headers=named).status_code == 421


def test_headers_that_are_no_addresses(client: Any) -> None:
    for headers in ({"origin": "http://["}, {"origin": "http://a]b"}):
        assert client.get("/models", headers=headers).status_code == 403


def test_hosts_that_are_no_names(predictor: Any) -> None:
    app = create_app({"nuclei": predictor}, hosts=["127.0.0.1"])
    with served(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        for host in ("[", "a@127.0.0.1", "[::1"):
            assert client.get("/health", headers={"host": host}).status_code in (400, 421)


def test_who_does_not_begin_a_request_is_hung_up(
    predictor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskwright.serving.serve.HEAD", 0.3)
    with served(create_app({"nuclei": predictor}, corrections="nowhere")) as address:
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        for begun in (b"", b"POST /predict HTTP/1.1\r\nHost: a\r\nX-"):
            with socket.create_connection(place, timeout=30) as slow:
                slow.sendall(begun)
                assert slow.recv(1) == b""
        with socket.create_connection(place, timeout=30) as good:  # a body may take its time
            good.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
            time.sleep(0.6)
            good.sendall(b"none")
            assert good.recv(12) == b"HTTP/1.1 422"
        with socket.create_connection(place, timeout=30) as kept:  # idle between two requests
            for pause in (0.6, 0):
                kept.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
                answer = b""
                while b'"ok"' not in answer:
                    part = kept.recv(4096)
                    assert part, "hung up"
                    answer += part
                time.sleep(pause)


def test_what_is_saved_has_a_deadline(predictor: Any, tmp_path: Path) -> None:
    app = create_app({"nuclei": predictor}, Limits(deadline=0.3), corrections=tmp_path)
    with served(app) as address:
        place = ("127.0.0.1", int(address.rpartition(":")[2]))
        with socket.create_connection(place, timeout=30) as slow:
            slow.sendall(b"POST /save HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
            assert slow.recv(12) == b"HTTP/1.1 504"


def test_several_models_by_name(predictor: Any, photo: bytes) -> None:
    other = Held(predictor)
    other.go.set()
    app = create_app({"nuclei": predictor, "other": other}, Limits())
    with served(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert [one["name"] for one in client.get("/models").json()["models"]] == [
            "nuclei",
            "other",
        ]
        assert post(client, photo).is_success and other.sizes == []
        assert post(client, photo, model="other").is_success and other.sizes == [1]
        form = {"file": ("a.png", photo)}
        reply = client.post("/predict", files=form, data={"model": "other", "imgsz": SIDE})
        assert reply.json()["name"] == "a.png" and other.sizes == [1, 1]


def test_clients_do_not_learn_where_files_lie(predictor: Any) -> None:
    from types import SimpleNamespace

    from maskwright.serving.app import _asked

    class Exported(mw.Predictor):
        model: Any = SimpleNamespace(source="/secret/n.onnx")

        def __init__(self) -> None:
            pass

        def reading(self, *args: Any) -> Any:
            raise OptionError(f"{self.model.source} was exported with max_det=100")

    worker: Any = SimpleNamespace(predictor=Exported(), name="n")
    with pytest.raises(OptionError, match=r"^n was exported with max_det=100$"):
        _asked(worker, {"max_det": "300"})


def test_only_one_thread_computes_on_several_cores(predictor: Any, photo: bytes) -> None:
    asked = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        models = {"nuclei": Held(predictor), "other": Held(predictor)}
        with (
            served(create_app(models, Limits())) as address,
            httpx.Client(base_url=address, timeout=60) as client,
        ):
            for name, model in models.items():
                model.go.set()
                assert post(client, photo, model=name).is_success
            ((one, cores),) = {seen for model in models.values() for seen in model.threads}
            assert one != threading.get_ident() and cores == 3
            assert torch.get_num_threads() == 3
            with ThreadPoolExecutor(1) as later:
                assert later.submit(torch.get_num_threads).result() == 3
        pool = single_threads(2, "writer")
        large = torch.rand(1 << 20)
        with pool:
            assert pool.submit(lambda: (large.sum(), torch.get_num_threads())).result()[1] == 1
    finally:
        torch.set_num_threads(asked)


def test_the_address_is_taken_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port={port}: another program"):
            listening("127.0.0.1", port)
    with pytest.raises(OptionError, match="between 0 and 65535"):
        listening("127.0.0.1", 70_000)
    with pytest.raises(ValueError, match="no such address"):
        listening("no such host", 0)
    with pytest.raises(ValueError, match="this machine has no such address"):
        listening("192.0.2.1", 0)
    assert is_loopback("127.0.0.1") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("0.0.0.0") and not is_loopback("example.org")


def test_models_are_called_by_their_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "maskwright.serving.serve.load", lambda model, **options: asked.append((model, options))
    )
    file = tmp_path / "runs" / "street" / "weights" / "best.safetensors"
    file.parent.mkdir(parents=True)
    file.touch()
    run, graph = tmp_path / "runs" / "street", tmp_path / "small.onnx"
    graph.touch()
    named = load_all((str(file), str(run), str(graph), "nuclei"), device="cuda", trust=False)
    assert list(named) == ["street", "street-2", "small", "nuclei"]
    assert [options.get("device") for _, options in asked] == ["cuda", "cuda", None, "cuda"]


def test_limits_are_checked() -> None:
    for wrong in ({"queue": 0}, {"files": 1.5}, {"deadline": 0}, {"megabytes": float("nan")}):
        with pytest.raises(OptionError):
            Limits(**wrong)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="files=4"):
        Limits(queue=2, files=4)


def test_work_is_counted_over_tiles(predictor: Any) -> None:
    rule = predictor.resize_rule(256)
    assert network_pixels((100, 200), rule, Settings()) == 128 * 256
    tiling = Tiling(100, 0.5, 2)
    seen = [
        rule_.target_size(*tile.size)
        for level in tiling.tiles((300, 200))
        for tile in level
        for rule_ in [tiling.rule(rule, tile.level)]
    ]
    expected = sum(height * width for height, width in seen)
    assert network_pixels((300, 200), rule, Settings(tiling=tiling)) == expected
