"""Int8 graphs: which layers, with which numbers, and the guard that measures their AP."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from int8_data import own_findings
from onnx import helper, numpy_helper
from tiny_exports import Exported

import maskwright as mw
from maskwright.cli import main
from maskwright.data.pixels.images import load_image
from maskwright.data.pixels.resizing import resize_image
from maskwright.exporters import checked
from maskwright.exporters.export import export
from maskwright.exporters.guard import Int8Report, make_plan, write_int8
from maskwright.exporters.report import ExportReport, print_report
from maskwright.graphs.int8 import LAYERS, choose_layers
from maskwright.graphs.sessions import open_graph
from maskwright.graphs.spec import KEY, from_json, to_json
from maskwright.tasks.graph import GraphSpec

pytestmark = pytest.mark.filterwarnings("ignore:max_det")
SHOWN = {"conf": 0.05, "max_det": 20}


@pytest.fixture(scope="module")
def data(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tiny model finds, as a data set."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.warns(UserWarning, match="max_det"):
        return own_findings(folder, exported.predictor, exported.photos, **SHOWN)


def quantise(
    source: Path, data: Path, target: Path, format: str = "onnx", max_drop: float = 100.0
) -> Int8Report:
    """Quantise a float ONNX file under guard."""
    work = target.parent / "work"
    (work / "float").mkdir(parents=True)
    between = shutil.copy(source, work / "float.onnx")
    graph = open_graph(Path(shutil.copy(source, work / "float" / "float.onnx")))
    plan = make_plan(graph, graph.spec.meta, data, max_drop=max_drop, calibration=64)
    return write_int8(plan, graph, Path(between), format, target, target)[0]


@pytest.fixture(scope="module")
def int8(
    exported: Exported, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Int8Report]:
    """The tiny model in int8 as ONNX, and the report."""
    path = tmp_path_factory.mktemp("int8") / "tiny.onnx"
    return path, quantise(exported.path, data, path)


def producers(graph: Any) -> dict[str, Any]:
    return {name: node for node in graph.node for name in node.output}


def test_layers_before_decisions_stay_in_float() -> None:
    """A small graph with each way on from a layer."""
    node = helper.make_node
    nodes = [
        node("Add", ["pixels", "k"], ["y"]),
        node("Conv", ["y", "w"], ["x"], "the first"),
        node("Conv", ["x", "d"], ["a0"], "depthwise", group=4),
        node("Conv", ["a0", "w"], ["a"], "to a layer"),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w"], ["c"], "to TopK"),
        node("Sigmoid", ["c"], ["d"]),
        node("TopK", ["d", "k"], ["e", "f"]),
        node("Conv", ["b", "w"], ["g"], "to the regions"),
        node("Mul", ["g", "g"], ["h"]),
        node("RoiAlign", ["b", "h", "f"], ["i"]),
        node("Shape", ["b"], ["j"]),
        node("Gemm", ["i", "w"], ["l"], "to a product with what is no constant"),
        node("MatMul", ["l", "l"], ["m"], "no constant"),
        node("Conv", ["x", "w"], ["n"], "to a comparison"),
        node("Greater", ["n", "k"], ["o"]),
        node("MatMul", ["i", "w"], ["p"], "to an output"),
        node("Transpose", ["p"], ["q"]),
        node("Conv", ["x", "w"], ["r"], "to its shape and features of regions"),
        node("Shape", ["r"], ["s"]),
        node("RoiAlign", ["r", "k", "f"], ["t"]),
        node("Gemm", ["t", "w"], ["u"], "to an index of outputs"),
        node("ArgMax", ["u"], ["v"]),
    ]
    kind = onnx.TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info(name, kind, None) for name in ("q", "s", "v", "m")]
    inputs = [helper.make_tensor_value_info("pixels", kind, None)]
    weight = numpy_helper.from_array(np.zeros((4, 4, 1, 1), np.float32), "w")
    depthwise = numpy_helper.from_array(np.zeros((4, 1, 1, 1), np.float32), "d")
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight, depthwise])
    chosen, kept = choose_layers(graph)
    assert chosen == [
        "to a layer",
        "to a product with what is no constant",
        "to its shape and features of regions",
    ]
    assert kept == [
        "the first",
        "depthwise",
        "to TopK",
        "to the regions",
        "to a comparison",
        "to an output",
        "to an index of outputs",
    ]


def test_the_last_predictors_are_those_that_stay(exported: Exported) -> None:
    graph = onnx.load(exported.path).graph
    weight = {
        node.name: node.input[1].removeprefix("detector.")
        for node in graph.node[:]
        if len(node.input) > 1
    }
    chosen, kept = choose_layers(graph)
    assert {weight[name] for name in kept} == {
        "backbone.body.conv1.weight",
        "rpn.logits.weight",
        "rpn.deltas.weight",
        "roi_heads.box_head.logits.weight",
        "roi_heads.box_head.deltas.weight",
    }
    assert len(kept) == 1 + 2 * 5 + 2 and len(chosen) == 39
    constant = {value.name for value in graph.initializer}
    layers = [node for node in graph.node if node.op_type in LAYERS]
    # The last product of the mask head takes the weights of each object's class.
    assert [n.name for n in layers if n.name not in chosen + kept] == [
        n.name for n in layers if n.input[1] not in constant
    ]


def test_chosen_layers_have_rounded_inputs_weights_and_outputs(exported, int8) -> None:
    before, after = onnx.load(exported.path).graph, onnx.load(int8[0]).graph
    chosen, kept = choose_layers(before)
    nodes, made = {node.name: node for node in after.node}, producers(after)
    old = {node.name: node for node in before.node}
    weights = {value.name: numpy_helper.to_array(value) for value in before.initializer}
    new = {value.name: numpy_helper.to_array(value) for value in after.initializer}
    readers: dict[str, list[str]] = {}
    for node in after.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    for name in chosen:
        node = nodes[name]
        source, weight = (made[value] for value in node.input[:2])
        assert source.op_type == weight.op_type == "DequantizeLinear"
        assert readers[node.output[0]] == ["QuantizeLinear"]
        integers, scale = (new[value] for value in weight.input[:2])
        assert integers.dtype == np.int8 and np.abs(integers).max() <= 64
        # One scale for each output channel, and no weight is further off than half a step.
        axis = next(entry.i for entry in weight.attribute if entry.name == "axis")
        shape = [1] * integers.ndim
        shape[axis] = -1
        exact, step = weights[old[name].input[1]], scale.reshape(shape)
        assert scale.shape == (exact.shape[axis],)
        assert (np.abs(integers * step - exact) <= 0.5001 * step).all()
    for name in kept:
        np.testing.assert_array_equal(new[nodes[name].input[1]], weights[old[name].input[1]])
    assert int8[1].layers == len(chosen)
    types = {node.op_type for node in after.node}
    assert types - {node.op_type for node in before.node} == {"QuantizeLinear", "DequantizeLinear"}
    assert int8[0].stat().st_size < 0.3 * exported.path.stat().st_size


def test_ranges_are_those_of_the_training_images(exported, int8, data) -> None:
    """The input of the second layer, by running the float graph on photos resized by hand."""
    import onnxruntime

    model = onnx.load(exported.path)
    second = [node for node in model.graph.node if node.op_type == "Conv"][1]
    layer = next(node for node in onnx.load(int8[0]).graph.node if node.name == second.name)
    quantised = onnx.load(int8[0]).graph
    values = {value.name: numpy_helper.to_array(value) for value in quantised.initializer}
    scale, zero = (values[name] for name in producers(quantised)[layer.input[0]].input[1:3])
    model.graph.output.add(name=second.input[0])
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    detector, most = exported.predictor.detector, 0.0
    for file in sorted((data / "images" / "train").iterdir()):
        photo = load_image(file)
        size = detector.resize.target_size(*photo.shape[:2])
        pixels = np.zeros((1, 3, *(-(-side // 32) * 32 for side in size)), np.float32)
        resized = resize_image(photo, size, detector.resize)
        pixels[0, :, : size[0], : size[1]] = resized
        given = {"pixels": pixels, "sizes": np.array([size], np.int64)}
        (found,) = session.run([second.input[0]], given)
        assert found.min() >= 0  # after a ReLU
        most = max(most, float(found.max()))
    assert scale == pytest.approx(most / 255, rel=1e-4) and zero == 0


def test_the_file_says_what_it_is_and_val_measures_the_same(exported, int8, data) -> None:
    path, report = int8
    model = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert model.producer_name == "maskwright"
    (entry,) = model.metadata_props
    said = json.loads(entry.value)
    assert entry.key == KEY and said["precision"] == "int8"
    assert said["int8"] == {"images": 2, "before": report.before, "after": report.after}
    assert to_json(from_json(entry.value)) == entry.value
    loaded = mw.load(path)
    assert loaded.detector.spec.quantised.images == report.images == 2
    assert set(report.before) == {"box/AP", "mask/AP"} and report.val_images == 3
    for source, figures in ((exported.path, report.before), (path, report.after)):
        metrics = mw.val(mw.load(source), data, workers=0, **SHOWN)
        assert {key: metrics[key] for key in figures} == figures


def test_it_finds_nearly_the_same(int8) -> None:
    """The objects of the data set are those of the float graph, so AP says how near.

    With random weights scores lie close together: their order costs AP that boxes would not.
    """
    before, after = int8[1].before, int8[1].after
    assert min(before.values()) > 0.99
    assert all(0.3 < ap < 1 for ap in after.values())


def test_openvino_takes_the_same_integers(exported, int8, data, tmp_path: Path) -> None:
    from openvino import Core

    path = tmp_path / "tiny.xml"
    report = quantise(exported.path, data, path, "openvino")
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [
        "tiny.bin",
        "tiny.xml",
    ]
    assert path.with_suffix(".bin").stat().st_size < 0.3 * exported.path.stat().st_size
    stored = sorted(
        op.data.tobytes()
        for op in Core().read_model(path).get_ops()
        if op.get_type_name() == "Constant" and op.get_element_type().get_type_name() == "i8"
        if len(op.shape) > 1
    )
    integers = (numpy_helper.to_array(value) for value in onnx.load(int8[0]).graph.initializer)
    wanted = sorted(v.tobytes() for v in integers if v.dtype == np.int8 and v.ndim > 1)
    assert len(stored) > 30 and stored == wanted
    loaded = mw.load(path)
    assert loaded.detector.spec.precision == "int8"
    assert loaded.detector.spec.quantised.after == report.after
    assert min(report.before.values()) > 0.99
    assert all(0.3 < ap < 1 for ap in report.after.values())


def test_the_guard_refuses_a_graph_that_rounding_ruins(exported, tmp_path: Path) -> None:
    """A channel of huge values that nobody reads: nothing to float, all there is to 8 bits.

    Without it the same graph passes with the same `max_drop`.
    """
    model = onnx.load(exported.path)
    values = {value.name: value for value in model.graph.initializer}
    place = "detector.roi_heads.box_head.fcs"
    for name, index, value in (
        (f"{place}.0.weight", (0,), 0.0),
        (f"{place}.0.bias", (0,), 1e6),
        (f"{place}.1.weight", (slice(None), 0), 0.0),
    ):
        array = numpy_helper.to_array(values[name]).copy()
        array[index] = value
        values[name].CopyFrom(numpy_helper.from_array(array, name))
    ruined = tmp_path / "ruined.onnx"
    onnx.save(model, ruined)
    data = own_findings(tmp_path / "data", mw.load(ruined), exported.photos, **SHOWN)
    target = tmp_path / "out" / "a.onnx"
    with pytest.raises(ValueError) as error:
        quantise(ruined, data, target, max_drop=90)
    text = str(error.value)
    assert "a.onnx was not written: int8 costs more than max_drop=90 points" in text
    figures = re.search(r"box AP ([\d.]+) -> ([\d.]+) \(-([\d.]+)\), mask AP", text)
    assert figures is not None, text
    before, after, drop = map(float, figures.groups())
    assert before > 99 and drop > 90 and before - after == pytest.approx(drop, abs=0.011)
    assert not target.exists()


@pytest.fixture
def float_graph(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph of the tiny model is at hand: tracing it anew would take most of the time."""

    def write(format: str, program: object, path: Path, spec: GraphSpec) -> int:
        shutil.copy(exported.path, path)
        return 1

    monkeypatch.setattr(checked, "write_graph", write)
    monkeypatch.setattr(checked, "trace", lambda *_: None)


def test_the_whole_command(float_graph, exported, data, tmp_path: Path, capsys) -> None:
    reports: list[ExportReport] = []
    options: dict[str, Any] = {"imgsz": None, "max_det": 20, "int8": True, "data": data}
    options |= {"source": exported.photos, "calibration": 1}
    target = tmp_path / "out" / "tiny.onnx"
    path = export(exported.predictor, "onnx", target, max_drop=90, report=reports.append, **options)
    assert path == target and list(target.parent.iterdir()) == [target]
    (report,) = reports
    assert report.int8 is not None and report.int8.images == 1
    assert report.size_bytes == target.stat().st_size < report.int8.float_bytes
    assert report.nodes == len(onnx.load(target).graph.node)
    assert {"quantise", "val"} < set(report.seconds)
    # The float graph was compared with eager torch at the usual tolerances.
    assert len(report.cases) == 4
    assert all(case.match.found == case.match.total for case in report.cases)
    assert mw.load(target).detector.spec.quantised.before == report.int8.before
    print_report(report)
    printed = capsys.readouterr().out
    figures = [f"{100 * report.int8.after[key]:.2f}" for key in ("box/AP", "mask/AP")]
    assert all(figure in printed for figure in figures) and "mask AP (points)" in printed

    # What it finds is not quite the same, so that no loss at all is too much to ask.
    target.unlink()
    with pytest.raises(ValueError, match=r"max_drop=0 points.*calibration=1 of 2 used"):
        export(exported.predictor, "onnx", target, max_drop=0, **options)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["format=onnx"], r"int8=true needs data=\.\.\."),
        (["format=onnx", "half=true", "data=x"], "two precisions"),
        (["format=pt2", "data=x"], "format=onnx and format=openvino, not for format=pt2"),
        (["format=onnx", "data=x", "max_drop=-1"], "max_drop is points of the metrics"),
        (["format=onnx", "data=x", "calibration=0"], "calibration is a number of images"),
        (["format=onnx", "data=x", "int8=false"], "data=...: for int8=true alone"),
    ],
)
def test_wrong_options_are_usage_errors(options, message, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    int8 = [] if "int8=false" in options else ["int8=true"]
    assert main(["export", "model=nuclei", *int8, *options]) == 2
    assert re.search(message, " ".join(capsys.readouterr().err.split()))
    assert not list(tmp_path.iterdir())


def without_split(folder: Path, split: str) -> None:
    (folder / "annotations" / f"{split}.json").unlink()


def change(folder: Path, split: str, key: str, value: Any) -> None:
    """Give each category or annotation of a split another value; None takes it away."""
    file = folder / "annotations" / f"{split}.json"
    content = json.loads(file.read_text())
    for entry in content["categories" if key == "name" else "annotations"]:
        entry.pop(key)
        if value is not None:
            entry[key] = value
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: without_split(folder, "val"), "has no 'val' split"),
        (lambda folder: without_split(folder, "train"), "has no 'train' split"),
        (lambda folder: change(folder, "val", "name", "ship"), "does not know: ship"),
        (lambda folder: change(folder, "val", "segmentation", None), "no masks in its val split"),
    ],
)
def test_data_that_cannot_judge_the_model(exported, data, spoil, message, tmp_path) -> None:
    """Refused at once, before the graph is traced."""
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    spoil(copy)
    target = tmp_path / "a.onnx"
    options: dict[str, Any] = {"max_det": 20, "int8": True, "data": copy}
    with pytest.raises(ValueError, match=message):
        export(exported.predictor, "onnx", target, **options)
    assert list(tmp_path.iterdir()) == [copy]


def test_an_ap_of_nothing_judges_nothing(exported, data, tmp_path: Path) -> None:
    copy = tmp_path / "data"
    shutil.copytree(data, copy)
    change(copy, "val", "bbox", [0, 0, 3, 3])
    change(copy, "val", "segmentation", [[0, 0, 3, 0, 3, 3]])
    with pytest.raises(ValueError, match=r"no objects that the model finds \(box AP 0\.0"):
        quantise(exported.path, copy, tmp_path / "a.onnx")
