"""What a request is answered with: a result in the form that was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import nearest
from ..reports.result import ImageResult
from ..text import to_json
from .limits import RefusedError

JSON = "application/json"
# By `format`: what `Accept` calls it, and what it is.
FORMATS: Mapping[str, tuple[str, str]] = {
    "json": (JSON, "what `result.to_json()` has, with `notes` where there is something to say"),
    "page": (JSON, "the same, with what else a page draws: PNG files in base64"),
    "coco": ("application/coco+json", "a COCO document: images, annotations, categories"),
    "geojson": ("application/geo+json", "polygons with holes, in pixels of the image"),
    "overlay": ("image/png", "the picture with what was found drawn on it"),
    "labels": ("image/png", "a PNG with the number of what was found at each pixel"),
    "heatmap": ("image/png", "with explain=: the picture with the evidence over it"),
    "image": ("image/png", "the picture as the model was given it: upright, 8 bits"),
}
_BY_TYPE = {"application/coco+json": "coco", "application/geo+json": "geojson"}
_BY_TYPE |= {JSON: "json", "image/png": "overlay"}


def choose_format(asked: str | None, accept: str) -> str:
    """Return the format of an answer.

    Args:
        asked: the option `format`; None: not given.
        accept: the header Accept.

    Raises:
        RefusedError: if nothing has it.

    Example:
        >>> choose_format(None, "image/png;q=0.5, application/geo+json")
        'geojson'
    """
    if asked is not None:
        if asked not in FORMATS:
            meant = nearest(asked[:40], FORMATS)
            raise RefusedError(422, f"format={asked[:40]}: known are {', '.join(FORMATS)}{meant}")
        return asked
    wanted = []
    for place, part in enumerate(accept.split(",")):
        kind, *parameters = (word.strip().lower() for word in part.split(";"))
        share = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    share = float(parameter[2:])
                except ValueError:
                    share = 0.0
        if kind and share > 0:
            wanted.append((-share, place, kind))
    if not wanted:
        return "json"
    for _, _, kind in sorted(wanted):
        if kind in ("*/*", "application/*"):
            return "json"
        if kind == "image/*":
            return "overlay"
        if kind in _BY_TYPE:
            return _BY_TYPE[kind]
    raise RefusedError(406, f"Accept: this service has {', '.join(_BY_TYPE)}; or give format=")


def make_answer(result: ImageResult, format: str, notes: Sequence[str]) -> tuple[str, bytes]:
    """Return media type and content of an answer.

    Args:
        result: of one image.
        format: one of `FORMATS`.
        notes: what else there is to say; pictures have no place for it.

    Raises:
        RefusedError: if this result has no such form.
    """
    if format in ("json", "page"):
        return JSON, to_json(plain(result, notes, drawn=format == "page")).encode()
    makers = result.answers()
    if format not in makers:
        have = ", ".join(["json", *makers])
        need = ": give explain= as well, such as gradcam" if format == "heatmap" else ""
        raise RefusedError(422, f"format={format} is not there for this model{need}; it has {have}")
    made = makers[format]()
    return FORMATS[format][0], made if isinstance(made, bytes) else made.encode()


def plain(result: ImageResult, notes: Sequence[str], *, drawn: bool = False) -> dict[str, Any]:
    """Return a result as plain data.

    Args:
        result: of one image.
        notes: what else there is to say of it.
        drawn: with what else a page draws.
    """
    data: dict[str, Any] = json.loads(result.to_json())
    if notes:
        data["notes"] = list(notes)
    return {**data, **result.drawn()} if drawn else data
