"""Classification from end to end on drawn squares and discs: train, val, predict, resume."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import maskwright as mw
from maskwright.cli import main
from maskwright.storage.checkpoint import load_checkpoint
from maskwright.tasks.classification.evaluate import score
from maskwright.tasks.classification.freezing import frozen_stages, learning_rates
from maskwright.tasks.classification.recipe import ClassificationRecipe
from maskwright.tasks.classification.result import ClassResult
from maskwright.tasks.classification.settings import ClassificationSettings, Cut
from maskwright.tasks.classification.views import collate, look
from maskwright.training.step import seed_dropout

NAMES = ("disc", "square", "stripe")
QUICK = {"batch": 6, "workers": 0, "val_every": 1, "imgsz": 32, "device": "cpu"}


def draw(path: Path, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", (40, 36), tuple(rng.integers(0, 90, 3).tolist()))
    pen = ImageDraw.Draw(image)
    x, y = rng.integers(4, 12, 2).tolist()
    ink = tuple(rng.integers(160, 255, 3).tolist())
    if kind == "disc":
        pen.ellipse((x, y, x + 18, y + 18), fill=ink)
    elif kind == "square":
        pen.rectangle((x, y, x + 18, y + 18), fill=ink)
    else:
        pen.rectangle((0, y + 6, 40, y + 11), fill=ink)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shapes")
    for split, count in (("train", 8), ("val", 4)):
        for place, kind in enumerate(NAMES):
            for number in range(count):
                seed = 1000 * place + number + (500 if split == "val" else 0)
                draw(root / split / kind / f"{number}.png", kind, seed)
    return root


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("runs")
    made = mw.train(
        shapes, model="resnet20_cifar", weights="none", epochs=2, project=project, lr=3e-3, **QUICK
    )
    return made.dir


@pytest.mark.figures
def test_a_training_leaves_checkpoint_table_and_report(run: Path) -> None:
    for name in ("report.html", "labels.jpg", "train_batch0.jpg", "predictions.csv", "results.png"):
        assert (run / name).is_file(), name
    rows = list(csv.DictReader((run / "results.csv").read_text().splitlines()))
    assert len(rows) == 2 and "val/top1" in rows[0] and "val/macro/F1" in rows[0]
    assert not any(key.startswith("val/F1/") for key in rows[0])
    assert load_checkpoint(run / "weights/best.safetensors").meta.names == list(NAMES)
    page = (run / "report.html").read_text()
    assert "Confusion" in page and "Calibration" in page


def test_val_equals_scikit_learn(run: Path, shapes: Path) -> None:
    from sklearn import metrics as theirs

    found = mw.val(run, shapes, workers=0, device="cpu")
    predictor = mw.load(run, device="cpu")
    probs, labels = [], []
    for label, name in enumerate(NAMES):
        for file in sorted((shapes / "val" / name).glob("*.png")):
            probs.append(predictor(file).probs.double().numpy())
            labels.append(label)
    probs, answers = np.array(probs), np.argmax(probs, 1)
    assert found["top1"] == theirs.accuracy_score(labels, answers)
    probs /= probs.sum(1, keepdims=True)
    f1 = theirs.f1_score(labels, answers, average=None, zero_division=0.0)
    got = [np.nan_to_num(found[f"F1/{name}"]) for name in NAMES]
    np.testing.assert_allclose(got, f1, rtol=0, atol=1e-12)
    assert found["nll"] == pytest.approx(theirs.log_loss(labels, probs), abs=1e-5)
    balanced = theirs.balanced_accuracy_score(labels, answers)
    assert found["balanced_accuracy"] == pytest.approx(balanced, abs=1e-12)


def test_classes_are_matched_by_name(run: Path, shapes: Path, tmp_path: Path) -> None:
    """A val that lacks the first class has other numbers for the others; an unknown one is said."""
    for name in NAMES[1:]:
        (tmp_path / "val" / name).mkdir(parents=True)
        for file in (shapes / "val" / name).glob("*.png"):
            (tmp_path / "val" / name / file.name).write_bytes(file.read_bytes())
    whole, part = (mw.val(run, data, workers=0, device="cpu") for data in (shapes, tmp_path))
    assert part["recall/stripe"] == whole["recall/stripe"] and "recall/disc" not in part
    draw(tmp_path / "val" / "stripes" / "0.png", "stripe", 1)
    with pytest.raises(ValueError, match=r"does not know: stripes; did you mean 'stripe'"):
        mw.val(run, tmp_path, workers=0, device="cpu")


def test_prediction_gives_classes(run: Path, shapes: Path, tmp_path: Path) -> None:
    file = shapes / "val/disc/0.png"
    result = mw.load(run, device="cpu")(file)
    assert isinstance(result, ClassResult)
    assert result.probs.shape == (3,) and float(result.probs.sum()) == pytest.approx(1, abs=1e-6)
    assert result.top(2)[0] == (NAMES[result.label], result.score)
    data = json.loads(result.to_json())
    assert data["class"] == NAMES[result.label] and len(data["top"]) == 3
    picture = result.plot()
    assert picture.width >= 320 and result.plot(labels=False).size == (40, 36)
    assert main(["predict", str(run), str(shapes / "val/disc"), f"save={tmp_path}", "topk=1"]) == 0
    assert len(json.loads((tmp_path / "0.json").read_text())["top"]) == 1
    assert (tmp_path / "index.html").is_file()


@pytest.mark.parametrize("option", ["iou=0.3", "max_det=5", "conf=0.4", "tta=0.75,1"])
def test_options_of_other_tasks_are_refused(
    run: Path, shapes: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(run), str(shapes / "val/disc"), "save=false", option]) == 2
    assert option.split("=")[0] in capsys.readouterr().err


def test_views_are_the_mean_of_probabilities(run: Path, shapes: Path) -> None:
    """Against the network called on each of torchvision's crops."""
    from torchvision.transforms import v2

    predictor = mw.load(run, device="cpu")
    model, fit = predictor.model, predictor.model.preprocess
    photo = np.asarray(Image.open(shapes / "val/disc/1.png"))
    image = torch.from_numpy(photo.copy()).permute(2, 0, 1)
    scaled = v2.Resize(fit.short, antialias=True)(image)
    with torch.inference_mode():
        looks = torch.stack([view.float() for view in v2.TenCrop(fit.crop)(scaled)])
        own = look(model, model, collate([photo], Cut(fit, ten=True)), "tencrop")
        sizes = torch.full((10, 2), fit.crop)
        wanted = model(type(collate([photo], Cut(fit)))(looks, sizes, sizes)).softmax(-1).mean(0)
        once = collate([photo], Cut(fit))
        flipped = look(model, model, once, "flip").softmax(-1)[0]
        pair = torch.cat([once.pixels, once.pixels.flip(3)])
        both = model(type(once)(pair, sizes[:2], sizes[:2])).softmax(-1).mean(0)
    # torchvision rounds 8-bit pixels its own way, by one in some.
    torch.testing.assert_close(own.softmax(-1)[0], wanted, rtol=0, atol=5e-3)
    torch.testing.assert_close(flipped, both, rtol=0, atol=1e-6)


OPTIONS = {"mixup": 0.2, "cutmix": 1.0, "label_smoothing": 0.1, "erasing": 0.3, "ema": 0.9}


def test_a_stopped_training_goes_on_to_the_bit(shapes: Path, tmp_path: Path) -> None:
    """With stages that wait, skipped blocks, mixed images; stopped by Ctrl-C inside an epoch."""
    import signal

    from maskwright.training import train as loop

    start = mw.train(
        shapes, model="resnet20_cifar", weights="none", steps=1, project=tmp_path, **QUICK
    )
    options = {
        **QUICK, **OPTIONS, "model": "resnet20_cifar", "weights": start.last, "epochs": 3,
        "unfreeze_at": (1, 2), "layer_decay": 0.7, "balance": "inverse", "lr": 1e-3,
        "augment": "randaugment", "model_args": {"drop_path": 0.5},
    }  # fmt: skip
    whole = mw.train(shapes, project=tmp_path, name="whole", **options)
    done = 0
    original = loop.optimise

    def counted(*args: object) -> bool:
        nonlocal done
        done += 1
        if done == 6:  # in the second epoch of four steps
            signal.raise_signal(signal.SIGINT)
        return original(*args)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "optimise", counted)
        part = mw.train(shapes, project=tmp_path, name="part", **options)
    assert part.interrupted and done < 12
    again = mw.train(resume=part.dir)
    one, two = (load_checkpoint(path).model for path in (whole.last, again.last))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_dropout_hangs_on_the_images_alone() -> None:
    layer = torch.nn.Sequential(torch.nn.Dropout(0.5)).train()
    keys, x = torch.tensor([3, 7]), torch.ones(64)
    with torch.random.fork_rng(devices=[]):
        seed_dropout(layer, keys)
        first = layer(x)
        torch.rand(5)
        seed_dropout(layer, keys)
        assert torch.equal(layer(x), first)
        seed_dropout(layer, keys + 1)
        assert not torch.equal(layer(x), first)


def test_stages_wait_their_turn() -> None:
    recipe = ClassificationRecipe(data="x", unfreeze_at=(3, 6), epochs=9)
    assert [frozen_stages(recipe, 5, epoch) for epoch in (0, 2, 3, 5, 6, 8)] == [5, 5, 2, 2, 0, 0]
    probe = ClassificationRecipe(data="x", freeze=-1)
    assert frozen_stages(probe, 5, 0) == 5
    with pytest.raises(ValueError, match="never reached"):
        ClassificationRecipe(data="x", unfreeze_at=(9,), epochs=9)


def test_rates_fall_from_the_head_to_the_input() -> None:
    from maskwright.models import build

    model = build("resnet20_cifar", 3)
    recipe = ClassificationRecipe(data="x", backbone_lr=0.1, layer_decay=0.5)
    rates = learning_rates(model, recipe, fresh=False)
    last = len(model.network.stages())
    for number, modules in enumerate(model.network.stages(), 1):
        own = {id(p) for module in modules for p in module.parameters()}
        names = [name for name, p in model.named_parameters() if id(p) in own]
        assert {rates[name] for name in names} == {0.1 * 0.5 ** (last - number)}
    assert not any(model.network.final in name for name in rates)
    assert set(learning_rates(model, ClassificationRecipe(data="x"), fresh=True).values()) == {1.0}


def test_the_head_alone_trains(run: Path, shapes: Path, tmp_path: Path) -> None:
    """Validated by ten crops, which are those of `val` with the same weights."""
    options = {**QUICK, "freeze": -1, "epochs": 1, "val_tta": "tencrop", "project": tmp_path}
    made = mw.train(shapes, model="resnet20_cifar", weights=run, **options)
    crops, once = (
        mw.val(made.dir, shapes, workers=0, save=False, tta=tta)["nll"] for tta in ("tencrop", None)
    )
    assert made.metrics["nll"] == pytest.approx(crops, abs=1e-6) and abs(crops - once) > 1e-4
    before, after = (load_checkpoint(path).model for path in (run, made.last))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"network.fc.weight", "network.fc.bias"}


def test_several_labels_are_learned(shapes: Path, tmp_path: Path) -> None:
    """From a table; a picture may have one label, both or none above the threshold."""
    rows = ["path,label,split"]
    for split in ("train", "val"):
        for name in NAMES:
            for file in sorted((shapes / split / name).glob("*.png")):
                more = ";odd" if int(file.stem) % 2 else ""
                rows.append(f"{file.relative_to(shapes).as_posix()},{name}{more},{split}")
    table = shapes / "labels.csv"
    table.write_text("\n".join(rows) + "\n")
    made = mw.train(
        table, model="resnet20_cifar", weights="none", epochs=1, project=tmp_path, **QUICK
    )
    assert set(made.metrics) >= {"mAP", "F1", "exact", "AP/odd"}
    predictor = mw.load(made.dir, device="cpu")
    # The default chooses as the same number does that somebody gives.
    usual, given = (predictor(shapes / "val/disc/1.png", **o) for o in ({}, {"conf": 0.25}))
    assert list(usual.labels) == list(given.labels)
    assert set(usual.labels) == {i for i, p in enumerate(usual.probs.tolist()) if p >= 0.25}
    result = predictor(shapes / "val/disc/1.png", conf=0.0)
    assert result.multilabel and len(result.labels) == 4
    assert predictor(shapes / "val/disc/1.png", conf=1.0).summary() == "no class above 1"
    assert (made.dir / "report.html").is_file()


def test_several_labels_are_scored_by_mean_average_precision() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(40, 4)), rng.random((40, 4)) < 0.4
    found = score(logits, labels, list("abcd"), ClassificationSettings())
    wanted = average_precision_score(labels, 1 / (1 + np.exp(-logits)), average="macro")
    assert found["mAP"] == pytest.approx(wanted, abs=1e-12)


def test_what_cannot_be_learned_is_said(shapes: Path, tmp_path: Path) -> None:
    for number in range(4):
        draw(tmp_path / "one/train/disc" / f"{number}.png", "disc", number)
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        mw.val("resnet20_cifar", shapes, batch=0)
    with pytest.raises(ValueError, match="class"):
        mw.train(tmp_path / "one", model="resnet20_cifar", weights="none", **QUICK)
    with pytest.raises(ValueError, match="a classifier reads it"):
        mw.train(shapes, model="faster_rcnn_resnet18_fpn", weights="none", workers=0)
    with pytest.raises(TypeError, match="find objects"):
        mw.train(shapes, model="resnet20_cifar", max_det=5)
