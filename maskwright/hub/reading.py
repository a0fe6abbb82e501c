"""Weights by a published name or a path, and the model that they describe, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..converters import Converted
from ..converters.darknet import is_weights
from ..errors import OptionError, nearest
from ..models.base import Model
from ..models.meta import Meta
from ..models.registry import (
    ModelEntry,
    Unfilled,
    build,
    build_blank,
    find_entry,
)
from ..paths import plain_path
from ..storage.checkpoint import Checkpoint, check_state, load_checkpoint
from ..storage.published import fetch, is_safetensors
from .classifiers import merged
from .darknet import darknet_start, read_darknet
from .foreign import convert_weights, recognised
from .names import SHIPPED_MODELS, shipped_for

# Before the path of a classifier's weights that a backbone starts from.
LOCAL_BACKBONE = "imagenet:"


def same_model(meta: Meta, entry: ModelEntry, backbone: str | None, weights: str | Path) -> None:
    """Check that weights belong to the model that was asked for.

    Raises:
        ValueError: if they are another model's.
    """
    if meta.model != entry.name:
        raise ValueError(
            f"weights={weights} is a {meta.model}, not a {entry.name}: load it by itself, as "
            f"model={weights}"
        )
    own = meta.args.get("backbone", entry.arguments().get("backbone"))
    if backbone is not None and backbone != own:
        raise ValueError(f"weights={weights} has the backbone {own}, not {backbone}")


def same_kind(meta: Meta, entry: ModelEntry, weights: str | Path) -> None:
    """Check that training does not start a classifier from a detector, or a detector from it.

    Detectors and localizers share their backbones under one name, classifiers with neither.

    Raises:
        ValueError: if so; the message says what to give.
    """
    theirs = find_entry(meta.model)
    if theirs is None or "classifier" not in (theirs.kind, entry.kind) or theirs.kind == entry.kind:
        return
    if theirs.kind == "classifier":
        mend = f"weights={LOCAL_BACKBONE}{weights} starts the backbone from them"
    else:
        mend = "give those of a classifier, weights=imagenet or weights=none"
    raise ValueError(
        f"weights={weights}: these are a {theirs.kind}'s weights ({meta.model}), and "
        f"{entry.name} is a {entry.kind}: {mend}"
    )


def build_described(meta: Meta, state: Mapping[str, Tensor], source: str | Path) -> Model:
    """Build the model that a checkpoint describes; see `check_described`.

    Its weights are whatever was in memory: load the state next.

    Raises:
        ValueError: if it cannot be built, or the tensors do not fit it.
    """
    check_described(meta, state, source)
    with Unfilled():
        model: Model = build(meta.model, len(meta.names), **meta.args)
    return model


def check_described(meta: Meta, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Check that a description can be built and fits its tensors, without memory.

    The description of a file may claim any size, its tensors cannot.

    Raises:
        ValueError: if not.
    """
    try:
        blank = build_blank(meta.model, len(meta.names), **meta.args)
    except Exception as error:  # the options come from a file: they may be anything
        raise ValueError(
            f"{source}: the model that it describes cannot be built ({error}); it was written by "
            "another version of maskwright, or is damaged"
        ) from None
    check_state(blank, state, source)


def read_weights(entry: ModelEntry, weights: str | Path, options: dict[str, Any]) -> Checkpoint:
    """Return weights by published name or path, in our layout."""
    if str(weights) in entry.weights:
        published = entry.weights[str(weights)]
        options = merged(published.options, options)
        converted = convert_weights(fetch(published), entry, options)
        licence, source = published.licence, published.source
    else:
        shipped = SHIPPED_MODELS.get(str(weights))
        path = Path(weights) if shipped is None else shipped.path
        if not path.exists():
            known = [*dict.fromkeys([*entry.weights, "imagenet", "none"]), *shipped_for(entry)]
            # What looks like a file is one that is missing; a name is a slip of the fingers.
            kind = ValueError if path.suffix or len(path.parts) > 1 else OptionError
            raise kind(
                f"weights={str(weights)!r} is neither a file, a run folder nor a name; "
                f"{entry.name} knows {', '.join(known)}{nearest(str(weights), known)}"
            )
        if path.is_dir() or is_ours(path):
            return load_checkpoint(path)
        convert = darknet_start if is_weights(path) else convert_weights
        converted = convert(path, entry, options)
        licence, source = "", f"converted from {path.name}"
    return _described(entry, converted, options, licence=licence, source=source)


def _described(
    entry: ModelEntry,
    converted: Converted,
    options: Mapping[str, Any],
    *,
    licence: str,
    source: str,
) -> Checkpoint:
    """Return converted weights with the description of their model."""
    meta = Meta(
        entry.name,
        {**options, **converted.options},
        converted.names,
        converted.category_ids,
        converted.skeleton,
        licence=licence,
        source=source,
        extra={"body": True} if converted.body else {},
    )
    return Checkpoint(meta, converted.state, extras=converted.extras)


def read_model(path: Path) -> Checkpoint:
    """Return the checkpoint or the run folder at a path, or the detector of another library.

    Raises:
        ValueError: if it is none of them, or does not tell which model it is of.
    """
    if path.is_dir() or not path.is_file() or is_ours(path):
        return load_checkpoint(path)
    if is_weights(path):
        return read_darknet(path)[0]
    entry, file = recognised(path)
    converted = convert_weights(path, entry, {}, file=file)
    return _described(entry, converted, {}, licence="", source=f"converted from {path.name}")


def is_ours(path: Path) -> bool:
    """Whether a file is a checkpoint of maskwright, not just any safetensors file."""
    if not is_safetensors(path):
        return False
    from safetensors import SafetensorError, safe_open

    try:
        with plain_path(path) as plain, safe_open(plain, framework="pt") as file:
            return "maskwright" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return True  # let the checkpoint reader say what is wrong
