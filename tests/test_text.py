"""Text of others on its way out: no name of a file or class ends a program or steers a terminal."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import maskwright as mw
from maskwright.cli import main
from maskwright.data import open_dataset
from maskwright.paths import plain_path
from maskwright.proposals.files import ProposalFile, write_proposals
from maskwright.reports.curves import Curves
from maskwright.storage.checkpoint import save_checkpoint
from maskwright.storage.rundir import ResultsTable, read_args, write_args, write_whole
from maskwright.terminal import console
from maskwright.text import encodable, one_line, printable, to_json
from maskwright.training.trackers import TensorBoard

pytestmark = pytest.mark.figures

BYTES = os.fsdecode(b"b\xff\xe9.png")  # no UTF-8
NAMES = [
    "plain.png",
    BYTES,
    "日本語.png",
    "é.jpg",
    "x\x1b[31mred\x1b]0;title\x07.png",
    "new\nerror: all is lost.png",
    "[red]bold.png",
    "-dash.png",
    "a=1.png",
    "\u202egnp.png",
    "tab\t.png",
    "%41&<b>\"q'.png",
    "z" * 250 + ".png",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names") / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    for name in NAMES:
        try:
            Image.fromarray(pixels).save(folder / name, "PNG")
        except OSError:
            pytest.skip("this file system refuses such names")
    return folder


@pytest.mark.parametrize("text", [*NAMES, "", "a b", "\u200d", "\ud800\udfff"])
def test_printable_is_harmless_and_says_the_same(text: str) -> None:
    shown = one_line(text)
    assert all(char.isprintable() or char == "\u200d" for char in shown)
    assert shown.encode("utf-8") is not None and "\n" not in shown and "\x1b" not in shown
    if text.isprintable():
        assert shown == text
    assert one_line(shown) == shown
    assert printable("a\n\tb") == "a\n\tb"


@pytest.mark.parametrize(
    "encoding", ["ascii", "cp1252", "latin-1", "shift_jis", "utf-8", "no such"]
)
def test_encodable_fits_any_encoding(encoding: str) -> None:
    for text in NAMES:
        shown = encodable(one_line(text), encoding)
        assert shown.encode("ascii" if encoding == "no such" else encoding)
    assert encodable("Straße", "latin-1") == "Straße"
    assert encodable("日", "cp1252") == "\\u65e5" and encodable("a", None) == "a"


def test_json_is_valid_and_gives_the_name_back() -> None:
    content = {name: [name, {"日": "\ud800"}] for name in NAMES}
    data = to_json(content, indent=1).encode("utf-8")
    assert json.loads(data.decode("utf-8")) == content
    assert "日本語" in data.decode("utf-8")


def test_files_of_a_run_hold_any_name(tmp_path: Path) -> None:
    options = {"data": BYTES, "names": NAMES}
    write_args(tmp_path / "args.yaml", options, {"lr": 0.1})
    assert read_args(tmp_path / "args.yaml") == (options, {"lr": 0.1})
    assert yaml.safe_load((tmp_path / "args.yaml").read_bytes().decode("utf-8"))["data"] == BYTES
    write_whole(tmp_path / "x.txt", BYTES)
    assert (tmp_path / "x.txt").read_bytes() == b"b\\udcff\\udce9.png"
    write_proposals(tmp_path / "p.npz", {BYTES: (np.zeros((1, 4)), np.ones(1))})
    boxes, scores = ProposalFile(tmp_path / "p.npz").find(tmp_path / BYTES, None)
    assert boxes.shape == (1, 4) and scores is not None and scores.tolist() == [1.0]


class Narrow(io.TextIOWrapper):
    """A strict console of one encoding, as Windows and PYTHONIOENCODING make it."""

    def __init__(self, encoding: str, terminal: bool) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def shown(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_consoles_of_any_encoding(
    encoding: str, terminal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = Narrow(encoding, terminal), Narrow(encoding, terminal)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "400")
    for name in NAMES:
        console.note(name)
        console.warn(name)
        with console.progress(name, total=1, unit=name) as bar:
            bar.update(1, file=name)
    console.table(NAMES[2], ["日", "b"], [[name, 1] for name in NAMES])
    shown = out.shown()
    assert "[red]bold.png" in shown and "b\\udcff\\udce9.png" in shown
    assert "\x1b[31mred" not in shown and "\x1b]0;" not in shown + err.shown()
    assert "\nerror: all" not in err.shown()
    assert ("日本語.png" in shown) == (encoding == "utf-8")


def test_wide_characters_keep_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    console.table("", ["name", "n"], [["日本", 1], ["abcd", 22]])
    _, first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "日本   1" and second == "abcd  22"


@pytest.mark.parametrize("how", ["none", "closed"])
def test_no_console_at_all(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    stream.close()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None if how == "none" else stream)
    with console.lenient_streams():
        console.note("a")
        console.warn("b")
        console.table("t", ["a"], [["x"]])
        with console.progress("p", total=1) as bar:
            bar.update(1)


def in_narrow_console(
    words: list[str], encoding: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run a command that ends well in a folder, on a console of one encoding."""
    out, err = Narrow(encoding, False), Narrow(encoding, False)
    with monkeypatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        status = main(words)
    assert status == 0, err.shown()
    assert out.shown() and "\x1b[31m" not in out.shown() + err.shown()


def run(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "maskwright", *words]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, check=False
    )


@pytest.mark.parametrize("locale", [pytest.param("", marks=pytest.mark.slow), "C"])
def test_predict_survives_names_consoles_and_locales(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, locale: str
) -> None:
    words = ["predict", "nuclei", f"source={photos}", "imgsz=64", "device=cpu"]
    words += ["save=out", "formats=geojson,labels"]
    if locale:  # is read once in a process
        plain = {"LC_ALL": locale, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        done = run(tmp_path, *words, **plain)
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        assert b"Traceback" not in done.stderr and b"\x1b[31m" not in done.stdout
    else:
        in_narrow_console(words, "cp1252", tmp_path, monkeypatch)
    paths = {
        json.loads(file.read_bytes().decode("utf-8"))["path"]
        for file in (tmp_path / "out").glob("*.json")
    }
    if not locale:  # in C bytes stand for what is no ASCII
        assert {Path(path).name for path in paths} == set(NAMES)
    assert len(paths) == len(NAMES)
    for pattern in ("*.png", "*.jpg"):
        for file in (tmp_path / "out").glob(pattern):
            with Image.open(file) as picture:
                picture.verify()
    assert len(list((tmp_path / "out" / "labels").iterdir())) == len(NAMES)
    page = (tmp_path / "out" / "index.html").read_bytes().decode("utf-8")
    assert "<b>" + '"q' not in page and "\x1b" not in page and "\u202e" not in page


@pytest.fixture
def strange(tmp_path: Path) -> Iterator[Path]:
    """A data set whose file and class names are no plain text."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    images, annotations = [], []
    for number, name in enumerate(NAMES):
        pixels = np.full((40, 40, 3), 20, np.uint8)
        pixels[8:28, 8:28] = 200
        Image.fromarray(pixels).save(root / "images" / name, "PNG")
        images.append({"id": number + 1, "file_name": name, "height": 40, "width": 40})
        outline = [8, 8, 28, 8, 28, 28, 8, 28]
        annotations.append(
            {"id": number + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0, "area": 400}
            | {"bbox": [8, 8, 20, 20], "segmentation": [outline]}
        )
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "Zelle \x1b[31m細胞"}]
    (root / "annotations.json").write_text(json.dumps(content))
    yield root


def test_a_data_set_finds_files_of_any_name(strange: Path) -> None:
    dataset = open_dataset(strange, "train")
    assert [dataset[i].path.name for i in range(len(dataset))] == NAMES
    assert all(dataset[i].path.is_file() for i in range(len(dataset)))


def test_commands_survive_a_data_set_of_such_names(
    strange: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        ["data", "check", f"data={strange}", "save=check"],
        ["proposals", f"data={strange}", "source=sliding_window", "workers=0", "save=proposals"],
    ):
        in_narrow_console(words, "ascii", tmp_path, monkeypatch)


def test_libraries_that_know_utf8_alone_reach_any_path(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"run\xff")
    folder.mkdir()
    predictor = mw.load("nuclei", device="cpu")
    file = folder / os.fsdecode(b"w\xff.safetensors")
    save_checkpoint(file, predictor.meta, predictor.detector.state_dict())
    again = mw.load(file, device="cpu")
    for key, value in predictor.detector.state_dict().items():
        assert torch.equal(again.detector.state_dict()[key], value), key
    row: dict[str, float | int | None] = {"epoch": 1, "step": 1, "train/loss": 0.5, "lr": 1e-3}
    ResultsTable(folder / "results.csv").append(row)
    with Curves(folder) as curves:
        curves.add()
    board = TensorBoard(folder, 0)
    board.add({"train/loss": 0.5}, 1)
    board.close("finished")
    assert (folder / "results.png").is_file()
    with plain_path(tmp_path / "plain") as path:
        assert path == tmp_path / "plain"


def test_what_cannot_be_written_concerns_one_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    (tmp_path / "out" / "b.json").mkdir(parents=True)  # in the way
    assert main(["predict", "nuclei", "photos", "imgsz=64", "device=cpu", "save=out"]) == 1
    text = capsys.readouterr().err
    assert "b.png: not saved: out/b.json: cannot be written" in text
    assert "1 of 3 images could not be saved: b.png" in text
    assert (tmp_path / "out" / "a.json").is_file() and (tmp_path / "out" / "c.json").is_file()
    with (
        pytest.warns(UserWarning, match="1 of 3 images could not be saved: b.png"),
        pytest.warns(UserWarning, match="b.png: not saved"),
    ):
        stream = mw.predict(
            "nuclei", tmp_path / "photos", imgsz=64, device="cpu", save=tmp_path / "out"
        )
        assert [result.name for result in stream] == ["a.png", "b.png", "c.png"]
    assert list(stream.failed) == ["b.png"]
