"""Weights as others save them: wrapped, prefixed, beside objects, whole networks; nothing runs."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from maskwright.cli import main
from maskwright.converters import CONVERTERS
from maskwright.hub import loading as hub
from maskwright.models import build, get_entry
from maskwright.pickles import Global, Thing, read_pickle
from maskwright.prediction.load import load
from maskwright.storage.published import read_weights

NAME = "mask_rcnn_resnet50_fpn"
TINY = {**(get_entry(NAME).tiny or {}), "backbone": "resnet18"}
torch.manual_seed(0)
OURS = build(NAME, 2, **TINY).state_dict()
# In the names of torchvision, one of them no float, one transposed, one of half precision.
THEIRS: dict[str, Tensor] = {
    "backbone.fpn.inner_blocks.0.0.weight": torch.randn(3, 4, 1, 1),
    "backbone.fpn.inner_blocks.0.0.bias": torch.randn(3),
    "backbone.body.bn1.num_batches_tracked": torch.tensor(7),
    "roi_heads.box_predictor.cls_score.weight": torch.randn(6, 5).t(),
    "roi_heads.box_predictor.cls_score.bias": torch.randn(5).half(),
}


class Stranger:
    """An object of a class that nobody knows."""


SETTINGS = argparse.Namespace(rate=0.1, inner={"x": [1, (2, {3})]})
BESIDE = {
    "epoch": 3, "args": argparse.Namespace(lr=0.1, cfg=SETTINGS), "best": np.float64(0.5),
    "curve": [np.float32(1), (None, True)], "where": Path("x"), "set": {1, 2}, "dtype": torch.half,
    "frozen": frozenset([(1, "a")]), "counter": collections.Counter("aab"), 3: "number",
    ("a", 1): "pair", "rng": torch.get_rng_state(), "size": torch.Size([3]), "big": 10**40,
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"params": [0]}]},
}  # fmt: skip
WRAPPERS = [
    "model", "state_dict", "model_state_dict", "model_ema", "ema", "module", "net", "network",
    "weights", "params", "my own",
]  # fmt: skip
PREFIXES = ["", "module.", "_orig_mod.", "model.", "net.", "module._orig_mod.model.", "student."]


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in THEIRS.items()}


def shapes_of_files() -> dict[str, Any]:
    """What people save, each holding THEIRS."""
    ordered = collections.OrderedDict(THEIRS)
    ordered._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    parameters = {
        key: nn.Parameter(value) if value.is_floating_point() else value
        for key, value in THEIRS.items()
    }
    cases: dict[str, Any] = {"bare": THEIRS, "ordered": ordered, "in a list": [{"a": THEIRS}]}
    cases |= {f"as {word}": BESIDE | {word: ordered} for word in WRAPPERS}
    cases |= {f"prefix {prefix}": BESIDE | {"model": prefixed(prefix)} for prefix in PREFIXES}
    cases |= {f"bare prefix {prefix}": prefixed(prefix) for prefix in PREFIXES[1:]}
    cases["nested"] = {"checkpoint": {"model": prefixed("module.")}, "cfg": SETTINGS}
    cases["parameters"] = {"model": parameters}
    cases["lightning"] = {
        "state_dict": {**prefixed("model."), "criterion.weight": torch.ones(2)},
        "callbacks": {"Best{'monitor': 'x'}": {"best": torch.tensor(1.0)}},
        "hyper_parameters": {"cfg": SETTINGS},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
    }
    second = {k: v + 1 if v.is_floating_point() else v for k, v in THEIRS.items()}
    cases["before an average"] = {"model": THEIRS, "ema": second}
    cases["after an average"] = {"model_ema": second, "model": THEIRS}
    cases["after named moments"] = {
        "optimizer": {k: {"exp_avg": v, "exp_avg_sq": v, "weight": v} for k, v in second.items()},
        "model": THEIRS,
    }
    return cases


CASES = shapes_of_files()


def assert_theirs(path: Path) -> None:
    found = read_weights(path).tensors
    assert list(found) == list(THEIRS)
    for key, value in THEIRS.items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value), key


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("form", ["zip", "older", "pickle"])
def test_the_weights_are_found(case: str, form: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    if form == "pickle":
        for protocol in (2, 4, 5):
            path.write_bytes(pickle.dumps(CASES[case], protocol))
            assert_theirs(path)
        return
    for protocol in (2, 5) if form == "zip" else (2,):
        torch.save(
            CASES[case], path, pickle_protocol=protocol,
            _use_new_zipfile_serialization=form == "zip",
        )  # fmt: skip
        assert_theirs(path)


def test_numbers_are_those_that_torch_reads(tmp_path: Path) -> None:
    """Every type, views that share a storage, empty ones and scalars."""
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "part": base[1:3, ::2], "other part": base[2], "turned": base.t(), "whole": base,
        "none": torch.empty(0, 3), "scalar": torch.tensor(2.5), "deep": torch.rand(1, 2, 1, 3, 1),
        "last": torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
    }  # fmt: skip
    for name in (
        *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8"),
        *("uint8", "bool", "complex64", "complex128", "uint16", "float8_e4m3fn"),
    ):
        tensors[name] = torch.tensor([0.0, 1, 3]).to(getattr(torch, name))
    path = tmp_path / "w.pt"
    for zipped in (True, False):
        torch.save({"model": tensors}, path, _use_new_zipfile_serialization=zipped)
        found = read_weights(path).tensors
        torch.testing.assert_close(found, tensors, rtol=0, atol=0)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_numpy_are_weights(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "w.pkl"
    arrays = {key: value.numpy() for key, value in THEIRS.items()}
    arrays["fortran"] = np.asfortranarray(np.arange(12, dtype=np.int16).reshape(3, 4))
    arrays["empty"] = np.zeros((0, 3), np.float32)
    beside = {
        "text": np.array(["a"]),
        "object": np.array([{}], object),
        "swapped": np.arange(3, dtype=">i4"),
    }
    path.write_bytes(pickle.dumps({"model": arrays | beside, "names": ["a"]}, protocol))
    found = read_weights(path)
    assert set(found.tensors) == set(arrays) and found.names == ["a"]
    for key, value in arrays.items():
        assert np.array_equal(found.tensors[key].numpy(), value)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 1)
        self.bn = nn.BatchNorm2d(3)
        self.register_buffer("saved", torch.ones(2))
        self.register_buffer("not_saved", torch.ones(2), persistent=False)
        self.scale = nn.Parameter(torch.rand(1))
        self.more = nn.ModuleList([nn.Linear(2, 3), nn.ParameterList([torch.rand(2)])])

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)) * self.scale


@pytest.mark.parametrize("zipped", [True, False])
def test_a_network_saved_whole_is_read_without_its_class(zipped: bool, tmp_path: Path) -> None:
    path, block = tmp_path / "w.pth", Block()
    expected = block.state_dict()
    optimizer = torch.optim.Adam(block.parameters())
    for content in (
        block,
        {"model": block, "epoch": 1},
        {"model": nn.DataParallel(block), "optimizer": optimizer},
        Holder(block),
    ):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        found = read_weights(path, expected.__contains__).tensors
        assert list(found) == list(expected)
        torch.testing.assert_close(found, dict(expected), rtol=0, atol=0)


class Holder:
    """An object with a network inside."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.rate = network, 0.1


def test_a_scripted_network_is_read(tmp_path: Path) -> None:
    path, block = tmp_path / "w.pt", nn.Sequential(nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(block.eval(), torch.rand(1, 4, 5, 5)), str(path))
    found = read_weights(path).tensors
    for key, value in block.state_dict().items():
        assert torch.equal(found[key], value), key


TORCHVISION = CONVERTERS["torchvision"][1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same detector in torchvision's names: plain, and as a training script would save it."""
    folder = tmp_path_factory.mktemp("weights")
    tensors, _ = TORCHVISION(OURS, {}, [1, 2])
    plain, wrapped = folder / "plain.pth", folder / "wrapped.pth"
    torch.save(tensors, plain)
    inner = {f"_orig_mod.model.{key}": value for key, value in tensors.items()}
    more = {"_orig_mod.loss.weight": torch.ones(3)}
    torch.save(BESIDE | {"checkpoint": {"model_state_dict": inner | more}}, wrapped)
    return plain, wrapped


def test_trainings_and_backbones_start_from_them(saved: tuple[Path, Path]) -> None:
    states, reports = [], []
    for path in saved:
        torch.manual_seed(1)
        detector, _, report = hub.start_model(NAME, ["a", "b"], weights=path, options=dict(TINY))
        states.append(detector.state_dict())
        reports.append(report.removeprefix(str(path)))
    assert reports[0] == reports[1]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    backbones = []
    for path in saved:  # the backbone of a detector stands behind a prefix, too
        torch.manual_seed(1)
        detector, _, _ = hub.start_model(
            NAME, ["a"], weights=f"imagenet:{path}", options=dict(TINY)
        )
        backbones.append(detector.backbone.state_dict())
    torch.testing.assert_close(backbones[0], backbones[1], rtol=0, atol=0)
    key = "body.layer1.0.conv1.weight"
    assert torch.equal(backbones[0][key], OURS[f"backbone.{key}"])


def test_they_convert_and_load(tmp_path: Path) -> None:
    name = "mask_rcnn_resnet18_fpn"
    tensors, _ = TORCHVISION(build(name, 2).state_dict(), {}, [1, 2])
    files, found = [tmp_path / "plain.pth", tmp_path / "wrapped.pth"], []
    torch.save(tensors, files[0])
    inner = {f"module.{key}": value for key, value in tensors.items()}
    torch.save(
        {"model": inner, "args": argparse.Namespace(), "loss": {"w": torch.ones(1)}}, files[1]
    )
    for file in files:
        out = file.with_suffix(".safetensors")
        assert main(["convert", str(file), str(out), f"model={name}"]) == 0
        found.append(load(out).detector.state_dict())
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    report = hub.convert(files[1], tmp_path / "again.safetensors", model=name)
    assert report.ignored["loss.w"] == "beside the weights, which stand at model.module."
    loaded = load(name, weights=files[1]).detector.state_dict()
    torch.testing.assert_close(loaded, found[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mask_rcnn_resnet18_fpn", "rfcn_resnet50", "rcnn_alexnet"])
def test_our_own_names_without_a_description(name: str, tmp_path: Path) -> None:
    """The state dict of a detector: all tensors, as many classes, no names."""
    torch.manual_seed(0)
    tiny = {k: v for k, v in (get_entry(name).tiny or {}).items() if k != "anchor_sizes"}
    state = build(name, 3, **tiny).state_dict()
    path = tmp_path / "own.pth"
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "args": SETTINGS}, path)
    with pytest.warns(UserWarning, match=r"own\.pth says nothing of its model"):
        detector, _, report = hub.start_model(name, ["a", "b"], weights=path, options=tiny)
    assert "0 of 2 classes by name" in report
    found = detector.state_dict()
    backbone = next(key for key in state if key.startswith("backbone.") and state[key].numel() > 9)
    assert torch.equal(found[backbone], state[backbone])


def test_our_own_names_convert(tmp_path: Path) -> None:
    name = "mask_rcnn_resnet18_fpn"
    state = build(name, 3).state_dict()
    path, out = tmp_path / "own.pth", tmp_path / "out.safetensors"
    torch.save(state, path)
    with pytest.warns(UserWarning, match="says nothing of its model"):
        hub.convert(path, out, model=name)
    loaded = load(out)
    assert loaded.names == ["class_1", "class_2", "class_3"]
    torch.testing.assert_close(loaded.detector.state_dict(), dict(state), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"own\.pth has our names, but does not say which model"):
        hub.convert(path, tmp_path / "x.pth", model=name, target="torchvision")


@pytest.mark.parametrize("wrap", ["state_dict", "model", "net.", "encoder_q."])
def test_backbones_start_from_wrapped_classifiers(wrap: str, tmp_path: Path) -> None:
    import torchvision

    donor = torchvision.models.resnet18(weights=None)
    state = donor.state_dict()
    content: Any = {f"module.{wrap}{k}": v for k, v in state.items()}
    if not wrap.endswith("."):
        content = {wrap: {f"module.{k}": v for k, v in state.items()}, "args": SETTINGS}
    path = tmp_path / "resnet.pth"
    torch.save(content, path)
    detector, _, report = hub.start_model(
        NAME, ["a"], weights=f"imagenet:{path}", options=dict(TINY)
    )
    assert "resnet.pth" in report
    own = detector.backbone.state_dict()
    assert torch.equal(own["body.conv1.weight"], state["conv1.weight"])
    assert torch.equal(own["body.layer4.1.bn2.running_var"], state["layer4.1.bn2.running_var"])


def test_what_is_no_such_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"model": THEIRS}, path)
    whole = path.read_bytes()
    torch.save({"model": THEIRS}, path, _use_new_zipfile_serialization=False)
    older = path.read_bytes()
    cases = {
        b"": "it is empty",
        b"<html>404</html>": "begins with b'<html>404",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0": "git lfs pull",
        whole[:-300]: "damaged.*copy it again",
        whole[:200]: "damaged.*copy it again",
        older[:100]: "damaged.*copy it again",
        older[:-4]: "damaged, the numbers of .* are not all there: copy it again",
        pickle.dumps({"a": 1, "b": SETTINGS}): "no dictionary of tensors, but a dictionary of a, b",
        pickle.dumps(SETTINGS): "an object .*Namespace.*torch.save",
        pickle.dumps([torch.zeros(2)]): "a list of 1.*torch.save",
    }
    for content, said in cases.items():
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"w\.pth: .*{said}") as caught:
            read_weights(path)
        assert ("damaged" in str(caught.value)) == ("damaged" in said)


# Pickles by hand: what each would do where instructions are obeyed.


def op(text: bytes) -> bytes:
    return b"\x80\x04" + text + b"."


HOSTILE: dict[str, bytes] = {
    "call": op(b"cos\nsystem\nX\x0e\x00\x00\x00touch executed\x85R"),
    "call by name on the stack": op(b"\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R"),
    "call of a call": op(
        b"c__builtin__\ngetattr\ncos\nsystem\n\x8c\x08__call__\x86R\x8c\x0etouch executed\x85R"
    ),
    "evaluation": op(b"cbuiltins\neval\n\x8c\x1eopen('executed','w').write('x')\x85R"),
    "instance": op(b"(\x8c\x0etouch executedios\nsystem\n"),
    "object": op(b"(cos\nsystem\n\x8c\x0etouch executedo"),
    "new object": op(b"cos\nsystem\n\x8c\x0etouch executed\x85\x81"),
    "new object with names": op(b"cos\nsystem\n\x8c\x0etouch executed\x85}\x92"),
    "state": op(
        b"ctorch.nn\nModule\n)R}\x8c\x0c__setstate__cos\nsystem\nsb\x8c\x0etouch executedb"
    ),
    "state of a class": op(b"ctorch\nTensor\nN}\x8c\x04loadcos\nsystem\ns\x86b"),
    "reader through itself": op(b"cmaskwright.pickles\nread_pickle\n)R"),
    "import of a module": op(b"cantigravity\nx\n"),
    "later list": op(b"ccollections\ndeque\n)R\x8c\x01xa"),
    "class by number": op(b"\x82\x01"),
    "memo of a billion": op(b"]r\x00\x00\x00\x7f"),
    "memo that is not there": op(b"h\x09"),
    "text of terabytes": op(b"\x8d\xff\xff\xff\xff\xff\x7f\x00\x00ab"),
    "bytes of terabytes": op(b"\x96\xff\xff\xff\xff\xff\x7f\x00\x00ab"),
    "keys without end": op(b"}" + b"N" + b"\x85" * 200_000 + b"Ns"),
    "lists without end": op(b"]" * 200_000 + b"a" * 199_999),
    "itself": op(b"}q\x00\x8c\x01ah\x00s"),
    "number of a million digits": op(b"L" + b"9" * 1_000_000 + b"L\n"),
    "numbers as code": op(b"I__import__('os').system('touch executed')\n"),
    "text as code": op(b"S'\\x00'+open('executed','w')\n"),
    "tensor of nothing": op(b"ctorch._utils\n_rebuild_tensor_v2\n)R"),
    "tensor of a name": op(b"ctorch._utils\n_rebuild_tensor_v2\n(cos\nsystem\nK\x00)))tR"),
    "storage inside": op(b"ctorch.storage\n_load_from_bytes\nC\x05hello\x85R"),
    "stack below its end": op(b"0000R"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_nothing_is_called(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    content = HOSTILE[case]
    torch.save(THEIRS, "torch.pth")
    with zipfile.ZipFile("torch.pth") as archive:
        root = archive.namelist()[0].split("/")[0]
    with zipfile.ZipFile("zip.pth", "w") as archive:
        archive.writestr(f"{root}/data.pkl", content)
    older = io.BytesIO()
    torch.save({}, older, _use_new_zipfile_serialization=False)
    head = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    Path("older.pth").write_bytes(b"".join(head) + content + pickle.dumps([], 2))
    Path("plain.pth").write_bytes(content)
    before = set(tmp_path.iterdir())
    for name in ("zip.pth", "older.pth", "plain.pth"):
        with pytest.raises(ValueError, match=name):
            read_weights(tmp_path / name)
    assert set(tmp_path.iterdir()) == before
    assert capsys.readouterr() == ("", "")


BESIDE_WEIGHTS = {
    "posix.system": b"cposix\nsystem\n\x8c\x0etouch executed\x85R",
    "subprocess.Popen": b"csubprocess\nPopen\n\x8c\x02ls\x85R",
    "builtins.eval": b"cbuiltins\neval\n\x8c\x011\x85R",
    "__builtin__.exec": b"(\x8c\x011i__builtin__\nexec\n",
    "os.system": b"\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R",
    "importlib.import_module": b"(cimportlib\nimport_module\n\x8c\x01xo",
    "socket.socket": b"csocket\nsocket\n)\x81}b",
}


@pytest.mark.parametrize("name", BESIDE_WEIGHTS)
@pytest.mark.parametrize("form", ["pickle", "zip"])
def test_what_no_weights_need_is_refused_by_name(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside weights that are whole."""
    monkeypatch.chdir(tmp_path)
    more = b"\x8c\x01x]" + BESIDE_WEIGHTS[name] + b"as."  # one more item: "x": [...]
    torch.save({"model": THEIRS}, "good.pth")
    with zipfile.ZipFile("good.pth") as good, zipfile.ZipFile("zip.pth", "w") as bad:
        for entry in good.infolist():
            data = good.read(entry)
            if entry.filename.endswith("data.pkl"):
                data = b"\x80\x04" + data[2:-1] + more
            bad.writestr(entry.filename, data)
    arrays = {key: value.numpy() for key, value in THEIRS.items()}
    plain = pickle.dumps({"model": arrays}, 2)
    Path("pickle.pth").write_bytes(b"\x80\x04" + plain[2:-1] + more)
    before = set(tmp_path.iterdir())
    with pytest.raises(ValueError, match=rf"{form}\.pth: .*refused, because it names {name}"):
        read_weights(tmp_path / f"{form}.pth")
    assert set(tmp_path.iterdir()) == before


# mmdetection 3 keeps objects of its own in `message_hub`, which a weights-only load refuses; each
# method of a history is a name that is asked of the class.
HISTORY = (
    b"cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}(\x8c\x01aK\x01\x8c\x01bcbuiltins\ngetattr\n"
    b"cmmengine.logging.history_buffer\nHistoryBuffer\n\x8c\x04mean\x86Rub"
)


def with_more(path: Path, more: bytes) -> None:
    """Write a pickle of THEIRS, beside which stands `message_hub: [...]` of these instructions."""
    plain = pickle.dumps({"state_dict": {k: v.numpy() for k, v in THEIRS.items()}}, 2)
    path.write_bytes(b"\x80\x04" + plain[2:-1] + b"\x8c\x0bmessage_hub]" + more + b"as.")


def test_classes_of_training_libraries_beside_weights_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "epoch_12.pth"
    with_more(path, HISTORY)
    found = read_weights(path)
    assert list(found.tensors) == list(THEIRS)
    history = "mmengine.logging.history_buffer.HistoryBuffer"
    assert found.unread == (history, f"{history}.mean")


STRANGERS = {
    "strange.library.Config": b"cstrange.library\nConfig\n)\x81}\x8c\x01aK\x01sb",
    "torch.hub.load": b"ctorch.hub\nload\n\x8c\x01x\x85R",
    "torch.serialization.load": b"ctorch.serialization\nload\n\x8c\x01x\x85R",
    "mmengine.runner.Runner": b"cmmengine.runner\nRunner\n)R",
    "maskwright.pickles.read_pickle": b"cmaskwright.pickles\nread_pickle\n)R",
    "logging.FileHandler": b"clogging\nFileHandler\n\x8c\x08executed\x85R",
    "strange.Name": b"cstrange\nName\n",  # named, and never called
    "strange.x": b"cstrange\nx\n0K\x01",  # dropped from the stack at once
    "strange.y": b"cbuiltins\ngetattr\ncstrange\ny\n\x8c\x01z\x86R",
    "calls builtins.getattr": b"cbuiltins\ngetattr\n}\x8c\x01z\x86R",
}


@pytest.mark.parametrize("name", STRANGERS)
def test_any_other_class_is_refused_by_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with_more(path, STRANGERS[name])
    with pytest.raises(ValueError, match=rf"w\.pth: .*refused, because it (names )?{name}"):
        read_weights(path)
    torch.save({"model": THEIRS, "args": Stranger()}, path)
    with pytest.raises(ValueError, match=r"names .*Stranger, which is no array.*save the weights"):
        read_weights(path)


def test_what_refers_to_itself_a_billion_times_ends(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    level: Any = {"x": 1}
    for _ in range(30):  # 10^30 paths lead to the innermost
        level = {str(k): level for k in range(10)}
    path.write_bytes(pickle.dumps(level))
    with pytest.raises(ValueError, match="holds more than"):
        read_weights(path)


@pytest.mark.parametrize("change", range(40))
def test_spoilt_bytes_give_an_error_or_the_tensors(change: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(change)
    path = tmp_path / "w.pth"
    torch.save(BESIDE | {"model": THEIRS}, path, _use_new_zipfile_serialization=change % 2 == 0)
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, min(len(data), 4000), 8):
        data[at] = rng.integers(0, 256)
    path.write_bytes(data)
    try:
        found = read_weights(path).tensors
    except ValueError as error:
        assert "w.pth" in str(error)
    else:
        assert all(isinstance(value, Tensor) for value in found.values())


def test_sizes_beyond_the_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    for strange, said in (
        (torch.zeros(1).expand(10**6, 10**6), "not all in the file"),
        (torch.eye(3).to_sparse(), "sparse"),
    ):
        torch.save({"model": THEIRS | {"odd": strange}}, path)
        with pytest.raises(ValueError, match=rf"w\.pth: odd is no plain tensor: .*{said}"):
            read_weights(path)


def test_records_of_an_object() -> None:
    """What a call, a dictionary and an attribute become."""
    data = pickle.dumps(argparse.Namespace(a=1, b=Path("x")), 2)
    found = read_pickle(io.BytesIO(data), {})
    assert isinstance(found, Thing) and found.kind == Global("argparse", "Namespace")
    assert found.state.items["a"] == 1
    assert found.state.items["b"].kind.name in ("PosixPath", "Path")
    assert read_pickle(io.BytesIO(pickle.dumps([1, (2.5, "x", None)])), {}) == [1, (2.5, "x", None)]
