"""The option `crf`: parameters of a dense CRF that refines borders, as users give them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ..crf.dense_crf import PUBLISHED, SMOOTHNESS, Bilateral, Gaussian
from ..errors import OptionError, nearest

ITERATIONS = 10
SEARCH = "search"


@dataclass(frozen=True)
class CrfSettings:
    """Parameters of a dense CRF, see `crf.dense_crf`.

    Attributes:
        gaussian: smoothness kernel.
        bilateral: appearance kernel.
        iterations: steps of mean field.
        option: the words that give these parameters; "" where none do.
    """

    gaussian: Gaussian
    bilateral: Bilateral
    iterations: int = ITERATIONS
    option: str = field(default="", compare=False)

    @classmethod
    def parse(
        cls, value: Any, usual: CrfSettings, near: Gaussian = SMOOTHNESS
    ) -> CrfSettings | None:
        """Read the option `crf`: true, a published set of parameters, or "weight,sxy,srgb".

        Args:
            value: the option.
            usual: what true stands for; its iterations count for weight,sxy,srgb as well.
            near: smoothness kernel beside weight,sxy,srgb.

        Raises:
            OptionError: if it is none of these.
        """
        if value is None or value is False or isinstance(value, CrfSettings):
            return value or None
        text = str(value).strip().lower()
        if text in ("true", "false"):
            return replace(usual, option=text) if text == "true" else None
        if text in PUBLISHED:
            return cls(**PUBLISHED[text], option=text)
        parts = value if isinstance(value, tuple | list) else text.split(",")
        try:
            weight, sxy, srgb = (float(part) for part in parts)
            if not (weight >= 0 and sxy > 0 and srgb > 0):
                raise ValueError
        except ValueError:
            raise OptionError(
                f"crf={value}: expected true, weight,sxy,srgb of the appearance kernel as in "
                f"4,67,3, or one of {', '.join(PUBLISHED)}{nearest(text, PUBLISHED)}"
            ) from None
        return replace(cls.of(Bilateral(sxy, srgb, weight), near), iterations=usual.iterations)

    @classmethod
    def of(cls, bilateral: Bilateral, near: Gaussian = SMOOTHNESS) -> CrfSettings:
        """Return an appearance kernel beside a smoothness kernel, which is DeepLab's."""
        sxy, srgb, weight = bilateral
        return cls(near, bilateral, option=f"{weight:g},{sxy:g},{srgb:g}")

    @property
    def kernels(self) -> dict[str, Any]:
        """The options of `dense_crf`."""
        return {
            "gaussian": self.gaussian,
            "bilateral": self.bilateral,
            "iterations": self.iterations,
        }
