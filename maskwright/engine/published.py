"""Weights files that others published: fetched once and checked, read without running anything."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ..models.registry import PublishedWeights
from .checkpoint import require_finite
from .console import progress


def cache_dir() -> Path:
    """Return the folder of fetched files: `$MASKWRIGHT_HOME` or `~/.cache/maskwright`."""
    return Path(os.environ.get("MASKWRIGHT_HOME") or Path.home() / ".cache" / "maskwright")


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
        except (OSError, urllib.error.URLError) as error:
            part.unlink(missing_ok=True)
            raise ValueError(
                f"{name} could not be fetched ({error}). Fetch it where there is a network from "
                f"{weights.url} ({weights.licence}) and put it at {path}"
            ) from None
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


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of `read_weights`."""
    return read_weights(path)[0]


def read_weights(path: Path) -> tuple[dict[str, Tensor], list[str] | None]:
    """Read a state dict from a `.safetensors` or a torch file, executing nothing.

    Returns:
        The tensors by name, and the names of the classes if the file tells them as mmdetection's
        do (`meta.CLASSES`, later `meta.dataset_meta.classes`).

    Raises:
        ValueError: if the file is missing, is no such file, or would run code on loading.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            tensors = load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: cannot be read as safetensors ({error})") from None
        for key, value in tensors.items():
            require_finite(path, key, value)
        return tensors, None
    _refuse_bomb(path)
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises half a dozen kinds
        reason = (str(error).splitlines() or ["nothing in it"])[0][:200]
        if isinstance(error, UnpicklingError):  # torch's text advises to let it run code
            reason = "an object in it is no tensor, or it is damaged"
        raise ValueError(
            f"{path}: cannot be read as a torch file of plain tensors, and nothing else is loaded "
            f"because it could run code ({type(error).__name__}: {reason})"
        ) from None
    names = _class_names(content)
    for key in ("model", "state_dict"):  # training scripts wrap the weights
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: holds no dictionary of tensors")
    tensors = {
        str(key).removeprefix("module."): value
        for key, value in content.items()
        if isinstance(value, Tensor)
    }
    if not tensors:
        raise ValueError(f"{path}: holds no dictionary of tensors")
    for key, value in tensors.items():
        plain = value.layout == torch.strided and not value.is_quantized and not value.is_meta
        # A view may repeat one number over terabytes.
        if not plain or value.numel() * value.itemsize > value.untyped_storage().nbytes():
            raise ValueError(
                f"{path}: {key} is no plain tensor: its {tuple(value.shape)} numbers are not all "
                "in the file; save the weights with `torch.save(model.state_dict(), path)`"
            )
        require_finite(path, key, value)
    return tensors, names


def _class_names(content: Any) -> list[str] | None:
    for keys in (("meta", "CLASSES"), ("meta", "dataset_meta", "classes")):
        found = content
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        names = [found] if isinstance(found, str) else found
        if isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names):
            return list(names)
    return None


def _refuse_bomb(path: Path) -> None:
    """Raise ValueError for a zip archive that would grow: torch stores without compression."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"{path}: damaged, cannot be read as a torch file ({error})") from None
    claimed = sum(entry.file_size for entry in entries)
    if claimed > path.stat().st_size or any(entry.compress_type for entry in entries):
        raise ValueError(
            f"{path}: refused, because its {path.stat().st_size} bytes would grow to {claimed}: "
            "torch.save writes without compression, this is no file of it"
        )
