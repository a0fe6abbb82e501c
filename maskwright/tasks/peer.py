"""What a benchmark asks a task: the other side, the stages, whether both find the same.

The base class answers for tasks that no other library is compared with: the model is timed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import torch

from ..models.base import Model
from ..models.meta import Meta


class Stages(Protocol):
    """Times methods while a side computes."""

    def watch(self, owner: Any, method: str, stage: str | Callable[..., str]) -> None:
        """Time a method of an object; `stage` may depend on the arguments."""


class Peer:
    """The other side of a benchmark, torchvision's.

    Attributes:
        stages: names of the stages that `watch_ours` and `watch_theirs` time, in order.
        attaching: what `Task.attach` does, as a stage.
        finishing: what `finish` does, as a stage; "": nothing.
        options: of the builder, with which a model of random weights has a peer.
        num_names: of such a model.
        needs: what a model must have for a peer, for people.
    """

    stages: Sequence[str] = ("network",)
    attaching: str = "attach"
    finishing: str = ""
    options: ClassVar[Mapping[str, Any]] = {}
    num_names = 90
    needs = "torchvision has no such model, weights, options and image size"

    def options_of(self, model: str) -> Mapping[str, Any]:
        """Return `options` for a model by its name."""
        return self.options

    def has(self, meta: Meta, rule: Any) -> bool:
        """Whether there is a peer of a model with images resized by a rule."""
        return False

    def build(
        self, model: Any, meta: Meta, settings: Any, rule: Any, device: torch.device
    ) -> torch.nn.Module:
        """Return the peer with the weights of a model, where there is one."""
        raise NotImplementedError

    def run(self, peer: Any, image: torch.Tensor) -> Any:
        """Return what a peer finds in an image (3, H, W) RGB, 0 to 1, from its size to its size."""
        raise NotImplementedError

    def watch_ours(self, stages: Stages, network: Model) -> None:
        """Time the parts of a network: as a whole, where nothing else is known of it."""
        stages.watch(network, "forward", "network")

    def watch_theirs(self, stages: Stages, peer: Any) -> None:
        """Time the parts of a peer."""

    def finish(self, result: Any) -> object:
        """Compute what a result leaves until it is asked for."""
        return None

    def match(self, ours: Any, theirs: Any) -> Any:
        """Return how what a peer found is found again in a result: a dataclass."""
        raise NotImplementedError

    def told(self, match: Any) -> list[str]:
        """Return a match in words."""
        raise NotImplementedError

    def calibrate(self, model: Any, look: Callable[[Any], object]) -> None:
        """Scale random weights, so that much is found in an image.

        Args:
            model: the model.
            look: lets it look at the image with the given settings, in its own arithmetic.
        """
