"""Copies of files and folders of object stores on this machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..files import replacing, write_whole, writing
from ..paths import cache_dir
from .addresses import open_store, store_name, told

THREADS = 16  # that fetch files


def local_copy(address: str) -> Path:
    """Return a copy of a file or folder of a store on this machine; it is fetched once.

    A later call fetches what has changed and removes what is gone; of several processes one does so
    and the others wait. Copies lie in the cache (`paths.cache_dir`), a folder an address.

    Raises:
        ValueError: if there is nothing, it cannot be read, or there is no room for it.
    """
    system, path = open_store(address)
    folder = cache_dir() / "stores" / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]
    name = store_name(address) or "root"
    with told(address):
        system.invalidate_cache()
        found = system.find(path, detail=True)
    if not found:
        raise ValueError(f"{address} does not exist, or is an empty folder")
    single = list(found) == [path]
    wanted = {
        name if single else f"{name}/{key[len(path) :].lstrip('/')}": (key, _state(info))
        for key, info in found.items()
    }
    index = folder / "index.json"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder / "lock"):
        known: dict[str, str] = {}
        with suppress(OSError, ValueError):
            known = json.loads(index.read_text(encoding="utf-8"))
        for gone in set(known) - set(wanted):
            (folder / gone).unlink(missing_ok=True)
        new = [
            (key, folder / part)
            for part, (key, state) in wanted.items()
            if known.get(part) != state or not (folder / part).is_file()
        ]

        def fetch(one: tuple[str, Path]) -> None:
            key, target = one
            with told(f"{address} ({key})"), replacing(target, durable=False) as temporary:
                system.get_file(key, str(temporary))

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(fetch, new))
        kept = {part: state for part, (_, state) in wanted.items()}
        if kept != known:
            write_whole(index, json.dumps(kept))
    return folder / name


def _state(info: Any) -> str:
    """Return what changes when a file of a store does, as far as the store tells."""
    known = [info.get(key) for key in ("size", "ETag", "etag", "md5Hash", "mtime", "LastModified")]
    return " ".join(str(one) for one in known if one is not None)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Let one process of this machine at a time go on, where the system has locks of files."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
