"""Darknet's files: `.weights` with the `.cfg` that describes their network, to ours and back."""

from .convert import cfg_of, from_maskwright, model_of, read_cfg, to_maskwright
from .weights import is_weights

__all__ = ["cfg_of", "from_maskwright", "is_weights", "model_of", "read_cfg", "to_maskwright"]
