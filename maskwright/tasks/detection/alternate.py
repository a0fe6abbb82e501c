"""4-step alternating training (Ren et al. 2015, section 3.2): RPN and heads come to share layers.

1. The RPN trains with its backbone. 2. The heads train with a backbone of their own, on the
proposals of the first. 3. The RPN trains anew on the backbone of the second, of which nothing that
both use changes. 4. The heads' own layers follow, on the proposals of the third. Differences from
the paper: proposals are made anew at every step of the second training, for the image as it was
augmented.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

STEPS = ("1-rpn", "2-heads", "3-rpn")  # the last has no name of its own


def step_options(number: int, weights: Sequence[Path]) -> dict[str, Any]:
    """Return the options of one of the four steps, counted from 0.

    Args:
        number: of the step.
        weights: checkpoints of the steps before it.
    """
    own: dict[str, Any] = {
        "alternate": False,
        "train_part": ("rpn", "heads", "rpn-only", "heads-only")[number],
    }
    if number == 1:
        own["proposal_model"] = weights[-1]
    elif number > 1:
        own["weights"] = weights[-1]
    return own
