"""Weights of classifiers that others published: where they are, and how good."""

from __future__ import annotations

from ..registry import PublishedWeights


def torchvision_classifier(
    name: str, digest: str, top1: float, top5: float, *, short: int | None = None
) -> PublishedWeights:
    """Describe an ImageNet file of torchvision, whose name ends with the start of its SHA-256.

    Args:
        name: torchvision's name of the model.
        digest: start of the SHA-256.
        top1: published accuracy in percent.
        top5: the same, of the five best.
        short: short side of a photo at test; None: 256 for a square of 224.
    """
    return PublishedWeights(
        url=f"https://download.pytorch.org/models/{name}-{digest}.pth",
        sha256=digest,
        format="torchvision",
        licence="BSD-3-Clause (torchvision); trained on ImageNet",
        source="torchvision, ImageNet-1k",
        metrics={"top1": top1, "top5": top5},
        options={} if short is None else {"short": short},
    )
