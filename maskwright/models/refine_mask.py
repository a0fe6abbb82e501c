"""RefineMask (Zhang et al. 2021) under the name that is part of the public interface."""

from .detection.refine_mask import (
    RefineMaskHead,
    boundary_region,
    mask_loss,
    mask_targets,
    merge_stages,
    semantic_loss,
    semantic_target,
)

__all__ = [
    "RefineMaskHead",
    "boundary_region",
    "mask_loss",
    "mask_targets",
    "merge_stages",
    "semantic_loss",
    "semantic_target",
]
