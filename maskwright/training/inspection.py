"""Before a training: every image file is looked at, and all that are broken are named at once."""

from __future__ import annotations

from typing import Any

import torch

from ..data.checking.inspection import Inspection, inspect_images
from ..data.records import Dataset
from ..terminal import console

SHOWN = 20  # broken images that a message names


def check_images(*datasets: Dataset | None, fabric: Any) -> None:
    """Look at the images of a training, shared by its processes.

    Args:
        datasets: the splits; None is passed over.
        fabric: connects the processes.

    Raises:
        ValueError: naming the images that cannot be used.
    """
    messages: list[str] = []
    images = decoded = 0
    for dataset in datasets:
        if dataset is None or not len(dataset):
            continue
        rank, world = fabric.global_rank, fabric.world_size
        total = len(range(rank, len(dataset), world))
        with console.progress(
            f"images of {dataset.split}", total=total, unit="img", enabled=rank == 0
        ) as bar:
            found = inspect_images(
                dataset, rank=rank, world=world, progress=lambda done: bar.update(done - bar.done)
            )
        shares: list[Any] = [found] * world
        if world > 1:
            torch.distributed.all_gather_object(shares, found)
        images, decoded = (
            images + sum(share.images for share in shares),
            decoded + sum(share.decoded for share in shares),
        )
        messages += _messages(shares)
    if messages:
        shown = "\n".join(f"  {message}" for message in messages[:SHOWN])
        more = f"\n  and {len(messages) - SHOWN} others" if len(messages) > SHOWN else ""
        whole = all("channels=" in message for message in messages)  # they are as they should be
        mend = "choose channels that all images have" if whole else "mend them"
        raise ValueError(
            f"{len(messages)} of {images} images cannot be used:\n{shown}{more}\n{mend}, or "
            "take the images out of the annotations; `maskwright data check` lists them in a file"
        )
    if decoded < images and fabric.is_global_zero:
        console.note(
            f"{decoded} of {images} images were decoded, of the others both ends of the file were "
            "looked at; `maskwright data check` decodes all"
        )


def _messages(shares: list[Inspection]) -> list[str]:
    every = sorted(entry for share in shares for entry in share.broken)
    return [message for _, message in every]
