"""Training recipes as functions: each returns the `TrainRecipe` behind a figure that we publish.

import maskwright as mw
from maskwright.recipes import nuclei

mw.train(nuclei("data/nuclei"))
"""

from .coco_subset import coco_subset
from .nuclei import nuclei
from .penn_fudan import penn_fudan

__all__ = ["coco_subset", "nuclei", "penn_fudan"]
