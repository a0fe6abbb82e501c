"""The options of a request: those of `predict` that make sense for one image, with its errors."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from ..errors import OptionError, nearest
from ..prediction.predict import predict
from ..prediction.predictor import Predictor, defaults_of
from ..signatures import Option, describe_kind, parse_value, read_options
from .batching import Asked

# Of `predict`; none of them names a file.
NAMES = (
    *("conf", "iou", "max_det", "imgsz", "soft_nms", "tta", "topk", "slide", "crf"),
    *("window", "page", "channels"),
    *("tile", "overlap", "tile_levels", "explain", "explain_target"),
)
OWN = ("model", "format")
LONGEST = 400  # characters of a value
_TYPES = {"int": "integer", "float": "number"}


@cache
def request_options() -> dict[str, Option]:
    """Return the options that a request may have, by name."""
    known = {one.name: one for one in read_options("maskwright.prediction.predict", "predict")}
    return {name: known[name] for name in NAMES}


def described(option: Option) -> dict[str, Any]:
    """Return an option as OpenAPI describes a parameter."""
    return {
        "name": option.name,
        "in": "query",
        "required": False,
        "description": option.help,
        "schema": {**_schema(option.kind), "title": describe_kind(option.kind)},
    }


def _schema(kind: str) -> dict[str, Any]:
    """Return the type of an option in JSON Schema: "string" where it has several, such as none."""
    return {"type": _TYPES.get(kind, "string")}


def read_request(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of a request as values by name.

    Args:
        given: texts by name, from the address and the form; `OWN` are passed over.

    Raises:
        OptionError: for an unknown one, or one that is no such value.
    """
    known = request_options()
    options = {}
    for name, text in given.items():
        if name in OWN:
            continue
        if name not in known:
            raise OptionError(
                f"there is no option {name[:40]!r}{nearest(name[:40], (*known, *OWN))}"
            )
        if len(text) > LONGEST:
            raise OptionError(f"{name} is longer than {LONGEST} characters")
        try:
            options[name] = parse_value(known[name].kind, text)
        except ValueError as error:
            raise OptionError(f"{name}: {error}") from None
    return options


def check_request(predictor: Predictor, options: Mapping[str, Any]) -> Asked:
    """Return what a request wants of a model, checked as `predict` checks it.

    Args:
        predictor: the model.
        options: see `read_request`.

    Raises:
        OptionError: if one is wrong, or another task's.
    """
    defaults = defaults_of(predict)
    given = {name: options.get(name, defaults[name]) for name in NAMES}
    imgsz = given.pop("imgsz")
    reading = predictor.reading(given.pop("window"), given.pop("channels"), given.pop("page"))
    settings = predictor.settings(given, predict)
    rule = predictor.resize_rule(imgsz, settings)
    explain, target = given["explain"], given["explain_target"]
    explainer = None
    if explain is not None and given["tile"] is not None:
        raise OptionError("explain shows an image as a whole, as the network sees it: not in tiles")
    if explain is not None:
        explainer = predictor.explainer(explain, target, rule)
    elif target is not None:
        raise OptionError(f"explain_target={target} needs explain=, such as gradcam")
    return Asked(tuple(sorted(options.items())), settings, rule, reading, explainer)
