"""The words of a command line: what is written wrongly is told with the form to write."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskwright.cli import COMMANDS
from maskwright.commands import UsageError
from maskwright.models import get_entry
from maskwright.tokens import Words, read_words
from maskwright.training.train import TrainResult


def read(line: str | list[str]) -> Words:
    name, *rest = line.split() if isinstance(line, str) else line
    more = name in ("train", "compare")
    return read_words(name, rest, COMMANDS[name].options, takes_more=more)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    names = ["-d.png", "a=1.png", "b.png", "conf.png"]
    for name in names:
        Path(name).touch()
    return names


@pytest.mark.parametrize(
    ("line", "given"),
    [
        ("predict nuclei a.png", {"model": "nuclei", "source": "a.png"}),
        ("predict a.png model=nuclei", {"model": "nuclei", "source": "a.png"}),
        ("predict model=m source=s --conf 0.5", {"model": "m", "source": "s", "conf": "0.5"}),
        ("predict m s --max-det=3", {"model": "m", "source": "s", "max_det": "3"}),
        ("predict m s \u2014conf 0.5", {"model": "m", "source": "s", "conf": "0.5"}),
        ("predict m s \u2013\u2013conf=0.5", {"model": "m", "source": "s", "conf": "0.5"}),
        ("predict m s --save", {"model": "m", "source": "s", "save": "true"}),
        ("predict m s --save out", {"model": "m", "source": "s", "save": "out"}),
        ("predict --save m s", {"model": "m", "source": "s", "save": "true"}),
        ("predict --save false m s", {"model": "m", "source": "s", "save": "false"}),
        ("predict m s --no-save", {"model": "m", "source": "s", "save": "false"}),
        ("predict m s --show --conf 1", {"model": "m", "source": "s", "show": "true", "conf": "1"}),
        ("predict m s=1.png save=a=b", None),
        ("predict m s save=a=b", {"model": "m", "source": "s", "save": "a=b"}),
    ],
)
def test_words(line: str, given: dict[str, str] | None) -> None:
    if given is None:
        with pytest.raises(UsageError, match="no option 's'"):
            read(line)
    else:
        assert read(line) == Words(given)


def test_files_of_a_shell_are_the_source(files: list[str]) -> None:
    for line in (
        ["predict", "nuclei", *files],
        ["predict", *files, "model=nuclei"],
        ["predict", "--model", "nuclei", "conf=0.3", *files],
        ["predict", f"source={files[0]}", *files[1:], "model=nuclei"],
    ):
        words = read(line)
        assert words.files == files and words.given["model"] == "nuclei"
        assert words.given["source"] == files[0]
    assert read(["predict", "nuclei", files[1]]) == Words({"model": "nuclei", "source": files[1]})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("predict nuclei b.png missing.png", "'missing.png', one of 2 files, does not exist"),
        ("predict b.png conf.png a=1.png", "predict needs model=..., and was given 3 files"),
        ("val b.png conf.png a=1.png", "takes no list of files: if the shell made several"),
        ("predict m s conf = 0.5", "write conf=value, without spaces"),
        ("predict m s conf= 0.5", "write conf=value, without spaces"),
        ("predict m s conf =0.5", "write conf=value, without spaces"),
        ("predict m s conf=", "'conf' is empty"),
        ("predict m s conf=1 --conf 2", "'conf' is given twice, as 1 and 2"),
        ("predict m s conf=1 conf=1", "'conf' is given twice, both times as 1"),
        ("predict m s show", "the option 'show' is written show=true"),
        ("predict m s max-det", "the option 'max-det' is written max_det=..."),
        ("predict m s -c 0.5", "has no option '-c', and there is no such file"),
        ("predict m s confidence=0.5", "did you mean 'conf'?"),
        ("predict m s batch_size=2", "did you mean 'batch'?"),
        ("predict m s --img-size 96", "did you mean 'imgsz'?"),
        ("predict m s CONF=0.5", "did you mean 'conf'?"),
        ("export m format=onnx output=x.onnx", "did you mean 'path'?"),
        ("val m d score=0.1", "did you mean 'conf'?"),
    ],
)
def test_wrong_usage_is_told_with_the_form_to_write(
    line: str, message: str, files: list[str]
) -> None:
    with pytest.raises(UsageError) as error:
        read(line)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("mask_rcnn_lite", "'mask_rcnn_lite0_fpn'"),
        ("mask_rcnn_resnet50", "'mask_rcnn_resnet50_fpn'"),
        ("Mask-RCNN-lite0-FPN", "'mask_rcnn_lite0_fpn'?"),
        ("maskrcnn_resnet50_fpn", "'mask_rcnn_resnet50_fpn'?"),
        ("refine_mask", "'refine_mask_resnet18_fpn'"),
    ],
)
def test_names_of_models_that_begin_so_come_before_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(ValueError, match="no model is called") as error:
        get_entry(name)
    assert f"did you mean {meant}" in str(error.value)


def test_what_a_training_left_is_told_in_a_line() -> None:
    metrics = {"mask/AP": 0.512345, "box/AP": 0.6, "mask/AP/cell": 0.5}
    left = TrainResult(
        Path("runs/train/a"),
        None,
        Path("last"),
        metrics,
        interrupted=True,
        shown=("mask/AP", "box/AP"),
    )
    assert repr(left) == "<TrainResult runs/train/a: mask/AP 0.5123, box/AP 0.6, interrupted>"
