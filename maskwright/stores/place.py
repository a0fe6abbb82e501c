"""A folder on a disk or in an object store, to be written to."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from ..files import remove_parts, replacing, writing
from ..paths import home_path
from .addresses import StoreFile, is_address, open_binary, open_store, told

T = TypeVar("T")


class Place:
    """A folder on a disk or in a store: files are written whole or not at all.

    Attributes:
        name: path or address.
    """

    def __init__(self, name: str | Path) -> None:
        """Take a folder as it is.

        Raises:
            ValueError: if the store cannot be reached.
        """
        self.name = str(home_path(name))
        self._store = open_store(self.name) if is_address(self.name) else None

    def __reduce__(self) -> tuple[Any, ...]:
        return Place, (self.name,)

    def __str__(self) -> str:
        return self.name

    def at(self, name: str) -> str:
        """Return path or address of a file in it."""
        return f"{self.name.rstrip('/')}/{name}" if self._store else str(Path(self.name, name))

    def names(self) -> set[str]:
        """Return the names of the files; none of a folder that is not there."""
        if self._store is None:
            folder = Path(self.name)
            return {one.name for one in folder.iterdir()} if folder.is_dir() else set()
        system, path = self._store
        with told(self.name):
            try:
                system.invalidate_cache()
                return {str(one).rsplit("/", 1)[-1] for one in system.ls(path, detail=False)}
            except FileNotFoundError:
                return set()

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            ValueError: if it cannot be read.
        """
        if self._store is not None:
            return StoreFile(self.at(name)).load()
        try:
            return Path(self.name, name).read_bytes()
        except OSError as error:
            raise ValueError(f"{self.at(name)}: {error.strerror or error}") from None

    def tidy(self, start: str) -> None:
        """Remove what killed writers have left, and the files whose name begins so."""
        if self._store is None:
            remove_parts(Path(self.name))
        for name in self.names():
            if name.startswith(start):
                self.remove(name)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            ValueError: if it may not be removed.
        """
        if self._store is None:
            with writing(Path(self.name, name)):
                Path(self.name, name).unlink(missing_ok=True)
            return
        system, path = self._store
        with suppress(FileNotFoundError), told(self.at(name)):
            if system.exists(f"{path}/{name}"):
                system.rm_file(f"{path}/{name}")

    def open(self, name: str) -> Any:
        """Return a file open for reading of parts.

        Raises:
            ValueError: if it cannot be read.
        """
        return open_binary(self.at(name))

    def write(self, name: str, fill: Callable[[Any], T]) -> T:
        """Write a file.

        Args:
            name: of the file.
            fill: writes into the open file; what it returns is returned.

        Raises:
            ValueError: if it cannot be written.
        """
        if self._store is None:
            with replacing(Path(self.name, name)) as temporary, temporary.open("wb") as file:
                return fill(file)
        system, path = self._store
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "file")  # a store would keep what is cut off by an error
            with writing(whole), whole.open("wb") as file:
                made = fill(file)
            with told(self.at(name)):
                system.put_file(str(whole), f"{path}/{name}")
        return made
