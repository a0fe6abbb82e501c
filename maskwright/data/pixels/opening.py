"""From a path or an address to bytes: what stands in the way of an image file, and downloads."""

from __future__ import annotations

import os
import socket
import stat
import time
from pathlib import Path
from typing import BinaryIO

URL_TIMEOUT = 20.0  # seconds without a byte
URL_SECONDS = 600.0  # in all
URL_BLOCK = 2**20  # bytes
URL_MAX_BYTES = 256 * 2**20


def file_problem(path: Path) -> tuple[str, str] | None:
    """Return kind and message of what is wrong with an image file, judged without opening it."""
    try:
        info = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            target = path.readlink()
            return "missing image", f"image file {path} is a link to {target}, which does not exist"
        return "missing image", f"image file {path} does not exist"
    except (OSError, ValueError) as error:  # a name that the file system refuses, a loop of links
        return "missing image", f"image file {str(path)[:200]} cannot be looked up: {error}"
    if stat.S_ISDIR(info.st_mode):
        return "folder instead of an image", f"{path} is a folder, not an image file"
    if not stat.S_ISREG(info.st_mode):
        return "no regular file", f"{path} is a pipe or a device, not an image file"
    if not info.st_size:
        message = f"image file {path} is empty (0 bytes): copy it again or remove it"
        return "empty image file", message
    effective = os.access in os.supports_effective_ids
    if not os.access(path, os.R_OK, effective_ids=effective):
        return "unreadable image", f"image file {path} may not be read: change its permissions"
    return None


def open_file(path: Path) -> BinaryIO:
    """Open an image file; a pipe would block and a device never end, so only regular ones."""
    problem = file_problem(path)
    if problem is not None:
        raise ValueError(problem[1])
    try:
        return path.open("rb")
    except OSError as error:
        raise ValueError(f"cannot read the image file {path}: {error}") from None


def download(url: str) -> bytes:
    """Return what stands at an address.

    Raises:
        ValueError: if it is not there, too large, or takes too long.
    """
    from urllib.parse import urlsplit
    from urllib.request import Request, urlopen

    try:
        request = Request(url, headers={"User-Agent": "maskwright"})
        with urlopen(request, timeout=URL_TIMEOUT) as reply:
            blocks, size, end = [], 0, time.monotonic() + URL_SECONDS
            while size <= URL_MAX_BYTES and (block := reply.read1(URL_BLOCK)):
                blocks.append(block)
                size += len(block)
                if time.monotonic() > end:  # a server may send a byte now and then for ever
                    raise TimeoutError(f"not there after {URL_SECONDS:.0f} s")
            data = b"".join(blocks)
    except (OSError, ValueError) as error:
        # Without an answer of a server urllib puts the reason into brackets.
        why = str(error if hasattr(error, "code") else getattr(error, "reason", error))
        if isinstance(getattr(error, "reason", None), socket.gaierror):
            why = f"no machine is called {urlsplit(url).hostname}, or the network is away"
        raise ValueError(f"cannot download the image {url}: {why}") from None
    if len(data) > URL_MAX_BYTES:
        raise ValueError(f"the image {url} is larger than {URL_MAX_BYTES // 2**20} MiB")
    return data
