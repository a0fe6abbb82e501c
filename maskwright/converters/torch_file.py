"""Files of `torch.save` and plain pickles, with tensors as records that are read when wanted.

The zip archive (torch 1.6 and later; TorchScript has the same records), the older form with the
numbers behind several pickles, and a plain pickle of tensors or NumPy arrays. torch's own reader is
not used: it refuses a file for any object that it does not know, and runs code if asked not to.
"""

from __future__ import annotations

import io
import math
import mmap
import pickle
import sys
import zipfile
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from ..pickles import Global, Makers, Thing, read_pickle

_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older form
_OLD_HEAD = b"L%d" % _MAGIC  # the same in the oldest protocols of pickles
_MAX_DIMS = 64
_TYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
_STORAGES = {
    "Double": torch.float64, "Float": torch.float32, "Half": torch.float16,
    "BFloat16": torch.bfloat16, "Long": torch.int64, "Int": torch.int32, "Short": torch.int16,
    "Char": torch.int8, "Byte": torch.uint8, "Bool": torch.bool, "Untyped": torch.uint8,
    "ComplexDouble": torch.complex128, "ComplexFloat": torch.complex64,
}  # fmt: skip
_ARRAYS = {
    "f2": torch.float16, "f4": torch.float32, "f8": torch.float64, "i1": torch.int8,
    "i2": torch.int16, "i4": torch.int32, "i8": torch.int64, "u1": torch.uint8, "b1": torch.bool,
}  # fmt: skip


class NoTensorError(ValueError):
    """What stands in a file for a tensor cannot be one; the message says why."""


class CutOffError(NoTensorError):
    """The file has fewer numbers than it says: it is damaged."""


class _Source(Protocol):
    """Where the numbers of storages lie."""

    def read(self, key: str, nbytes: int) -> Tensor:
        """Return (nbytes,) uint8.

        Raises:
            CutOffError: if there are fewer.
        """


@dataclass(frozen=True)
class Storage:
    """Numbers of one type in a file, from the number `begin` on; the type None: not to be read."""

    source: _Source
    key: str
    dtype: torch.dtype | None
    numel: int
    begin: int = 0


@dataclass(frozen=True)
class TensorRecord:
    """A tensor of a file; `storage` None: of a kind that is not plain."""

    storage: Storage | None
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()

    def load(self) -> Tensor:
        """Return the tensor; those that share their numbers in the file share them here.

        Raises:
            NoTensorError: if it is no plain tensor, or its numbers are not in the file.
        """
        held = self.storage
        if held is None or held.dtype is None:
            raise NoTensorError("it is sparse, quantised or without numbers")
        count = math.prod(self.size)
        last = sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        # A view may repeat one number over terabytes.
        if count and (self.offset + last >= held.numel or count > held.numel):
            raise NoTensorError(f"its {self.size} numbers are not all in the file")
        if not count:
            return torch.empty(self.size, dtype=held.dtype)
        data = held.source.read(held.key, (held.begin + held.numel) * held.dtype.itemsize)
        return data.view(held.dtype).as_strided(self.size, self.stride, held.begin + self.offset)


def _storage_type(kind: Any) -> torch.dtype | None:
    """Return the numbers of `torch.FloatStorage` and the like."""
    return _STORAGES.get(str(getattr(kind, "name", "")).removesuffix("Storage"))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> TensorRecord:
    """Record a call of `torch._utils._rebuild_tensor`, of its version 2 or 3."""
    if not isinstance(storage, Storage):
        return TensorRecord(None)
    dtype = rest[2] if len(rest) > 2 else None
    if isinstance(dtype, Global):  # version 3: bytes and what they are
        known = _TYPES.get(dtype.name)
        count = storage.numel // known.itemsize if known else 0
        storage = replace(storage, dtype=known, numel=count)
    sizes, steps = _whole(size), _whole(stride)
    if len(sizes) != len(steps) or not isinstance(offset, int) or offset < 0:
        return TensorRecord(None)
    return TensorRecord(storage, offset, sizes, steps)


def _whole(numbers: Any) -> tuple[int, ...]:
    """Return a tuple of sizes.

    Raises:
        ValueError: if it is none.
    """
    if isinstance(numbers, Thing):  # torch.Size
        numbers = numbers.args[0] if numbers.args else ()
    good = isinstance(numbers, tuple | list) and len(numbers) <= _MAX_DIMS
    if not good or not all(type(n) is int and 0 <= n < 2**62 for n in numbers):
        raise ValueError("no sizes")
    return tuple(numbers)


def _first(first: Any, *_: Any) -> Any:
    """Record a wrapper around a tensor by the tensor: a parameter."""
    return first


def _typed(rebuild: Any, _: Any, args: Any, *__: Any) -> Any:
    """Record a tensor of another class, or with attributes, by the call that makes it plain."""
    maker = _MAKERS.get((rebuild.module, rebuild.name)) if isinstance(rebuild, Global) else None
    if maker is None:
        raise ValueError("another call")
    return maker(*args)


def _odd(*_: Any) -> TensorRecord:
    return TensorRecord(None)


def _encoded(text: Any, encoding: Any = "latin1", *_: Any) -> bytes:
    """Record bytes in a pickle of the older protocols."""
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise ValueError("another encoding")
    return text.encode("latin1")


def _no_bytes(*args: Any) -> bytes:
    """Record empty bytes in a pickle of the older protocols."""
    if args:
        raise ValueError("not of nothing")
    return b""


def _nested(data: Any, *_: Any) -> Any:
    """Record a storage in a plain pickle: a file of torch inside."""
    if not isinstance(data, bytes) or data[:2] == b"PK":
        raise ValueError("no storage")
    return _read_older(io.BytesIO(data), nested=True)


@dataclass(frozen=True)
class _Bytes:
    """The numbers of a NumPy array."""

    data: bytes

    def read(self, key: str, nbytes: int) -> Tensor:
        if len(self.data) < nbytes:
            raise CutOffError("its numbers are cut off")
        return torch.frombuffer(bytearray(self.data[:nbytes]), dtype=torch.uint8)


def as_record(thing: Any) -> TensorRecord | None:
    """Return the record of a tensor or of a NumPy array of plain numbers, None of anything else."""
    if isinstance(thing, TensorRecord):
        return thing
    if not isinstance(thing, Thing) or not isinstance(thing.kind, Global):
        return None
    module, name = thing.kind.module.replace("numpy._core", "numpy.core"), thing.kind.name
    if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
        state = thing.state if isinstance(thing.state, tuple) else ()
        if len(state) != 5:
            return None
        _, shape, dtype, fortran, data = state
    elif (module, name) == ("numpy.core.numeric", "_frombuffer") and len(thing.args) == 4:
        data, dtype, shape, order = thing.args
        fortran = order == "F"
    else:
        return None
    return _array(shape, dtype, bool(fortran), data)


def _array(shape: Any, dtype: Any, fortran: bool, data: Any) -> TensorRecord | None:
    """Return the record of an array, None if it has other than plain numbers."""
    if not isinstance(dtype, Thing) or str(dtype.kind) != "numpy.dtype" or not dtype.args:
        return None
    known = _ARRAYS.get(str(dtype.args[0]))
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "="
    other = ">" if sys.byteorder == "little" else "<"
    if isinstance(data, str):  # of Python 2
        data = data.encode("utf-8", "surrogateescape")
    try:
        sizes = _whole(shape)
    except ValueError:
        return None
    if known is None or order == other or not isinstance(data, bytes):
        return None
    steps = [1] * len(sizes)
    places = list(range(len(sizes)) if fortran else reversed(range(len(sizes))))
    for before, after in pairwise(places):
        steps[after] = steps[before] * max(sizes[before], 1)
    storage = Storage(_Bytes(data), "", known, len(data) // known.itemsize)
    return TensorRecord(storage, 0, sizes, tuple(steps))


_UTILS = "torch._utils"
_MAKERS: Makers = {
    (_UTILS, "_rebuild_tensor"): _tensor,
    (_UTILS, "_rebuild_tensor_v2"): _tensor,
    (_UTILS, "_rebuild_tensor_v3"): _tensor,
    (_UTILS, "_rebuild_parameter"): _first,
    (_UTILS, "_rebuild_parameter_with_state"): _first,
    (_UTILS, "_rebuild_device_tensor_from_numpy"): _first,
    (_UTILS, "_rebuild_device_tensor_from_cpu_tensor"): _first,
    ("torch.nn.parameter", "Parameter"): _first,
    ("torch._tensor", "_rebuild_from_type_v2"): _typed,
    ("torch._tensor", "_rebuild_from_type"): _typed,
    **{
        (_UTILS, f"_rebuild_{kind}"): _odd
        for kind in (
            *("qtensor", "sparse_tensor", "sparse_csr_tensor", "meta_tensor_no_storage"),
            *("nested_tensor", "wrapper_subclass"),
        )
    },
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
    ("torch.storage", "_load_from_bytes"): _nested,
}


class _Records:
    """Numbers that are read once, and what a pickle says of them."""

    def __init__(self) -> None:
        self._read: dict[str, Tensor] = {}

    def read(self, key: str, nbytes: int) -> Tensor:
        """Return (nbytes,) uint8 of a storage."""
        data = self._read.get(key)
        if data is None:
            data = self._read[key] = self._load(key)
        if len(data) < nbytes:
            raise CutOffError("its numbers are cut off")
        return data[:nbytes]

    def _load(self, key: str) -> Tensor:
        raise NotImplementedError

    def persistent(self, pid: Any) -> Any:
        """Read ("storage", type, key, device, count) or with (name, begin, count of a part)."""
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":
            return pid[1]
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            return Thing(args=(pid,))
        key, dtype, count, begin = str(pid[2]), _storage_type(pid[1]), pid[4], 0
        self.note(key, dtype)
        if len(pid) > 5 and isinstance(pid[5], tuple) and len(pid[5]) == 3:
            _, begin, count = pid[5]
        if not all(type(n) is int and 0 <= n < 2**62 for n in (begin, count)):
            return Thing(args=(pid,))
        return Storage(self, key, dtype, count, begin)

    def note(self, key: str, dtype: torch.dtype | None) -> None:
        """Be told the type of the numbers of a storage."""


class _Zip(_Records):
    """The records of a zip archive, which stand in it as they are."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._entries = {entry.filename: entry for entry in archive.infolist()}
        except (ValueError, zipfile.BadZipFile, NotImplementedError) as error:
            raise pickle.UnpicklingError(f"damaged: {error}") from None
        size = path.stat().st_size
        if any(not 0 <= entry.header_offset < size for entry in self._entries.values()):
            raise pickle.UnpicklingError("damaged: a part of it would lie beyond its end")
        pickles = [name for name in self._entries if name.rpartition("/")[2] == "data.pkl"]
        if not pickles:
            raise pickle.UnpicklingError("it is a zip archive, but none of torch.save")
        self._root = min(pickles, key=len).removesuffix("data.pkl")

    def content(self, unread: set[str]) -> Any:
        """Return the records of the main pickle; see `open_torch_file`."""
        order = self._root + "byteorder"
        if order in self._entries and _bytes(self._record(order)).strip() != sys.byteorder.encode():
            raise pickle.UnpicklingError(_OTHER_ORDER)
        data = _bytes(self._record(f"{self._root}data.pkl"))
        return read_pickle(io.BytesIO(data), _MAKERS, self.persistent, unread)

    def _load(self, key: str) -> Tensor:
        return self._record(f"{self._root}data/{key}")

    def _record(self, name: str) -> Tensor:
        """Return (n,) uint8; checksums are left alone, as some writers make none."""
        entry = self._entries.get(name)
        if entry is None:
            raise CutOffError("its numbers are missing")
        with self._path.open("rb") as file:
            file.seek(entry.header_offset + 26)
            lengths = [int.from_bytes(file.read(2), "little") for _ in range(2)]
            file.seek(entry.header_offset + 30 + sum(lengths))
            return _numbers(file, min(entry.file_size, self._path.stat().st_size))


def _numbers(file: BinaryIO | mmap.mmap, nbytes: int) -> Tensor:
    """Return the next bytes of a file, (nbytes,) uint8, copied once; fewer at its end."""
    if isinstance(file, mmap.mmap):
        at = file.tell()
        count = min(nbytes, len(file) - at)
        found = np.frombuffer(file, np.uint8, count, at).copy() if count > 0 else np.empty(0, "u1")
        return torch.from_numpy(found)
    found = np.empty(nbytes, np.uint8)
    count = file.readinto(found.data) if nbytes else 0  # type: ignore[attr-defined]
    return torch.from_numpy(found[:count])


def _bytes(data: Tensor) -> bytes:
    return data.numpy().tobytes()


_OTHER_ORDER = "it was written by a computer with another order of bytes"


class _Older(_Records):
    """The numbers behind the pickles of the older form."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._places: dict[str, tuple[int, int]] = {}
        self._types: dict[str, torch.dtype | None] = {}

    def note(self, key: str, dtype: torch.dtype | None) -> None:
        self._types[key] = dtype

    def index(self, keys: Any) -> None:
        """Find where the numbers of each storage begin: behind each other, after their count."""
        at = self._file.tell()
        self._file.seek(0, io.SEEK_END)
        end = self._file.tell()
        for key in keys if isinstance(keys, list) else ():
            dtype = self._types.get(str(key))
            if dtype is None:
                break  # how long it is, and so where the next one begins, is not known
            self._file.seek(at)
            length = int.from_bytes(self._file.read(8), "little") * dtype.itemsize
            if at + 8 + length > end:
                break  # cut off
            self._places[str(key)] = (at + 8, length)
            at += 8 + length

    def _load(self, key: str) -> Tensor:
        at, length = self._places.get(key, (0, 0))
        self._file.seek(at)
        return _numbers(self._file, length)


def _read_older(file: BinaryIO, unread: set[str] | None = None, *, nested: bool = False) -> Any:
    """Return the records of the older form, or of a plain pickle unless `nested` in one."""
    makers = {} if nested else _MAKERS
    first = read_pickle(file, makers, unread=unread)
    if first != _MAGIC:
        if nested:
            raise ValueError("no storage")
        return first
    read_pickle(file, {})  # version
    system = read_pickle(file, {})
    if isinstance(system, Thing) and system.items.get("little_endian", True) is not (
        sys.byteorder == "little"
    ):
        raise pickle.UnpicklingError(_OTHER_ORDER)
    source = _Older(file)
    content = read_pickle(file, makers, source.persistent, unread)
    source.index(read_pickle(file, {}))
    return content


def open_torch_file(path: Path) -> tuple[Any, list[str]]:
    """Return what is in a torch file as records: lists, `Thing`, `TensorRecord`, plain values.

    Nothing of it is executed. Tensors are read by `TensorRecord.load`, while the file stays as it
    is. Beside the records stand the names of the classes that are in it and left unread.

    Raises:
        pickle.UnpicklingError: if it is no such file, or damaged; the message says which.
        OSError: if it cannot be read.
    """
    unread: set[str] = set()
    with path.open("rb") as file:
        head = file.read(64)
        if head.startswith(b"PK"):
            if not zipfile.is_zipfile(path):
                raise pickle.UnpicklingError(
                    "damaged: a zip archive without its end; copy it again"
                )
            return _Zip(path).content(unread), sorted(unread)
        if not head:
            raise pickle.UnpicklingError("it is empty")
        if head.startswith(b"version https://git-lfs"):
            raise pickle.UnpicklingError(
                "it is the pointer of Git LFS in place of the file: `git lfs pull` fetches it"
            )
        if head.startswith(b"\x89HDF"):
            raise pickle.UnpicklingError(
                "it is an HDF5 file, as Keras writes them and Matterport's Mask R-CNN: its weights "
                "do not come in"
            )
        if head[:1] not in (b"\x80", b"(", b"}", b"]", b"c") and not head.startswith(_OLD_HEAD):
            raise pickle.UnpicklingError(f"it begins with {head[:16]!r}, which no such file does")
        view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return _read_older(view, unread), sorted(unread)  # type: ignore[arg-type]
