"""The page at `/`: its files, sample images, and the labels that people save from it.

The files lie in `page/` as a browser gets them. They hold nothing of a model or an answer, so that
they are given to everybody; the script asks for all else, with the token if there is one.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from ..data.formats.coco.append import Labels, add_image
from ..data.pixels.images import Header, image_header
from ..errors import OptionError
from ..paths import home_path
from ..text import to_json
from .answers import JSON
from .described import describe_save
from .limits import Limits, RefusedError
from .uploads import Body, Gate, read_body

# By address: the file, and its type.
FILES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8")
        for name in ("page", "shapes", "scene", "files", "docs")
    },
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
SAMPLES = 12  # most that are shown
SUFFIXES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
LABELS = "labels"  # the field of a form that holds what is saved


@cache
def page_file(name: str) -> bytes:
    """Return a file of the page."""
    return files("maskwright.serving").joinpath("page", name).read_bytes()


def find_samples(folder: str | Path | None, names: Sequence[str]) -> dict[str, Path]:
    """Return sample images by name: those of a folder, or of the package for models that suit.

    Args:
        folder: of images; None: those of the package.
        names: what the models of the service find.

    Raises:
        OptionError: if the folder has no image that a browser shows.
    """
    if folder is None:
        if "nucleus" not in names:
            return {}
        place = Path(str(files("maskwright.serving").joinpath("page")))
        return {path.name: path for path in sorted(place.glob("*.png"))}
    place = Path(home_path(folder))
    found = sorted(p for p in place.glob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise OptionError(f"samples={folder}: there is no folder with .jpg, .png or .webp images")
    return {path.name: path for path in found[:SAMPLES]}


def add_page(
    app: FastAPI,
    limits: Limits,
    names: Sequence[str],
    samples: Mapping[str, Path],
    save: Path | None,
) -> None:
    """Give an application the page.

    Args:
        app: the application.
        limits: of what is saved.
        names: what the models find, for a new data set.
        samples: images by name.
        save: folder of the data set that grows; None: nothing is saved.
    """
    for address, (file, kind) in FILES.items():
        app.get(address, include_in_schema=False)(_answer(file, kind))

    @app.get("/samples", include_in_schema=False)
    async def listed(request: Request) -> Response:
        return Response(to_json({"samples": [*samples]}), media_type=JSON)

    @app.get("/samples/{name}", include_in_schema=False)
    async def sample(name: str, request: Request) -> Response:
        if name not in samples:
            return Response(to_json({"error": "there is no such sample"}), 404, media_type=JSON)
        path = samples[name]
        data = await run_in_threadpool(path.read_bytes)
        return Response(data, media_type=SUFFIXES[path.suffix.lower()])

    if save is None:
        return
    gate, folder = Gate(limits), save

    @app.post(
        "/save",
        summary="Keep an image with what people have corrected, as COCO",
        openapi_extra=describe_save(LABELS),
    )
    async def keep(request: Request) -> Response:
        try:
            with gate.body(request) as counted:
                async with asyncio.timeout(limits.deadline):
                    body = await read_body(counted, limits)
                told = await run_in_threadpool(_keep, body, limits, folder, names)
            return Response(to_json(told), media_type=JSON)
        except RefusedError as error:
            status, text = error.status, str(error)
        except TimeoutError:
            status, text = 504, f"nothing is kept: it took more than {limits.deadline:g} s to come"
        except ValueError as error:
            status, text = 422, str(error)
        return Response(to_json({"error": text}), status, media_type=JSON)


def _answer(file: str, kind: str):  # type: ignore[no-untyped-def]
    async def answer(request: Request) -> Response:
        return Response(page_file(file), media_type=kind)

    return answer


def _keep(body: Body, limits: Limits, folder: Path, names: Sequence[str]) -> dict[str, object]:
    """Write an image and its objects into the data set."""
    if len(body.files) != 1 or LABELS not in body.fields:
        raise RefusedError(400, f"send one image as `file`, and its objects as `{LABELS}`")
    (upload,) = body.files
    header = _readable(upload.data, limits)
    try:
        told = Labels.read(json.loads(body.fields[LABELS]), header.size)
    except (json.JSONDecodeError, RecursionError):
        raise ValueError(f"{LABELS} is JSON, an object with a list of `objects`") from None
    suffix = Path(upload.name).suffix
    if suffix.lower() not in header.suffixes:
        suffix = header.suffixes[0] if header.suffixes else ".png"
    name = Path(upload.name).stem + suffix
    # Those of the model alone: the service may have others, of a thousand other things.
    own = names if told.names is None else told.names
    file = add_image(folder, name, upload.data, header.size, told.objects, own, told.skeleton)
    return {"file": file.name, "folder": str(folder), "objects": len(told.objects)}


def _readable(data: bytes, limits: Limits) -> Header:
    header = image_header(data)
    if header.size[0] * header.size[1] > limits.pixels:
        raise RefusedError(413, f"the image has more than {limits.megapixels:g} megapixels")
    return header
