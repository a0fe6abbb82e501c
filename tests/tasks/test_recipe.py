from __future__ import annotations

import inspect
import json
import math
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from maskwright.recipes import nuclei
from maskwright.tasks.detection.recipe import DetectionRecipe
from maskwright.tasks.recipe import option_help, option_parameters
from maskwright.tasks.semantic.recipe import SemanticRecipe


def test_defaults_are_the_documented_ones() -> None:
    recipe = DetectionRecipe(data="cells")
    assert recipe.model == "mask_rcnn_resnet50_fpn"
    assert (recipe.epochs, recipe.patience, recipe.batch, recipe.freeze) == (100, 20, 2, 2)
    assert (recipe.seed, recipe.workers, recipe.device) == (0, 2, "auto")
    with pytest.raises(FrozenInstanceError):
        recipe.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "recipe", [DetectionRecipe(data=Path("a/b"), scale_jitter=(0.5, 2)), nuclei()]
)
def test_round_trip_through_yaml_and_json(recipe: DetectionRecipe) -> None:
    plain = recipe.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain
    again = DetectionRecipe.from_dict(plain)
    assert again.to_dict() == plain
    assert again.scale_jitter == tuple(recipe.scale_jitter)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": ""}, "data is missing"),
        ({"batch": 0}, "-1 for automatic"),
        ({"epochs": 0}, "epochs=0: expected a whole number of at least 1"),
        ({"epochs": "3"}, "epochs='3'"),
        ({"epochs": 2.5}, "whole number"),
        ({"epochs": None}, "whole number"),
        ({"workers": -1}, "workers=-1"),
        ({"lr": 0.0}, "above 0"),
        ({"lr": math.nan}, "above 0"),
        ({"lr": 1e38}, "up to 1e9"),
        ({"weight_decay": 1e38}, "up to 1e6"),
        ({"backbone_lr": -1.0}, "at least 0"),
        ({"flip": 1.5}, "between 0 and 1"),
        ({"ema": 1.0}, "between 0 and 1"),
        ({"val_fraction": 1.0}, "from 0 up to 1"),
        ({"optimizer": "adamm"}, "did you mean 'adamw'"),
        ({"schedule": "linear"}, "cosine, multistep, poly, constant"),
        ({"precision": "16"}, "32, bf16"),
        ({"scale_jitter": (1.5, 0.5)}, "smallest and the largest"),
        ({"crop": 0}, "crop=0"),
        ({"imgsz": "big"}, "imgsz"),
        ({"milestones": (0.9, 0.5)}, "rising"),
        ({"milestones": (0.5, 60)}, "rising"),
        ({"steps": 10, "warmup": 20}, "longer than the whole training"),
        ({"steps": 10, "minutes": 1.5}, "both end the training"),
        ({"minutes": 0}, "minutes=0: expected a number above 0"),
        ({"alternate": True, "minutes": 1}, "not minutes"),
        ({"resume": "runs/x", "weights": "y"}, "leave one of the two out"),
        ({"backbone": "resnet18", "model_args": {"backbone": "resnet34"}}, "given twice"),
    ],
)
def test_contradictions_say_how_to_mend_them(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DetectionRecipe(**{"data": "cells", **options})


def test_unknown_field_names_the_nearest() -> None:
    with pytest.raises(TypeError, match="'epoch'; did you mean 'epochs'"):
        DetectionRecipe.from_dict({"data": "cells", "epoch": 3})


def test_learning_rate_follows_the_images_behind_a_step() -> None:
    adamw, sgd = DetectionRecipe(data="x"), DetectionRecipe(data="x", optimizer="sgd")
    assert adamw.peak_lr(16) == pytest.approx(1e-3)
    assert adamw.peak_lr(4) == pytest.approx(5e-4)
    assert SemanticRecipe(data="x").peak_lr(4) == pytest.approx(1e-3)
    assert sgd.peak_lr(16) == pytest.approx(0.02)  # Detectron's rate for 16 images
    assert sgd.peak_lr(2) == pytest.approx(0.0025)
    assert DetectionRecipe(data="x", lr=0.3).peak_lr(2) == 0.3
    assert (adamw.decay(), sgd.decay()) == (0.05, 1e-4)
    assert DetectionRecipe(data="x", weight_decay=0.0).decay() == 0


def test_warm_up_is_a_tenth_and_at_most_500() -> None:
    recipe = DetectionRecipe(data="x")
    assert [recipe.warmup_steps(n) for n in (5, 100, 90_000)] == [0, 10, 500]
    assert nuclei().warmup_steps(480) == 40


def test_every_field_has_its_meaning_under_it() -> None:
    help_texts = option_help(DetectionRecipe)
    assert list(help_texts) == [entry.name for entry in fields(DetectionRecipe)]
    assert all(len(text) > 10 and text.endswith(".") for text in help_texts.values())


def test_signature_lists_every_field_once() -> None:
    parameters = option_parameters(DetectionRecipe)
    assert [p.name for p in parameters] == [entry.name for entry in fields(DetectionRecipe)]
    kinds = {p.name: p.kind for p in parameters}
    assert kinds["model"] is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert kinds["epochs"] is inspect.Parameter.KEYWORD_ONLY
    assert {p.name: p.default for p in parameters}["epochs"] == 100


def test_reading_the_options_loads_no_torch() -> None:
    code = (
        "import sys; from maskwright.tasks.detection.recipe import DetectionRecipe; "
        "from maskwright.tasks.recipe import option_help; option_help(DetectionRecipe); "
        "DetectionRecipe(data='x'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
