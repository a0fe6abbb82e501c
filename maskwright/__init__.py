"""maskwright: detection, instance segmentation, classification and localization in pure PyTorch.

    import maskwright as mw

    predictor = mw.load("runs/segment/exp")
    result = predictor("photo.jpg")
    result.show()

The names below are found when they are first used, so that `import maskwright` is instant and
imports neither torch nor torchvision.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from maskwright._version import __version__

if TYPE_CHECKING:
    from maskwright import distribute
    from maskwright.comparing.compare import compare
    from maskwright.exporters.export import export
    from maskwright.hub.loading import convert
    from maskwright.prediction.load import load
    from maskwright.prediction.predict import predict
    from maskwright.prediction.predictor import Predictor
    from maskwright.prediction.val import val
    from maskwright.structures import Detections
    from maskwright.tasks.detection.result import Result
    from maskwright.terminal.heap import keep_memory
    from maskwright.training.train import train

__all__ = [
    "Detections",
    "Predictor",
    "Result",
    "__version__",
    "compare",
    "convert",
    "distribute",
    "export",
    "keep_memory",
    "load",
    "predict",
    "train",
    "val",
]

_HOMES = {
    "Detections": "maskwright.structures",
    "Predictor": "maskwright.prediction.predictor",
    "Result": "maskwright.tasks.detection.result",
    "compare": "maskwright.comparing.compare",
    "convert": "maskwright.hub.loading",
    "export": "maskwright.exporters.export",
    "keep_memory": "maskwright.terminal.heap",
    "load": "maskwright.prediction.load",
    "predict": "maskwright.prediction.predict",
    "train": "maskwright.training.train",
    "val": "maskwright.prediction.val",
}


def __getattr__(name: str) -> Any:
    if name == "distribute":  # a module, with functions of its own
        return importlib.import_module("maskwright.distribute")
    if name not in _HOMES:
        raise AttributeError(f"module 'maskwright' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
