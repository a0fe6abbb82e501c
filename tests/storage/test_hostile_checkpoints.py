"""Files that are no checkpoints, or only look like some: nothing runs, nothing grows, one error."""

from __future__ import annotations

import json
import math
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import maskwright as mw
from maskwright.cli import main
from maskwright.hub import loading as hub
from maskwright.models import Meta, build, get_entry
from maskwright.storage.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from maskwright.training.train import train

NAME = "mask_rcnn_resnet50_fpn"
TINY = {**(get_entry(NAME).tiny or {}), "backbone": "test_efficientnet"}
STATE = build(NAME, 2, **TINY).state_dict()
KEY = "roi_heads.box_head.logits.weight"
Writer = Callable[[Path], object]


class Payload:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Payload()}))


def torch_file(content: Any, *, legacy: bool = False) -> Writer:
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=not legacy)


def raw(header: Any, data: bytes = b"", length: int | None = None) -> Writer:
    """Return a writer of a safetensors file from its parts."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = struct.pack("<Q", len(text) if length is None else length)
    return lambda path: path.write_bytes(size + text + data)


def tensor(begin: int, end: int, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def described(description: Any) -> Writer:
    """Return a writer of a whole file whose description is something else."""
    text = description if isinstance(description, str) else json.dumps(description)

    def write(path: Path) -> None:
        tensors = {f"model.{key}": value for key, value in STATE.items()}
        safetensors.torch.save_file(tensors, path, {"maskwright": text})

    return write


def meta(**changes: Any) -> Writer:
    plain = {"model": NAME, "args": TINY, "names": ["cat", "dog"]}
    return described({"format": 1, "meta": {**plain, **changes}})


def args(**changes: Any) -> Writer:
    return meta(args={**TINY, **changes})


def weights(**changes: torch.Tensor | None) -> Writer:
    """Return a writer of a checkpoint with other tensors; the one called `logits` by its key."""

    def write(path: Path) -> None:
        state = dict(STATE)
        for key, value in changes.items():
            key = KEY if key == "logits" else key
            if value is None:
                del state[key]
            else:
                state[key] = value
        save_checkpoint(path, Meta(NAME, TINY, ["cat", "dog"]), state)

    return write


def training(**changes: Any) -> Writer:
    """Return a writer of a checkpoint to resume from, with other scalars."""

    def write(path: Path) -> None:
        scalars = {"recipe": {"data": "x", "model": NAME}, "place": {}, "world": 1}
        state = TrainingState({**scalars, "ema_updates": 0, **changes})
        save_checkpoint(path, Meta(NAME, TINY, ["cat", "dog"]), STATE, training=state)

    return write


def zip_bomb(path: Path) -> None:
    """A few hundred kilobytes that would become 320 megabytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        with archive.open("archive/data/0", "w") as stream:
            for _ in range(20):
                stream.write(bytes(2**24))


def cut(write: Writer, share: float) -> Writer:
    def change(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return change


DEEP = "[" * 100_000
SPARSE = torch.eye(3).to_sparse()
# File name, writer, and what the error says where the file is loaded as a model or as weights.
CASES: dict[str, tuple[str, Writer, str]] = {
    "pickle": ("a.pth", pickled, "names pathlib.Path.touch|may execute code"),
    "pickle as pkl": ("a.pkl", pickled, "names pathlib.Path.touch|may execute code"),
    "pickle as safetensors": ("a.safetensors", pickled, "names pathlib|may execute"),
    "torch": ("a.pth", torch_file({"a": Payload()}), "names pathlib.Path|may execute code"),
    "old torch": ("a.pt", torch_file({"a": Payload()}, legacy=True), "names pathlib|may execute"),
    "torch as safetensors": (
        "a.safetensors",
        torch_file({"a": Payload()}),
        "names pathlib|may execute",
    ),
    "zip bomb": ("a.pth", zip_bomb, "would grow to|may execute code"),
    "repeated number": (
        "a.pth",
        torch_file({"a": torch.zeros(1).expand(10**6, 10**6)}),
        "not all in the file|may execute code",
    ),
    "sparse tensor": ("a.pth", torch_file({"a": SPARSE}), "plain tensor|may execute code"),
    "NaN in a torch file": (
        "a.pth",
        torch_file({"a": torch.tensor([math.nan])}),
        "not finite|may execute code",
    ),
    "no tensors": ("a.pth", torch_file({"a": 5}), "no dictionary of tensors|may execute code"),
    "list": ("a.pth", torch_file([torch.zeros(2)]), "no dictionary of tensors|may execute"),
    "unknown names": ("a.pth", torch_file({"a": torch.zeros(2)}), "known library|may execute"),
    "one name": (
        "a.pth",
        torch_file({"backbone.fpn.inner_blocks.0.0.weight": torch.zeros(2)}),
        "the file is incomplete|may execute code",
    ),
    "cut torch file": ("a.pth", cut(torch_file({"a": torch.ones(9999)}), 0.5), "."),
    "text": ("a.pth", lambda path: path.write_text("<html>not found</html>"), "."),
    "empty torch file": ("a.pth", Path.touch, "."),
    "empty": ("a.safetensors", Path.touch, "not a safetensors file"),
    "folder": ("a.safetensors", Path.mkdir, "no checkpoint in this folder"),
    "truncated": ("a.safetensors", cut(weights(), 0.9), "truncated.*copy it again"),
    "truncated header": ("a.safetensors", cut(weights(), 0.001), "truncated inside its header"),
    "huge header": ("a.safetensors", raw(b"{}", length=2**62), "header is too large"),
    "long header": ("a.safetensors", raw(b"{}", length=10**7), "truncated inside its header"),
    "deep header": ("a.safetensors", raw(DEEP.encode()), "header is no JSON"),
    "header of a list": ("a.safetensors", raw([1, 2]), "header is no JSON"),
    "entry of a list": ("a.safetensors", raw({"a": [1]}), "header is no JSON"),
    "metadata of a list": ("a.safetensors", raw({"__metadata__": ["maskwright"]}), "no JSON"),
    "metadata of a number": ("a.safetensors", raw({"__metadata__": 5}), "header is no JSON"),
    "metadata of text": ("a.safetensors", raw({"__metadata__": "maskwright"}), "no JSON"),
    "offsets of text": ("a.safetensors", raw({"a": tensor("0", "x")}), "header is no JSON"),  # type: ignore[arg-type]
    "offsets of NaN": ("a.safetensors", raw({"a": tensor(0, math.nan)}), "no JSON"),  # type: ignore[arg-type]
    "offsets infinite": ("a.safetensors", raw({"a": tensor(0, math.inf)}), "no JSON"),  # type: ignore[arg-type]
    "terabytes claimed": ("a.safetensors", raw({"a": tensor(0, 2**44, [2**42])}), "truncated"),
    "foreign": ("a.safetensors", raw({"a": tensor(0, 8)}, bytes(8)), "not a checkpoint of|known"),
    "description of a number": ("a.safetensors", described("5"), "description .* is damaged"),
    "deep description": ("a.safetensors", described(DEEP), "description .* is damaged"),
    "cut description": ("a.safetensors", described('{"format": 1,'), "is damaged"),
    "no format": ("a.safetensors", described({"meta": {}}), "is damaged"),
    "format infinite": ("a.safetensors", described('{"format": Infinity}'), "is damaged"),
    "format of text": ("a.safetensors", described({"format": "1", "meta": {}}), "is damaged"),
    "format true": ("a.safetensors", described({"format": True, "meta": {}}), "is damaged"),
    "format 0": ("a.safetensors", described({"format": 0, "meta": {}}), "is damaged"),
    "format 99": ("a.safetensors", described({"format": 99}), "newer maskwright.*upgrade with"),
    "meta of a list": ("a.safetensors", described({"format": 1, "meta": []}), "is damaged"),
    "meta without names": (
        "a.safetensors",
        described({"format": 1, "meta": {"model": NAME}}),
        "incomplete",
    ),
    "names of numbers": ("a.safetensors", meta(names=[1, 2]), "names are not all text"),
    "names as text": ("a.safetensors", meta(names="cd"), "'names' is not a list"),
    "no names": ("a.safetensors", meta(names=[]), "num_classes must be at least 1"),
    "too many names": ("a.safetensors", meta(names=["x"] * 9), "logits.weight is .*expected"),
    "ids of text": ("a.safetensors", meta(category_ids=["1", "2"]), "not all whole numbers"),
    "one id": ("a.safetensors", meta(category_ids=[1]), "2 class names but 1 category ids"),
    "metrics of a list": ("a.safetensors", meta(metrics=[1]), "'metrics' is not a dict"),
    "unknown model": ("a.safetensors", meta(model="evil"), "no model is called|is a evil"),
    "unknown option": ("a.safetensors", args(evil=1), "has no option 'evil'"),
    "width of text": ("a.safetensors", args(width="a"), "width must be a whole number"),
    "a billion channels": ("a.safetensors", args(width=10**9), "width must be a whole number"),
    "8192 channels": ("a.safetensors", args(width=8192), "expected \\(8192,"),
    "a billion layers": ("a.safetensors", args(box_convs=10**9), "box_convs must be a whole"),
    "backbone from afar": ("a.safetensors", args(backbone="hf-hub:evil/x"), "no backbone is"),
    "backbone of a number": ("a.safetensors", args(backbone=5), "cannot be built"),
    "anchors of text": ("a.safetensors", args(anchor_sizes="abcde"), "cannot be built"),
    "anchors of NaN": ("a.safetensors", args(anchor_sizes=[math.nan] * 5), "cannot be built"),
    "image size infinite": ("a.safetensors", args(imgsz="infx"), "cannot be built"),
    "wrong shape": ("a.safetensors", weights(logits=torch.zeros(3, 7)), "1 of another shape"),
    "missing tensor": ("a.safetensors", weights(logits=None), f"1 missing: {KEY}"),
    "additional tensor": ("a.safetensors", weights(evil=torch.zeros(3)), "1 not in the model"),
    "whole numbers": ("a.safetensors", weights(logits=STATE[KEY].long()), "expected torch.float32"),
    "complex numbers": ("a.safetensors", weights(logits=STATE[KEY] + 0j), "expected torch.float32"),
    "NaN": ("a.safetensors", weights(logits=STATE[KEY] * math.nan), f"{KEY} holds .* not finite"),
    "infinity": ("a.safetensors", weights(logits=STATE[KEY] + math.inf), "earlier checkpoint"),
}  # fmt: skip
for _name, _header in {
    "overlap": {"model.a": tensor(0, 8), "model.b": tensor(4, 12)},
    "gap": {"model.a": tensor(0, 8), "model.b": tensor(12, 20)},
    "backwards": {"model.a": tensor(8, 0)},
    "negative offset": {"model.a": tensor(-8, 0)},
    "offsets beside the shape": {"model.a": tensor(0, 8, [5])},
    "negative shape": {"model.a": tensor(0, 8, [-2])},
    "shape of 2**80": {"model.a": tensor(0, 8, [2**40, 2**40])},
    "unknown type": {"model.a": tensor(0, 8, dtype="PICKLE")},
    "type of a number": {"model.a": tensor(0, 8, dtype=7)},
    "shape of text": {"model.a": tensor(0, 8, "22")},
}.items():
    _text = json.dumps({"format": 1, "meta": {"model": NAME, "args": TINY, "names": ["a", "b"]}})
    CASES[_name] = (
        "a.safetensors",
        raw({"__metadata__": {"maskwright": _text}, **_header}, bytes(20)),
        "safetensors",
    )


# One of each kind of fault goes through all ways, the others through the usual one.
KINDS = list(CASES)[::6]


@pytest.mark.parametrize("case", CASES)
def test_loading_says_what_is_wrong(case: str, tmp_path: Path) -> None:
    name, write, says = CASES[case]
    write(tmp_path / name)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=f"(?s){name}.*({says})|({says}).*{name}"):
        mw.load(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000  # kilobytes
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "case",
    [case if case in KINDS else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
def test_no_way_of_loading_takes_it(
    case: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    name, write, says = CASES[case]
    path = tmp_path / name
    write(path)
    out = str(tmp_path / "out.safetensors")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    as_weights: tuple[Callable[[], object], ...] = (
        lambda: mw.load(path),
        lambda: mw.load(NAME, weights=path),
    )
    for load in as_weights:
        with pytest.raises(ValueError, match=f"(?s){name}.*({says})|({says}).*{name}"):
            load()
    # These take weights that fit in part, or read nothing but tensors, so their words differ.
    for load in (lambda: train(resume=path), lambda: mw.convert(path, out, model=NAME)):
        with pytest.raises(ValueError, match=name):
            load()
    for line in (
        ["predict", str(path), "photo.jpg"],
        ["predict", NAME, "photo.jpg", f"weights={path}"],
        ["train", "data", f"resume={path}"],
        ["convert", str(path), out, f"model={NAME}"],
    ):
        (tmp_path / "photo.jpg").write_bytes(b"not read")
        assert main(line) == 1
        err = capsys.readouterr().err
        assert err.count("error: ") == 1 and name in err and "Traceback" not in err
    assert not (tmp_path / "executed").exists()
    assert not Path(out).exists() and not (tmp_path / "runs").exists()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 300_000  # kilobytes


# What fits of another model may still be taken.
PARTLY = {"unknown model"}


@pytest.mark.parametrize("case", sorted(set(CASES) - PARTLY))
def test_no_training_starts_from_it(case: str, tmp_path: Path) -> None:
    name, write, _ = CASES[case]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=name):
        hub.start_model(NAME, ["cat", "bird"], weights=tmp_path / name, options=dict(TINY))


def test_rows_of_classes_that_the_weights_lack_start_afresh(tmp_path: Path) -> None:
    torch.manual_seed(0)
    target = build(NAME, 2, **TINY)
    before = target.state_dict()[KEY].clone()
    state = {**STATE, KEY: STATE[KEY][:1]}
    report = hub.transfer(target, ["dog", "cat"], state, ["cat", "dog"])
    assert torch.equal(target.state_dict()[KEY], before)
    assert "1 tensors start afresh" in report and KEY in report


RESUMED = {
    "recipe of a list": ({"recipe": []}, "damaged"),
    "unknown option": ({"recipe": {"evil": 1}}, "train has no option 'evil'"),
    "option out of range": ({"recipe": {"data": "x", "epochs": -1}}, "epochs=-1"),
}


@pytest.mark.parametrize("case", RESUMED)
def test_state_of_a_training_that_is_damaged(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, says = RESUMED[case]
    path = tmp_path / "last.safetensors"
    training(**changes)(path)
    with pytest.raises(ValueError, match=rf"last\.safetensors: .*damaged.*{says}|{says}"):
        train(resume=path)
    assert main(["train", f"resume={path}"]) == 1
    assert capsys.readouterr().err.count("last.safetensors") == 1
    assert load_checkpoint(path).meta.names == ["cat", "dog"], "its weights stay good"


@pytest.mark.slow
def test_place_and_optimiser_of_a_resumed_run_are_checked(
    nuclei_mini: Path, tmp_path: Path
) -> None:
    done = train(
        nuclei_mini, NAME, model_args={**TINY, "imgsz": 64}, weights="none", steps=1, workers=0,
        device="cpu", project=tmp_path, val_every=9, batch=1,
    )  # fmt: skip
    whole = load_checkpoint(done.last, training=True)
    assert whole.training is not None
    slot = next(key for key in whole.training.optimizer if key.endswith(".exp_avg"))
    scalars, moments = whole.training.scalars, whole.training.optimizer
    place = scalars["place"]
    spoilt = {
        "step is -1": ({**scalars, "place": {**place, "step": -1}}, moments),
        "epoch is 'x'": ({**scalars, "place": {**place, "epoch": "x"}}, moments),
        "sums is": ({**scalars, "place": {**place, "sums": 5}}, moments),
        "evil": ({**scalars, "place": {**place, "evil": 5}}, moments),
        "world": ({k: v for k, v in scalars.items() if k != "world"}, moments),
        "not all and only": (scalars, {k: v for k, v in moments.items() if k != slot}),
        "expected": (scalars, {**moments, slot: torch.zeros(3, 3)}),
        "no trainable parameter": (
            scalars,
            {**moments, **{f"evil.{s}": torch.zeros(1) for s in ("step", "exp_avg", "exp_avg_sq")}},
        ),
    }
    for says, (numbers, tensors) in spoilt.items():
        state = TrainingState(numbers, tensors)
        save_checkpoint(done.last, whole.meta, whole.model, training=state)
        with pytest.raises(ValueError, match=f"(?s)state of the training is damaged.*{says}"):
            train(resume=done.dir)
