"""The options of a prediction of objects: thresholds, views and CRF, checked."""

from __future__ import annotations

from dataclasses import dataclass

from ...models.detection.base import PostProcess
from ...structures import Resize
from ..base import Settings
from ..crf import CrfSettings
from ..views import Views


@dataclass(frozen=True)
class DetectionSettings(Settings):
    """Thresholds of what is kept, and how often an image is looked at.

    Attributes:
        post: thresholds.
        views: look at each image in these ways; None: once, as it is.
        crf: refine the borders of the masks by a dense CRF; None: not.
    """

    post: PostProcess
    views: Views | None = None
    crf: CrfSettings | None = None

    def rules(self, resize: Resize) -> list[Resize]:
        """Return a rule for each size of the views."""
        return [resize] if self.views is None else self.views.resizes(resize)
