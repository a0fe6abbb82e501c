"""ImageNet weights that a classifier starts from, and weights of ours as others take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..converters import networks
from ..converters.state_dicts import subset, weights_prefix
from ..models.classification.timm_backbone import PREFIX
from ..models.meta import Meta
from ..models.registry import ModelEntry, build_blank
from ..nn.stochastic_depth import fold
from ..storage.checkpoint import Checkpoint
from ..storage.published import read_tensors
from .backbone_weights import SHIPPED_BACKBONES, fetch_timm
from .foreign import final_layer

_PACKAGE = Path(__file__).parents[1] / "weights"
# Networks of ours whose weights timm alone publishes, and the options that belong to these.
_TIMM_ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    name: (theirs, {"short": short, "interpolation": "bicubic", "statistics": "half"})
    for name, theirs, short in (
        ("preact_resnet50", "resnetv2_50", 235),
        ("preact_resnet101", "resnetv2_101", 235),
    )
}


def imagenet_weights(entry: ModelEntry, options: Mapping[str, Any]) -> Checkpoint | None:
    """Return the ImageNet weights of a classifier for which no file is registered.

    Args:
        entry: the model.
        options: its builder options, as far as they are given.

    Returns:
        A checkpoint, in which the head may be missing; None: nobody publishes any.

    Raises:
        ValueError: if they cannot be fetched.
    """
    name = entry.name
    donor, own = _TIMM_ALONE.get(name, (None, {}))
    if name.startswith(PREFIX):
        donor = str({**entry.arguments(), **options}["backbone"])
    if donor is None:
        return None
    options = merged(own, options)
    if donor in SHIPPED_BACKBONES:
        tensors = read_tensors(_PACKAGE / SHIPPED_BACKBONES[donor])
        state = {f"network.body.{key}": value for key, value in tensors.items()}
        source = "the package, without last convolution and head"
        return Checkpoint(Meta(name, dict(options), [], source=source), state)
    tensors = fetch_timm(donor)
    blank = build_blank(entry.name, 1, **options)
    converted = networks.to_maskwright(
        tensors, list(blank.state_dict()), model=name, source="timm", final=final_layer(blank)
    )
    meta = Meta(name, dict(options), converted.names, source=f"timm's weights for {donor}")
    return Checkpoint(meta, converted.state)


def merged(ours: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of weights with those that a user gave, which count.

    The short side of a photo belongs to the size of the weights: another size has its own.
    """
    kept = {key: value for key, value in ours.items() if key != "short" or "imgsz" not in given}
    return {**kept, **given}


def plain_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Return a classifier's weights as they are right without stochastic depth.

    What other networks know nothing of, that branches count as often as they ran in training, goes
    into their last layers.
    """
    args = checkpoint.meta.args
    if not _weighs_branches(args):
        return dict(checkpoint.model)
    blank: Any = build_blank(checkpoint.meta.model, 1, **args)
    layers = [f"network.{name}" for name in blank.network.last_layers()]
    return fold(checkpoint.model, layers, args["drop_path"])


def start_state(checkpoint: Checkpoint, options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights of a checkpoint from which a model with these options starts."""
    return dict(checkpoint.model) if _weighs_branches(options) else plain_state(checkpoint)


def _weighs_branches(args: Mapping[str, Any]) -> bool:
    """Whether a model multiplies its branches at test; see `nn.stochastic_depth`."""
    return bool(args.get("drop_path")) and args.get("drop_path_mode", "batch") == "batch"


def backbone_state(checkpoint: Checkpoint, known: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return of a classifier of ours what a detector's backbone takes, by the backbone's names.

    Args:
        checkpoint: the classifier.
        known: tells the names of the backbone.
    """
    state = plain_state(checkpoint)
    return subset(state, weights_prefix(state, known))
