"""What the description of the service (OpenAPI) says of its requests, with examples."""

from __future__ import annotations

from typing import Any

from .answers import FORMATS, JSON
from .options import described, request_options

_BYTES = {"type": "string", "format": "binary"}
_ERROR = {
    JSON: {
        "schema": {
            "type": "object",
            "required": ["error"],
            "properties": {"error": {"type": "string", "description": "one sentence"}},
        }
    }
}
_EXAMPLE = {
    "path": None,
    "name": "street.jpg",
    "height": 480,
    "width": 640,
    "speed": {"load": 6.1, "preprocess": 4.2, "inference": 88.0, "postprocess": 3.5},
    "label": 3,
    "class": "tram",
    "score": 0.98,
    "top": [{"class": "tram", "score": 0.98}, {"class": "bus", "score": 0.01}],
}
REFUSALS = {
    400: "the request cannot be read",
    401: "the token is missing or wrong",
    403: "a page of another site asks",
    404: "there is no such model",
    406: "no format that Accept names",
    413: "more bytes, pixels or work than the service takes",
    415: "no image by its Content-Type",
    421: "the service is not called so",
    422: "an option is wrong, or the image is broken",
    429: "the queue is full: come again after Retry-After seconds",
    500: "a fault of the service, whose log says more",
    503: "the service is stopping",
    504: "no answer within the deadline",
}
EVERYWHERE = (401, 403, 421)  # what each path may answer


def _parameter(name: str, text: str, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": text,
        "schema": {"type": "string", **schema},
    }


def refusals(*statuses: int) -> dict[str, Any]:
    """Return the answers of these statuses as OpenAPI describes them."""
    return {str(one): {"description": REFUSALS[one], "content": _ERROR} for one in statuses}


def describe_get(kind: str = JSON, *, free: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the answers of a path that is only read.

    Args:
        kind: media type of its answer.
        free: whether it needs no token.
    """
    text = {"type": "object"} if kind == JSON else {"type": "string"}
    found: dict[int | str, dict[str, Any]] = {}
    found[200] = {"description": "what is there", "content": {kind: {"schema": text}}}
    refused = refusals(*(one for one in EVERYWHERE if not (free and one == 401)))
    return {**found, **{int(status): told for status, told in refused.items()}}


def describe_save(labels: str) -> dict[str, Any]:
    """Return what OpenAPI says of `POST /save`.

    Args:
        labels: the field of the form that holds the objects.
    """
    fields = {
        "file": _BYTES,
        labels: {
            "type": "string",
            "description": "JSON with a list of `objects`, as an answer of /predict has them, and "
            "`names`, all that there may be, in their order; without: those of all models",
        },
    }
    form = {"type": "object", "required": ["file", labels], "properties": fields}
    answer = {"schema": {"type": "object"}, "example": {"file": "a.png", "objects": 3}}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": {
            "200": {"description": "what was kept, and where", "content": {JSON: answer}},
            **refusals(400, *EVERYWHERE, 413, 415, 422, 429, 500, 504),
        },
    }


def describe_predict() -> dict[str, Any]:
    """Return what OpenAPI says of `POST /predict`."""
    formats = "; ".join(f"{name}: {text}" for name, (_, text) in FORMATS.items())
    content: dict[str, Any] = {kind: {"schema": _BYTES} for kind, _ in FORMATS.values()}
    content[JSON] = {"schema": {"type": "object"}, "example": _EXAMPLE}
    return {
        "parameters": [
            _parameter("model", "one of /models; the first, if none is named"),
            _parameter("format", f"of the answer, before Accept. {formats}.", enum=[*FORMATS]),
            *map(described, request_options().values()),
        ],
        "requestBody": {
            "required": True,
            "description": "The bytes of an image, or files in a form, whose other fields may be "
            "options. Of several files the answer is JSON with a result, or an error, for each.",
            "content": {
                "image/*": {"schema": _BYTES},
                "application/octet-stream": {"schema": _BYTES},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "properties": {"file": {"type": "array", "items": _BYTES}},
                    }
                },
            },
        },
        "responses": {
            "200": {"description": "what was found", "content": content},
            **refusals(*REFUSALS),
        },
    }
