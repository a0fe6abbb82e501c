"""`maskwright predict engine=...`: what the command line does with tables of finds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import OptionError
from ..signatures import REQUIRED, read_options
from ..terminal import console


def predict_tables(options: Mapping[str, Any]) -> int:
    """Run `distribute.predict` with options of the command, and return the exit status.

    Args:
        options: of the command by name; those that it alone has are None unless they are given.

    Raises:
        OptionError: if one is given that makes no sense for tables.
    """
    usual = {option.name: option.default for option in read_options(*PREDICT)}
    own = {option.name: option.default for option in read_options(*TABLES)}
    given = {key: value for key, value in options.items() if value != usual.get(key)}
    for name in given:
        if name not in own:
            raise OptionError(
                f"{name} is for predictions as pictures; engine={options['engine']} writes tables: "
                f"leave out {name} or engine"
            )
    given |= {"save": options["save"]}  # whose default is another one in Python
    given |= {key: options[key] for key, value in own.items() if value is REQUIRED}
    from .run import predict

    made = predict(**given)
    count = made.count
    console.table("", ["images", "finds", "failed"], [[count.images, count.finds, count.failed]])
    console.note(f"tables: {made.finds}")
    if made.coco is not None:
        console.note(f"COCO: {made.coco}")
    return 1 if count.failed == count.images else 0


PREDICT = ("maskwright.prediction.predict", "predict")
TABLES = ("maskwright.distribute.run", "predict")
