"""maskwright: region-based detection and instance segmentation in pure PyTorch.

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
    from maskwright.engine.export import export
    from maskwright.engine.heap import keep_memory
    from maskwright.engine.predict import Predictor, predict
    from maskwright.engine.result import Result
    from maskwright.engine.train import train
    from maskwright.engine.val import val
    from maskwright.hub import convert, load
    from maskwright.structures import Detections

__all__ = [
    "Detections",
    "Predictor",
    "Result",
    "__version__",
    "convert",
    "export",
    "keep_memory",
    "load",
    "predict",
    "train",
    "val",
]

_HOMES = {
    "Detections": "maskwright.structures",
    "Predictor": "maskwright.engine.predict",
    "Result": "maskwright.engine.result",
    "convert": "maskwright.hub",
    "export": "maskwright.engine.export",
    "keep_memory": "maskwright.engine.heap",
    "load": "maskwright.hub",
    "predict": "maskwright.engine.predict",
    "train": "maskwright.engine.train",
    "val": "maskwright.engine.val",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maskwright' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
