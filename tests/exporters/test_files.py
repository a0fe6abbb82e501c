"""Each format with a toy graph: written, opened, run, damaged, and made hostile."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import maskwright as mw
from maskwright.errors import OptionError
from maskwright.graphs import sessions, torch_file
from maskwright.graphs.sessions import open_graph
from maskwright.graphs.trace import trace
from maskwright.graphs.writers import SUFFIXES, check_libraries, write_graph
from maskwright.models import Meta, PostProcess
from maskwright.structures import Images, Resize
from maskwright.tasks.detection.exporting.interface import DetectionInterface
from maskwright.tasks.graph import GraphSpec

SLOTS = 4
NOT_COMPILED = [name for name in SUFFIXES if name != "aoti"]


class Toy(nn.Module):
    """Finds as many objects as half the mean brightness; boxes and scores follow from weights."""

    def __init__(self, spec: GraphSpec) -> None:
        super().__init__()
        self.spec = spec
        self.scale = nn.Parameter(torch.tensor([0.9, 0.6, 0.3, 0.1]))
        self.layer = nn.Linear(2, 4)

    def forward(self, pixels, sizes):
        count = (pixels.mean((1, 2, 3)) / 2).long().clamp(max=SLOTS)
        shown = torch.arange(SLOTS) < count[:, None]
        boxes = self.layer(sizes.float()).abs()[:, None] * shown[..., None]
        return boxes, self.scale * shown, torch.ones(SLOTS, dtype=torch.int64) * shown, count


def make_spec(size: tuple[int, int] | None = None, batch: int | None = None) -> GraphSpec:
    meta = Meta("toy", {}, ["a", "b"], licence="CC0", source='quotes " and <tags> & ünïcode')
    post = PostProcess(0.05, 0.5, SLOTS)
    rule = Resize(None, 64, within=size)
    own = DetectionInterface("detect", post, "grid", 0)
    return GraphSpec(meta, "detect", size, batch, 32, rule, "fp32", own)


WRITTEN: dict[tuple[str, object], dict[str, bytes]] = {}  # each kind is written once


def write(format: str, folder: Path, spec: GraphSpec | None = None) -> tuple[Path, Toy]:
    torch.manual_seed(0)
    toy = Toy(spec or make_spec()).eval()
    path = folder / f"toy{SUFFIXES[format]}"
    key = (format, toy.spec.size)
    if key not in WRITTEN:
        assert write_graph(format, trace(toy, toy.spec), path, toy.spec) > 5
        WRITTEN[key] = {file.name: file.read_bytes() for file in folder.iterdir()}
    for name, data in WRITTEN[key].items():
        (folder / name).write_bytes(data)
    return path, toy


def make_images(brightness: list[float], height: int = 64, width: int = 96) -> Images:
    pixels = torch.tensor(brightness)[:, None, None, None].expand(-1, 3, height, width)
    sizes = torch.tensor([[height - 3 * i, width - i] for i in range(len(brightness))])
    return Images(pixels.contiguous(), sizes, sizes)


def check(path: Path, toy: Toy, brightness: list[float], **size: int) -> None:
    graph, images = open_graph(path, trust=True), make_images(brightness, **size)
    found = graph(images)
    with torch.no_grad():
        boxes, scores, labels, count = toy(images.pixels, images.sizes)
    torch.testing.assert_close(found.boxes, boxes)
    torch.testing.assert_close(found.scores, scores)
    assert torch.equal(found.labels, labels) and torch.equal(found.valid.sum(1), count)
    assert found.mask_crops is None and found.keypoints is None


@pytest.mark.parametrize("format", NOT_COMPILED)
def test_any_batch_and_size(format: str, tmp_path: Path) -> None:
    path, toy = write(format, tmp_path)
    check(path, toy, [2.5, 0.0, 9.0])
    check(path, toy, [4.5], height=32, width=160)
    graph = open_graph(path)
    assert graph.spec == toy.spec and graph.task == "detect" and graph.num_classes == 2
    # Asked for less than it has.
    some = graph(make_images([9.0]), PostProcess(0.5, 0.5, 3))
    assert some.valid.tolist() == [[True, True, False]] and not some.boxes[0, 2].any()
    with pytest.raises(OptionError, match="cannot find 5"):
        graph(make_images([9.0]), PostProcess(0.5, 0.5, 5))
    predictor = mw.load(path)
    assert predictor.names == ["a", "b"] and predictor.meta.source == toy.spec.meta.source
    with pytest.raises(OptionError, match="own arithmetic; leave out precision=bf16"):
        mw.load(path, precision="bf16")


@pytest.mark.filterwarnings("ignore:max_det")
@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_a_fixed_batch_and_size(format: str, tmp_path: Path) -> None:
    path, toy = write(format, tmp_path, make_spec((64, 96), 2))
    check(path, toy, [2.5, 9.0])
    check(path, toy, [2.5, 9.0, 4.0])  # the last batch is filled up
    check(path, toy, [3.0])
    with pytest.raises(ValueError, match=r"takes pixels of \(64, 96\), not \(32, 96\)"):
        open_graph(path)(make_images([3.0], 32, 96))
    # Photos of any shape come to the size of the graph.
    for shape in ((300, 90, 3), (90, 300, 3), (5, 5, 3)):
        pixels = torch.full(shape, 255, dtype=torch.uint8).numpy()
        assert len(mw.load(path)(pixels, conf=0.05, max_det=4)) == SLOTS


@pytest.mark.slow
def test_compiled_code_wants_trust(tmp_path: Path) -> None:
    path, toy = write("aoti", tmp_path)
    check(path, toy, [2.5, 0.0, 9.0])
    with pytest.raises(ValueError, match=r"machine code.*trust=true"):
        mw.load(path)
    assert mw.load(path, trust=True).names == ["a", "b"]


def test_without_a_compiler_there_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config, cpp_builder

    cpp_builder.get_cpp_compiler.cache_clear() if hasattr(
        cpp_builder.get_cpp_compiler, "cache_clear"
    ) else None
    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/g++",))
    with pytest.raises(ValueError, match=r"found no compiler.*format=pt2"):
        torch_file.find_compiler()


def test_missing_libraries_are_named_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name)
    )
    check_libraries("onnx")
    with pytest.raises(ImportError, match=r"openvino: pip install 'maskwright\[export\]'"):
        check_libraries("openvino")


@pytest.mark.parametrize("format", NOT_COMPILED)
def test_damaged_files_say_so(format: str, tmp_path: Path) -> None:
    path, _ = write(format, tmp_path)
    data = path.read_bytes()
    for content in (b"", b"nothing of that kind", data[: len(data) // 2], data[:-40]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=path.name):
            mw.load(path)


def test_openvino_needs_both_files(tmp_path: Path) -> None:
    path, _ = write("openvino", tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["toy.bin", "toy.xml"]
    path.with_suffix(".bin").rename(tmp_path / "other.bin")
    with pytest.raises(ValueError, match=r"toy\.bin does not exist"):
        mw.load(path)
    path.with_suffix(".bin").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"toy\.xml is damaged"):
        mw.load(path)


def rewrite(path: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    """Change one member of a zip file, or add it."""
    with zipfile.ZipFile(path) as archive:
        members = {entry: archive.read(entry) for entry in archive.namelist()}
    root = next(iter(members)).split("/")[0]
    full = f"{root}/{name}"
    members[full] = change(members.get(full, b""))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for entry, data in members.items():
            archive.writestr(entry, data)


def change_graph(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def run(data: bytes) -> bytes:
        graph = json.loads(data)
        change(graph)
        return json.dumps(graph).encode()

    return run


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def set_size(text: str) -> Callable[[dict[str, Any]], None]:
    def change(graph: dict[str, Any]) -> None:
        def walk(item: Any) -> None:
            if isinstance(item, dict):
                if "expr_str" in item:
                    item["expr_str"] = text
                for value in item.values():
                    walk(value)
            elif isinstance(item, list):
                for value in item:
                    walk(value)

        walk(graph)

    return change


def set_first(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda graph: graph["graph_module"]["graph"]["nodes"][0].update({key: value})


def test_a_pt2_file_holds_neither_pickles_nor_paths(tmp_path: Path) -> None:
    path, _ = write("pt2", tmp_path)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            data = archive.read(name)
            assert b".py" not in data and b"site-packages" not in data, name
            assert not data.startswith(b"\x80\x02"), name


@pytest.mark.parametrize(
    ("member", "change", "message"),
    [
        ("models/model.json", set_first("target", "os.system"), "calls 'os.system'"),
        ("models/model.json", set_first("target", "torch.load"), "calls 'torch.load'"),
        ("models/model.json", set_first("target", "torch.ops.aten.from_file.default"), "from_file"),
        ("models/model.json", set_first("metadata", {"source_fn_stack": "a,os.system"}), "notes"),
        ("models/model.json", set_size("__import__('os').system('true')"), "computes a size"),
        ("models/model.json", set_size("Symbol('s1').__class__"), "computes a size"),
        ("models/model.json", set_size("exec('s1')"), "computes a size"),
        ("models/model.json", lambda g: g.update(guards_code=["print(1)"]), "guards"),
        ("models/other.json", lambda g: None, "several"),
    ],
)
def test_graphs_that_could_run_code_are_refused(member, change, message, tmp_path: Path) -> None:
    path, _ = write("pt2", tmp_path)
    make = change_graph(change)
    rewrite(path, member, lambda data: make(data or b"{}"))
    with pytest.raises(ValueError, match=f"(?s)is not opened.*{message}"):
        mw.load(path)


@pytest.mark.parametrize("name", ["sizes", "p_scale", "layer.weight", "aten"])
def test_names_that_would_become_code_are_refused(name: str, tmp_path: Path) -> None:
    """torch writes the names of values into Python code and runs it."""
    path, _ = write("pt2", tmp_path)
    trace_of_code = tmp_path / "it ran"
    evil = f"x=__import__('pathlib').Path({str(trace_of_code)!r}).touch()"
    found = []

    def change(data: bytes) -> bytes:
        old = json.dumps(name).encode()
        found.append(old in data)
        return data.replace(old, json.dumps(evil).encode())

    rewrite(path, "models/model.json", change)
    assert found == [True]
    with pytest.raises(ValueError, match="is not opened: it has the name"):
        mw.load(path)
    assert not trace_of_code.exists()


def test_torch_gets_a_new_archive_of_what_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip can show its readers different contents, and torch has a second one to fall back on."""
    path, toy = write("pt2", tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"what a reader may find here " * 20
        known = {name.split("/", 1)[1] for name in archive.namelist()}
    given: list[bytes] = []
    load = torch_file.load_program
    monkeypatch.setattr(sessions, "load_program", lambda data: given.append(data) or load(data))
    check(path, toy, [2.5, 0.0, 9.0])
    assert b"what a reader may find" in path.read_bytes()
    assert b"what a reader may find" not in given[0]
    with zipfile.ZipFile(io.BytesIO(given[0])) as archive:
        assert {name.split("/", 1)[1] for name in archive.namelist()} <= known | {"version"}
    for name in ("serialized_exported_program.json", "extra/other.json", "data/pickled"):
        other, _ = write("pt2", tmp_path)
        rewrite(other, name, lambda data: b"{}")
        with pytest.raises(ValueError, match="is not opened: it holds"):
            mw.load(other)


def test_pickles_are_never_read(tmp_path: Path) -> None:
    trace_of_code = tmp_path / "it ran"
    plain = pickle.dumps(Bomb(trace_of_code))
    buffer = io.BytesIO()
    torch.save(Bomb(trace_of_code), buffer)

    def use_pickle(data: bytes) -> bytes:
        config = json.loads(data)
        for entry in config["config"].values():
            entry["use_pickle"] = True
        return json.dumps(config).encode()

    for member, change in (
        ("data/sample_inputs/model.pt", lambda _: buffer.getvalue()),
        ("data/weights/model.pt", lambda _: buffer.getvalue()),
        ("data/constants/custom_obj_0", lambda _: plain),
        ("data/constants/opaque_obj_0", lambda _: plain),
        ("data/weights/model_weights_config.json", use_pickle),
    ):
        folder = tmp_path / member.replace("/", "_")
        folder.mkdir()
        path, _ = write("pt2", folder)
        rewrite(path, member, change)
        with pytest.raises(ValueError, match="is not opened"):
            mw.load(path)
        assert not trace_of_code.exists()
    pickle.loads(plain)
    assert trace_of_code.exists(), "the bomb works"


def test_the_old_form_of_torch_s_files_is_refused(tmp_path: Path) -> None:
    trace_of_code = tmp_path / "it ran"
    buffer = io.BytesIO()
    torch.save(Bomb(trace_of_code), buffer)
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "8.5")
        for name in ("state_dict", "constants", "example_inputs"):
            archive.writestr(f"serialized_{name}.pt", buffer.getvalue())
        archive.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(ValueError, match=r"old\.pt2"):
        mw.load(path)
    torch.save(Bomb(trace_of_code), path)
    with pytest.raises(ValueError, match=r"old\.pt2"):
        mw.load(path)
    assert not trace_of_code.exists()


def test_machine_code_hidden_in_a_graph_is_refused(tmp_path: Path) -> None:
    path, _ = write("pt2", tmp_path)
    rewrite(path, "data/aotinductor/model/code.so", lambda _: b"\x7fELF")
    for trust in (False, True):
        with pytest.raises(ValueError, match="both a graph and machine code"):
            mw.load(path, trust=trust)
