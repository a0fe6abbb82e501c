"""Weights files that others published: fetched once and checked, read without running anything."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import Tensor

from ..converters.common import is_known_name
from ..converters.state_dicts import (
    TooMuchError,
    class_names,
    contents,
    items_of,
    named_tensors,
    subset,
    told_settings,
    weights_prefix,
)
from ..converters.torch_file import CutOffError, NoTensorError, TensorRecord, open_torch_file
from ..files import MENDS, write_fault
from ..models.registry import PublishedWeights
from ..paths import cache_dir, plain_path
from ..terminal.console import progress
from .checkpoint import require_finite


def fetch(weights: PublishedWeights) -> Path:
    """Return the local copy of a published file, fetching it the first time.

    Raises:
        ValueError: if it can neither be found nor fetched (the message tells where to put it), or
            its SHA-256 is not the published one.
    """
    name = weights.url.rsplit("/", 1)[1]
    path = cache_dir() / name
    if not path.is_file():
        part = path.with_name(f"{name}.{os.getpid()}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with urllib.request.urlopen(weights.url, timeout=30) as reply, part.open("wb") as file:
                size = int(reply.headers.get("Content-Length") or 0)
                with progress(f"fetch {name}", total=size or None, unit="B") as bar:
                    while block := reply.read(1 << 20):
                        file.write(block)
                        bar.update(len(block))
            part.replace(path)
        except OSError as error:  # of the network too
            if error.errno in MENDS:
                advice = "make room, or set MASKWRIGHT_HOME to a folder that can be written"
                raise write_fault(path, error, advice) from None
            raise ValueError(
                f"{name} could not be fetched ({error}). Fetch it where there is a network from "
                f"{weights.url} ({weights.licence}) and put it at {path}"
            ) from None
        finally:
            part.unlink(missing_ok=True)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if not digest.hexdigest().startswith(weights.sha256):
        raise ValueError(
            f"{path} is not the published file: its SHA-256 begins with "
            f"{digest.hexdigest()[:16]}, expected {weights.sha256}; delete it and fetch it again"
        )
    return path


@dataclass(frozen=True)
class WeightsFile:
    """The weights in a file of anyone.

    Attributes:
        tensors: by the names that their network gives them.
        names: the names of the labels, if the file tells them.
        place: what stood before these names in the file: wrappers and prefixes.
        beside: full names of the other tensors.
        rules: the conventions that a configuration beside them tells, see `models.conventions`.
        options: builder options that it tells.
        author: who made it, as files of detectron2 say.
        unread: names of the objects that lie beside the weights.
    """

    tensors: dict[str, Tensor]
    names: list[str] | None = None
    place: str = ""
    beside: tuple[str, ...] = ()
    rules: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    author: str = ""
    unread: tuple[str, ...] = ()


def read_tensors(path: Path, known: Callable[[str], bool] = is_known_name) -> dict[str, Tensor]:
    """Return the tensors of `read_weights`."""
    return read_weights(path, known).tensors


def read_weights(path: Path, known: Callable[[str], bool] = is_known_name) -> WeightsFile:
    """Read the weights in a `.safetensors` or a torch file, executing nothing.

    They may stand below any wrapper and behind any prefix, beside any other objects, and in a
    network that was saved whole.

    Args:
        path: the file.
        known: tells the names that are looked for; by default those of known models.

    Raises:
        ValueError: if the file is missing, damaged, no such file, or holds no tensors by name, or
            an object that is not known to lie beside weights.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if is_safetensors(path):
        return _chosen(path, _read_safetensors(path), known, None)
    _refuse_bomb(path)
    try:
        content, unread = open_torch_file(path)
        found = named_tensors(content)
    except (UnpicklingError, OSError, TooMuchError) as error:
        raise ValueError(f"{path}: cannot be read as a torch file: {error}") from None
    if not found:
        raise ValueError(
            f"{path}: holds no dictionary of tensors, but {contents(content)}; save the weights "
            "with `torch.save(model.state_dict(), path)`"
        )
    rules, options = told_settings(content)
    file = _chosen(path, found, known, class_names(content))
    author = str(items_of(content).get("__author__", ""))
    return replace(file, rules=rules, options=options, author=author, unread=tuple(unread))


def _chosen(
    path: Path,
    found: Mapping[str, TensorRecord | Tensor],
    known: Callable[[str], bool],
    names: list[str] | None,
) -> WeightsFile:
    """Return the weights among all tensors of a file, checked."""
    place = weights_prefix(found, known)
    tensors = {}
    for key, record in subset(found, place).items():
        try:
            tensors[key] = record if isinstance(record, Tensor) else record.load()
        except CutOffError:
            raise ValueError(
                f"{path}: damaged, the numbers of {key} are not all there: copy it again"
            ) from None
        except NoTensorError as error:
            raise ValueError(
                f"{path}: {key} is no plain tensor: {error}; save the weights with "
                "`torch.save(model.state_dict(), path)`"
            ) from None
        require_finite(path, key, tensors[key])
    beside = tuple(key for key in found if not key.startswith(place))
    return WeightsFile(tensors, names, place, beside)


def is_safetensors(path: Path) -> bool:
    """Whether a file is one of safetensors, or nothing else and called so.

    By its content, whatever it is called: the length of a header, and the header, which is JSON.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(9)
    except OSError:
        begin = b""
    if begin[8:] == b"{":
        return True
    torchs = begin.startswith((b"PK", b"\x80"))  # a zip archive or a pickle
    return path.suffix == ".safetensors" and not torchs


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        with plain_path(path) as plain:
            tensors: dict[str, Tensor] = load_file(plain)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as safetensors ({error})") from None
    return tensors


def _refuse_bomb(path: Path) -> None:
    """Raise ValueError for a zip archive that would grow: torch stores without compression."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            # What is read; the code of TorchScript beside it may be compressed.
            entries = [
                entry
                for entry in archive.infolist()
                if entry.filename.endswith("data.pkl") or "/data/" in entry.filename
            ]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path}: damaged, cannot be read as a torch file ({error})") from None
    claimed = sum(entry.file_size for entry in entries)
    if claimed > path.stat().st_size or any(entry.compress_type for entry in entries):
        raise ValueError(
            f"{path}: refused, because its {path.stat().st_size} bytes would grow to {claimed}: "
            "torch.save writes without compression, this is no file of it"
        )
