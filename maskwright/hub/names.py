"""What a name stands for: an architecture, or a trained model that comes with the package."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from ..errors import OptionError
from ..models.registry import ModelEntry, get_entry, list_models
from ..storage.checkpoint import load_checkpoint
from .foreign import recognised

_FOREIGN = (".pkl", ".pth", ".pt")  # how files of other libraries end
WEIGHTS = Path(__file__).parents[1] / "weights"


@dataclass(frozen=True)
class Shipped:
    """A trained model inside the package.

    Attributes:
        path: its checkpoint.
        model: the registered name of its architecture, so that nobody need read the file for it.
    """

    path: Path
    model: str


SHIPPED_MODELS = {
    "nuclei": Shipped(WEIGHTS / "mask_rcnn_lite0_nuclei.safetensors", "mask_rcnn_lite0_fpn")
}


def shipped_for(entry: ModelEntry) -> list[str]:
    """Return the trained models of the package that are of the same kind as a model."""
    return [
        name
        for name, shipped in SHIPPED_MODELS.items()
        if get_entry(shipped.model).kind == entry.kind
    ]


def architecture(name: str) -> ModelEntry:
    """Return the entry of a registered model, or say what else `name` is.

    Raises:
        OptionError: if it is a trained model, a file, or nothing known.
    """
    trained = None
    if name in SHIPPED_MODELS:
        trained = SHIPPED_MODELS[name].model
    elif Path(name).suffix in _FOREIGN and Path(name).is_file():
        trained = recognised(Path(name))[0].name
    elif (len(Path(name).parts) > 1 or Path(name).suffix == ".safetensors") and Path(name).exists():
        trained = load_checkpoint(name).meta.model
    if trained is not None:
        raise OptionError(
            f"{name!r} is a trained model, not an architecture: to start from it, give "
            f"model={trained} weights={name}"
        )
    near = difflib.get_close_matches(name, [*list_models(), *SHIPPED_MODELS], 1, 0.5)
    if near and near[0] in SHIPPED_MODELS:
        raise OptionError(f"no model is called {name!r}; did you mean {near[0]!r}?")
    return get_entry(name)
