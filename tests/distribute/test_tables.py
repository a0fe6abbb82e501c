"""Predictions as tables: the numbers of `predict`, part by part, gone on with after any stop."""

from __future__ import annotations

import json
import os
import pickle
import re
import uuid
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maskwright as mw
from maskwright.cli import main
from maskwright.distribute import BatchPredictor, predict
from maskwright.distribute.job import Job
from maskwright.errors import OptionError
from maskwright.ops.rle import decode_rle
from maskwright.tasks.classification.result import ClassResult
from maskwright.tasks.localization.result import LocationResult, Place
from maskwright.tasks.semantic.result import SemanticResult

fsspec = pytest.importorskip("fsspec")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

SIZE = {"imgsz": 64}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, nuclei_mini: Path) -> Path:
    """Four crops with nuclei, one without, and one file that is no image."""
    folder = tmp_path_factory.mktemp("photos")
    files = sorted((nuclei_mini / "images" / "val").glob("*.png"))[:4]
    for k, file in enumerate(files):
        Image.open(file).convert("RGB").crop((0, 0, 64, 56 + 4 * k)).save(folder / f"{k}.png")
    Image.new("RGB", (40, 30)).save(folder / "4.png")
    (folder / "5.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def expected(photos: Path) -> dict[str, Any]:
    """What `predict` finds, by path."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the one that is no image
        return {str(one.path): one for one in mw.predict("nuclei", photos, **SIZE)}


@pytest.fixture
def store() -> Iterator[str]:
    """Address of a folder of an object store in this process."""
    address = f"memory://{uuid.uuid4().hex}"
    yield address
    with suppress(FileNotFoundError):
        fsspec.filesystem("memory").rm(address, recursive=True)


def check_rows(rows: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    """Make sure that a table says what `predict` does, to the bit."""
    by_image: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_image.setdefault(Path(row["image"]).name, []).append(row)
    assert len(by_image) == 6
    ((failed,),) = [found for found in by_image.values() if found[0]["error"]]
    assert Path(failed["image"]).name == "5.png" and "5.png" in failed["error"]
    for path, one in expected.items():
        found = by_image[Path(path).name]
        assert {(row["height"], row["width"]) for row in found} == {one.size}
        if not len(one):
            assert [row["find"] for row in found] == [None]
            continue
        assert [row["find"] for row in found] == list(range(len(one)))
        boxes = torch.tensor([[row[k] for k in ("x1", "y1", "x2", "y2")] for row in found])
        assert torch.equal(boxes, one.boxes)
        assert torch.equal(torch.tensor([row["score"] for row in found]), one.scores)
        assert [row["label"] for row in found] == one.labels.tolist()
        assert [row["mask"] for row in found] == [code["counts"] for code in one.rle]
    assert sum(len(one) for one in expected.values()) > 5
    assert any(not len(one) for one in expected.values())


def rows_of(folder: str) -> list[dict[str, Any]]:
    return list(pq.read_table(f"{folder}/finds").to_pylist())


def test_a_folder_stopped_and_gone_on_with(
    photos: Path,
    expected: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Killed in the second of three parts; then only two are computed, and COCO tools read all."""
    from pycocotools.coco import COCO

    done, original = list[int](), Job.do

    def do(job: Job, part: Any) -> Any:
        if part.number == 1 and not done.count(0) > 1:
            done.append(0)
            raise KeyboardInterrupt
        done.append(part.number)
        return original(job, part)

    monkeypatch.setattr(Job, "do", do)
    save = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        predict("nuclei", photos, part=2, save=save, formats="coco", **SIZE)
    assert f"save={save} goes on" in capsys.readouterr().out
    assert len(list((save / "finds").iterdir())) == 1
    with pytest.warns(UserWarning, match=r"1 of 6 images failed.*5\.png"):
        made = predict("nuclei", photos, part=2, save=save, formats="coco", **SIZE)
    assert done == [0, 0, 1, 2]
    check_rows(rows_of(made.dir), expected)
    assert (made.count.images, made.count.failed) == (6, 1)
    assert made.count.finds == sum(len(one) for one in expected.values())
    coco = COCO(made.coco)
    assert len(coco.imgs) == 5
    for image in coco.loadImgs(coco.getImgIds()):
        one = expected[image["file_name"]]
        objects = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert [row["score"] for row in objects] == one.scores.tolist()
        for row, mask in zip(objects, one.masks, strict=True):
            assert np.array_equal(coco.annToMask(row), mask.numpy())
    for wrong, message in (
        ({"conf": 0.5}, r"conf was 0\.25, now it is 0\.5"),
        ({"part": 3}, "its source had 6 images, and is another one now"),
    ):
        with pytest.raises(OptionError, match=message):
            predict("nuclei", photos, save=save, **{"part": 2, **SIZE, **wrong})


def test_tables_of_paths_bytes_and_both(
    photos: Path, expected: dict[str, Any], tmp_path: Path, store: str
) -> None:
    """Parquet in a folder and in an object store, the tables of finds in a store as well."""
    files = sorted(photos.iterdir())
    data = [file.read_bytes() for file in files]
    names = [file.name for file in files]
    tables = {
        "paths": pa.table({"id": range(6), "file_name": list(map(str, files))}),
        "bytes": pa.table({"photo": data, "path": pa.array(names)}),
        "both": pa.table({"image": [{"bytes": d, "path": n} for d, n in zip(data, names)]}),  # noqa: B905
    }
    options = {"paths": {}, "bytes": {"column": "photo"}, "both": {}}
    for kind, table in tables.items():
        place = tmp_path / f"{kind}.parquet"
        pq.write_table(table, place, row_group_size=4)
        source = str(place)
        if kind == "both":
            source = f"{store}/images.parquet"
            fsspec.filesystem("memory").put_file(str(place), source)
        save = f"{store}/out" if kind == "both" else str(tmp_path / kind)
        with pytest.warns(UserWarning, match="1 of 6 images failed"):
            made = predict("nuclei", source, save=save, **options[kind], **SIZE)
        if kind == "both":
            memory = fsspec.filesystem("memory")
            parts = [pq.read_table(memory.open(one)) for one in memory.ls(made.finds, detail=False)]
            rows = [row for part in parts for row in part.to_pylist()]
        else:
            rows = rows_of(made.dir)
        if kind == "bytes":  # in order, and by number
            assert rows[0]["image"] == "bytes.parquet, group 0, row 0"
            by_row = dict.fromkeys(row["image"] for row in rows)
            order = dict(zip(by_row, names, strict=True))
            rows = [{**row, "image": order[row["image"]]} for row in rows]
            assert rows[-1]["error"].startswith("bytes.parquet, group 1, row 1: ")
            rows[-1]["error"] += " (5.png)"
        check_rows(rows, expected)


def test_images_of_a_store_are_those_of_a_folder(
    photos: Path, expected: dict[str, Any], store: str, tmp_path: Path
) -> None:
    memory = fsspec.filesystem("memory")
    for file in photos.iterdir():
        memory.put_file(str(file), f"{store}/a/{file.name}")
    with pytest.warns(UserWarning, match="failed"):
        made = predict("nuclei", f"{store}/a", save=tmp_path / "out", **SIZE)
    check_rows(rows_of(made.dir), expected)
    (one,) = mw.predict("nuclei", f"{store}/a/0.png", **SIZE)
    assert torch.equal(one.scores, expected[str(photos / "0.png")].scores)
    assert one.path == f"{store}/a/0.png" and one.name == "0.png"


def test_a_batch_of_columns(photos: Path, expected: dict[str, Any]) -> None:
    """Pickled, in batches of two, from a mapping and a table, with a column that comes along."""
    find = BatchPredictor("nuclei", keep=["id"], batch=2, **SIZE)
    assert len(pickle.dumps(find)) < 2000
    files = [str(photos / f"{k}.png") for k in (0, 5, 4)]
    files.append("")
    batch = {"path": files, "id": ["a", "b", "c", "d"]}
    table = pickle.loads(pickle.dumps(find))(batch)
    assert len(pickle.dumps(find)) < 2000
    assert table.equals(find(pa.table(batch)))
    rows = table.to_pylist()
    assert [row["id"] for row in rows if not row["find"]] == ["a", "b", "c", "d"]
    assert len(rows) == len(expected[files[0]]) + 3
    assert rows[-1]["error"] and rows[-1]["score"] is None
    with pytest.raises(ValueError, match=r"no column 'ids'.*did you mean 'id'"):
        BatchPredictor("nuclei", keep=["ids"])(batch)
    with pytest.raises(OptionError, match="no option 'confidence'; did you mean 'conf'"):
        BatchPredictor("nuclei", confidence=1)


def test_rows_of_the_other_tasks() -> None:
    """Numbers as they are: what a table of 32-bit floats must not round."""
    image = np.zeros((3, 4, 3), np.uint8)
    third = torch.tensor([0.2, 1 / 3, 0.4666])
    rows = ClassResult(third, image, ["a", "b", "c"], topk=2).rows()
    assert [(r["label"], r["name"]) for r in rows] == [(2, "c"), (1, "b")]
    assert torch.equal(torch.tensor([r["score"] for r in rows]), third[[2, 1]])
    several = ClassResult(third, image, ["a", "b", "c"], multilabel=True, conf=0.4)
    assert [r["name"] for r in several.rows()] == ["c"]
    labels = np.array([[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], np.uint8)
    rows = SemanticResult(labels, image, ["sky", "road", "car"]).rows()
    assert [(r["name"], r["pixels"], r["share"]) for r in rows] == [
        ("sky", 9, 0.75),
        ("road", 3, 0.25),
    ]
    for row in rows:
        crop, (x1, y1, x2, y2) = decode_rle({"size": [3, 4], "counts": row["mask"]})
        where = np.zeros((3, 4), bool)
        where[y1:y2, x1:x2] = crop
        assert np.array_equal(where, labels == row["label"])
    probs, boxes = torch.tensor([0.7, 0.1, 0.2]), torch.tensor([[1 / 3, 0, 2, 2.0], [0, 0, 1, 1]])
    (row,) = LocationResult(Place(probs, boxes), image, ["a", "b"]).rows()
    assert (row["label"], row["name"]) == (0, "a") and row["keypoints"] is None
    assert torch.equal(torch.tensor([row["x1"], row["x2"]]), boxes[0, [0, 2]])
    (row,) = LocationResult(Place(probs.flip(0), None), image, ["a", "b"]).rows()
    assert (row["label"], row["name"], row["x1"]) == (None, "background", None)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("engine=ray address=127.0.0.1:1", "address=127.0.0.1:1: there is no cluster"),
        (
            "engine=ray address=ray://127.0.0.1:1",
            "^(?!.*goes on).*ray start --head --ray-client-server-port=1`",
        ),
        ("engine=ray address=nowhere", "expected host and port"),
        ("engine=local processes=4", "engine=local is this process alone"),
        ("engine=local show=true", "show is for predictions as pictures"),
        ("processes=2", "for tables of very many images, give engine"),
        ("engine=local save=false", "the tables are all that comes of it"),
        ("engine=local formats=yolo", "formats=yolo: there are coco"),
        ("engine=local column=photo", "column=photo is of Parquet files"),
        ("engine=local source=TABLE", "table.parquet has no column of images"),
        ("engine=local source=TABLE column=pat", "has no column 'pat'.*'patient'"),
        ("engine=local source=TABLE column=age", "'age' holds int64, not paths or bytes"),
        ("engine=local source=TABLE column=scan", "'scan' holds struct.*not paths or bytes"),
        ("engine=local source=footer.parquet", r"footer\.parquet is damaged or cannot be read"),
        ("engine=local source=pages.parquet", r"pages\.parquet is damaged or cannot be read"),
        ("engine=local source=5.png save=runs", "tables of no known run"),
        ("engine=local source=s3x", "'s3x' does not exist"),
        ("data=coins processes=2", "to train on a cluster, give engine=ray too"),
        ("data=memory://nothing/here epochs=1", "memory://nothing/here does not exist"),
        ("source=memory://nothing/here", "memory://nothing/here does not exist"),
    ],
)
def test_one_clear_sentence(
    line: str,
    message: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if "address=" in line:
        pytest.importorskip("ray")
    table = pa.table({"patient": ["a"], "age": [3], "scan": [{"id": 1}]})
    pq.write_table(table, tmp_path / "table.parquet")
    pq.write_table(pa.table({"path": ["a.png"] * 9}), tmp_path / "whole", compression="none")
    content = (tmp_path / "whole").read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    for name, place in (("footer", start), ("pages", 4)):
        damaged = content[:place] + b"\xff" * 30 + content[place + 30 :]
        (tmp_path / f"{name}.parquet").write_bytes(damaged)
    (tmp_path / "runs" / "finds").mkdir(parents=True)
    (tmp_path / "runs" / "finds" / "a").touch()
    given = line.replace("TABLE", "table.parquet").replace("5.png", str(photos / "5.png")).split()
    if not any(word.startswith("source=") for word in given):
        given += [] if "data=" in line else [f"source={photos}"]
    command = ["train"] if "data=" in line else ["predict", "model=nuclei"]
    assert main([*command, *given]) in (1, 2)
    text = " ".join(capsys.readouterr().err.split())
    assert re.search(message, text), text


def test_a_name_that_is_no_utf8_and_a_pattern_of_folders(photos: Path, tmp_path: Path) -> None:
    """One such name among many costs nothing; its row says which byte is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    try:
        os.link(photos / "4.png", os.fsencode(folder) + b"/caf\xe9.png")
    except OSError:
        pytest.skip("names are UTF-8 here")
    os.link(photos / "4.png", folder / "caf\u00e9.png")
    made = predict("nuclei", folder, save=tmp_path / "a", formats="coco", **SIZE)
    assert made.count.images == 2 and not made.count.failed and made.coco is not None
    names = {Path(row["image"]).name for row in rows_of(made.dir)}
    assert names == {"caf\\udce9.png", "caf\u00e9.png"}
    images = json.loads(Path(made.coco).read_text(encoding="utf-8"))["images"]
    assert {Path(one["file_name"]).name for one in images} == names
    for day in ("1", "2"):
        (tmp_path / "list" / f"day={day}").mkdir(parents=True)
        table = pa.table({"path": [str(photos / f"{day}.png")]})
        pq.write_table(table, tmp_path / "list" / f"day={day}" / "0.parquet")
    for k, pattern in enumerate(("list/*/*.parquet", "list/**/*.parquet")):
        made = predict("nuclei", str(tmp_path / pattern), save=tmp_path / f"b{k}", **SIZE)
        images = dict.fromkeys(Path(row["image"]).name for row in rows_of(made.dir))
        assert list(images) == ["1.png", "2.png"]


def test_a_folder_whose_run_is_another_one(photos: Path, tmp_path: Path) -> None:
    """A table with as many other images; a description of another version, or none at all."""
    source, save = tmp_path / "images.parquet", tmp_path / "run"

    def go_on(name: str) -> None:
        pq.write_table(pa.table({"path": [str(photos / "0.png"), str(photos / name)]}), source)
        predict("nuclei", source, save=save, **SIZE)

    go_on("1.png")
    go_on("1.png")
    with pytest.raises(OptionError, match="its source had 2 images, and is another one now"):
        go_on("2.png")
    (part,) = (save / "finds").iterdir()
    whole = part.read_bytes()
    place = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    part.write_bytes(whole[:place] + b"\xff" * 30 + whole[place + 30 :])
    with pytest.raises(ValueError, match=r"part-000000\.parquet is damaged.*: remove it"):
        go_on("1.png")
    description = json.loads((save / "run.json").read_text())
    description["options"]["older"] = 1
    for text, message in (
        (json.dumps(description), "older was 1, now it is None"),
        ('"text"', r"run\.json is damaged"),
    ):
        (save / "run.json").write_text(text)
        with pytest.raises(ValueError, match=message):
            go_on("1.png")


def test_a_store_that_refuses(monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    """No rights, no credentials, no package: each in a sentence with the address."""
    from maskwright.stores import Place as Folder
    from maskwright.stores import StoreFile, list_store

    kind = type(fsspec.filesystem("memory"))
    for error, message in (
        (PermissionError("Access Denied"), "may not be read or written with these credentials"),
        (OSError("403 Forbidden"), "may not be read or written with these credentials"),
        (RuntimeError("Unable to locate credentials"), "there are no credentials"),
        (TimeoutError("timed out"), r"cannot be reached \(timed out\)"),
    ):

        def refuse(*args: Any, error: Exception = error, **options: Any) -> None:
            raise error

        for name in ("ls", "cat_file", "put_file"):
            monkeypatch.setattr(kind, name, refuse)
        for ask in (
            lambda: list_store(store),
            StoreFile(f"{store}/a.png").load,
            lambda: Folder(store).write("a", lambda file: file.write(b"a")),
        ):
            with pytest.raises(ValueError, match=f"{store}.*{message}"):
                ask()
    monkeypatch.undo()
    fsspec.filesystem("memory").pipe_file(f"{store}/a", b"")
    with pytest.raises(ValueError, match="s3://bucket/a: this store needs s3fs: pip install s3fs"):
        try:
            import s3fs  # noqa: F401
        except ImportError:
            list_store("s3://bucket/a")
        else:
            pytest.skip("s3fs is there")


def test_a_part_that_costs_processes_is_given_up(photos: Path, tmp_path: Path) -> None:
    """Begun three times in a run and never done: its images fail; another run counts anew."""
    from maskwright.distribute.on_ray import Worker
    from maskwright.distribute.parts import list_parts
    from maskwright.stores import Place as Folder

    (part,) = list_parts(str(photos)).parts
    find, place = BatchPredictor("nuclei", **SIZE), Folder(tmp_path)
    job = pickle.dumps(Job(find, place, find.columns))
    batch = {"part": [pickle.dumps(part)]}
    for run, tries, failed in (("a", 2, 1), ("b", 3, 1), ("a", 3, 6)):
        place.write("_trying-000000", lambda file, tries=tries: file.write(f"a {tries}".encode()))
        made = Worker(job, str(Path.cwd()), torch.get_num_threads(), run)(batch)
        assert made["failed"] == [failed] and made["images"] == [6]
        assert place.names() == {part.output}
    rows = pq.read_table(tmp_path / part.output).to_pylist()
    assert [row["image"] for row in rows] == sorted(map(str, photos.iterdir()))
    assert all("was lost 3 times" in row["error"] for row in rows)
