"""Annotated images: reading, checking, augmenting and loading them. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .batches import Batch, Loader, load_batches
    from .checking.check import CheckReport, check_data
    from .discover import find_splits, open_dataset
    from .formats.coco.read import read_coco
    from .formats.coco.write import write_coco
    from .formats.labelme.read import unpack_images
    from .formats.voc.read import read_voc
    from .formats.voc.write import write_voc
    from .formats.writing import write_dataset
    from .label_batches import LabelBatches
    from .label_samples import LabelAugment
    from .loader import make_loader
    from .maps.batches import MapBatches
    from .maps.counts import count_pixels, median_weights
    from .maps.samples import MapAugment
    from .pixels.images import load_image
    from .pixels.resizing import collate_images, resize_image
    from .records import Dataset, Fault, Record
    from .rewriting.classes import change_classes
    from .rewriting.convert import convert_data
    from .rewriting.holdout import split_dataset
    from .rewriting.merge import merge_data
    from .rewriting.split import split_data
    from .rewriting.writing import RewriteReport
    from .transforms import Augment

_HOMES = {
    "Augment": "transforms",
    "Batch": "batches",
    "CheckReport": "checking.check",
    "Dataset": "records",
    "Fault": "records",
    "LabelAugment": "label_samples",
    "LabelBatches": "label_batches",
    "Loader": "batches",
    "MapAugment": "maps.samples",
    "MapBatches": "maps.batches",
    "Record": "records",
    "RewriteReport": "rewriting.writing",
    "change_classes": "rewriting.classes",
    "check_data": "checking.check",
    "convert_data": "rewriting.convert",
    "collate_images": "pixels.resizing",
    "count_pixels": "maps.counts",
    "find_splits": "discover",
    "load_batches": "batches",
    "load_image": "pixels.images",
    "make_loader": "loader",
    "median_weights": "maps.counts",
    "merge_data": "rewriting.merge",
    "open_dataset": "discover",
    "read_coco": "formats.coco.read",
    "read_voc": "formats.voc.read",
    "resize_image": "pixels.resizing",
    "split_data": "rewriting.split",
    "split_dataset": "rewriting.holdout",
    "unpack_images": "formats.labelme.read",
    "write_coco": "formats.coco.write",
    "write_dataset": "formats.writing",
    "write_voc": "formats.voc.write",
}

__all__ = [
    "Augment",
    "Batch",
    "CheckReport",
    "Dataset",
    "Fault",
    "LabelAugment",
    "LabelBatches",
    "Loader",
    "MapAugment",
    "MapBatches",
    "Record",
    "RewriteReport",
    "change_classes",
    "check_data",
    "collate_images",
    "convert_data",
    "count_pixels",
    "find_splits",
    "load_batches",
    "load_image",
    "make_loader",
    "median_weights",
    "merge_data",
    "open_dataset",
    "read_coco",
    "read_voc",
    "resize_image",
    "split_data",
    "split_dataset",
    "unpack_images",
    "write_coco",
    "write_dataset",
    "write_voc",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
