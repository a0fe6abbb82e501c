"""Darknet's `.weights` and `.cfg` as checkpoints of ours, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..converters import Converted, ConvertReport
from ..converters.darknet import cfg_of, from_maskwright, model_of, read_cfg, to_maskwright
from ..errors import OptionError
from ..files import replacing
from ..models.base import Model
from ..models.darknet import table_of
from ..models.meta import Meta
from ..models.registry import ModelEntry, build_blank, get_entry
from ..nn.darknet.table import Table
from ..storage.checkpoint import Checkpoint, check_state, save_checkpoint

# As Darknet predicts on a CPU: what its detections are compared with.
CONVENTIONS = "darknet_cpu"


def is_darknet(entry: ModelEntry) -> bool:
    """Whether a model is a table of layers, so that Darknet's files can be its weights."""
    return "layers" in entry.arguments()


def convert_in(
    src: Path, dst: Path, *, model: str | None, cfg: Path | None, conventions: str | None
) -> ConvertReport:
    """Make a checkpoint of Darknet's weights; see `read_darknet`.

    Args:
        src: the `.weights`.
        dst: the `.safetensors` to write.
        model, cfg, conventions: see `read_darknet`.
    """
    checkpoint, report = read_darknet(src, model=model, cfg=cfg, conventions=conventions)
    save_checkpoint(dst, checkpoint.meta, checkpoint.model, extras=checkpoint.extras)
    return report


def read_darknet(
    src: Path,
    *,
    model: str | None = None,
    cfg: Path | None = None,
    conventions: str | None = None,
) -> tuple[Checkpoint, ConvertReport]:
    """Return Darknet's weights as a checkpoint of ours, and what became of them.

    Args:
        src: the `.weights`.
        model: our name of the model; None: as the network says.
        cfg: the network; None: the `.cfg` of the same name beside the weights.
        conventions: of the model; None: as Darknet predicts on a CPU.

    Raises:
        ValueError: if a file cannot be read, or is of another network.
    """
    described = cfg_of(src, cfg)
    text, table = read_cfg(described)
    entry = get_entry(model or model_of(table))
    _check_model(entry, table, src)
    converted = to_maskwright(src, text, table, names=_names(src))
    options = {**converted.options, **_conventions(entry, conventions)}
    blank = _blank(entry, len(converted.names), options, described)
    check_state(blank, converted.state, src)
    meta = Meta(
        entry.name,
        options,
        converted.names,
        converted.category_ids,
        source=f"converted from {src.name} (darknet)",
    )
    return Checkpoint(meta, converted.state, extras=converted.extras), converted.report


def convert_out(checkpoint: Checkpoint, entry: ModelEntry, dst: Path) -> ConvertReport:
    """Write `.weights` of a checkpoint, and beside them the `.cfg` of the same name.

    Raises:
        ValueError: if the model is no table of layers.
    """
    if not is_darknet(entry):
        raise ValueError(f"Darknet has no counterpart of {entry.name}")
    args = checkpoint.meta.args
    with replacing(dst) as temporary:
        text, report = from_maskwright(
            temporary,
            checkpoint.model,
            checkpoint.extras,
            args,
            _own_table(entry, args),
            len(checkpoint.meta.names),
        )
    with replacing(dst.with_suffix(".cfg")) as temporary:
        temporary.write_bytes(text.encode("utf-8", "surrogateescape"))
    report.notes.append(f"the network is in {dst.with_suffix('.cfg').name}")
    return report


def darknet_start(path: Path, entry: ModelEntry, options: Mapping[str, Any]) -> Converted:
    """Return weights that a training of a model starts from: all layers, or the first ones.

    Args:
        path: `.weights`, or a body such as `darknet19_448.conv.23`.
        entry: the model.
        options: its options; without a `.cfg` beside the weights they tell the network.

    Raises:
        ValueError: if the file is of another network.
    """
    if not is_darknet(entry):
        raise ValueError(f"{path}: Darknet's weights are for its own networks, not {entry.name}")
    beside = path.with_suffix(".cfg")
    if beside.is_file():
        text, table = read_cfg(beside)
        _check_model(entry, table, path)
        converted = to_maskwright(path, text, table, names=_names(path), body=True)
        converted.options.update(_conventions(entry, options.get("conventions")))
        _blank(entry, len(converted.names), converted.options, beside)
        return converted
    # The classes are those of the network by itself: a body ends before the layer that has them.
    return to_maskwright(path, "", _own_table(entry, options), body=True)


def _own_table(entry: ModelEntry, options: Mapping[str, Any]) -> Table:
    args = entry.resolved({key: options[key] for key in ("form", "layers") if key in options})
    return table_of(args.get("form", entry.name), args["layers"])


def _blank(entry: ModelEntry, count: int, options: Mapping[str, Any], cfg: Path) -> Model:
    """Return the model of a network without memory; an error names the file that describes it."""
    try:
        built: Model = build_blank(entry.name, count, **options)
    except ValueError as error:
        raise ValueError(f"{cfg}: {str(error).removeprefix('layers: ')}") from None
    return built


def _check_model(entry: ModelEntry, table: Table, path: Path) -> None:
    """Raise ValueError unless a model is of the kind of a network."""
    kind = get_entry(model_of(table))
    if not is_darknet(entry) or entry.family != kind.family:
        raise ValueError(f"{path}: its network is a {kind.name}, not a {entry.name}")


def _conventions(entry: ModelEntry, asked: str | None) -> dict[str, str]:
    if "conventions" not in entry.arguments():
        if asked is not None:
            raise OptionError(f"conventions={asked}: {entry.name} knows none")
        return {}
    return {"conventions": asked or CONVENTIONS}


def _names(path: Path) -> list[str] | None:
    """Return the lines of a `.names` file beside weights; None without one."""
    file = path.with_suffix(".names")
    if not file.is_file():
        return None
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]
