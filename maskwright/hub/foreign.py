"""Weights of other libraries, or of ours without a description, from a file into our layout."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..converters import CONVERTERS, Converted, ConvertReport, detect_format, networks
from ..converters.anatomy import find_model, refuse_strange
from ..converters.common import default_skeleton, is_known_name, require
from ..converters.detectron import Renamed, completed, is_body, to_detectron2
from ..errors import OptionError, first_few
from ..models.conventions import CONVENTIONS
from ..models.detection.base import Detector
from ..models.registry import ModelEntry, build_blank, find_entry, get_entry
from ..models.transfer import class_rows
from ..storage.older_names import modern_names
from ..storage.published import WeightsFile, read_weights


def convert_weights(
    path: Path,
    entry: ModelEntry,
    options: Mapping[str, Any],
    *,
    drop_unused: bool = False,
    conventions: str | None = None,
    file: WeightsFile | None = None,
) -> Converted:
    """Return the weights of a file in our layout, whatever library wrote it.

    Args:
        path: the file.
        entry: the model that they belong to.
        options: builder options that are known already.
        drop_unused: leave out the classes without a name.
        conventions: rules of the source if the file cannot tell; see `hub.convert`.
        file: what is in it, if it was read.

    Raises:
        ValueError: if the file cannot be read or does not fit the model.
    """
    if conventions is not None and conventions not in CONVENTIONS:
        raise OptionError(f"conventions is one of {', '.join(CONVENTIONS)}; got {conventions!r}")
    detector = build_blank(entry.name, 1, **options)
    ours = list(detector.state_dict())
    if file is None:
        file = read_weights(path, known_names(entry, ours))
    tensors: Mapping[str, Tensor] = file.tensors
    told: dict[str, Any] = {}
    blobs: Renamed | None = None
    try:
        found = found_format(tensors, entry, ours)
        if not converts_by_name(entry) and found != "maskwright":
            refuse_strange(tensors)
            blobs, found = read_as(tensors, found)
            if blobs is not None:
                tensors, conventions = blobs.tensors, conventions or blobs.conventions
            conventions = conventions or file.rules
            told = told_options(tensors, found, entry, {**file.options, **options})
            known = entry.arguments()
            told |= {k: v for k, v in file.options.items() if k in known and k not in options}
            if told:
                ours = list(build_blank(entry.name, 1, **{**options, **told}).state_dict())
        if converts_by_name(entry):
            told = networks.told_options(tensors, model=entry.name, source=found)
            blank = build_blank(entry.name, 1, **{**options, **told})
            converted = networks.to_maskwright(
                tensors,
                list(blank.state_dict()),
                model=entry.name,
                source=found,
                final=final_layer(blank),
            )
        elif found == "maskwright":
            converted = _own_weights(modern_names(tensors, detector.backbone.name), detector)
            warnings.warn(
                f"{path} says nothing of its model: classes have no names, image size and anchors "
                f"are those of {entry.name}; if it was trained with others, it finds little, so "
                "take the checkpoint that the training wrote",
                stacklevel=3,
            )
        else:
            to_ours, _ = CONVERTERS[found]
            converted = to_ours(tensors, ours, drop_unused=drop_unused, conventions=conventions)
            known = {key: told[key] for key in file.options if key in told}
            converted.options.update({**told, **converted.options, **known})
            if blobs is not None:
                tell_origins(converted.report, blobs)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    except (RuntimeError, IndexError) as error:  # rows and columns that cannot be reordered
        raise ValueError(
            f"{path}: its tensors have not the shapes of {entry.name} ({error}); is it another "
            "model?"
        ) from None
    for key in file.beside:
        converted.report.ignored[key] = f"beside the weights, which stand at {file.place}"
    if file.unread:
        converted.report.notes.append(
            f"left unread beside the weights: {first_few(file.unread, 6)}"
        )
    if file.names is not None and len(file.names) == len(converted.names):
        converted.names[:] = file.names
    elif file.names is not None:
        converted.report.notes.append(
            f"the file names {len(file.names)} classes, its tensors have {len(converted.names)}: "
            "the names are left out"
        )
    return converted


def read_as(tensors: Mapping[str, Tensor], source: str) -> tuple[Renamed | None, str]:
    """Return tensors under the names that a converter knows, None: they are, and its library.

    Args:
        tensors: by the names of a library.
        source: the library; Detectron's names go to those of detectron2, and so do names of which
            only the ends are there.
    """
    if source == "detectron":
        return to_detectron2(tensors), "detectron2"
    return (completed(tensors) if source == "detectron2" else None), source


def tell_origins(report: ConvertReport, blobs: Renamed) -> None:
    """Let a report of a conversion speak of the names that the file has."""
    made = [key for key in report.used if key not in blobs.origins]
    report.used[:] = [blobs.origins[key] for key in report.used if key in blobs.origins]
    report.ignored.update(blobs.ignored)
    report.filled.update(dict.fromkeys(made, "what makes a norm its factor and summand alone"))


def told_options(
    tensors: Mapping[str, Tensor], source: str, entry: ModelEntry, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the builder options that tensors tell and that are neither given nor usual.

    Args:
        tensors: by the names of a library.
        source: the library.
        entry: the model.
        options: those that are given.

    Raises:
        ValueError: if their backbone is that of another model.
    """
    found = find_model(tensors, source)
    usual = {**entry.arguments(), **options}
    if found is None:
        return {}
    name, backbone = found[0], found[1].get("backbone", usual.get("backbone"))
    if backbone != usual.get("backbone") and find_entry(name) is not None:
        raise ValueError(f"it holds a {name}, not a {entry.name}")
    return {
        name: value
        for name, value in found[1].items()
        if name not in options and usual.get(name, value) != value
    }


def recognised(path: Path) -> tuple[ModelEntry, WeightsFile]:
    """Return the detector that a file of another library holds, and what is in it.

    Raises:
        ValueError: if the file is of none, or does not tell which.
    """
    file = read_weights(path)
    if not any(map(is_known_name, file.tensors)) and _is_backbone(file.tensors):
        raise ValueError(
            f"{path}: it holds a classifier, or the backbone of one: weights={path} starts the "
            f"training of a detector from it; to use a classifier itself give model=NAME too"
        )
    try:
        refuse_strange(file.tensors)
        source = detect_format(file.tensors)
        blobs, source = read_as(file.tensors, source)
        tensors = file.tensors if blobs is None else blobs.tensors
        found = None if source == "maskwright" else find_model(tensors, source)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if found is None:
        raise ValueError(
            f"{path}: the file is incomplete, or does not tell which model it is of: give "
            f"model=NAME weights={path}, and to `convert` model=NAME"
        )
    name, options = found
    entry = find_entry(name) or get_entry(name.replace(options["backbone"], "resnet50"))
    return entry, file


def _is_backbone(names: Iterable[str]) -> bool:
    """Whether tensors are those of a ResNet by the names of Caffe2, detectron2 or torchvision."""
    return any(is_body(name) or name == "layer1.0.conv1.weight" for name in names)


def converts_by_name(entry: ModelEntry) -> bool:
    """Whether the weights of a model go to other libraries and back by `converters.networks`."""
    return entry.kind in ("classifier", "segmenter")


def known_names(entry: ModelEntry, ours: list[str]) -> Callable[[str], bool]:
    """Return what tells whether a tensor in a file may be one of a model, by its name."""
    if converts_by_name(entry):
        return networks.known_name(entry.name, ours)
    return is_known_name


def found_format(tensors: Iterable[str], entry: ModelEntry, ours: list[str]) -> str:
    """Return whose names tensors have: a library's, or our own, "maskwright".

    Args:
        tensors: names of the tensors of a file.
        entry: the model that they should belong to.
        ours: our names of its tensors.

    Raises:
        ValueError: if they are of no known library, or of another network.
    """
    if converts_by_name(entry):
        return networks.detect_layout(tensors, entry.name, ours)
    return detect_format(tensors)


def final_layer(model: nn.Module) -> str:
    """Return the full name of the layer of a classifier or segmenter whose rows are the classes."""
    return f"network.{model.get_submodule('network').final}"


def _own_weights(state: Mapping[str, Tensor], detector: Detector) -> Converted:
    """Return weights that have our names already: the state dict of a detector, saved by itself.

    The classes are counted by the rows of their scores; what they are called is not known.
    """
    own = detector.state_dict()
    key, (rows, last) = next(iter(class_rows(detector).items()))
    count = require(state, key).shape[0] // rows - int(last)
    names: list[str | None] = [f"class_{i}" for i in range(1, count + 1)]
    report = ConvertReport(used=[name for name in own if name in state])
    report.ignored.update({name: "not part of this model" for name in state if name not in own})
    found = {name: require(state, name) for name in own}
    skeleton = default_skeleton(detector.num_keypoints)
    return Converted(found, {}, names, list(range(1, count + 1)), {}, report, skeleton)
