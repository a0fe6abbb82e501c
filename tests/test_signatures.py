"""Options read from source are those that Python itself sees, and text becomes their values."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from maskwright.signatures import REQUIRED, describe_kind, parse_value, read_options


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("maskwright.prediction.predict", "predict"),
        ("maskwright.prediction.val", "val"),
        ("maskwright.hub.loading", "convert"),
        ("maskwright.data.checking.check", "check_data"),
    ],
)
def test_the_source_says_what_python_sees(module: str, name: str) -> None:
    function = getattr(__import__(module, fromlist=[name]), name)
    parameters = inspect.signature(function).parameters
    options = read_options(module, name)
    assert [option.name for option in options] == list(parameters)
    for option in options:
        parameter = parameters[option.name]
        required = parameter.default is inspect.Parameter.empty
        assert option.default is REQUIRED if required else option.default == parameter.default
        assert option.kind == str(parameter.annotation).replace('"', "'")
        assert option.positional == (parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
        assert option.help, f"{module}.{name} does not explain {option.name}"


def test_a_function_that_is_not_there() -> None:
    with pytest.raises(LookupError, match="no function nothing"):
        read_options("maskwright.hub.loading", "nothing")


SIZE = "int | tuple[int, int] | str | None"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (SIZE, "640", 640),
        (SIZE, "800,1333", (800, 1333)),
        (SIZE, "(800, 1333)", (800, 1333)),
        (SIZE, "1.25x", "1.25x"),
        (SIZE, "None", None),
        ("tuple[float, ...]", "8,16,32,64,128", (8.0, 16.0, 32.0, 64.0, 128.0)),
        ("tuple[float, float]", "0.8,1.25", (0.8, 1.25)),
        ("float | None", "1e-3", 0.001),
        ("float | None", "none", None),
        ("int", "-1", -1),
        ("bool", "False", False),
        ("bool", "yes", True),
        ("str | Path | None", "a,b", "a,b"),
        ("Literal['adamw', 'sgd']", "sgd", "sgd"),
        ("Literal['32', 'bf16']", "32", "32"),
        ("str | Path | Predictor", "run", "run"),
        ("Any", "photos/*.jpg", "photos/*.jpg"),
    ],
)
def test_parse_value(kind: str, text: str, value: Any) -> None:
    found = parse_value(kind, text)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("int", "2.5", "expected INT, got '2.5'"),
        ("float | None", "abc", "expected NUMBER, got 'abc'"),
        ("bool", "maybe", "expected true|false"),
        ("tuple[float, float]", "1,2,3", "expected NUMBER,NUMBER, got"),
        ("tuple[int, ...]", "1,x", "expected INT,INT,..."),
        ("Literal['a', 'b']", "c", r"expected a \| b"),
        ("int", "none", "expected INT"),
    ],
)
def test_wrong_values(kind: str, text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_value(kind, text)


def test_describe_kind() -> None:
    assert describe_kind(SIZE) == "INT | INT,INT | TEXT"
    assert describe_kind("str | Path | None") == "PATH"  # written as any text
