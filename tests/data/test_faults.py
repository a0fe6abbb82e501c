"""A list of everything that is wrong with real data, and what becomes of each.

Every case states its outcome: read as it is, read and noted, listed as a fault while the rest is
read, an image that fails by name when it is used, or a file that is refused. All layouts are
tried, and what is kept is counted.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fault_cases import CASES, RUNS
from faults import (
    Clean,
    Data,
    Fails,
    Listed,
    Refused,
)

from maskwright.cli import main
from maskwright.data import check_data, load_image, make_loader, open_dataset
from maskwright.data.records import Dataset
from maskwright.models import Meta, build, get_entry
from maskwright.storage.checkpoint import save_checkpoint
from maskwright.structures import Resize


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Turn a case that hangs, at a pipe for example, into one that fails."""

    def stop(*_: object) -> None:
        raise TimeoutError("the case took more than a minute")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def count(dataset: Dataset) -> tuple[int, int]:
    return len(dataset), sum(len(dataset[i].labels) for i in range(len(dataset)))


def use(dataset: Dataset) -> None:
    """Make every training sample."""
    loader = make_loader(
        dataset, batch=2, resize=Resize(None, 64), augment=None, seed=0, workers=0, shuffle=True
    )
    assert sum(len(batch) for batch in loader) == len(dataset)


@pytest.mark.parametrize(("case", "layout"), RUNS)
def test_every_fault_has_its_outcome(case: str, layout: str, tmp_path: Path) -> None:
    change, outcome = CASES[case]
    data = Data(tmp_path, layout)
    change(data)
    root = data.write()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = check_data(root)
    assert "val" in report.splits or "classes" in case, "the other split is not touched"
    if isinstance(outcome, Refused):
        with pytest.raises(ValueError, match=f"(?s){outcome.says}") as refused:
            open_dataset(root, "train")
        assert str(data.file) in str(refused.value)
        assert ("train", "unusable split", "error") in [
            (split, fault.kind, fault.action) for split, fault in report.faults
        ]
        assert not report.ok
    else:
        dataset = open_dataset(root, "train")
        found = [fault for split, fault in report.faults if split == "train"]
        if isinstance(outcome, Clean):
            assert [fault.kind for fault in found] == list(outcome.told)
            assert outcome.note in "\n".join(report.notes)
            assert count(dataset) == (outcome.images, outcome.objects)
            outcome.test(data, dataset)
            use(dataset)
        elif isinstance(outcome, Listed):
            match = [f for f in found if f.kind.startswith(outcome.kind)]
            assert match, found
            fault = match[-1]
            assert (fault.action, fault.image_id, fault.annotation_id) == (
                outcome.action,
                data.number(outcome.image),
                outcome.annotation,
            )
            assert str(tmp_path) in fault.file
            assert re.search(outcome.says, fault.message) or (outcome.says in fault.message)
            assert count(dataset) == (outcome.images, outcome.objects)
            assert report.ok
            use(dataset)
        else:
            number = data.number(5)
            assert [(f.kind, f.action, f.image_id) for f in found] == [
                (outcome.kind, "error", number)
            ]
            assert not report.ok
            name = data.image["file_name"]
            with pytest.raises(ValueError, match=rf"(?s){name}.*{outcome.says}.*image id {number}"):
                use(dataset)
            others = dataset.select([1, 2])
            use(others)
    # In kilobytes: a bomb of 100,000 x 100,000 would take 30 gigabytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Act as somebody whom permissions bind, as they do not bind root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_without_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = Data(root, "file")
        data.write()
        root.chmod(0o755)
        (data.folder / "a.png").chmod(0)
        with ordinary_user():
            dataset = open_dataset(data.file)
            assert [(f.kind, f.action, f.image_id) for f in dataset.faults] == [
                ("unreadable image", "left out", 5)
            ]
            assert "change its permissions" in dataset.faults[0].message
            assert count(dataset) == (2, 2)
            with pytest.raises(ValueError, match=r"a\.png may not be read"):
                load_image(data.folder / "a.png")
        data.file.chmod(0)
        with ordinary_user(), pytest.raises(ValueError, match=r"train\.json: Permission denied"):
            open_dataset(data.file)
        root.chmod(0)
        with ordinary_user(), pytest.raises(ValueError, match="Permission denied"):
            open_dataset(root)
        root.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x" * 5000, "cannot be looked up"),
        ("nothing", "does not exist"),
        ("/dev/zero", "is a pipe or a device"),
        ("a\0b", "does not exist"),
    ],
)
def test_paths_that_are_no_data(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        open_dataset(name)


def test_yaml_that_grows_without_end(tmp_path: Path) -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    file = tmp_path / "data.yaml"
    file.write_text(f"- {laughs.replace(chr(10), chr(10) + '  ')}")
    with pytest.raises(ValueError, match=r"data\.yaml: expected the entries train and val"):
        open_dataset(file)
    for key in ("path", "images"):
        file.write_text(f"{laughs}train: x.json\n{key}: *i\n")
        with pytest.raises(ValueError, match=rf"data\.yaml: the entry {key} must name a folder"):
            open_dataset(file)
    file.write_text("[" * 3000)
    with pytest.raises(ValueError, match=r"data\.yaml"):
        open_dataset(file)


@pytest.mark.parametrize("missing", ["val", "train"])
def test_a_category_that_one_split_lacks(missing: str, tmp_path: Path) -> None:
    data = Data(tmp_path, "pairs")
    content = data.val_content if missing == "val" else data.content
    content["categories"] = [{"id": 7, "name": "dog"}]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 7]
    data.val_content["images"] += [{**data.val_content["images"][0], "id": 2}]
    if missing == "train":
        data.val_content["annotations"][0]["category_id"] = 3
    root = data.write()
    report = check_data(root)
    names = open_dataset(root, "train").names
    if missing == "val":
        dataset = open_dataset(root, "val", names=names)
        assert (dataset.names, dataset.category_ids) == (["cat", "dog"], [-1, 7])
        assert report.ok
    else:
        with pytest.raises(ValueError, match=r"val\.json.*\['cat'\].*\['dog'\]"):
            open_dataset(root, "val", names=names)
        assert [fault.kind for _, fault in report.faults if fault.action == "error"] == [
            "unusable split"
        ]


def damaged(root: Path) -> Data:
    """A data set with many faults that leave something to train on."""
    data = Data(root, "pairs")
    for case in ("no mask", "crowd of words", "area of words", "signs"):
        CASES[case][0](data)
    images, annotations = data.content["images"], data.content["annotations"]
    names = {"pipe.png": os.mkfifo, "folder.png": Path.mkdir, "empty.png": Path.touch}
    for number, (name, place) in enumerate(names.items(), 20):
        place(data.folder / name)
        images.append({"id": number, "file_name": name, "height": 30, "width": 40})
        annotations.append({**data.first, "id": number, "image_id": number})
    (data.folder / "gone.png").symlink_to("nowhere")
    for name in ("gone.png", "../way/out.png"):
        images.append({"id": 40 + len(images), "file_name": name, "height": 30, "width": 40})
    annotations += [
        {**data.first, "id": 50, "image_id": 77},
        {**data.first, "id": 51, "category_id": 77},
        {**data.first, "id": 52, "segmentation": [[1, 1, 5, 5]]},
        {**data.first, "id": 53, "segmentation": {"size": [30, 40], "counts": "\u00ff"}},
        {**data.first, "id": 54, "segmentation": [], "bbox": [12, 12, -10, -10]},
    ]
    CASES["class names of signs"][0](data)
    (root / "runs").mkdir()
    return data


MODEL = "mask_rcnn_resnet50_fpn"
TINY = (
    f"model={MODEL} backbone=test_efficientnet width=16 box_width=32 proposals=50 "
    "rois=32 imgsz=64 anchor_sizes=8,16,32,64,128 weights=none epochs=1 workers=0 device=cpu"
)


def test_every_command_goes_on_with_the_rest_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = damaged(tmp_path / "data")
    root = data.write()
    assert main(["data", "check", str(root)]) == 0
    out = capsys.readouterr().out
    kinds = [fault.kind for fault in open_dataset(root).faults]
    assert len(set(kinds)) >= 11
    assert all(kind in out for kind in kinds)
    assert (tmp_path / "runs/check/check/faults.csv").read_text().count("\n") > len(kinds)
    assert main(["train", str(root), *TINY.split(), "name=x"]) == 0
    err = capsys.readouterr().err
    assert f"warning: {data.file}: " in err and "`maskwright data check` lists all" in err
    assert main(["val", "runs/train/x", str(root), "split=train", "workers=0", "save=no"]) == 0
    assert f"warning: {data.file}: " in capsys.readouterr().err
    assert main(["predict", "runs/train/x", str(data.folder), "conf=0"]) == 0
    err = capsys.readouterr().err
    assert "empty.png is empty" in err and "1 of 4 images could not be read" in err


@pytest.mark.parametrize("case", ["truncated JPEG", "PNG bomb", "other size", "truncated JSON"])
def test_every_command_fails_in_one_line(
    case: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = Data(tmp_path / "data", "pairs")
    change, outcome = CASES[case]
    change(data)
    root = data.write()
    assert isinstance(outcome, Fails | Refused)
    file = data.file if isinstance(outcome, Refused) else data.folder / data.image["file_name"]
    assert main(["data", "check", str(root), "save=no"]) == 1
    out, err = capsys.readouterr()
    assert str(file) in out and "training would fail" in err
    tiny = dict(get_entry(MODEL).tiny or {})
    meta = Meta(MODEL, tiny, ["cat", "dog"])
    model = save_checkpoint(tmp_path / "m.safetensors", meta, build(MODEL, 2, **tiny).state_dict())
    lines = [["val", str(model), str(root), "split=train", "workers=0", "save=no"]]
    if case != "PNG bomb":  # one training of each kind is enough
        lines += [["train", str(root), *TINY.split()]]
    for line in lines:
        assert main(line) == 1
        err = capsys.readouterr().err
        assert err.count("error: ") == 1 and "Traceback" not in err
        assert str(file) in err and re.search(f"(?s){outcome.says}", err)
