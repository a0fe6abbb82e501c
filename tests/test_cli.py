"""The command line as a clumsy new user meets it."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maskwright as mw
from maskwright import commands
from maskwright.cli import COMMANDS, TrainCommand, main
from maskwright.hub.names import WEIGHTS
from maskwright.models import Meta, build, get_entry, list_models
from maskwright.storage.checkpoint import save_checkpoint
from maskwright.tasks.recipe import TrainRecipe, option_help

ROOT = Path(__file__).resolve().parents[1]
NAME = "mask_rcnn_resnet50_fpn"


def tiny_model(folder: Path, **more: Any) -> Path:
    tiny = {**(get_entry(NAME).tiny or {}), **more}
    torch.manual_seed(0)
    detector = build(NAME, 2, **tiny)
    meta = Meta(NAME, tiny, ["cell", "nucleus"], source="random numbers")
    return save_checkpoint(folder / "tiny.safetensors", meta, detector.state_dict())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is read at once: most tests here read it."""
    return tiny_model(tmp_path_factory.mktemp("model"), backbone="test_efficientnet")


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with three images, one of them broken."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        pixels = rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    return tmp_path


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert name.split()[0] in text
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == mw.__version__
    assert main(["help", "train"]) == 0
    assert "--epochs" in capsys.readouterr().out
    assert main(["data"]) == 0
    assert "data check" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_explained(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    text = capsys.readouterr().out
    for option in COMMANDS[name].options.values():
        assert option.help, f"{name}: {option.name} has no explanation"
        assert f"--{option.name}" in text
    assert COMMANDS[name].summary.split()[0] in text


def test_module_runs_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "maskwright", "predict", "modle=x"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: predict has no option 'modle'; did you mean 'model'?\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("predit", "unknown command 'predit'; did you mean 'predict'?"),
        ("qqqq", "unknown command 'qqqq'; known are train, val"),
        ("data chek x", "did you mean 'data check'?"),
        ("predict a b conff=1", "predict has no option 'conff'; did you mean 'conf'?"),
        ("predict a b --max-dett 3", "did you mean 'max_det'?"),
        ("models --zzz", "models has no option 'zzz'; known are name"),
        ("predict model=a", "predict needs source=... (image file, folder"),
        ("val", "val needs model=..."),
        ("predict a b c", "predict does not know what 'c' is"),
        ("val a b conf=high", "expected NUMBER, got 'high'"),
        ("predict a b conf=high", "expected a number, or NAME:NUMBER for some classes"),
        ("predict a b conf=cell:2", "conf lies between 0 and 1, got 2"),
        ("predict a b conf=cell:0.2,cell:0.3", "there are two numbers for 'cell'"),
        ("predict a b --conf = 3", "write conf=value, without spaces"),
        ("predict a b conf = 3", "without spaces around '='"),
        ("predict a b conf=", "the option 'conf' is empty"),
        ("predict a b --conf", "the option 'conf' needs a value"),
        ("predict a b --conf --save", "the option 'conf' needs a value"),
        ("predict a b max_det=2.5", "expected INT, got '2.5'"),
        ("train", "train needs data=..."),
        ("train data=x overlap=0.9", "train has no option 'overlap': it is one of predict and val"),
        ("train data=x epoch=3", "train has no option 'epoch'; did you mean 'epochs'?"),
        ("train data=x anchor_size=3", "did you mean 'anchor_sizes'?"),
        ("train data=x gpu=0", "of the model `maskwright models mask_rcnn_resnet50_fpn`"),
        ("train data=x bins=3", "has no option 'bins'; rfcn_lite0, rfcn_resnet101, rfcn_resnet18"),
        ("train data=x model=rfcn_lite0 bin=3", "did you mean 'bins'? (see `maskwright train"),
        ("train data=x anchor_sizes=3,x", "anchor_sizes: expected NUMBER,NUMBER,..., got '3,x'"),
        ("train data=x optimizer=adam", "expected adamw | sgd, got 'adam'"),
        ("train data=x milestones=a", "expected NUMBER,NUMBER,..., got 'a'"),
        ("--hepl", "--hepl"),
    ],
)
def test_wrong_usage(line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    lines = errors(capsys)
    assert len(lines) == 1 and lines[0].startswith("error: ") and message in lines[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("predict {model} nothing", "'nothing' does not exist"),
        ("predict {model} photo", "did you mean 'photos'?"),
        ("predict nothing.safetensors photos", "nothing.safetensors"),
        ("train data=nothing", "nothing"),
        ("data check nothing", "nothing"),
        ("val {model} nothing", "nothing"),
        ("convert nothing.pth out.safetensors model=" + NAME, "nothing.pth"),
    ],
)
def test_failures_are_short_and_without_traceback(
    line: str, message: str, model: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.format(model=model).split()) == 1
    text = capsys.readouterr().err
    assert text.count("error: ") == 1 and message in text and "Traceback" not in text
    assert not (work / "runs").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("predict {model} photos device=gpu", "device is auto, cpu"),
        ("predict {model} photos conf=7", "conf lies between 0 and 1, got 7"),
        ("predict {model} photos conf=nan", "conf lies between 0 and 1, got nan"),
        ("predict {model} photos iou=-1", "iou lies between 0 and 1"),
        ("predict {model} photos max_det=0", "max_det must be at least 1"),
        ("predict {model} photos imgsz=big", "imgsz is the long side"),
        ("predict {model} photos imgsz=infx", "must be above 0 and finite"),
        ("predict {model} photos batch=0", "batch must be at least 1"),
        ("predict {model} photos name=a/b", "without slashes"),
        ("predict {model} photos conf=nucleis:0.3", "no class 'nucleis'; did you mean 'nucleus'?"),
        ("predict {model} photos conf=x:0.3", "no class 'x'; the model knows cell, nucleus"),
        ("predict mask_rcnn_resnet50 photos", "did you mean 'mask_rcnn_resnet"),
        ("predict {name} photos weights=cocoo", "did you mean 'coco'?"),
        ("predict {model} photos weights=coco", "leave out weights"),
        ("models mask_rcnn_resnet50", "no model is called 'mask_rcnn_resnet50'"),
        ("models family=mask_rcn", "did you mean 'mask_rcnn'?"),
        ("models classify_lite0", "did you mean 'efficientnet_lite0' or 'tf_efficientnet_lite0'?"),
        ("train cells model=mask_rcnn_resnet50", "no model is called 'mask_rcnn_resnet50'"),
        ("train cells model=nuclei", "'nuclei' is a trained model, not an architecture"),
        ("compare cells models=mask_rcn", "no model is called 'mask_rcn'"),
        ("benchmark mask_rcn", "no model is called 'mask_rcn'"),
        ("compress mask_rcn rank=3", "no model is called 'mask_rcn'"),
        ("export {model} onxx", "format is one of onnx, openvino, pt2, aoti; got 'onxx'; did you"),
        ("data convert cells to=yollo out=b", "did you mean 'yolo'?"),
        ("convert a b.safetensors model=x source=tv", "source is one of auto"),
        ("predict {model} photos formats=bmp", "formats=bmp: there are geojson, labels (or png)"),
        ("predict {model} photos formats=labels save=false", "save=false writes none"),
        ("val {model} cells conf=2", "conf lies between 0 and 1, got 2"),
        ("val {model} cells workers=-1", "workers must be at least 0"),
        ("val {model} cells split=half", "split is 'train', 'val'"),
        ("train cells batch=0", "batch=0: expected at least 1"),
        ("train cells epochs=0", "epochs=0: expected a whole number of at least 1"),
        ("train cells flip=1.5", "flip=1.5: expected a share between 0 and 1"),
        ("train cells lr=0", "lr=0.0: expected a number above 0"),
        ("train cells scale_jitter=1,inf", "scale_jitter"),
        ("train cells resume=x weights=y", "contradicts resume"),
        ("train cells weights=none rois=0 device=cpu", "rois must be a whole number from 1"),
        ("train cells anchor_sizes=8,16 weights=none device=cpu", "anchor_sizes needs one size"),
        ("data check cells samples=-1", "samples must be at least 0"),
        ("convert {model} out.safetensors model={name} target=onnx", "target is one of"),
        ("convert {model} out.onnx model={name} target=torchvision", "ends in .pth or .pt or"),
        ("convert some.pth out.pth model={name}", "ends in .safetensors"),
    ],
)
def test_options_out_of_range_are_wrong_usage(
    line: str,
    message: str,
    model: Path,
    cells: Path,
    work: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(work.rglob("*"))
    assert main(line.format(model=model, name=NAME).split()) == 2
    text = capsys.readouterr().err
    assert text.count("error: ") == 1 and message in text and "Traceback" not in text
    assert sorted(work.rglob("*")) == before, "nothing is left behind"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_ends_with_an_example_of_its_own(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*name.split(), "--help"]) == 0
    examples = [line for line in capsys.readouterr().out.splitlines() if "Example: " in line]
    assert len(examples) == 1
    words = examples[0].split("maskwright ")[1].rstrip("`").split()
    assert words[: len(name.split())] == name.split()
    known = {option.split("=")[0] for option in words if "=" in option}
    assert known <= set(COMMANDS[name].options)


def test_debug_shows_where(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        main(["predict", "model=x", "source=nothing", "--debug"])
    monkeypatch.setenv("MASKWRIGHT_DEBUG", "1")
    with pytest.raises(ValueError, match="does not exist"):
        main(["predict", "model=x", "source=nothing"])


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
        (ValueError("two\nlines"), 1, "error: two\n  lines"),
        (RuntimeError("CUDA out of memory. Tried"), 1, "lower batch or imgsz"),
    ],
)
def test_what_may_go_wrong_inside(
    error: BaseException,
    status: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> bool:
        raise error

    monkeypatch.setattr("maskwright.terminal.doctor.doctor", fail)
    assert main(["doctor"]) == status
    assert message in capsys.readouterr().err


def test_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskwright.terminal.doctor.doctor", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


def test_predict_over_a_folder(model: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "photos" / "broken.png").write_bytes(b"")
    assert main(["predict", f"model={model}", "source=photos", "conf=0.01", "max_det=3"]) == 0
    out, err = capsys.readouterr()
    folder = work / "runs" / "predict" / "predict"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["a.json", "a.png", "b.jpg", "b.json", "index.html", "originals"]
    assert "a.png" in out and "b.jpg" in out and str(Path("runs/predict/predict")) in out
    assert "index.html" in out
    assert err.count("warning: max_det=3 was reached in a.png") == 1
    assert "warning: skipped: " in err and "1 of 3 images could not be read" in err
    assert "predict: 2/3 img" in err
    found = json.loads((folder / "a.json").read_text(encoding="utf-8"))
    direct = mw.load(model)("photos/a.png", conf=0.01, max_det=100)
    assert len(found["objects"]) == 3
    for written, expected in zip(found["objects"], direct, strict=False):
        assert written["box"] == pytest.approx(expected.boxes[0].tolist(), abs=0.01)
        assert written["name"] == expected.names[expected.labels.item()]


def test_predict_writes_further_formats(model: Path, work: Path) -> None:
    line = f"predict {model} photos conf=0.01 max_det=3 formats=geojson,labels"
    assert main(line.split()) == 0
    folder = work / "runs" / "predict" / "predict"
    found = json.loads((folder / "a.geojson").read_text(encoding="utf-8"))["features"]
    assert len(found) == 3
    with Image.open(folder / "labels" / "b.png") as labels, Image.open(folder / "b.jpg") as photo:
        assert labels.mode.startswith("I;16") and labels.size == photo.size


def test_both_ways_of_writing_options_are_the_same(
    model: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"conf": "0.3", "max_det": "100", "imgsz": "64,96", "project": "out"}
    lines = [
        [str(model), "photos/a.png", *(f"{k}={v}" for k, v in options.items()), "name=one"],
        ["--model", str(model), "--source", "photos/a.png", "--name=two"]
        + [part for k, v in options.items() for part in (f"--{k.replace('_', '-')}", v)],
        ["name=three", "--save", "source=photos/a.png", f"--model={model}"]
        + [f"--{k}={v}" for k, v in options.items()],
    ]
    for line in lines:
        assert main(["predict", *line]) == 0
    texts = []
    for name in ("one", "two", "three"):
        folder = work / "out" / "predict" / name
        assert sorted(path.name for path in folder.iterdir()) == ["a.json", "a.png"]
        data = json.loads((folder / "a.json").read_text(encoding="utf-8"))
        texts.append({**data, "speed": None})
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("no", ["save=False", "--no-save"])
def test_nothing_is_written_without_save(
    model: Path, work: Path, no: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(model), "photos/a.png", no]) == 0
    assert "a.png" in capsys.readouterr().out
    assert not (work / "runs").exists()


def test_run_folders_are_numbered(
    model: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert main(["predict", str(model), "photos/a.png"]) == 0
    assert sorted(p.name for p in (work / "runs/predict").iterdir()) == ["predict", "predict2"]


def test_one_unreadable_image_fails(
    model: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "photos" / "broken.png").write_bytes(b"abc")
    assert main(["predict", str(model), "photos/broken.png"]) == 1
    assert "broken.png is not an image" in capsys.readouterr().err
    assert not (work / "runs").exists()


def test_families_of_like_names_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "family=ssd"]) == 0
    assert "Families with ssd in their name: ssdlite." in capsys.readouterr().out


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "family=mask_rcnn"]) == 0
    text = capsys.readouterr().out
    family = [name for name in list_models() if name.startswith("mask_rcnn_")]
    assert list(list_models(family="mask_rcnn")) == family
    for name in family:
        entry = get_entry(name)
        line = next(line for line in text.splitlines() if line.split()[:1] == [name])
        backbone = str(entry.arguments()["backbone"])
        assert entry.task in line and backbone in line
        inside = [file.name for file in WEIGHTS.glob(f"{backbone}_imagenet.safetensors")]
        assert ("in the package" in line) == bool(inside)
    row = next(line for line in text.splitlines() if line.split()[:1] == [NAME])
    count = sum(p.numel() for p in build(NAME, 80).parameters())
    assert f"{count / 1e6:.1f} M" in row and "coco" in row and "BSD-3-Clause" in row
    assert main(["models", NAME]) == 0
    text = capsys.readouterr().out
    for option in get_entry(NAME).arguments():
        assert option in text
    assert "32,64,128,256,512" in text


def test_models_by_family(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    for entry in list_models().values():
        assert entry.task in lines[entry.family]
        assert all(paper in lines[entry.family] for paper in entry.paper.split("; "))
        assert all(key in lines[entry.family] for key in entry.weights)
    for family in {entry.family for entry in list_models().values()}:
        assert f" {len(list_models(family=family))}  " in lines[family]
    assert main(["models", "task=keypoints"]) == 0
    text = capsys.readouterr().out
    assert "\nkeypoint_rcnn " in text and "\nmask_rcnn " not in text
    assert set(list_models(task="keypoints")) == {
        name
        for name in list_models()
        if "keypoint_rcnn" in name or name.startswith("locate_keypoints_")
    }


@pytest.mark.parametrize(
    "line, said",
    [
        (
            "family=mask_rcn",
            "family=mask_rcn: no model is of this family; did you mean 'mask_rcnn'",
        ),
        ("task=clasify", "task=clasify: no model is of this task; did you mean 'classify'"),
        ("family=rfcn task=classify", "no model of the family rfcn is for task=classify"),
        ("rfcn_resnet50 task=detect", "give the name alone"),
        ("task=panoptic", "no model is of this task; there are classify, detect, keypoints, "),
        ("classify", "classify is a task: `maskwright models task=classify`"),
        ("mask_rcnn", "mask_rcnn is a family: `maskwright models family=mask_rcnn`"),
    ],
)
def test_models_that_are_not_there(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", *line.split()]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "line, beginnings",
    [
        ("task=classify", ["classify_"]),
        ("family=timm", ["classify_"]),
        ("task=localize", ["locate_", "locate_keypoints_"]),
        ("family=locate", ["locate_"]),
        ("family=mask_rcnn", []),
    ],
)
def test_models_tells_of_names_that_are_not_listed(
    line: str, beginnings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each that it tells of takes a network that no list has."""
    assert main(["models", line]) == 0
    text = capsys.readouterr().out
    found = re.findall("`([a-z_]+)NAME` is a model", text)
    assert "nuclei" not in text, "which finds masks, and is no family"
    assert found == beginnings
    assert all(get_entry(f"{name}mobilenetv3_small_050") for name in found)


def test_train_passes_on_what_was_given_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import maskwright.training.train as module

    seen: dict[str, object] = {}

    class Done:
        interrupted, signal = False, 2

    def train(**options: object) -> Done:
        seen.update(options)
        return Done()

    monkeypatch.setattr(module, "train", train)
    line = (
        "train cells/ mask_rcnn_resnet18_fpn imgsz=1.25x scale_jitter=0.8,1.25 clip=none "
        "--photometric anchor_sizes=8,16,32,64,128 --rois 64 batch=-1 optimizer=sgd"
    )
    assert main(line.split()) == 0
    assert seen == {
        "data": "cells/",
        "model": "mask_rcnn_resnet18_fpn",
        "imgsz": "1.25x",
        "scale_jitter": (0.8, 1.25),
        "clip": None,
        "photometric": True,
        "batch": -1,
        "optimizer": "sgd",
        "model_args": {"anchor_sizes": (8.0, 16.0, 32.0, 64.0, 128.0), "rois": 64},
    }
    Done.interrupted = True
    assert main(["train", "resume=runs/train/exp"]) == 130
    for line, loss, own in (
        ("retinanet_lite0_fpn loss=ce", None, {"loss": "ce"}),
        ("locate_keypoints_resnet18 loss=wing region=object", None, {"loss": "wing"}),
        ("deeplabv3plus_lite0 loss=ce+dice output_stride=8", "ce+dice", {}),
        ("resnet18 loss=ce", "ce", {}),  # which training refuses
    ):
        seen.clear()
        assert main(["train", "cells/", *line.split()]) == 130
        found = seen.get("model_args", {})
        assert isinstance(found, dict)
        assert seen.get("loss") == loss and own.items() <= found.items(), line


def test_options_of_models_reach_them_whatever_trainings_of_other_tasks_have() -> None:
    """A name that is an option of another task's training is told apart."""
    from dataclasses import fields

    from maskwright.models import list_models
    from maskwright.tasks import recipes, task_of

    known = {field.name for kind in recipes().values() for field in fields(kind)}
    for name, entry in list_models().items():
        own = {field.name for field in fields(task_of(name).recipe)}
        assert set(entry.arguments()) & (known - own) <= set(commands.OF_MODELS_TOO), name


@dataclass(frozen=True)
class SortingRecipe(TrainRecipe):
    """The options of a task of its own."""

    DOES = "sort"

    shelves: int = 3
    """How many there are."""

    lr: float | None = 0.25
    """Speed."""


def test_options_of_another_task_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import maskwright.tasks as tasks
    import maskwright.training.train as module

    kinds = {"detection": tasks.recipes()["detection"], "sorting": SortingRecipe}
    monkeypatch.setattr(tasks, "recipes", lambda: kinds)
    monkeypatch.setattr(module, "recipes", lambda: kinds)
    options = TrainCommand(commands.train).options
    assert options["shelves"].help == "How many there are. Only for models that sort."
    assert options["max_det"].help.endswith("Only for models that find objects.")
    assert options["epochs"].help == "Passes over the training images."
    assert options["lr"].help.endswith(" For models that sort: Speed.")
    assert options["lr"].default is None
    assert options["lr"].others == [(0.25, "models that sort")]
    assert options["max_det"].others == options["epochs"].others == ()
    monkeypatch.setitem(COMMANDS, "train", TrainCommand(commands.train))
    assert main(["train", "data=cells", f"model={NAME}", "shelves=4"]) == 2
    said = "option 'shelves' for models that sort; this one is there to find objects"
    assert said in capsys.readouterr().err


def test_help_of_training_tells_the_defaults_and_meanings_of_every_task(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import maskwright.tasks as tasks

    monkeypatch.setenv("COLUMNS", "80")
    assert main(["train", "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    said: dict[str, str] = {}  # the right column, by option
    for line in lines:
        if words := re.match(r"│ (?:[A-Z]+ )?--(\w+)", line):
            option = words[1]
            said[option] = ""
        if line.startswith("│ ") and said:
            said[option] += " ".join(line[31:-1].split()) + " "
    assert list(tasks.recipes()) == list(dict.fromkeys(tasks.FOLDERS.values()))  # in every process
    usual, *others = tasks.recipes().values()
    assert "models that" not in said["epochs"] + said["model"] + said["seed"]
    compared = set()
    for kind in others:
        meaning, known = option_help(kind), option_help(usual)
        for name in meaning.keys() & known.keys() - {"model", "model_args"}:
            value = getattr(kind, name)
            if value != getattr(usual, name):
                compared.add(name)
                shown = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                pattern = rf"[;:] {re.escape(shown)} for models that [^;\]]*{kind.DOES}"
                assert re.search(pattern, said[name], re.IGNORECASE), name
            if meaning[name] != known[name]:
                compared.add(name)
                text = meaning[name].replace("`", "")
                pattern = rf"For models that [^:]*{kind.DOES}[^:]*: {re.escape(text)}"
                assert re.search(pattern, said[name]), name
    assert {"batch", "freeze", "lr", "imgsz", "flip", "scale_jitter"} <= compared


def test_what_one_task_takes_can_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "data=nowhere", "model=resnet18", "flip=none"]) == 1
    assert "nowhere" in capsys.readouterr().err
    assert main(["train", "data=nowhere", f"model={NAME}", "flip=none"]) == 2
    assert "flip=None: expected a share" in capsys.readouterr().err


def test_doctor_finds_this_installation_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    for what in ("torch", "torchvision", "timm", "threads", "cpu", "NMS", "RoIAlign"):
        assert what in out
    assert "Everything that is needed works." in out


def test_doctor_says_what_mends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torchvision

    from maskwright.terminal import doctor

    monkeypatch.setattr(doctor, "ESSENTIAL", (*doctor.ESSENTIAL, ("nonesuch", "none-such", "x")))
    monkeypatch.setattr(doctor, "OPTIONAL", (("nothere", "not-here", "pictures"),))

    def broken(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "pip install none-such" in out and "pip install not-here" in out
    assert "NMS" in out and "does not exist" in out
    assert "--force-reinstall torch torchvision" in out
    assert "Broken: nonesuch, NMS." in out


@pytest.fixture
def cells(work: Path) -> Path:
    """A COCO data set of two splits with one square object an image."""
    for split in ("train", "val"):
        folder = work / "cells" / "images" / split
        folder.mkdir(parents=True)
        images, annotations = [], []
        for i in range(2):
            pixels = np.full((64, 64, 3), 20 + 40 * i + 10 * (split == "val"), np.uint8)
            pixels[20:44, 20:44] = 240
            Image.fromarray(pixels).save(folder / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64})
            square = [20, 20, 44, 20, 44, 44, 20, 44]
            annotations.append(
                {"id": i + 1, "image_id": i, "category_id": 7, "bbox": [20, 20, 24, 24],
                 "area": 576, "iscrowd": 0, "segmentation": [square]}
            )  # fmt: skip
        document = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 7, "name": "cell"}],
        }
        path = work / "cells" / "annotations" / f"{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(document))
    return work / "cells"


def test_data_check(cells: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "cells"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["train", "2", "0", "2", "2", "0", "0", "0", "1"] in rows
    assert ["cell", "2", "2"] in rows
    assert "Faults: none." in out and "runs" in out
    assert (work / "runs" / "check" / "check" / "train_samples.png").is_file()
    (cells / "images" / "train" / "1.png").write_bytes(b"abc")
    assert main(["data", "check", f"data={cells}", "save=false"]) == 1
    out, err = capsys.readouterr()
    assert "unreadable image" in out and "error: training would fail" in err
    assert not (work / "runs" / "check" / "check2").exists()


def test_val_prints_the_metrics(
    cells: Path, model: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["val", str(model), "cells", "workers=0", "save=false"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["metric", "box", "mask"] in rows and any(row[:1] == ["AP50"] for row in rows)
    assert "By class" in out and "cell" in out
    assert not (work / "runs").exists()


def test_val_leaves_out_what_the_data_cannot_measure(
    cells: Path, model: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All objects are small: rows of the others are one line, and so are classes without any."""
    file = work / "cells" / "annotations" / "val.json"
    assert main(["val", str(model), "cells", "workers=0"]) == 0
    out, _ = capsys.readouterr()
    rows = [line.split() for line in out.splitlines()]
    assert not any(row[:1] in (["AP_medium"], ["AP_large"], ["AR_large"]) for row in rows)
    assert "nan" not in out
    said = "undefined, because the data has nothing to measure: AP_medium, AP_large, AR_medium"
    assert f"{said}, AR_large" in out.splitlines()
    page = next((work / "runs" / "val").glob("*/report.html")).read_text()
    assert said.replace("undefined", "Undefined") in page and "<td>AP_large" not in page
    stored = json.loads(next((work / "runs" / "val").glob("*/metrics.json")).read_text())
    assert stored["box/AP_large"] is None and stored["box/AP50"] is not None
    tree = json.loads(file.read_text())
    file.write_text(json.dumps(tree | {"annotations": []}))
    assert main(["val", str(model), "cells", "workers=0", "save=false"]) == 0
    out, _ = capsys.readouterr()
    assert "nan" not in out and "all of cell" in out and "AP50" in out


def test_convert_says_what_became_of_the_tensors(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny_model(work)  # on a backbone that torchvision has
    line = ["convert", str(model), "out.pth", f"model={NAME}", "target=torchvision"]
    assert main(line) == 0
    assert "tensors used" in capsys.readouterr().out
    assert (work / "out.pth").is_file()


def test_the_example_runs(
    model: Path,
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script = ROOT / "examples" / "predict_folder.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(model), "photos", "out"])
    runpy.run_path(str(script), run_name="__main__")
    rows = (work / "out" / "counts.csv").read_text().splitlines()
    assert rows[0].startswith("image,objects") and len(rows) == 3
    assert "a.png: " in capsys.readouterr().out
