"""Files that are written: whole or not at all, and with one message where the disk refuses.

A file is written beside its place and moved there when it is whole, so that a crash or a full disk
leaves either the old file or the new one.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import WriteError

FULL = 2**20  # bytes: a disk with less than that has no room for a file that could not be written
# What a disk says of all files alike.
EVERYWHERE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
MENDS = {
    errno.ENOSPC: "free space on that disk, or choose another place",
    errno.EDQUOT: "free space in your quota, or choose another place",
    errno.EFBIG: "files may not grow that large here (see `ulimit -f`): raise the limit",
    errno.EROFS: "that disk is read-only: choose another place",
    errno.EACCES: "you may not write there: change the permissions, or choose another place",
    errno.EPERM: "you may not write there: change the permissions, or choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ENOTDIR: "there is a file where a folder is needed: choose another place",
    errno.EEXIST: "there is a file where a folder is needed: choose another place",
    errno.EISDIR: "there is a folder where a file is needed: choose another name",
    errno.EIO: "the disk is failing or was taken away: choose another place",
    errno.EMFILE: "too many files are open: raise the limit (`ulimit -n`)",
}


@contextmanager
def replacing(
    path: Path,
    *,
    previous: Path | None = None,
    durable: bool = True,
    suffix: str = "",
    advice: str = "",
) -> Iterator[Path]:
    """Give the path of a temporary file, which takes the place of `path` when all went well.

    Args:
        path: the file to be written; its folder is made.
        previous: where the file that has been at `path` is kept. None: it is not.
        durable: wait until it is on the disk; not for pictures, which can be made again.
        suffix: of the temporary file, for writers that go by it.
        advice: see `writing`.

    Raises:
        WriteError: if it cannot be written; then `path` and `previous` are what they were.
    """
    temporary: Path | None = None
    try:
        with writing(path, advice):
            path.parent.mkdir(parents=True, exist_ok=True)
            start = os.fsdecode(os.fsencode(path.name)[:180])  # names end at 255 bytes
            handle, name = tempfile.mkstemp(f".part{suffix}", f".{start}.", path.parent)
            os.close(handle)
            temporary = Path(name)
            yield temporary
            if durable:
                with temporary.open("rb+") as file:
                    os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())  # mkstemp gives the owner only
            if previous is not None and path.exists():
                _keep(path, previous)
            temporary.replace(path)
            if durable:
                _sync_folder(path.parent)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_picture(path: str | Path) -> Iterator[Path]:
    """Give a temporary file for a writer that goes by the suffix; see `replacing`."""
    path = Path(path)
    with replacing(path, durable=False, suffix=path.suffix) as temporary:
        yield temporary


def write_whole(path: str | Path, text: str, *, durable: bool = True) -> None:
    """Write a text file by way of `replacing`: it is never half there; what is no text, escaped."""
    with replacing(Path(path), durable=durable) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


@contextmanager
def writing(path: Path, advice: str = "") -> Iterator[None]:
    """Turn what the disk, or a library in its name, says of a file into the one message.

    Args:
        path: what is being written; nothing else is read in between.
        advice: what to do, in place of the usual.

    Raises:
        WriteError: if it cannot be written.
    """
    try:
        yield
    except WriteError:
        raise
    except Exception as error:
        refusal = _refusal(error, path)
        if refusal is None:
            raise
        raise write_fault(path, refusal, advice) from None


def require_space(path: Path, need: int) -> None:
    """Make sure that a file has room, before hours of work or a library that cannot say it.

    Raises:
        WriteError: if less than `need` bytes are free where it will lie.
    """
    free = _free(path)
    if free is not None and free < need:
        raise write_fault(path, OSError(errno.ENOSPC, f"{need / 1e6:.3g} MB are needed"))


def write_fault(path: Path, error: OSError, advice: str = "") -> WriteError:
    """Return the error that says what could not be written, why, and what mends it."""
    mend = advice or MENDS.get(
        error.errno or 0, "make sure that the folder can be written, or choose another place"
    )
    where = path if os.path.isdir(path) else path.parent  # noqa: PTH112 (a long name raises there)
    text = f"{path}: cannot be written ({reason(error, path)}); folder {where}: {mend}"
    return WriteError(text, error.errno or 0)


def reason(error: OSError, path: Path) -> str:
    """Return what the system says, and of a full disk how much is free there."""
    text = error.strerror or str(error)
    free = _free(path)
    full = error.errno == errno.ENOSPC and free is not None
    return f"{text}, {free / 1e6:.3g} MB free" if full and free is not None else text


def remove_parts(folder: Path) -> None:
    """Remove the temporary files of writers that were killed."""
    for part in (*folder.glob(".*.part"), *folder.glob(".*.part.*")):
        part.unlink(missing_ok=True)


def _refusal(error: Exception, path: Path) -> OSError | None:
    """Return what the system has said, as far as an error tells or the disk shows it."""
    if isinstance(error, OSError) and error.errno:
        return error
    if isinstance(error, ValueError):  # said with care already
        return None
    found = re.search(r"\bos error (\d+)|\[Errno (\d+)\]", str(error))  # of Rust, of Python
    if found:
        number = int(found[1] or found[2])
        return OSError(number, os.strerror(number))
    # Others, such as torch and image encoders, say only that writing failed.
    free = _free(path)
    if isinstance(error, OSError | RuntimeError) and free is not None and free < FULL:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return error if isinstance(error, OSError) else None


def _free(path: Path) -> int | None:
    """Return the bytes free where `path` lies or would lie."""
    for place in (path, *path.absolute().parents):
        with suppress(OSError, ValueError):
            return shutil.disk_usage(place).free
    return None


def _keep(path: Path, previous: Path) -> None:
    """Let `previous` be the file at `path`, which stays there too, if the disk knows links."""
    link = previous.with_name(f".{previous.name}.part")
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
    except OSError:
        path.replace(previous)
    else:
        link.replace(previous)


def _sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
