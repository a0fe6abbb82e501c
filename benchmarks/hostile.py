"""Uploads that mean no good: bombs, cut and bent files, other files, headers and names.

`uploads` yields whole HTTP requests as bytes, so that nothing between the list and the service
mends them. Each kind comes in turn; random numbers make every one of them different.
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

PATHS = (
    "../../../../tmp/maskwright-was-here.png",
    "/etc/passwd",
    "..\\..\\windows\\win.ini",
    "a\x00b.png",
    "%2e%2e%2fetc%2fpasswd",
    "x" * 60_000,
    "con.png",
    "\u202egnp.exe",
    "file:///etc/passwd",
    "|touch maskwright-was-here",
)
KINDS = ("PNG", "JPEG", "TIFF", "WEBP", "GIF", "BMP")


def request(body: bytes, *, query: str = "", head: str = "", kind: str = "image/png") -> bytes:
    """Return a request with a body."""
    lines = f"POST /predict{query} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    lines += f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n{head}\r\n"
    return lines.encode("latin-1", "replace") + body


def form(*parts: tuple[str, bytes], boundary: str = "b0undary", end: bool = True) -> bytes:
    """Return a request with a form of parts: what stands in their first line, and their bytes."""
    body = b""
    for line, data in parts:
        body += f"--{boundary}\r\nContent-Disposition: form-data; {line}\r\n\r\n".encode()
        body += data + b"\r\n"
    body += f"--{boundary}--\r\n".encode() if end else b""
    return request(body, kind=f"multipart/form-data; boundary={boundary}")


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    body = kind + data
    return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def png(width: int, height: int, *chunks: bytes, depth: int = 8, color: int = 2) -> bytes:
    """Return a PNG that says it has this size, whatever is in it."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def photo(random: Any, kind: str = "PNG", side: int = 48) -> bytes:
    """Return a good image of noise."""
    stream = io.BytesIO()
    Image.fromarray(random.integers(0, 255, (side, side, 3), np.uint8)).save(stream, kind)
    return stream.getvalue()


def bomb(random: Any) -> bytes:
    """Few bytes that say or hold very many pixels."""
    side = int(random.choice([3_000, 20_000, 65_000, 2**31 - 1]))
    held = zlib.compress(bytes(int(random.choice([1_000, 40_000_000]))))
    return request(png(side, int(random.choice([1, 9, side])), chunk(b"IDAT", held)))


def text_bomb(random: Any) -> bytes:
    """A small picture with a text or a profile that unpacks to a hundred megabytes."""
    much = zlib.compress(bytes(100_000_000))
    name = [b"zTXt", b"iCCP"][int(random.integers(2))]
    row = chunk(b"IDAT", zlib.compress(bytes(4 * 13)))
    return request(png(4, 4, chunk(name, b"a\x00\x00" + much), row))


def cut(random: Any) -> bytes:
    """A good file that ends too early."""
    data = photo(random, KINDS[int(random.integers(len(KINDS)))])
    return request(data[: int(random.integers(1, len(data)))])


def bent(random: Any) -> bytes:
    """A good file with some bytes changed, mostly in its header."""
    data = bytearray(photo(random, KINDS[int(random.integers(len(KINDS)))], 16))
    reach = int(random.choice([40, 200, len(data)]))
    for place in random.integers(0, min(reach, len(data)), int(random.integers(1, 12))):
        data[place] = int(random.integers(256))
    return request(bytes(data))


def tiff(random: Any) -> bytes:
    """A TIFF whose directories point anywhere, into each other and in circles."""
    entries = int(random.integers(1, 40))
    body = struct.pack("<2sHIH", b"II", 42, 8, entries)
    for _ in range(entries):
        tag = int(
            random.choice([256, 257, 258, 259, 262, 273, 277, 278, 279, 322, 323, 330, 34665])
        )
        count = int(random.choice([1, 2, 2**16, 2**31]))
        body += struct.pack(
            "<HHII", tag, int(random.integers(1, 14)), count, int(random.integers(300))
        )
    return request(body + struct.pack("<I", 8) + bytes(200), kind="image/tiff")


def frames(random: Any) -> bytes:
    """A GIF of a thousand frames."""
    pictures = [Image.new("L", (8, 8), shade % 256) for shade in range(1_000)]
    stream = io.BytesIO()
    pictures[0].save(stream, "GIF", save_all=True, append_images=pictures[1:])
    return request(stream.getvalue())


class _Call:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, ("touch maskwright-was-here",)


def other(random: Any) -> bytes:
    """Something else than an image, called one."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("../../maskwright-was-here", bytes(10_000_000))
    things = [
        pickle.dumps(_Call()),
        archive.getvalue(),
        b"%PDF-1.7\n" + random.bytes(500),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(maskwright-was-here) (w) file",
        b"\x7fELF" + random.bytes(500),
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"<?xml version='1.0'?><!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>",
        b"http://169.254.169.254/latest/meta-data/",
        b"/etc/passwd",
        random.bytes(int(random.integers(1, 5_000))),
        b"",
        bytes(70_000_000),
    ]
    return request(things[int(random.integers(len(things)))])


def named(random: Any) -> bytes:
    """A good image with a name that leads elsewhere, or several hundred of them."""
    name = PATHS[int(random.integers(len(PATHS)))]
    data = photo(random)
    if random.random() < 0.2:
        return form(*[(f'name="file"; filename="{name}"', data)] * 300)
    return form((f'name="file"; filename="{name}"', data))


def torn(random: Any) -> bytes:
    """A form that does not keep to its own rules."""
    data = photo(random)
    ways = [
        form(('name="file"; filename="a.png"', data), end=False),
        request(data, kind="multipart/form-data"),
        request(data, kind="multipart/form-data; boundary=" + "b" * 5_000),
        form(*[(f'name="{number}"', b"1") for number in range(2_000)]),
        form(('name="conf"', b"9" * 2_000_000), ('name="file"; filename="a"', data)),
        form(("filename=", data)),
        form(('name="file"; filename="a.png"\r\nContent-Type: \xff\xfe/\x00', data)),
        request(json.dumps({"url": "http://127.0.0.1/"}).encode(), kind="application/json"),
        request(b"[" * 500_000, kind="application/json"),
    ]
    return ways[int(random.integers(len(ways)))]


def headed(random: Any) -> bytes:
    """Headers that are huge, many, doubled or no headers."""
    data = photo(random)
    ways = [
        request(data, head="X-A: " + "a" * 1_000_000 + "\r\n"),
        request(data, head="".join(f"X-{n}: {n}\r\n" for n in range(20_000))),
        request(data, head="Content-Length: 3\r\n"),
        request(data, head="Transfer-Encoding: chunked\r\n"),
        request(data, head="Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n"),
        request(data, head="Accept: " + "*/*;q=1," * 5_000 + "\r\n"),
        request(data, head="Accept: image/png;q=nan\r\nOrigin: http://[\r\n"),
        request(data, head="Authorization: \xff\xff\r\nCookie: " + "c" * 5_000 + "\r\n"),
        request(data, head="Expect: 100-continue\r\n"),
        request(data, query="?" + "a=" + "b" * 100_000),
        request(data, query="?conf=\xff&model=%00&format=%ff"),
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -5\r\n\r\n" + data,
        b"POST /predict HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n" + data,
        b"POST /predict HTTP/9.9\r\n\r\n",
        random.bytes(3_000),
        b"\x16\x03\x01" + random.bytes(300),  # TLS
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
        b"GET /samples/..%2f..%2fapp.py HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n",
    ]
    return ways[int(random.integers(len(ways)))]


def options(random: Any) -> bytes:
    """A good image with options out of all bounds."""
    values = ["-1", "nan", "inf", "1e400", "9" * 300, "None", "[[", "\u0661", "../a", "%00", "0x7f"]
    names = ["conf", "iou", "max_det", "imgsz", "tile", "overlap", "tile_levels", "topk", "page"]
    names += ["window", "channels", "explain", "tta", "soft_nms", "crf", "slide", "model"]
    pairs = [
        f"{names[int(random.integers(len(names)))]}={values[int(random.integers(len(values)))]}"
        for _ in range(int(random.integers(1, 4)))
    ]
    return request(photo(random), query=f"?{'&'.join(pairs)}".replace("\u0661", "%D9%A1"))


MAKERS: tuple[Callable[[Any], bytes], ...] = (
    *(bomb, cut, bent, named, headed, tiff, torn, other, bent, cut, options, text_bomb),
)


def uploads(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield the kind and the bytes of so many requests; every hundredth is a GIF of many frames."""
    random = np.random.default_rng(seed)
    for number in range(count):
        maker = frames if number % 100 == 99 else MAKERS[number % len(MAKERS)]
        yield maker.__name__, maker(random)
