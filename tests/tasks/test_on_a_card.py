"""Training and prediction on a card that is not there (`card.py`): no operand stays on the host.

How often the host waits for the card is bounded, in a step and in a prediction: by images, and by
neither objects nor maps nor layers. The operators of detectors are in `ops/test_waits.py`.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from card import CUDA, Card
from test_every_family import tiny_training
from torch import nn

import maskwright.prediction.predictor as predictor_module
import maskwright.training.prepare as prepare_module
from maskwright.prediction.predictor import Predictor
from maskwright.tasks import FOLDERS, get_task
from maskwright.training.prepare import prepare
from maskwright.training.resume import kind_of
from maskwright.training.train import optimise, validate

# Of two images. Each NMS has four waits an image, each pooling of regions one, forward or backward,
# and the hunt for the objects of prior boxes one for every box that two of them want.
STEP_WAITS = 40
PREDICTION_WAITS = 40
# One of each kind of head; what is long runs with `make test-long`.
LONG = ("mask_rcnn_resnet50_fpn", "refine_mask_resnet50_fpn", "retinanet_resnet50_fpn")
LONG += ("ssd300_vgg16", "yolo_v2")
FAMILIES = ["lenet5", "unet", *(pytest.param(name, marks=pytest.mark.slow) for name in LONG)]
INTERRUPT: Any = SimpleNamespace(wanted=False, listen=lambda loader, waits: loader)


class OneCard:
    """What a training asks of Fabric, for one process on the card."""

    device = CUDA
    world_size = 1
    global_rank = 0
    is_global_zero = True

    def barrier(self) -> None: ...

    def broadcast(self, value: Any) -> Any:
        return value

    def setup(self, step: nn.Module, optimizer: Any) -> tuple[nn.Module, Any]:
        return step, optimizer

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def clip_gradients(self, module: nn.Module, _: Any, max_norm: float, **__: Any) -> torch.Tensor:
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        norm = torch.stack([grad.norm() for grad in grads]).norm()
        for grad in grads:
            grad.mul_((max_norm / norm).clamp(max=1))
        return norm


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(prepare_module, "make_fabric", lambda *_, **__: OneCard())
    monkeypatch.setattr(predictor_module, "pick_device", lambda _: CUDA)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self.clone())
    for folder in FOLDERS:
        for drawing in ("draw_annotations", "draw_batch"):
            monkeypatch.setattr(type(get_task(folder)), drawing, lambda *_: None)
    with Card() as made:
        yield made


@pytest.mark.filterwarnings("ignore:.pin_memory. argument")  # without a card, torch only says so
@pytest.mark.parametrize("precision", ["32", pytest.param("bf16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_and_a_prediction(name: str, precision: str, card: Card, tmp_path: Path) -> None:
    options = tiny_training(name, tmp_path, device="cuda", ema=0.9, precision=precision)
    recipe = kind_of(options)(**options)
    run = prepare(recipe)
    run.model.train()
    batch = next(iter(run.loader))
    optimise(run, [batch], INTERRUPT)
    with card.counting():
        optimise(run, [batch], INTERRUPT)
    assert sum(card.waits.values()) <= STEP_WAITS, card.report()
    assert run.place.counted == 2
    parameters = [p for p in run.model.parameters() if p.requires_grad]
    assert all(p.is_cuda and p.grad is None for p in parameters)
    validate(run, INTERRUPT, keep=False)

    half = "float32" if precision == "32" else "fp16"
    predictor = Predictor(run.model, run.meta, device="cuda", precision=half)
    photo = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    predictor(photo)
    with card.counting():
        predictor(photo)
    assert sum(card.waits.values()) <= PREDICTION_WAITS, card.report()
