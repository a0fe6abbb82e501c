"""Options mean the same in Python and on the command line, and from one command to the next."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import maskwright as mw
from maskwright.cli import COMMANDS
from maskwright.data.checking.check import check_data
from maskwright.data.rewriting.classes import change_classes
from maskwright.data.rewriting.convert import convert_data
from maskwright.data.rewriting.merge import merge_data
from maskwright.data.rewriting.split import split_data
from maskwright.distribute import predict as predict_tables
from maskwright.distribute import train as train_there
from maskwright.errors import OptionError
from maskwright.prediction.label_check import check_labels
from maskwright.prediction.predictor import Predictor
from maskwright.reports.data_page import describe_data
from maskwright.runs import check_save, save_dir
from maskwright.serving.serve import serve
from maskwright.signatures import REQUIRED, describe_kind, members, parse_value
from maskwright.tasks.classification.pseudo import pseudo
from maskwright.tasks.detection.compress import compress
from maskwright.tasks.detection.data_options import anchors
from maskwright.tasks.detection.recall import proposals
from maskwright.timing.benchmark import benchmark
from maskwright.training.hooks import EVENTS

# The Python function of each command. `models` and `doctor` only print, and have none.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "train": mw.train,
    "val": mw.val,
    "predict": mw.predict,
    "export": mw.export,
    "convert": mw.convert,
    "compress": compress,
    "proposals": proposals,
    "data check": check_data,
    "data stats": describe_data,
    "data anchors": anchors,
    "data convert": convert_data,
    "data split": split_data,
    "data merge": merge_data,
    "data classes": change_classes,
    "data pseudo": pseudo,
    "benchmark": benchmark,
    "compare": mw.compare,
    "serve": serve,
}
# A command that calls another function where an option asks for it.
ALSO: dict[str, Callable[..., Any]] = {
    "data check": check_labels,
    "predict": predict_tables,
    "train": train_there,
}
# What a shell cannot give: functions that are called, and a recipe's options of its model, which
# the command line takes one by one.
PYTHON_ONLY = {
    ("export", "report"),
    *(
        (f"data {name}", "progress")
        for name in ("check", "stats", "convert", "split", "merge", "classes")
    ),
    ("train", "model_args"),
    *(("train", event) for event in EVENTS),
}
# A shell has no return value: without `save` a command would have nothing to show for its work.
SAVED_BY_COMMANDS = {"predict", "val", "proposals", "data check", "data stats"}

PAIRS = [
    (command, name)
    for command, function in FUNCTIONS.items()
    for name in inspect.signature(function).parameters
    if (command, name) not in PYTHON_ONLY
]


def parameter(command: str, name: str) -> inspect.Parameter:
    return inspect.signature(FUNCTIONS[command]).parameters[name]


def test_every_command_has_its_function() -> None:
    assert set(COMMANDS) - set(FUNCTIONS) == {"models", "doctor"}


@pytest.mark.parametrize("command", FUNCTIONS)
def test_both_sides_have_the_same_options(command: str) -> None:
    there = set(inspect.signature(FUNCTIONS[command]).parameters)
    there -= {name for other, name in PYTHON_ONLY if other == command}
    if command in ALSO:
        there |= set(inspect.signature(ALSO[command]).parameters) - {"options"}
    assert set(COMMANDS[command].options) == there


@pytest.mark.parametrize("command", ALSO)
def test_an_option_of_the_other_function_says_its_default(command: str) -> None:
    own = inspect.signature(FUNCTIONS[command]).parameters
    for name, one in inspect.signature(ALSO[command]).parameters.items():
        if name not in own and one.default not in (None, inspect.Parameter.empty):
            option = COMMANDS[command].options[name]
            assert option.default is None and f"default: {one.default}" in option.help, name


@pytest.mark.parametrize(("command", "name"), PAIRS)
def test_defaults_are_the_same(command: str, name: str) -> None:
    option, default = COMMANDS[command].options[name], parameter(command, name).default
    if name == "save" and command in SAVED_BY_COMMANDS:
        assert option.default is True and not default
    elif (command, name) == ("train", "data"):
        assert option.default is None and default == ""  # a run may be resumed without it
    elif default is inspect.Parameter.empty:
        assert option.default is REQUIRED
    else:
        assert option.default == default and type(option.default) is type(default)


@pytest.mark.parametrize(("command", "name"), PAIRS)
def test_kinds_are_the_same(command: str, name: str) -> None:
    """What Python takes beside text, numbers, tuples and paths is no word of a command line."""
    here = set(members(COMMANDS[command].options[name].kind))
    there = set(members(str(parameter(command, name).annotation)))
    only_python = {"Predictor", "Mapping[str, Any]"}
    assert here - only_python == there - only_python


@pytest.mark.parametrize(("command", "name"), PAIRS)
def test_a_default_can_be_written_on_the_command_line(command: str, name: str) -> None:
    option = COMMANDS[command].options[name]
    if option.default is REQUIRED or option.kind == "Any" or (command, name) == ("train", "data"):
        return  # there is nothing to write
    default = option.default
    text = ",".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
    assert parse_value(option.kind, text) == (
        tuple(default) if isinstance(default, list) else default
    )


# One row an option that several commands have: the words its meaning must have in each.
ONE_MEANING = {
    "conf": "smallest score",
    "iou": "weaker is dropped",
    "max_det": "most objects|most detections|slots",
    "save": "true into a new run folder, a path into that|true into a new run folder",
    "project": "folder that holds the run folders|folder of all runs",
    "name": "name of the run",
    "device": "auto, cpu,|runs on the cpu",
    "batch": "computed at once|images of a call|images per step",
    "workers": "processes that",
    "weights": "published weights|published name",
    "proposal_source": "regions",
    "soft_nms": "linear, gaussian, or gaussian:0.3",
    "tta": "look at each image several times",
    "split": "which part",
    "window": "sample values",
    "format": "as this format|read all of|onnx",
}


@pytest.mark.parametrize("name", ONE_MEANING)
def test_a_name_has_one_meaning_in_all_commands(name: str) -> None:
    having = [command for command in FUNCTIONS if name in COMMANDS[command].options]
    assert len(having) > 1
    for command in having:
        text = COMMANDS[command].options[name].help.lower()
        meanings = ONE_MEANING[name].lower().split("|")
        assert any(words in text for words in meanings), f"{command}: {text}"


@pytest.mark.parametrize("name", ["conf", "iou", "max_det", "imgsz", "soft_nms", "tta"])
def test_a_predictor_takes_what_predict_takes(name: str) -> None:
    own = inspect.signature(Predictor.__call__).parameters[name].default
    assert own == parameter("predict", name).default


@pytest.mark.parametrize("command", [c for c in FUNCTIONS if "save" in COMMANDS[c].options])
def test_save_is_true_false_or_a_folder(command: str) -> None:
    option = COMMANDS[command].options["save"]
    assert describe_kind(option.kind) == "true|false | PATH"
    assert parse_value(option.kind, "true") is True
    assert parse_value(option.kind, "False") is False
    assert parse_value(option.kind, "none") is None
    assert str(parse_value(option.kind, "results/a")) == "results/a"
    assert {"project", "name"} <= set(COMMANDS[command].options)


def test_what_save_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert save_dir(False, "runs", "val") is None and save_dir(None, "runs", "val") is None
    assert save_dir("false", "runs", "val") is None and list(tmp_path.iterdir()) == []
    assert save_dir(True, "runs", "val") == Path("runs/val/val")
    assert save_dir(True, "runs", "val", "a") == Path("runs/val/a")
    assert save_dir("true", "elsewhere", "val") == Path("elsewhere/val/val")
    assert save_dir("out/deep", "runs", "val") == Path("out/deep")
    assert save_dir(tmp_path / "out", "runs", "val") == tmp_path / "out"
    assert Path("out/deep").is_dir()
    Path("file.txt").touch()
    for wrong, options, message in (
        ("ture", {}, "did you mean true or false"),
        ("file.txt", {}, "is a file"),
        (3, {}, "true, false or the path"),
        ("", {}, "true, false or the path"),
        ("out", {"name": "a"}, "leave out either"),
        ("out", {"project": "p"}, "leave out either"),
        (False, {"name": "a"}, "give save=true"),
        (True, {"name": "a/b"}, "without slashes"),
    ):
        with pytest.raises(OptionError, match=message):
            check_save(wrong, **options)  # type: ignore[arg-type]


SYNONYMS = [
    (mw.predict, "confidence", "conf"),
    (mw.predict, "threshold", "conf"),
    (mw.predict, "iou_thres", "iou"),
    (mw.predict, "img_size", "imgsz"),
    (mw.predict, "batch_size", "batch"),
    (mw.predict, "output_dir", "save"),
    (mw.predict, "max_dets", "max_det"),
    (mw.val, "dataset", "data"),
    (mw.val, "score", "conf"),
    (mw.train, "learning_rate", "lr"),
    (mw.train, "num_epochs", "epochs"),
    (mw.train, "num_workers", "workers"),
    (mw.train, "epoch", "epochs"),
    (mw.export, "output", "path"),
    (mw.export, "image_size", "imgsz"),
    (mw.load, "gpu", "device"),
    (mw.load, "pretrained", "weights"),
    (mw.convert, "modle", "model"),
    (check_data, "sample", "samples"),
    (benchmark, "fp16", "precision"),
]


@pytest.mark.parametrize(("function", "wrong", "meant"), SYNONYMS)
def test_what_others_call_an_option_is_told(
    function: Callable[..., Any], wrong: str, meant: str
) -> None:
    with pytest.raises(TypeError, match=rf"has no option '{wrong}'; did you mean '{meant}'\?"):
        function("nuclei", "nowhere", **{wrong: 1})


def test_a_predictor_tells_too() -> None:
    with pytest.raises(TypeError, match=r"Predictor has no option 'confidence'; .*'conf'\?"):
        mw.load("nuclei")("nowhere.png", confidence=0.5)  # type: ignore[call-overload]


def test_the_names_of_the_package_are_the_public_ones() -> None:
    assert dir(mw) == sorted(mw.__all__)
    for name in mw.__all__:
        assert getattr(mw, name) is not None
