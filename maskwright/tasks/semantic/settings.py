"""The options of a prediction of pixel classes, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import OptionError
from ...structures import Resize
from ..base import Settings
from ..crf import SEARCH, CrfSettings
from ..views import Views
from .crf import USUAL

LEAST_WINDOW = 64  # pixels


@dataclass(frozen=True)
class SemanticSettings(Settings):
    """How often an image is looked at, in what parts, and what comes after the network.

    Attributes:
        views: look at each image in these ways and average the probabilities; None: once.
        slide: side of the windows, pixels of the network input, in which an image larger than that
            is looked at; None: as a whole.
        crf: refine the borders by a dense CRF; None: not.
        probs: keep the probabilities, not only the best class of each pixel.
    """

    views: Views | None = None
    slide: int | None = None
    crf: CrfSettings | None = None
    probs: bool = False

    @property
    def part(self) -> int | None:
        """The side of the windows; see `Settings`."""
        return self.slide

    def rules(self, resize: Resize) -> list[Resize]:
        """Return a rule for each size of the views."""
        return [resize] if self.views is None else self.views.resizes(resize)

    def used(self) -> dict[str, Any]:
        """Return those that were chosen as options by name."""
        tta = None
        if self.views is not None:
            scales = [f"{scale:g}" for scale in self.views.scales if self.views.scales != (1.0,)]
            tta = ",".join([*scales, *(["flip"] if self.views.flip else [])])
        crf = None if self.crf is None else self.crf.option
        return {"tta": tta, "slide": self.slide, "crf": crf}


def make_settings(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> SemanticSettings:
    """Return the checked options of a prediction or validation, by name.

    Args:
        given: options by name.
        defaults: what they are if nobody says anything.

    Raises:
        OptionError: if one is wrong.
    """
    slide = given.get("slide")
    if slide is not None and (type(slide) is not int or slide < LEAST_WINDOW):
        raise OptionError(
            f"slide={slide}: expected the side of the windows in pixels of the network input, at "
            f"least {LEAST_WINDOW}, such as 512"
        )
    crf = given.get("crf")
    if given.get("tile") is not None:
        if crf is not None:
            raise OptionError(f"crf={crf} is for images that are seen as a whole: not in tiles")
        if given.get("tile_levels") != defaults.get("tile_levels"):
            raise OptionError(
                "tile_levels is for models that find objects: a class at every pixel is blended of "
                "tiles of one size; tta=0.5,1 looks at each tile at two"
            )
    if crf == SEARCH:
        if "split" not in defaults:
            raise OptionError(
                "crf=search finds parameters on annotated images: maskwright val ... crf=search"
            )
        crf = None
    return SemanticSettings(
        Views.parse(given.get("tta")),
        slide,
        CrfSettings.parse(crf, USUAL),
        bool(given.get("probs")),
    )
