"""`~` is the home directory wherever a path is taken; a missing name brings the nearest one."""

from __future__ import annotations

import json
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maskwright.cli import COMMANDS, main
from maskwright.paths import home_path, names_path, nearest_path, takes_paths
from maskwright.signatures import parse_value
from maskwright.tasks.detection.recipe import DetectionRecipe

# Options that are text and no path. A new one is either written here, or its type names `Path`.
NAMES = {
    *("backbone", "conventions", "device", "format", "formats", "name", "precision", "soft_nms"),
    *("split", "target", "tta", "imgsz", "window", "explain", "explain_target", "localize"),
    *("method", "family", "task", "nme_pair", "loss", "ignore", "crf", "photometric"),
    *("to", "names", "rename", "drop", "keep", "conf", "channels", "page", "track", "line"),
    *("host", "token", "log", "address", "column"),
    # Of methods that find regions, or a file of them: its place is looked up in one function.
    "proposal_source",
}
ALSO = {  # text in one command, a path in others
    ("train", "model"),
    ("convert", "model"),
    ("convert", "source"),
    ("models", "name"),
    ("compare", "models"),
    ("data anchors", "model"),
    ("data merge", "data"),
    ("proposals", "source"),
    ("serve", "model"),
}
OPTIONS = [
    (command, option)
    for command, entry in COMMANDS.items()
    for option in entry.options.values()
    if ("str" in option.kind and "Literal" not in option.kind) or names_path(option.kind)
]
PATHS = [(command, option) for command, option in OPTIONS if names_path(option.kind)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home of somebody"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_every_option_is_a_path_or_known_to_be_none() -> None:
    unknown = [
        (command, option.name)
        for command, option in OPTIONS
        if not names_path(option.kind)
        and option.name not in NAMES
        and (command, option.name) not in ALSO
    ]
    assert unknown == []
    assert {option.name for _, option in PATHS} >= {
        *("data", "model", "weights", "resume", "project", "save", "path", "src", "dst"),
        "proposal_model",
    }


@pytest.mark.parametrize(("command", "name"), [(command, option.name) for command, option in PATHS])
def test_options_of_the_command_line(command: str, name: str, home: Path) -> None:
    kind = COMMANDS[command].options[name].kind
    assert parse_value(kind, "~/a b/x.json") == f"{home}/a b/x.json"
    assert parse_value(kind, "a/~/$HOME") == "a/~/$HOME"


@pytest.mark.parametrize(
    "source", [entry.source for entry in COMMANDS.values() if entry.source], ids=lambda s: s[1]
)
def test_python_functions_behind_the_commands(source: tuple[str, str]) -> None:
    function = getattr(import_module(source[0]), source[1])
    assert takes_paths.__name__ in Path(import_module(source[0]).__file__ or "").read_text()
    assert hasattr(function, "__wrapped__")


@pytest.mark.parametrize("kind", [str, Path])
def test_arguments_that_name_paths(kind: Any, home: Path) -> None:
    @takes_paths
    def show(data: str | Path, name: str, *, save: str | Path | None = None, **more: Any) -> Any:
        return data, name, save, more

    expected = (kind(f"{home}/x"), "~", kind(f"{home}/y"), {"z": "~/z"})
    assert show(kind("~/x"), "~", save=kind("~/y"), z="~/z") == expected
    assert type(show(kind("~/x"), "")[0]) is type(kind("x"))
    with pytest.raises(TypeError, match="show"):
        show()  # type: ignore[call-arg]
    assert show(3, "")[0] == 3  # type: ignore[arg-type]


def test_fields_of_a_recipe(home: Path) -> None:
    kinds = {entry.name: str(entry.type) for entry in fields(DetectionRecipe)}
    paths = [name for name, kind in kinds.items() if names_path(kind)]
    assert set(paths) == {"data", "weights", "resume", "project", "proposal_model"}
    for name in paths:
        options: dict[str, Any] = {"data": "x", name: "~/y"}
        if name == "proposal_model":
            options["train_part"] = "heads"
        assert getattr(DetectionRecipe(**options), name) == f"{home}/y"


def test_homes_of_others(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert home_path("~root/x") in ("/root/x", "~root/x")  # where there is such a user
    assert home_path("~nobody-has-this-name/x") == "~nobody-has-this-name/x"
    assert home_path("~") == str(home)
    assert home_path("$HOME/x") == "$HOME/x" and home_path("x/~") == "x/~"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~root").mkdir()  # a name that begins so is a name
    assert home_path("~root") == "~root"
    (tmp_path / "~").mkdir()
    assert home_path("~") == str(home)
    assert home_path(None) is None


def scene(folder: Path) -> None:
    """A data set with one image."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(folder / "images/a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 30, "width": 40}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 9, 9]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (folder / "train.json").write_text(json.dumps(content))


def test_home_in_all_that_is_given(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import maskwright as mw
    from maskwright.data import check_data, load_image, open_dataset, read_coco

    scene(home / "cells")
    main(["data", "check", "data=~/cells", "project=~/runs"])  # one image: too few to train on
    assert (home / "runs/check/check/faults.csv").is_file()
    for kind in (str, Path):
        assert len(open_dataset(kind("~/cells"))) == 1
        assert check_data(kind("~/cells")).splits["train"].images == 1
        assert len(read_coco(kind("~/cells/train.json"), [home / "cells/images"])) == 1
        assert load_image(kind("~/cells/images/a.png")).shape == (30, 40, 3)
    file = home / "elsewhere.yaml"
    for content in (
        "path: ~/cells\ntrain: train.json",
        "train: ~/cells/train.json",
        "train: ~/cells/train.json\nimages: ~/cells/images",
        "train: cells/train.json\nimages: {train: cells/images}",
        f"path: {home}/cells\ntrain: train.json\nimages: images",
    ):
        file.write_text(content)
        for given in ("~/elsewhere.yaml", file):
            assert [str(open_dataset(given)[0].path)] == [f"{home}/cells/images/a.png"]
    mapping = {"train": "~/cells/train.json", "images": Path("~/cells/images")}
    assert len(open_dataset(mapping)) == 1
    # What is missing is named where it was looked for.
    for call in (
        lambda: mw.load("~/nothing/best.safetensors"),
        lambda: mw.load("mask_rcnn_resnet50_fpn", weights="~/nothing/best.safetensors"),
        lambda: mw.load("~/nothing.onnx"),
        lambda: mw.train("~/nothing"),
        lambda: mw.train(resume="~/nothing"),
        lambda: mw.val("nuclei", "~/nothing"),
        lambda: list(mw.predict("nuclei", "~/nothing.png")),
        lambda: mw.export("~/nothing", "onnx"),
        lambda: mw.convert("~/nothing.pth", "~/x.safetensors", model="mask_rcnn_resnet50_fpn"),
    ):
        with pytest.raises(ValueError, match=f"{home}/nothing"):
            call()
    capsys.readouterr()


def test_what_was_meant(tmp_path: Path) -> None:
    for name in ("cells", "images", "cell_0001.PNG"):
        (tmp_path / name).touch()
    assert nearest_path(tmp_path / "cels") == f"; did you mean {str(tmp_path / 'cells')!r}?"
    assert "cell_0001.PNG" in nearest_path(tmp_path / "cell_0001.png")
    assert "did you mean" not in nearest_path(tmp_path / "zzz")
    assert f"there is no {str(tmp_path / 'zzz')!r}" in nearest_path(tmp_path / "zzz/a.png")
