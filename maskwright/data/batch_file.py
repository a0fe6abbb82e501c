"""A batch as a safetensors file: what a training step saw, to be looked at and replayed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from maskwright.files import replacing
from maskwright.paths import plain_path
from maskwright.structures import Images, Instances, Labels, PackedMasks

from .batches import Batch

KEY = "maskwright.batch"


def save_batch(path: Path, batch: Batch, info: Mapping[str, Any]) -> None:
    """Write a batch; `info` is plain data that goes along with it."""
    from safetensors.torch import save_file

    tensors = {"keys": batch.keys}
    targets = batch.targets
    parts = {
        "images": batch.images,
        "proposals": batch.images.proposals,
        "targets": targets,
        "masks": getattr(targets, "masks", None),
    }
    for prefix, part in parts.items():
        for name, value in vars(part).items() if part is not None else ():
            if isinstance(value, Tensor):
                tensors[f"{prefix}.{name}"] = value
    tensors = {name: value.cpu().contiguous() for name, value in tensors.items()}
    content = {"indices": batch.indices, "targets": type(targets).__name__, "info": dict(info)}
    with replacing(path, durable=False) as temporary:
        save_file(tensors, temporary, {KEY: json.dumps(content)})


def load_batch(path: str | Path) -> tuple[Batch, dict[str, Any]]:
    """Return the batch and the information that `save_batch` wrote.

    Raises:
        ValueError: if the file is missing or no such file.
    """
    from safetensors import SafetensorError, safe_open

    kinds = ("images", "proposals", "targets", "masks", "")
    parts: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
    try:
        with plain_path(Path(path)) as plain, safe_open(plain, framework="pt") as file:
            content = json.loads(file.metadata()[KEY])
            names: list[str] = file.keys()
            for key in names:
                prefix, _, name = key.rpartition(".")
                parts[prefix][name] = file.get_tensor(key)
        masks = PackedMasks(**parts["masks"]) if parts["masks"] else None
        regions: dict[str, Any] = {**parts["proposals"]}
        proposals = Instances(**regions) if regions else None
        images = Images(**parts["images"], proposals=proposals)
        targets: Any
        if content.get("targets") == Labels.__name__:
            targets = Labels(**parts["targets"])
        else:
            targets = Instances(**parts["targets"], masks=masks)
        batch = Batch(images, targets, list(content["indices"]), parts[""]["keys"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a saved batch ({error})") from None
    return batch, dict(content["info"])
