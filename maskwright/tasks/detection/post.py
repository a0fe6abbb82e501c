"""The options of post-processing as users give them: checked, and named as users know them."""

from __future__ import annotations

from numbers import Real

from ...errors import OptionError, whole_number
from ...models.detection.base import PostProcess
from ...ops.soft_nms import SoftNMS


def make_post(
    conf: float, iou: float, max_det: int, soft_nms: str | SoftNMS | None = None
) -> PostProcess:
    """Return the post-processing for the options of a prediction, which `predict` describes.

    Raises:
        ValueError: if an option is out of range, by the name that users know.
    """
    most, soft = whole_number("max_det", max_det), parse_soft_nms(soft_nms)
    return PostProcess(_share("conf", conf), _share("iou", iou), most, soft_nms=soft)


def _share(name: str, value: object) -> float:
    if not isinstance(value, Real):  # numpy's as well
        raise OptionError(f"{name} is a number, got {value!r}")
    if not 0 <= float(value) <= 1:
        raise OptionError(f"{name} lies between 0 and 1, got {value}")
    return float(value)


def parse_soft_nms(value: str | SoftNMS | None) -> SoftNMS | None:
    """Return the rule that a text such as "linear", "gaussian" or "gaussian:0.3" names.

    Raises:
        OptionError: if it names none.
    """
    if value is None or isinstance(value, SoftNMS):
        return value
    method, colon, sigma = str(value).strip().lower().partition(":")
    try:
        if not colon:
            return SoftNMS(method)
        if method == "gaussian":
            return SoftNMS(method, float(sigma))
    except ValueError as error:
        raise OptionError(f"soft_nms={value!r}: {error}") from None
    raise OptionError(f"soft_nms={value!r}: only gaussian has a sigma, as in gaussian:0.3")
