"""Many images, many machines: the same predictions as tables, and trainings, on Ray and its kin."""

from .columns import BatchPredictor
from .run import predict
from .training import train

__all__ = ["BatchPredictor", "predict", "train"]
