"""The service keeps to its own description (OpenAPI), whatever is sent to it: by schemathesis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies
from serving_help import encoded, served
from tiny_models import fresh

from maskwright.models.meta import Meta
from maskwright.prediction.predictor import Predictor

pytest.importorskip("fastapi", reason="needs the extra serve")
schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")

PHOTO = encoded(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
BODIES = strategies.one_of(
    strategies.just(PHOTO),
    strategies.integers(0, len(PHOTO)).map(lambda end: PHOTO[:end]),
    strategies.binary(max_size=200),
)
schemathesis.openapi.format("binary", BODIES)
for kind in ("image/*", "image/png", "application/octet-stream"):
    schemathesis.openapi.media_type(kind, BODIES)


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from maskwright.serving.app import create_app

    model = Predictor(fresh("lenet5", 3), Meta("lenet5", {}, ["cat", "dog", "tree"]), device="cpu")
    app = create_app({"lenet5": model}, corrections=tmp_path_factory.mktemp("saved") / "set")
    with served(app) as address:
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


def fuzz(operation: Any, examples: int) -> None:
    """Send requests that keep to the description, and such that do not.

    That those which keep to it succeed is not asked for: no description says which bytes are a
    whole image, or which texts an option takes.
    """
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    for mode in schemathesis.GenerationMode:
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.method == "get":
            continue  # there is nothing to be wrong in

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        def send(case: Any) -> None:
            case.call_and_validate(excluded_checks=[positive_data_acceptance], timeout=60)

        send()


OPERATIONS = [
    ("/predict", "POST"),
    ("/save", "POST"),
    ("/models", "GET"),
    ("/health", "GET"),
    ("/metrics", "GET"),
]


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_a_few_requests(description: Any, path: str, method: str) -> None:
    fuzz(description[path][method], 8)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "method"), OPERATIONS[:2])
def test_many_requests(description: Any, path: str, method: str) -> None:
    fuzz(description[path][method], 300)
