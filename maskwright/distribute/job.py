"""What the processes of a run do, and the folder in which it stands: started once, gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..prediction.predictor import Predictor
from ..stores import Place
from ..text import to_json
from .columns import BatchPredictor, failed_row
from .parts import Listed, Part
from .tables import Count, read_count, write_part

VERSION = 2
FILE = "run.json"
FINDS = "finds"  # the folder of the tables


@dataclass(frozen=True)
class Job:
    """What is done with each part; it can be sent to other processes.

    Attributes:
        find: what predicts.
        place: where the tables go.
        columns: of these.
    """

    find: BatchPredictor
    place: Place
    columns: Mapping[str, str]

    def do(self, part: Part) -> Count:
        """Compute a part and write its table.

        Raises:
            ValueError: if its own table cannot be read, or nothing can be written.
        """
        return write_part(self.place, part.output, [*self.find.find(part.sources())], self.columns)

    def give_up(self, part: Part, reason: str) -> Count:
        """Write the table of a part whose images all fail for one reason."""
        rows = [failed_row(source, reason) for source in part.sources()]
        return write_part(self.place, part.output, [[row] for row in rows], self.columns)


@dataclass(frozen=True)
class Run:
    """A run as it stands in its folder.

    Attributes:
        folder: the folder.
        place: of the tables in it.
        parts: of the source.
        done: what the tables hold that are there, by number of the part.
    """

    folder: Place
    place: Place
    parts: list[Part]
    done: dict[int, Count]

    @property
    def missing(self) -> list[Part]:
        """The parts without a table."""
        return [part for part in self.parts if part.number not in self.done]


def open_run(where: str | Path, listed: Listed, description: Mapping[str, Any]) -> Run:
    """Begin a run in a folder, or go on with the one that is there.

    Args:
        where: path or address of the folder.
        listed: the source.
        description: model and options, all that the tables hang on.

    Raises:
        OptionError: if the folder holds another run.
    """
    folder = Place(where)
    place = Place(folder.at(FINDS))
    wanted = {"version": VERSION, **description, "source": listed.text, "digest": listed.digest}
    wanted["parts"] = [listed.images, len(listed.parts)]
    text = to_json(wanted, indent=1)
    if FILE not in folder.names():
        if place.names():
            raise OptionError(
                f"save={where}: there are tables of no known run: give another folder"
            )
        folder.write(FILE, lambda file: file.write(text.encode()))
        return Run(folder, place, listed.parts, {})
    there = read_description(folder)
    _same(where, there, json.loads(text))
    names = place.names()
    whole = [part for part in listed.parts if part.output in names]
    return Run(
        folder, place, listed.parts, {part.number: read_count(place, part.output) for part in whole}
    )


def read_description(folder: Place) -> dict[str, Any]:
    """Return what the folder of a run says of it.

    Raises:
        ValueError: if it is damaged.
    """
    text = folder.read(FILE)
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:  # no JSON, no UTF-8, or no mapping
        raise ValueError(f"{folder.at(FILE)} is damaged ({error}): give another folder") from None


def _same(where: str | Path, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise OptionError unless two descriptions are of one run."""
    for key in wanted:
        was, now = there.get(key), wanted[key]
        if was == now:
            continue
        what = f"{key} was {was!r}, now it is {now!r}"
        if key == "options" and isinstance(was, dict):
            name = next(name for name in {**now, **was} if was.get(name) != now.get(name))
            what = f"{name} was {was.get(name)!r}, now it is {now.get(name)!r}"
        if key in ("digest", "parts"):
            what = f"its source had {there.get('parts', ['?'])[0]} images, and is another one now"
        if key == "weights":
            what = "the model has other weights now"
        raise OptionError(f"save={where} holds a run that differs: {what}; give another folder")


def fingerprint(predictor: Predictor, model: str) -> str:
    """Return a text that is another one for a model with other weights.

    Args:
        predictor: the model.
        model: its name or file.
    """
    made = hashlib.sha256(predictor.meta.model.encode())
    state = predictor.model.state_dict()
    for name, value in sorted(state.items()):
        made.update(name.encode())
        made.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
    path = Path(model)
    if not state and path.is_file():  # an exported graph
        made.update(path.read_bytes())
    return made.hexdigest()


def run_here(job: Job, parts: Iterable[Part]) -> Iterator[tuple[Part, Count]]:
    """Do parts in this process, one after the other."""
    for part in parts:
        yield part, job.do(part)
