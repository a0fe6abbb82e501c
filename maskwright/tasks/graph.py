"""What export and the readers of exported files ask a task: `GraphKind`, one object a task.

A graph goes from `pixels` (B, 3, H, W) float32 RGB 0 to 255, `sizes` (B, 2) int64, and what else
its task gives it, to the outputs of its task. `GraphSpec` is what its file says of itself: what all
files say, and an `Interface` for the rest. A file that is open is a `GraphModel`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn

from ..data.records import Dataset
from ..errors import OptionError
from ..models.meta import Meta
from ..structures import Images, Resize
from . import get_task

USUAL_SIZE = "auto"  # the size of a graph that nobody asked for

# Runs a graph on any number of images; the outputs by name.
Run = Callable[[Images], dict[str, Tensor]]


class Interface(ABC):
    """What a graph of one task takes and gives beyond all others; a frozen dataclass.

    Attributes:
        extra_inputs: names of the inputs behind `pixels` and `sizes`, in order.
    """

    extra_inputs: Sequence[str] = ()

    @property
    @abstractmethod
    def outputs(self) -> list[str]:
        """Names of the outputs in order."""

    @property
    @abstractmethod
    def settings(self) -> Any:
        """The `Settings` of the prediction that the graph is."""

    @abstractmethod
    def shape(self, output: str) -> tuple[int, ...]:
        """Return the first sizes of an output behind the batch: what damaged files get wrong."""

    @abstractmethod
    def fields(self) -> dict[str, Any]:
        """Return the fields of the file's description, as plain data; see `GraphKind.read`."""

    @abstractmethod
    def check(self, spec: GraphSpec) -> None:
        """Raise a ValueError if it is impossible, or the rest of a description does not fit it."""


@dataclass(frozen=True)
class Quantised:
    """What int8 came to.

    Attributes:
        images: number of calibration images.
        before: metrics of the float graph by key, see `GraphKind.judged`; in [0, 1].
        after: the same of the int8 graph.
    """

    images: int
    before: dict[str, float]
    after: dict[str, float]


@dataclass(frozen=True)
class GraphSpec:
    """The description of an exported model.

    Attributes:
        meta: names, category ids, licence, source, window and what else there is; `args`, `extra`
            and `metrics` are empty.
        task: see `Model`.
        size: (height, width) of `pixels`; None: any multiples of `divisor`.
        batch: images of a call; None: any number.
        divisor: sides of `pixels` are multiples of it.
        resize: how a photo becomes network input, before it is padded or cut.
        precision: "fp32"; "fp16": weights in half precision, arithmetic in single; "int8": most
            layers in 8-bit integers.
        own: what the task adds.
        quantised: what int8 came to; None for other precisions.
    """

    meta: Meta
    task: str
    size: tuple[int, int] | None
    batch: int | None
    divisor: int
    resize: Resize
    precision: str
    own: Any
    quantised: Quantised | None = None

    @property
    def channels(self) -> int:
        """C of `pixels` (B, C, H, W)."""
        return 3 if self.meta.channels is None else len(self.meta.channels)

    @property
    def kind(self) -> GraphKind:
        """What the task answers."""
        return graph_kind(self.task)

    @property
    def inputs(self) -> list[str]:
        """Names of the graph's inputs, in order."""
        return ["pixels", "sizes", *self.own.extra_inputs]

    @property
    def outputs(self) -> list[str]:
        """Names of the graph's outputs, in order."""
        outputs: list[str] = self.own.outputs
        return outputs


class GraphModel:
    """A model whose network is an exported graph: a `Model` as well; it predicts, without training.

    Attributes:
        spec: the description in the file.
        source: what messages call it: the path of the file.
    """

    spec: GraphSpec
    source: str


@dataclass(frozen=True)
class Photo:
    """An image to compare on.

    Attributes:
        name: what it is called: its path, where it has one.
        pixels: (H, W, 3) uint8.
        blank: there is nothing in it.
    """

    name: str
    pixels: np.ndarray
    blank: bool = False


class GraphKind(ABC):
    """The graphs of one task; the methods stand in the order in which an export asks them.

    Attributes:
        columns: of the table of a comparison, behind those that all have; see `row`.
        judged: what int8 is judged by: metrics of the evaluation, as far as model and data have
            them, and what users call them. Finer metrics are parts of these.
        unit: what a hundredth of these is called: "points of AP".
    """

    columns: ClassVar[tuple[str, ...]]
    judged: ClassVar[Mapping[str, str]]
    unit: ClassVar[str]

    # Writing.

    def size(self, model: Any, imgsz: Any) -> tuple[int, int] | None:
        """Return (height, width) of the pixels of a graph, None for any.

        Args:
            model: the model.
            imgsz: height and width, one side, None, or `USUAL_SIZE`.

        Raises:
            OptionError: if the model has no graph of that size.
        """
        if imgsz == USUAL_SIZE:
            return self.usual_size(model)
        if imgsz is None:
            return None
        whole = isinstance(imgsz, int)
        sides = (imgsz, imgsz) if whole else imgsz if isinstance(imgsz, tuple | list) else ()
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise OptionError(
                f"imgsz is height,width of the graph, one side, none or auto; got {imgsz!r}"
            )
        divisor = model.size_divisor
        if any(side % divisor for side in sides):
            near = ",".join(str(max(round(side / divisor), 1) * divisor) for side in sides)
            raise OptionError(
                f"imgsz={','.join(map(str, sides))}: sides of the graph are multiples of "
                f"{divisor}, such as imgsz={near}"
            )
        return sides[0], sides[1]

    @abstractmethod
    def usual_size(self, model: Any) -> tuple[int, int] | None:
        """Return (height, width) of the pixels of a graph if nobody asks for another."""

    def resize(self, model: Any, size: tuple[int, int] | None) -> Resize:
        """Return how a photo is resized for a graph of a size."""
        rule: Resize = model.resize.bound(size)
        return rule

    @abstractmethod
    def interface(self, model: Any, settings: Any) -> Interface:
        """Return what a graph of a model takes and gives, with the settings of its prediction."""

    @abstractmethod
    def read(self, data: Mapping[str, Any]) -> Interface:
        """Return what `Interface.fields` gave, of a file's description.

        Raises:
            ValueError, KeyError, TypeError: if something is missing or impossible.
        """

    @abstractmethod
    def wrap(self, network: Any, spec: GraphSpec) -> nn.Module:
        """Return a module from the tensors of `spec.inputs` to those of `spec.outputs`."""

    def example(self, spec: GraphSpec, pixels: Tensor) -> list[Tensor]:
        """Return extra inputs that belong to zeros as pixels, for tracing."""
        return []

    # Running.

    def extra(self, images: Images, spec: GraphSpec) -> list[Tensor]:
        """Return the extra inputs of images, in order."""
        return []

    @abstractmethod
    def open(self, spec: GraphSpec, run: Run, source: str) -> Any:
        """Return a model, a `GraphModel` as well, whose network is a graph.

        Args:
            spec: its description.
            run: calls it.
            source: what messages call it.
        """

    # Comparing with the model itself.

    @abstractmethod
    def batch(
        self, photos: Sequence[Photo], model: Any, spec: GraphSpec, factor: float = 1.0
    ) -> Images:
        """Return photos as network input, smaller by a factor than the rule of `spec` has them."""

    @abstractmethod
    def compare(self, wanted: Any, found: Any, spec: GraphSpec) -> Any:
        """Return how a graph finds again what a model finds in an image.

        Args:
            wanted: what `Task.decode` gives of the model for an image.
            found: the same of the graph.
            spec: of the graph.
        """

    @abstractmethod
    def agrees(self, matches: Sequence[Any]) -> bool:
        """Whether all of what `compare` returned is nothing but rounding."""

    @abstractmethod
    def gap(self, match: Any) -> Any:
        """Return what sorts matches: the larger, the worse."""

    @abstractmethod
    def describe(self, match: Any) -> str:
        """Return a match in words."""

    @abstractmethod
    def row(self, match: Any) -> list[object]:
        """Return the cells of a match under `columns`."""

    @abstractmethod
    def tolerances(self, matches: Sequence[Any]) -> list[str]:
        """Return what `agrees` allows, and what it did allow."""

    def doubts(self, matches: Sequence[Any]) -> list[str]:
        """Return why matches that agree may say little."""
        return []

    # Judging int8.

    def judges(self, model: Any, data: Dataset) -> None:
        """Make sure that data can measure all that a model finds.

        Raises:
            ValueError: naming what is missing.
        """

    @abstractmethod
    def nothing(self, value: float) -> str:
        """Return what data has that gives a metric of nan, or of 0, to stand behind "data"."""


def graph_kind(word: str) -> GraphKind:
    """Return what the task of a model answers; see `Model.task`.

    Raises:
        ValueError: if its models have no graphs.
    """
    task = get_task(word)
    if task.graph is None:
        raise ValueError(
            f"models that {task.does} cannot be exported: their outputs have no form in a file yet"
        )
    return task.graph
