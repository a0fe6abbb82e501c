"""Annotated images: reading, checking, augmenting and loading them. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .check import CheckReport, check_data
    from .coco import read_coco
    from .discover import find_splits, open_dataset
    from .holdout import split_dataset
    from .images import collate_images, load_image, resize_image
    from .loader import Batch, Loader, make_loader
    from .records import Dataset, Fault, Record
    from .transforms import Augment
    from .voc import read_voc
    from .voc_write import write_voc

_HOMES = {
    "Augment": "transforms",
    "Batch": "loader",
    "CheckReport": "check",
    "Dataset": "records",
    "Fault": "records",
    "Loader": "loader",
    "Record": "records",
    "check_data": "check",
    "collate_images": "images",
    "find_splits": "discover",
    "load_image": "images",
    "make_loader": "loader",
    "open_dataset": "discover",
    "read_coco": "coco",
    "read_voc": "voc",
    "resize_image": "images",
    "split_dataset": "holdout",
    "write_voc": "voc_write",
}

__all__ = [
    "Augment",
    "Batch",
    "CheckReport",
    "Dataset",
    "Fault",
    "Loader",
    "Record",
    "check_data",
    "collate_images",
    "find_splits",
    "load_image",
    "make_loader",
    "open_dataset",
    "read_coco",
    "read_voc",
    "resize_image",
    "split_dataset",
    "write_voc",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
