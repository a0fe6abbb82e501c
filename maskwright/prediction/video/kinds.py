"""What a video is: one table of files, told by their first bytes; addresses of streams; cameras.

Nothing is decoded here. A file whose name says nothing, or something else, is what its first bytes
say; names alone count where a folder or pattern is listed.
"""

from __future__ import annotations

import glob
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from ...data.pixels.kinds import image_suffixes
from ...paths import home_path

HEAD = 512  # bytes of a file or an answer that tell what it is
ASK_SECONDS = 10.0  # that a server has to tell it
STREAMS = ("rtsp", "rtsps", "rtmp", "rtmps", "udp", "rtp", "tcp")
# Files of ISO's form are also images: these are their brands.
STILLS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1", b"avif", b"avis", b"jxl ")
# What a server calls a video: of a camera the images of its frames, one after the other.
TYPES = (
    *("video/", "multipart/x-mixed-replace"),
    *("application/vnd.apple.mpegurl", "application/x-mpegurl"),
)


@dataclass(frozen=True)
class Kind:
    """A kind of video files.

    Attributes:
        name: what it is called.
        suffixes: usual endings of names, in small letters.
        begins: tells it by the first `HEAD` bytes.
        format: what FFmpeg calls it, so that the name of a file decides nothing; None: it looks.
    """

    name: str
    suffixes: tuple[str, ...]
    begins: Callable[[bytes], bool]
    format: str | None = None


def _iso(head: bytes) -> bool:
    word, brand = head[4:8], head[8:12]
    old = word in (b"moov", b"mdat", b"wide", b"pnot")  # QuickTime before it had brands
    return old or (word == b"ftyp" and brand not in STILLS)


def _transport(head: bytes) -> bool:
    """Tell MPEG-TS: each packet of 188 bytes, or of 192 with a time before it, begins with 0x47."""
    return any(
        len(head) > first + step and all(head[k] == 0x47 for k in range(first, len(head), step))
        for first, step in ((0, 188), (4, 192))
    )


def _starts(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(starts)


KINDS = (
    Kind("MP4 or QuickTime", (".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v"), _iso, "mov"),
    Kind("Matroska or WebM", (".mkv", ".webm"), _starts(b"\x1a\x45\xdf\xa3"), "matroska"),
    Kind("AVI", (".avi",), lambda head: head[:4] == b"RIFF" and head[8:11] == b"AVI", "avi"),
    Kind("MPEG transport stream", (".ts", ".m2ts", ".mts"), _transport, "mpegts"),
    Kind("MPEG", (".mpg", ".mpeg", ".vob"), _starts(b"\0\0\1\xba"), "mpeg"),
    Kind("MPEG without a container", (".m2v", ".m1v"), _starts(b"\0\0\1\xb3"), "mpegvideo"),
    Kind(
        "H.264 or H.265 without a container",
        (".h264", ".264", ".h265", ".265", ".hevc"),
        _starts(b"\0\0\0\1", b"\0\0\1\x67", b"\0\0\1\x40", b"\0\0\1\x09"),
    ),
    Kind("Windows Media", (".wmv", ".asf"), _starts(b"\x30\x26\xb2\x75\x8e\x66\xcf\x11"), "asf"),
    Kind("Flash", (".flv",), _starts(b"FLV\1"), "flv"),
    Kind("Ogg", (".ogv", ".ogm"), _starts(b"OggS"), "ogg"),
    Kind("MXF", (".mxf",), _starts(b"\x06\x0e\x2b\x34"), "mxf"),
    Kind("IVF", (".ivf",), _starts(b"DKIF"), "ivf"),
    Kind("YUV4MPEG", (".y4m",), _starts(b"YUV4MPEG2"), "yuv4mpegpipe"),
    Kind("list of a stream", (".m3u8",), lambda head: b"#EXTM3U" in head[:16]),
)
SUFFIXES = frozenset(suffix for kind in KINDS for suffix in kind.suffixes)


@dataclass(frozen=True)
class VideoSource:
    """A video that has not been opened yet.

    Attributes:
        address: path, address, or number of a camera as text.
        name: what it is called in files and messages.
        kind: where the frames come from.
        format: see `Kind`.
    """

    address: str
    name: str
    kind: Literal["file", "stream", "camera"]
    format: str | None = None

    @property
    def path(self) -> str:
        """The address as it may be shown: without a password, or what may hold one."""
        if self.kind != "stream":
            return self.address
        parts = urlsplit(self.address)
        host = parts.netloc.rsplit("@", 1)[-1]
        return urlunsplit(parts._replace(netloc=host, query="", fragment=""))


def video_kind(head: bytes) -> Kind | None:
    """Return the kind of video that begins with these bytes, or None.

    Example:
        >>> video_kind(b"RIFF....AVI LIST").name
        'AVI'
        >>> video_kind(b"RIFF....WEBPVP8 ") is None
        True
    """
    return next((kind for kind in KINDS if head and kind.begins(head)), None)


def find_videos(source: Any) -> list[VideoSource]:
    """Return the videos that `source` names; none if it names images.

    A folder or pattern with images and videos stands for its images: the note on what was passed
    over names the rest.

    Args:
        source: number of a camera, path of a file or folder, pattern, address, or a list of these.

    Raises:
        ValueError: if a list has videos beside images.
    """
    if isinstance(source, Sequence) and not isinstance(source, str | bytes | bytearray):
        found = [find_videos(part) for part in source if _may_be(part)]
        videos = [video for part in found for video in part]
        if videos and (len(found) < len(source) or not all(found)):
            raise ValueError(
                "source: the list has images beside videos, which have different results: look at "
                "them one after the other"
            )
        return videos
    if not _may_be(source):
        return []
    text = str(home_path(source))
    if isinstance(source, int) or (re.fullmatch(r"\d{1,2}", text) and not Path(text).exists()):
        return [VideoSource(text, f"camera {text}", "camera")]
    if "://" in text and not Path(text).exists():
        return [_stream(text)] if _is_stream(text) else []
    path = Path(text)
    if path.is_file():
        return [_file(path)] if is_video(path) else []
    if path.is_dir():
        listed = sorted(path.iterdir())
    elif glob.has_magic(text):
        listed = sorted(map(Path, glob.glob(text, recursive=True)))  # noqa: PTH207 (see `sources`)
    else:
        return []
    listed = [one for one in listed if not one.name.startswith(".") and one.is_file()]
    if any(one.suffix.lower() in image_suffixes() - SUFFIXES for one in listed):
        return []
    return [_file(one) for one in listed if one.suffix.lower() in SUFFIXES]


def _may_be(source: Any) -> bool:
    return isinstance(source, str | Path) or (isinstance(source, int) and type(source) is not bool)


def is_video(path: Path) -> bool:
    """Tell whether a file is a video, by its content; one that is damaged by its name."""
    # A damaged or empty video is still no image: reading it says what is wrong.
    damaged = path.suffix.lower() in SUFFIXES - image_suffixes()
    return video_kind(first_bytes(path)) is not None or damaged


def _file(path: Path) -> VideoSource:
    kind = video_kind(first_bytes(path))
    return VideoSource(str(path), path.name, "file", None if kind is None else kind.format)


def first_bytes(path: Path) -> bytes:
    """Return what tells the kind of a file; nothing of one that cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError:  # whoever opens it says why
        return b""


def _stream(address: str) -> VideoSource:
    parts = urlsplit(address)
    name = Path(unquote(parts.path)).name or parts.hostname or "stream"
    return VideoSource(address, name, "stream")


def _is_stream(address: str) -> bool:
    """Tell whether an address is that of a video; a web server is asked if its name does not."""
    parts = urlsplit(address)
    if parts.scheme.lower() in STREAMS:
        return True
    if parts.scheme.lower() not in ("http", "https"):
        return False
    suffix = Path(parts.path).suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix in image_suffixes():
        return False
    from urllib.request import Request, urlopen

    who, _, host = parts.netloc.rpartition("@")
    headers = {"User-Agent": "maskwright", "Range": f"bytes=0-{HEAD}"}
    if who:
        headers["Authorization"] = f"Basic {b64encode(unquote(who).encode()).decode()}"
    with suppress(OSError, ValueError):  # whoever reads it as an image says what is wrong
        request = Request(urlunsplit(parts._replace(netloc=host)), headers=headers)
        with urlopen(request, timeout=ASK_SECONDS) as answer:
            if answer.headers.get("Content-Type", "").lower().startswith(TYPES):
                return True
            return video_kind(answer.read(HEAD)) is not None
    return False
