"""Addresses of object stores (`s3://`, `gs://`, ...): what lies there, and what stands in the way.

An address begins with the name of a store, and fsspec opens it; everything else is a path. What
stands in the way of a store is told in one sentence, with the address.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..paths import home_path

# Names of stores, and the package that each needs beside fsspec.
PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("hdfs", "webhdfs"), "pyarrow"),
    "hf": "huggingface_hub",
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    **dict.fromkeys(("memory", "file"), ""),
}
REFUSED = ("forbidden", "access denied", "accessdenied", "unauthorized", "permission", "403", "401")


def is_address(value: Any) -> bool:
    """Tell whether something is the address of an object store, or of a file or folder in one."""
    return isinstance(value, str) and value.split("://")[0].lower() in PACKAGES and "://" in value


def open_store(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it.

    Raises:
        ValueError: if its package is missing, or it cannot be reached.
    """
    import fsspec

    with told(address):
        system, path = fsspec.core.url_to_fs(address)
        return system, path.rstrip("/")


@contextmanager
def told(address: str) -> Iterator[None]:
    """Turn what a store says into one sentence: a ValueError that names the address."""
    try:
        yield
    except ImportError as error:
        package = PACKAGES.get(address.split("://")[0].lower()) or "fsspec"
        raise ValueError(
            f"{address}: this store needs {package}: pip install {package} ({_short(error)})"
        ) from None
    except ValueError:
        raise
    except FileNotFoundError as error:
        # "The specified bucket does not exist" is more than the address says.
        more = "" if store_name(address) in str(error) else f" ({_short(error)})"
        raise ValueError(f"{address} does not exist{more}") from None
    except Exception as error:  # each store has errors of its own
        text = f"{type(error).__name__} {error}".lower()
        if isinstance(error, PermissionError) or any(word in text for word in REFUSED):
            raise ValueError(
                f"{address} may not be read or written with these credentials ({_short(error)}): "
                "give this account rights on it, or log in with another"
            ) from None
        if "credential" in text:
            raise ValueError(
                f"{address}: there are no credentials for this store ({_short(error)}): log in, or "
                "set them in the environment as its own tools want them"
            ) from None
        raise ValueError(f"{address} cannot be reached ({_short(error)})") from None


class StoreFile:
    """A file in a store that has not been read yet; it can be sent to other processes.

    Attributes:
        address: where it is.
    """

    def __init__(self, address: str) -> None:
        self.address = address

    def __repr__(self) -> str:
        return f"StoreFile({self.address!r})"

    def load(self) -> bytes:
        """Return its bytes.

        Raises:
            ValueError: if it cannot be read.
        """
        system, path = open_store(self.address)
        with told(self.address):
            data: bytes = system.cat_file(path)
        return data


def list_store(address: str) -> list[str]:
    """Return the addresses of the files of a folder, or those that a pattern matches, sorted.

    Args:
        address: of a file, a folder, or a pattern such as s3://photos/2024/**/*.jpg.

    Raises:
        ValueError: if there is nothing, or the store cannot be read.
    """
    system, path = open_store(address)
    with told(address):
        if any(char in path for char in "*?["):
            found = system.glob(path, detail=True)
            names = [name for name, info in found.items() if info["type"] == "file"]
        elif system.isfile(path):
            return [address]
        else:
            entries = system.ls(path, detail=True)
            names = [entry["name"] for entry in entries if entry["type"] == "file"]
            if not entries:
                raise FileNotFoundError(address)
    return sorted(str(system.unstrip_protocol(name)) for name in names)


def store_name(address: str) -> str:
    """Return the last part of an address, as people see it."""
    return Path(unquote(address.rstrip("/"))).name


def open_binary(name: str) -> Any:
    """Return a file on a disk or in a store, open for reading.

    Raises:
        ValueError: if it cannot be read.
    """
    if is_address(name):
        system, path = open_store(name)
        with told(name):
            return system.open(path, "rb")
    try:
        return io.BufferedReader(Path(home_path(name)).open("rb", buffering=0))
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror or error}") from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
