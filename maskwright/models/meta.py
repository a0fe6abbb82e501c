"""What a checkpoint says about itself: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..channels import AllChannels
from ..errors import OptionError
from ..structures import Skeleton
from ..window import Window, parse_window


@dataclass
class Meta:
    """What a checkpoint says about itself: plain data, stored as JSON.

    Attributes:
        model: registered name.
        args: builder options, as plain data.
        names: class names by label; None for a class that the source left unused.
        category_ids: the data set's own id of each class, for COCO output.
        keypoints: what the keypoints are called, for a model that has them.
        licence: licence of the weights.
        source: where the weights come from: data set, command or publisher.
        metrics: figures on the validation split, keys as `mask/AP`.
        extra: anything else worth keeping, as plain data.
        channels: numbers of the channels of the files that it was trained with, in its order; None:
            red, green and blue.
        all_channels: the files had no others.
        window: (low, high): the sample values that it was trained with as 0 to 255, where images
            had more than 8 bits; None: it knows 8-bit images alone.
    """

    model: str
    args: dict[str, Any]
    names: list[str | None]
    category_ids: list[int] = field(default_factory=list)
    keypoints: Skeleton | None = None
    licence: str = ""
    source: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    window: Window | None = None
    channels: list[int] | None = None
    all_channels: bool = False

    def __post_init__(self) -> None:
        for name, kind in _META_TYPES.items():
            if not isinstance(getattr(self, name), kind):
                said = kind.__name__ if isinstance(kind, type) else kind[0].__name__
                raise ValueError(f"the checkpoint's field {name!r} is not a {said}")
        if not all(name is None or isinstance(name, str) for name in self.names):
            raise ValueError("the checkpoint's class names are not all text")
        if not all(type(number) is int for number in self.category_ids):
            raise ValueError("the checkpoint's category ids are not all whole numbers")
        if self.window is not None:
            self.window = _read_window(self.window)
        if self.channels is not None and (
            not self.channels or not all(type(number) is int for number in self.channels)
        ):
            raise ValueError("the checkpoint's channels are not whole numbers")
        if not self.category_ids:
            self.category_ids = list(range(1, len(self.names) + 1))
        if len(self.category_ids) != len(self.names):
            raise ValueError(
                f"{len(self.names)} class names but {len(self.category_ids)} category ids"
            )

    @property
    def taken(self) -> tuple[int, ...] | None:
        """The channels to take of a file, see `channels`."""
        if self.channels is None:
            return None
        return AllChannels(self.channels) if self.all_channels else tuple(self.channels)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Meta:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: if a field is missing or of another type.
        """
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        try:
            if known.get("keypoints") is not None:
                points = known["keypoints"]
                bones = tuple((int(a), int(b)) for a, b in points["bones"])
                known["keypoints"] = Skeleton(tuple(map(str, points["names"])), bones)
            meta = cls(**known)
        except (TypeError, KeyError) as error:
            raise ValueError(f"the checkpoint's description is incomplete: {error}") from None
        return meta


def _read_window(value: Any) -> Window:
    try:
        window = parse_window(value)
    except OptionError:
        window = None
    if not isinstance(window, tuple):
        raise ValueError("the checkpoint's field 'window' is no pair of rising numbers")
    return window


_META_TYPES: dict[str, Any] = {
    "model": str,
    "args": dict,
    "names": list,
    "category_ids": list,
    "licence": str,
    "source": str,
    "metrics": dict,
    "extra": dict,
    "channels": (list, type(None)),
    "all_channels": bool,
}
