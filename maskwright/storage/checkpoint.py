"""Checkpoints: one safetensors file each, tensors plus JSON, nothing executed on load.

The names of the tensors begin with what they are: `model.<key>`, `extra.<key>` (what a converted
file held beyond the model), `ema.<key>` (running average of the weights) and
`optimizer.<parameter>.<slot>`. The JSON stands under the key `maskwright` of the
safetensors metadata and holds the version of this format, the `Meta` of the model and, in a
checkpoint of a running training, the scalars of its state. A reader for prediction touches the
model's tensors only. Each tensor has a checksum there (CRC-32 of its bytes), which is verified.
"""

from __future__ import annotations

import json
import math
import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import first_few
from ..models.meta import Meta
from ..paths import nearest_path, plain_path, takes_paths
from .older_names import backbone_of, modern_names
from .rundir import replacing

FORMAT = 1
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library
# What reading plain data raises where something else stands in its place.
_WRONG_TYPES = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError)


@dataclass
class TrainingState:
    """What a resumed training needs beside the weights.

    Attributes:
        scalars: plain data for JSON: recipe, epoch, step, best metrics.
        optimizer: state tensors by "<parameter>.<slot>".
        ema: the averaged model's state dict; empty when no average is kept.
    """

    scalars: dict[str, Any]
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    ema: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Checkpoint:
    """The content of a checkpoint file.

    Attributes:
        meta: what the model is.
        model: its state dict, float32 on the CPU.
        training: the state of the training, if asked for and stored.
        extras: tensors of a converted file that the model has no place for, kept for the way back.
    """

    meta: Meta
    model: dict[str, Tensor]
    training: TrainingState | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)


def save_checkpoint(
    path: str | Path,
    meta: Meta,
    model: Mapping[str, Tensor],
    *,
    training: TrainingState | None = None,
    extras: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
    previous: Path | None = None,
) -> Path:
    """Write a checkpoint so that a crash leaves either the old file or the new one.

    Args:
        path: where, with the suffix `.safetensors`.
        meta: what the model is.
        model: its state dict.
        training: the state of the training, for a checkpoint that can be resumed.
        extras: tensors of a converted file that the model has no place for.
        dtype: store the model's weights (tensors of two and more dimensions) in this type, e.g.
            `torch.float16` for shipping. None: as they are.
        previous: where the checkpoint is kept that has been at `path`. None: it is not.

    Raises:
        ValueError: if a weight does not fit into `dtype`, or the file cannot be written.
    """
    path = Path(path)
    tensors = {f"model.{key}": _stored(key, value, dtype) for key, value in model.items()}
    tensors |= {f"extra.{key}": value for key, value in (extras or {}).items()}
    if training is not None:
        tensors |= {f"ema.{key}": value for key, value in training.ema.items()}
        tensors |= {f"optimizer.{key}": value for key, value in training.optimizer.items()}
    # Own memory for each: the format knows neither views nor strides.
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    description: dict[str, Any] = {"format": FORMAT, "meta": meta.to_dict()}
    if training is not None:
        description["training"] = training.scalars
    description["crc32"] = {key: _checksum(value) for key, value in tensors.items()}
    text = json.dumps(_finite(description), allow_nan=False)
    with replacing(path, previous=previous) as temporary:
        _write_tensors(temporary, tensors, {"maskwright": text})
    return path


@takes_paths
def load_checkpoint(path: str | Path, *, training: bool = False) -> Checkpoint:
    """Read a checkpoint, or the best one of a run folder.

    Args:
        path: a `.safetensors` file or a run folder.
        training: read everything that a resumed training needs. False: only the weights to
            predict with, which are the averaged ones where an average was kept.

    Raises:
        ValueError: if the file is missing, truncated, damaged, of another kind (pickles are
            refused) or of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    path = resolve_checkpoint(path)
    description, keys = _read_description(path)
    has_ema = any(key.startswith("ema.") for key in keys)
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "extra": {}, "ema": {}, "optimizer": {}}
    wanted = set(groups) if training else {"ema" if has_ema else "model", "extra"}
    checksums = description.get("crc32", {})  # older files have none
    try:
        with (
            plain_path(path) as plain,
            safe_open(plain, framework="pt", device="cpu") as file,
        ):
            for key in keys:
                group, _, name = key.partition(".")
                if group in wanted:
                    tensor = file.get_tensor(key)
                    if key in checksums and _checksum(tensor) != checksums[key]:
                        raise ValueError(
                            f"{path}: the file is damaged ({key} does not match its checksum); "
                            "copy it again"
                        )
                    if tensor.is_floating_point() and tensor.dtype.itemsize < 4:
                        tensor = tensor.float()
                    require_finite(path, key, tensor)
                    groups[group][name] = tensor
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from None
    try:
        meta = Meta.from_dict(description["meta"])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    backbone = backbone_of(meta)
    groups = {group: modern_names(tensors, backbone) for group, tensors in groups.items()}
    if not training:
        return Checkpoint(meta, groups["ema" if has_ema else "model"], extras=groups["extra"])
    state = None
    if "training" in description:
        scalars = description["training"]
        if not isinstance(scalars, dict):
            raise ValueError(f"{path}: the state of the training is damaged")
        state = TrainingState(scalars, groups["optimizer"], groups["ema"])
    return Checkpoint(meta, groups["model"], state, groups["extra"])


def require_finite(source: str | Path, key: str, tensor: Tensor) -> None:
    """Raise ValueError if a tensor holds NaN or infinity: such a model finds nothing, silently."""
    # Types of 8 bits have no such test of their own.
    values = tensor.float() if tensor.itemsize == 1 else tensor
    if tensor.is_floating_point() and not torch.isfinite(values).all():
        raise ValueError(
            f"{source}: {key} holds numbers that are not finite: the training that wrote it had "
            "failed, or the file is damaged; take an earlier checkpoint"
        )


def load_state(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy a state dict into a module that it fits, see `check_state`.

    Args:
        module: gets the values, in its own type and on its own device.
        state: the values.
        source: where they come from, for the message.

    Raises:
        ValueError: as `check_state` does.
    """
    check_state(module, state, source)
    module.load_state_dict(state)


def check_state(module: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Check that a module and a state dict name the same tensors, of the same shapes and kinds.

    Args:
        module: may be without memory, on the device "meta".
        state: the values.
        source: where they come from, for the message.

    Raises:
        ValueError: naming the first few keys that are missing, left over, of another shape, or
            whole numbers in place of fractions.
    """
    own = module.state_dict()
    shapes = [
        f"{key} is {tuple(state[key].shape)}, expected {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    kinds = [
        f"{key} is {state[key].dtype}, expected {own[key].dtype}"
        for key in own
        if key in state and _kind(state[key]) != _kind(own[key])
    ]
    faults = [
        ("missing", [key for key in own if key not in state]),
        ("not in the model", [key for key in state if key not in own]),
        ("of another shape", shapes),
        ("of another type", kinds),
    ]
    parts = [f"{len(names)} {what}: {first_few(names, 4)}" for what, names in faults if names]
    if parts:
        raise ValueError(
            f"{source}: the weights do not fit the model ({'; '.join(parts)}); was it built with "
            "other options, or for another number of names?"
        )


def _kind(tensor: Tensor) -> tuple[bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex()


@takes_paths
def resolve_checkpoint(path: str | Path, which: str = "best") -> Path:
    """Return the checkpoint file that `path` means: itself, or one inside a run folder.

    Args:
        path: a file or a run folder.
        which: "best" or "last"; where a run folder has only the other one, that one is taken.

    Raises:
        ValueError: if there is none.
    """
    path = Path(path)
    if path.is_dir():
        order = ["best", "last"] if which == "best" else ["last", "best"]
        for name in order:
            if (path / "weights" / f"{name}.safetensors").is_file():
                return path / "weights" / f"{name}.safetensors"
        runs = [*path.glob("*/weights/*.safetensors"), *path.glob("*/*/weights/*.safetensors")]
        meant = f"; did you mean {str(max(runs).parents[1])!r}?" if runs else ""
        raise ValueError(
            f"{path}: no checkpoint in this folder (no weights/best.safetensors){meant}"
        )
    if not path.is_file():
        raise ValueError(f"{path}: no such checkpoint or run folder{nearest_path(path)}")
    return path


def _stored(key: str, value: Tensor, dtype: torch.dtype | None) -> Tensor:
    # Biases and norm statistics are few and sensitive: they stay in float32.
    if dtype is None or not value.is_floating_point() or value.dim() < 2:
        return value
    small = value.to(dtype)
    if not torch.isfinite(small).all() and torch.isfinite(value).all():
        raise ValueError(f"{key}: {float(value.abs().max()):.3g} does not fit into {dtype}")
    return small


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def _read_description(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the JSON description and the tensor names of a file that is whole."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise ValueError(
                f"{path}: a pickled checkpoint is refused, because loading it may execute code; "
                "use `maskwright convert` to turn its tensors into our format"
            )
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length < 2:
            raise ValueError(f"{path}: not a safetensors file")
        if length > MAX_HEADER:
            raise ValueError(
                f"{path}: not a safetensors file, or its header is too large ({length} bytes, at "
                f"most {MAX_HEADER})"
            )
        if 8 + length > size:
            raise ValueError(f"{path}: the file is truncated inside its header")
        try:
            header = json.loads(file.read(length))
            metadata = header.pop("__metadata__", {})
            end = max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
            metadata = {str(key): value for key, value in metadata.items()}
        except (*_WRONG_TYPES, RecursionError):
            raise ValueError(f"{path}: not a safetensors file (its header is no JSON)") from None
    if 8 + length + end > size:
        raise ValueError(
            f"{path}: the file is truncated ({size} bytes of {8 + length + end}); copy it again"
        )
    if "maskwright" not in metadata:
        raise ValueError(
            f"{path}: a safetensors file, but not a checkpoint of maskwright; use `maskwright "
            "convert` for weights of another library"
        )
    try:
        description: dict[str, Any] = json.loads(metadata["maskwright"])
        version = description["format"]
        if type(version) is not int or version < 1:
            raise ValueError
        if version <= FORMAT and not isinstance(description["meta"], dict):
            raise ValueError
    except (*_WRONG_TYPES, RecursionError):
        raise ValueError(
            f"{path}: the description of the checkpoint is damaged; copy the file again, or take "
            "another one"
        ) from None
    if version > FORMAT:
        raise ValueError(
            f"{path}: written in format {version} by a newer maskwright, this one reads up to "
            f"{FORMAT}; upgrade with `pip install -U maskwright`"
        )
    return description, list(header)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON does not know, by null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
