"""What of a classifier trains, and how fast: stages from the input on, then the head.

What the weights lack that training starts from, such as the last convolution of those in the
package, trains with the head wherever it stands.
"""

from __future__ import annotations

import math
from typing import Any

from .recipe import ALL_STAGES, ClassificationRecipe


def frozen_stages(recipe: ClassificationRecipe, stages: int, epoch: int) -> int:
    """Return how many stages, counted from the input, stay as they are in an epoch.

    Args:
        recipe: of the training.
        stages: of the network.
        epoch: number of the epoch, the first being 0.
    """
    waiting = stages if recipe.freeze == ALL_STAGES else recipe.freeze
    steps = recipe.unfreeze_at or ()
    if not steps:
        return waiting
    waiting = waiting or stages
    passed = sum(epoch >= step for step in steps)
    return waiting - math.ceil(waiting * passed / len(steps))


def learning_rates(model: Any, recipe: ClassificationRecipe, *, fresh: bool) -> dict[str, float]:
    """Return the learning rate of parameters by name, as a fraction of `lr`; the head has 1.

    Stage s of S has `backbone_lr` times `layer_decay` to the power of S - s: the last one 0, the
    first one S - 1 (Clark et al. 2020, section 3.3, by stage in place of layer). What belongs to no
    stage and to no head lies before the first.

    Args:
        model: the classifier.
        recipe: of the training.
        fresh: whether its weights are random: then all of them learn at `lr`.
    """
    whole = 1.0 if fresh else recipe.backbone_lr
    stages = model.network.stages()
    rates = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for number, modules in enumerate(stages, 1):
        rate = whole * recipe.layer_decay ** (len(stages) - number)
        for module in modules:
            rates.update({names[id(parameter)]: rate for parameter in module.parameters()})
    rates.update(dict.fromkeys(rates.keys() & model.fresh, 1.0))
    return rates
