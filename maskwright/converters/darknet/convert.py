"""From Darknet's files to a checkpoint's content, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...nn.darknet.network import DarknetNetwork
from ...nn.darknet.table import Table, head_of, read_table, unknown_keys, with_anchors, with_classes
from ...nn.darknet.table import write_table as text_of
from ...paths import nearest_path
from ..common import COCO_91_NAMES, Converted, ConvertReport
from .weights import Weights, read_weights, write_weights

# Which of our models a network is, by the kind of its last layer.
MODELS = {"detection": "yolo_v1", "region": "yolo_v2", None: "darknet19"}
SEEN = "head.seen"
VOC_NAMES = (
    "aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,motorbike,"
    "person,pottedplant,sheep,sofa,train,tvmonitor"
)


def read_cfg(path: Path) -> tuple[str, Table]:
    """Return the text and the table of a `.cfg` file.

    Raises:
        ValueError: if it is missing, or describes no network that can be built; it names the file.
    """
    try:
        # Comments may be in any encoding; the way back has the same bytes.
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        return text, read_table(text)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def cfg_of(path: Path, given: Path | None) -> Path:
    """Return the `.cfg` file of weights: that which is given, or of their name beside them.

    Raises:
        ValueError: if there is none, or there are no such weights.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist{nearest_path(path)}")
    if given is not None:
        return given
    beside = path.with_suffix(".cfg")
    if not beside.is_file():
        raise ValueError(
            f"{path}: Darknet's weights say nothing of their network: put its {beside.name} beside "
            "them, or name it as cfg=FILE"
        )
    return beside


def model_of(table: Table) -> str:
    """Return the name of our model of a network: "yolo_v1", "yolo_v2" or "darknet19"."""
    head = head_of(table)
    return MODELS[None if head is None else head.kind]


def network_of(table: Table) -> DarknetNetwork:
    """Return the network of a table without memory."""
    with torch.device("meta"):
        return DarknetNetwork(table)


def to_maskwright(
    path: Path, text: str, table: Table, *, names: list[str] | None = None, body: bool = False
) -> Converted:
    """Read the weights of a network.

    Args:
        path: the file.
        text: of the `.cfg`, which becomes the option `layers`; "": that option stays as it is.
        table: the same, read.
        names: of the classes; None: those of COCO or Pascal VOC where there are as many.
        body: the file may end after any layer, for a training to start from.

    Raises:
        ValueError: see `weights.read_weights`; and if the file is a body and should be all.
    """
    report = ConvertReport()
    try:
        network = network_of(table)
        found = read_weights(path, network)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not found.whole and not body:
        raise ValueError(
            f"{path}: ends after layer {found.layers - 1}, and the network has "
            f"{len(network.sections)}: it is a body for trainings to start from, as weights={path}"
        )
    head = head_of(table)
    prefix = "network.body." if head is None else "backbone.body."
    state = {prefix + name: value for name, value in found.state.items()}
    for name, value in network.state_dict().items():
        # A counter that Darknet's norms do not have, and the offset that its lone ones lack.
        alone = name.endswith(".bias") and name.count(".") == 2
        lacking = name.endswith("num_batches_tracked") or (alone and name not in found.state)
        layer = int(name.split(".")[1])
        if lacking and layer < found.layers:
            state[prefix + name] = torch.zeros(value.shape, dtype=value.dtype)
    extras: dict[str, Tensor] = {}
    seen = torch.tensor(found.header.seen)
    if head is None:
        extras["seen"] = seen
        count = network.output[0]
    else:
        state[SEEN] = seen
        count = int(head["classes"])
    report.used += [f"layer {number}" for number in range(found.layers)]
    report.notes += _notes(found, table)
    ours = _class_names(count, names, report)
    options = {"layers": text} if text else {}
    ids = list(range(1, count + 1))
    return Converted(state, options, ours, ids, extras, report, body=not found.whole)


def _notes(found: Weights, table: Table) -> list[str]:
    notes = []
    if not found.whole:
        notes.append(f"the file ends after layer {found.layers - 1}: the others start afresh")
    version = found.header.version
    told = "without a version" if version is None else "version {}.{}.{}".format(*version)
    notes.append(f"header {told}, {found.header.seen} images seen")
    if unknown := unknown_keys(table):
        notes.append(f"unknown keys, left out: {', '.join(unknown)}")
    return notes


def _class_names(count: int, names: list[str] | None, report: ConvertReport) -> list[str | None]:
    if names is not None:
        if len(names) == count:
            return list(names)
        report.notes.append(
            f"{len(names)} names were given, the network has {count} classes: they are left out"
        )
    known: dict[int, list[str | None]] = {
        80: [name for name in COCO_91_NAMES if name is not None],
        20: list(VOC_NAMES.split(",")),
    }
    if count in known:
        report.notes.append(f"{count} classes: named as those of {'COCO' if count > 20 else 'VOC'}")
        return known[count]
    return [f"class_{number}" for number in range(1, count + 1)]


def from_maskwright(
    path: Path,
    state: Mapping[str, Tensor],
    extras: Mapping[str, Tensor],
    args: Mapping[str, Any],
    table: Table,
    num_classes: int,
) -> tuple[str, ConvertReport]:
    """Write the weights of a model of ours, and return the text of their `.cfg`.

    Args:
        path: the file to write.
        state: tensors by our names.
        extras: what a conversion kept.
        args: options of the model.
        table: the network, as the options have it before its classes are changed.
        num_classes: of the model.
    """
    report = ConvertReport()
    text = str(args.get("layers", ""))
    asked = with_classes(table, num_classes)
    if args.get("anchors") is not None:
        asked = with_anchors(asked, tuple(args["anchors"]))
    if not text or read_table(text) != asked:
        text = text_of(asked)
    network = network_of(asked)
    prefix = "network.body." if head_of(asked) is None else "backbone.body."
    own = {name.removeprefix(prefix): value for name, value in state.items()}
    lost = [
        name
        for name, value in own.items()
        if name.startswith("layers.")
        and name.count(".") == 2
        and name.endswith(".bias")
        and network.sections[int(name.split(".")[1])].kind == "batchnorm"
        and bool(value.any())
    ]
    if lost:
        raise ValueError(f"{', '.join(lost)}: Darknet's files have no place for these offsets")
    seen = state.get(SEEN, extras.get("seen", torch.zeros(())))
    write_weights(path, network, own, int(seen))
    report.used += [f"layer {section.number}" for section in network.sections]
    report.notes.append(f"header version 0.2.0, {int(seen)} images seen")
    return text, report
