"""`maskwright compare`: which of several models to choose, for one's own data.

Each is trained under the same budget, scored on the same images, timed in turns with the others,
and all of it stands on one page. Nothing is done twice: the same call again goes on where it was
stopped, and keeps what is whole.
"""

from __future__ import annotations

import glob
import inspect
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError, TrainingError, WorkerError, WriteError, whole_number
from ..hub.names import SHIPPED_MODELS
from ..paths import takes_paths
from ..prediction.held_out import KEY, open_scored
from ..prediction.load import load
from ..prediction.predictor import Predictor
from ..prediction.val import val
from ..reports.page import REPORT
from ..runs import check_save
from ..storage.checkpoint import resolve_checkpoint
from ..storage.rundir import ResultsTable, new_run_dir, read_args, write_args
from ..tasks import recipes
from ..tasks.recipe import OF_ONE, option_parameters
from ..terminal import console
from ..training.stages import FINISHED, state_of
from ..training.train import train
from .entries import as_path, check_options, described, read_entries
from .page import write_page
from .peak import prediction_memory
from .rows import MEASURED, Comparison, Row, Run, read_rows
from .speed import PHOTOS, take_turns


@takes_paths
def compare(
    data: str | Path,
    models: tuple[str, ...],
    *,
    seeds: tuple[int, ...] = (0,),
    split: str = "val",
    repeats: int = 5,
    imgsz: int | tuple[int, int] | str | None = None,
    patience: int = 0,
    device: str = "auto",
    workers: int = 2,
    project: str | Path = "runs",
    name: str | None = None,
    **options: Any,
) -> Comparison:
    """Train models under one budget, score and time them, and write one page to choose by.

    The budget is `epochs`, `steps` or `minutes`, as in `train`, whose other options hold for all
    models as well. The same call again goes on with what was stopped or has failed; other models
    or seeds are added to what is there, and those that are not named again stay as they are.

    Args:
        data: the data set, any format that `maskwright data check` reads.
        models: registered names, which are trained; checkpoints, run folders and models of the
            package, which are scored as they are. All of one task.
        seeds: each name is trained once for each, as in 0,1,2; the page has means and ranges.
        split: which part of the data is scored, see `val`.
        repeats: how often each of the photos comes in the timing.
        imgsz: image size of all models, see `train`; None: the rule of each model.
        patience: see `train`; 0: each model has the whole budget.
        device: where to compute: auto, cpu, cuda, cuda:1, mps.
        workers: processes that load images beside the one that computes.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if another comparison has it; none: "compare".
        **options: of `train`.

    Raises:
        ValueError: if the data, a model's name or an option is wrong. A model that fails later
            stands on the page with the reason.

    Example:
        >>> import maskwright as mw
        >>> mw.compare("cells/", ["unet_lite0", "deeplabv3_lite0"], minutes=30)
        ... # doctest: +SKIP
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise OptionError(
            "compare runs in one process: train with torchrun, and give the run folders as models"
        )
    seeds = _seeds(seeds)
    repeats = whole_number("repeats", repeats)
    check_save(True, project, name)
    shared = {"imgsz": imgsz, "patience": patience, "device": device, "workers": workers, **options}
    entries = read_entries(models, device)
    check_options(entries, data, shared)
    task = entries[0].task
    trained = next((entry.name for entry in entries if entry.trains), None)
    own: dict[str, Any] = {} if trained is None else {"model": trained}
    holds = described(task, task.recipe(data=data, **own, **shared), trained)
    if split not in ("train", "val") and split not in holds:
        raise OptionError(
            f"split={split}: {data} has {', '.join(holds)}; a part of train can be held out as val"
        )
    names = [entry.name for entry in entries]
    arguments: dict[str, Any] = {"data": as_path(str(data)), "models": names, "seeds": list(seeds)}
    arguments |= {"split": split, "repeats": repeats, **shared}
    folder, known = _folder(Path(project), name or "compare", arguments, holds)
    rows = [known.pop(name, Row(name)) for name in names]
    made = Comparison(folder, [*rows, *known.values()], task, split, arguments, holds, [])
    jobs = [
        (entry, seed)
        for entry, row in zip(entries, rows, strict=True)
        for seed in (seeds if entry.trains else [*row.runs, *seeds][:1])
    ]
    with _page_in_any_case(made):
        for number, (entry, seed) in enumerate(jobs, 1):
            row = rows[names.index(entry.name)]
            if _is_whole(row.runs.get(seed)):
                continue
            row.ms, row.memory = [], math.nan
            console.note(f"{number} of {len(jobs)}: {entry.name}, seed {seed}")
            with _failing(row, seed):
                weights = entry.name
                if entry.trains:
                    place = folder / "train" / f"{entry.name}-seed{seed}"
                    given = {"data": data, "model": entry.name, "seed": seed, **shared}
                    made.signal = _trained(place, given)
                    if made.signal:
                        return made
                    weights = str(place)
                size = None if entry.trains else imgsz
                row.runs[seed] = _scored(row, weights, made, size, device, workers)
            write_page(made)
        _measure(made, seeds[0], imgsz, device, repeats)
    return made


def _signature() -> inspect.Signature:
    """Return its own options and those of the trainings."""
    own = dict(inspect.signature(compare).parameters)
    del own["options"]
    shared = option_parameters(*recipes().values())
    more = [one for one in shared if one.name not in (*own, *OF_ONE)]
    return inspect.Signature([*own.values(), *more], return_annotation=Comparison)


compare.__signature__ = _signature()  # type: ignore[attr-defined]


def _seeds(seeds: Sequence[int] | int) -> tuple[int, ...]:
    seeds = (seeds,) if isinstance(seeds, int) else tuple(seeds)
    seeds = tuple(whole_number("seeds", seed, least=0) for seed in seeds)
    if not seeds or len(set(seeds)) < len(seeds):
        raise OptionError(f"seeds={seeds}: expected different whole numbers, such as 0,1,2")
    return seeds


def _folder(
    project: Path, name: str, arguments: dict[str, Any], holds: dict[str, str]
) -> tuple[Path, dict[str, Row]]:
    """Return the folder of a comparison and what it has: a new one, or one that goes on.

    One goes on that was made with the same arguments, of the same data, whatever the models and
    seeds; `arguments` get those that it has beside these.
    """
    plain = {key: _as_read(value) for key, value in arguments.items()}
    more = ("models", "seeds")
    for folder in sorted((project / "compare").glob(f"{glob.escape(name)}*"), reverse=True):
        number = folder.name.removeprefix(name)
        if (number and not number.isdigit()) or not (folder / "args.yaml").is_file():
            continue
        before, resolved = read_args(folder / "args.yaml")
        same = before.keys() == plain.keys() and all(
            key in more or before[key] == plain[key] for key in plain
        )
        if not same:
            continue
        if resolved != holds:
            console.note(f"the data is not what it was in {folder}: a comparison of its own begins")
            continue
        rows = read_rows(folder)
        for name in plain["models"]:
            if name in rows:
                rows[name].faults = {}
        for key in more:
            arguments[key] = plain[key] = list(dict.fromkeys([*plain[key], *before[key]]))
        write_args(folder / "args.yaml", plain, holds)
        whole = sum(_is_whole(run) for row in rows.values() for run in row.runs.values())
        console.note(f"going on with {folder}: {whole} of its models are trained and scored")
        return folder, rows
    folder = new_run_dir(project, "compare", name)
    write_args(folder / "args.yaml", plain, holds)
    return folder, {}


def _as_read(value: Any) -> Any:
    """Return an option as a file of options gives it back."""
    if isinstance(value, tuple | list):
        return [_as_read(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _trained(place: Path, options: Mapping[str, Any]) -> int:
    """Train a model in its folder, or go on; return the signal that ended it, else 0."""
    state = state_of(place)
    if state == "done":
        return 0
    if state == "begun" and not (place / REPORT).exists():
        free = {key: options[key] for key in ("data", "device", "workers")}
        result = train(resume=place, **free)
    elif state == "new":
        result = train(project=place.parents[1], name=place.name, **options)
    else:
        return 0  # stopped behind its last file
    if result.interrupted:
        return result.signal
    (place / FINISHED).touch()
    return 0


def _scored(row: Row, weights: str, made: Comparison, imgsz: Any, device: str, workers: int) -> Run:
    predictor = load(weights, device=device)
    task, model = made.task, predictor.model
    count = getattr(model, "parameters", None)
    row.parameters = 0 if count is None else sum(one.numel() for one in count())
    numbers = val(
        predictor,
        made.options["data"],
        split=made.split,
        format=made.options.get("format"),
        imgsz=imgsz,
        workers=workers,
        **task.comparing(model),
    )
    division = predictor.meta.extra.get(KEY)
    run = Run(weights, dict(numbers), _stamp(weights), division["images"] if division else 0)
    table = ResultsTable(Path(weights) / "results.csv").rows
    if table:
        run.epochs = int(table[-1]["epoch"])
        run.seconds = sum(float(line["seconds"]) for line in table)
    return run


def _is_whole(run: Run | None) -> bool:
    """Whether a model was scored, and is the same as then."""
    return run is not None and run.stamp == _stamp(run.weights)


def _stamp(weights: str) -> int:
    path = SHIPPED_MODELS[weights].path if weights in SHIPPED_MODELS else Path(weights)
    try:
        return resolve_checkpoint(path).stat().st_mtime_ns
    except (ValueError, OSError):
        return -1


def _measure(made: Comparison, seed: int, imgsz: Any, device: str, repeats: int) -> None:
    """Measure speed and memory of the models of a seed, unless that was done."""
    weights, sizes = {}, {}
    for row in made.rows:
        came_trained = any(run.weights == row.name for run in row.runs.values())
        # It has one run, of whichever seed was the first when it was scored.
        run = next(iter(row.runs.values())) if came_trained else row.runs.get(seed)
        if run is not None and _is_whole(run):
            weights[row.name] = run.weights
            sizes[row.name] = imgsz if came_trained else None
    scored = [row for row in made.rows if row.name in weights]
    untimed = not all(row.ms for row in scored)
    if not untimed and not any(math.isnan(row.memory) for row in scored):
        return
    needed = scored if untimed else scored[:1]
    ready: dict[str, tuple[Predictor, Any]] = {}
    for row in needed:
        ready[row.name] = (load(weights[row.name], device=device), sizes[row.name])
    photos = _photos(next(iter(ready.values()))[0], made)
    timed = take_turns(ready, photos, repeats, told) if untimed else {}
    for name, one in timed.items():
        row = next(row for row in scored if row.name == name)
        row.ms = one.ms
        if one.fault:
            row.faults[MEASURED] = one.fault
    ready.clear()  # before others need the memory
    largest = max(photos, key=lambda photo: photo.size)
    unknown = [row for row in scored if row.ms and math.isnan(row.memory)]
    for row in console.track(unknown, "memory", unit="model"):
        with _failing(row, MEASURED):
            row.memory = prediction_memory(weights[row.name], device, sizes[row.name], largest)


def _photos(predictor: Predictor, made: Comparison) -> list[np.ndarray]:
    """Return some of the scored images, spread over all of them."""
    task, network, meta = predictor.task, predictor.model, predictor.meta
    options = task.comparing(network)
    reading = task.scoring(network, meta, options)
    finding = {**task.finding(network), "format": made.options.get("format")}
    data, _ = open_scored(made.options["data"], made.split, meta, finding, reading)
    predictor.reading().apply(data)
    chosen = np.unique(np.linspace(0, len(data) - 1, min(PHOTOS, len(data))).astype(int))
    return [data.photo(int(index)) for index in chosen]


@contextmanager
def _page_in_any_case(made: Comparison) -> Iterator[None]:
    """Write the page at the end, and after a signal with what there is then."""
    try:
        yield
    except KeyboardInterrupt:
        write_page(made)
        console.note(f"what there is stands in {made.page}; the same call again goes on")
        raise
    write_page(made)


@contextmanager
def _failing(row: Row, seed: int) -> Iterator[None]:
    """Let a model fail alone; only a disk that takes no more files stops all."""
    try:
        yield
    except WriteError:
        raise
    except Exception as error:  # told on the page; the other models go on
        row.faults[seed] = told(error)
        console.error(f"{row.name}: {row.faults[seed]}")


def told(error: Exception) -> str:
    """Return an error in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return f"out of memory: lower batch or imgsz ({text})"
    if isinstance(error, ValueError | OSError | ImportError | TrainingError | WorkerError):
        return text
    return f"{type(error).__name__}: {text}"
