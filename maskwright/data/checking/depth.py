"""Images with more than 8 bits in a data set: the window that training takes, and what to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from maskwright.window import PERCENTILES, Window, describe_window

from ..pixels.depth import RULE, is_constant, own_window, widened
from ..pixels.images import has_deep_samples
from ..records import Dataset

POOLED_IMAGES = 256  # that give the window of a data set, spread evenly over it
_POOLED_SAMPLES = 2**15  # of each of them
_APART = 4.0  # how much wider a window may be than another one before it is worth a word


@dataclass(frozen=True)
class Depths:
    """What a look at the samples of a data set found.

    Attributes:
        images: number of images that could be read.
        deep: positions of those with more than 8 bits.
        kinds: how many of the deep ones that were read have each type of samples.
        smallest, largest: finite sample values of the deep ones that were read.
        window: what training stretches, by the rule that was asked for; None without deep images.
        sampled: number of deep images that were read for it.
        valueless: how many of these have pixels without a value, and their largest share in one.
        constant: how many of these have one value alone.
        idle: numbers of the channels that have one value in each of these, but not all channels.
    """

    images: int
    deep: Sequence[int]
    kinds: dict[str, int]
    smallest: float
    largest: float
    window: Window | None
    sampled: int
    valueless: tuple[int, float] = (0, 0.0)
    constant: int = 0
    idle: tuple[int, ...] = ()

    def describe(self) -> str:
        """Return one sentence; only for data with deep images."""
        kinds = ", ".join(self.kinds)
        of = f"{len(self.deep)} of {self.images}" if len(self.deep) < self.images else "all"
        rest = self.images - len(self.deep)
        mixed = f"; the {rest} of 8 bits are taken as they are: do they look alike?" if rest else ""
        return (
            f"{of} images have more than 8 bits ({kinds}), with values from {self.smallest:.6g} to "
            f"{self.largest:.6g}{mixed}{self._odd()}"
        )

    def _odd(self) -> str:
        """Return what hardly is meant in them, behind a semicolon; "": nothing."""
        count, share = self.valueless
        of = f"of {self.sampled} that were looked at"
        said = []
        if count:
            said.append(
                f"{count} {of} have pixels without a value (not finite, or nodata), up to "
                f"{100 * share:.2g} % of one".replace("1e+02", "100")
            )
        if self.constant:
            said.append(f"{self.constant} {of} are constant: black, nothing can be seen in them")
        if self.idle:
            numbers = ", ".join(map(str, self.idle))
            which = f"channel {numbers} is" if len(self.idle) == 1 else f"channels {numbers} are"
            said.append(f"{which} constant in all of them: channels= can do without")
        return "".join(f"; {text}" for text in said)


def measure_depths(
    dataset: Dataset,
    rule: str = RULE,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Depths:
    """Look at the headers of all images, and at the samples of some of the deep ones.

    The same data set gives the same window, in every process. Files that cannot be read are passed
    over: others tell of them.

    Args:
        dataset: the images.
        rule: of `maskwright.window.RULES`; percentiles are those of all sampled values together.
        progress: called with the number of images done and in all.
    """
    if dataset.stored:  # of 8 bits
        return Depths(len(dataset), [], {}, 0.0, 0.0, None, 0)
    deep: list[int] = []
    readable = 0
    for index in range(len(dataset)):
        try:
            if has_deep_samples(dataset[index].path):
                deep.append(index)
            readable += 1
        except ValueError:
            continue
    kinds: dict[str, int] = {}
    valueless: list[float] = []
    flat: list[set[int]] = []  # of each image the channels that have one value
    constant = channels = 0
    ends: list[float] = []
    pool: list[np.ndarray] = []
    chosen = deep if len(deep) <= POOLED_IMAGES else deep[:: -(-len(deep) // POOLED_IMAGES)]
    for done, index in enumerate(chosen, 1):
        try:
            samples = dataset.samples(index)
        except ValueError:
            continue
        kinds[str(samples.dtype)] = kinds.get(str(samples.dtype), 0) + 1
        values = samples.reshape(samples.shape[0] * samples.shape[1], -1)
        step = -(-values.size // _POOLED_SAMPLES)
        # An even step would often divide the width, and meet the same columns in each row.
        part = values[:: step + 1 - step % 2].astype(np.float64).ravel()
        good = np.isfinite(values)
        finite = values if good.all() else values[good]
        valueless.append(1 - float(good.all(1).mean()))
        channels = values.shape[1]
        flat.append({k for k in range(channels) if is_constant(values[:, k])})
        constant += len(flat[-1]) == channels
        if finite.size:
            ends += [float(finite.min()), float(finite.max())]
            pool.append(part[np.isfinite(part)])
        if progress is not None:
            progress(done, len(chosen))
    if not deep:
        return Depths(readable, deep, kinds, 0.0, 0.0, None, 0)
    smallest, largest = min(ends, default=0.0), max(ends, default=0.0)
    window = widened(smallest, largest)
    if rule == "percentile" and pool:
        # Images count alike, and so do their channels.
        window = own_window(np.concatenate(pool))
    lacking = sum(share > 0 for share in valueless)
    idle = set.intersection(*flat) if flat else set()
    return Depths(
        readable,
        deep,
        kinds,
        smallest,
        largest,
        window,
        len(chosen),
        (lacking, max(valueless, default=0.0)),
        constant,
        tuple(sorted(idle)) if len(idle) < channels else (),
    )


def check_depths(datasets: Mapping[str, Dataset], window: Window | str | None) -> list[str]:
    """Give the data sets the window that training would take, and return what to know of it.

    Args:
        datasets: the splits by name.
        window: the option `window`, read by `maskwright.window.parse_window`.
    """
    rule = window if isinstance(window, str) else RULE
    found = {split: measure_depths(dataset, rule) for split, dataset in datasets.items()}
    train = found.get("train")
    taken = window if isinstance(window, tuple) else None if train is None else train.window
    for dataset in datasets.values():
        dataset.window = taken
    notes = []
    for split, depths in found.items():
        if depths.kinds:  # of those that cannot be read their faults tell
            notes.append(f"{split}: {depths.describe()}")
            if split != "train":
                notes += _beside(split, depths, taken)
    if train is not None and train.kinds:
        notes.append(_of_training(train, taken, rule, declared=isinstance(window, tuple)))
    return notes


def _of_training(train: Depths, taken: Window | None, rule: str, *, declared: bool) -> str:
    assert taken is not None
    shown = f"window={describe_window(taken)}"
    beyond = [
        text
        for text, outside in (
            (f"values from {train.smallest:.6g} on become black", train.smallest < taken[0]),
            (f"values up to {train.largest:.6g} become white", train.largest > taken[1]),
        )
        if outside
    ]
    clipped = f"; beyond it {' and '.join(beyond)}" if beyond else ""
    if declared:
        return f"training would stretch {shown} to 8 bits, as declared{clipped}"
    how = {
        "minmax": "the smallest and the largest value of the images not held out",
        "percentile": f"the {PERCENTILES[0]} and {PERCENTILES[1]} percentiles, of the images not "
        "held out",
    }[rule]
    return (
        f"training would stretch about {shown} to 8 bits ({how}){clipped}; if the images have one "
        "scale that you know, declare it, as in window=0,4095"
    )


def _beside(split: str, depths: Depths, taken: Window | None) -> list[str]:
    """Return a note if the window of training does not suit another split."""
    if taken is None:
        return [
            f"{split}: the training images have 8 bits, so that each of these is stretched from "
            "its own percentiles; window=LOW,HIGH declares one scale"
        ]
    assert depths.window is not None
    own, width = depths.window[1] - depths.window[0], taken[1] - taken[0]
    if own > _APART * width or width > _APART * own:
        return [
            f"{split}: its values spread over {describe_window(depths.window)}, the window of "
            f"training is {describe_window(taken)}: were they recorded alike?"
        ]
    return []
