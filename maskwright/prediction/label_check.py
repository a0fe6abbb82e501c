"""Labels beside a trained model: which of them it doubts, ranked, as a page and as a list."""

from __future__ import annotations

import csv
import inspect
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.formats.folders import split_name
from ..data.records import Dataset
from ..errors import OptionError, checked_options, whole_number
from ..files import write_whole
from ..paths import takes_paths
from ..reports.label_page import write_label_page
from ..runs import check_save, save_dir
from ..storage.rundir import read_args, write_args
from ..tasks.evaluation import evaluate
from ..tasks.label_check import Suspect
from ..tasks.options import own_options
from ..terminal import console
from ..text import to_json
from ..window import parse_window
from .held_out import open_scored
from .load import load
from .memory import require_data_memory
from .predictor import Predictor
from .windows import warn_of_own_windows

if TYPE_CHECKING:
    from PIL.Image import Image

LIST = "suspects"  # .csv and .json
HIDDEN = (
    "a model that was trained on these images has learned their faults with them, so that the list "
    "is short where it matters: check them with a model of other images, as of the other half"
)


@dataclass(frozen=True)
class LabelReport:
    """What a model doubts in the labels of a data set.

    Attributes:
        suspects: worst first.
        kinds: of doubts, and what each means.
        notes: what else there is to know: whether the model has seen the images.
        dir: the run folder; None without `save`.
        page: the page in it.
    """

    suspects: list[Suspect]
    kinds: Mapping[str, str]
    notes: Sequence[str]
    dir: Path | None = None
    page: Path | None = None

    def rows(self) -> list[list[object]]:
        """Return kind, number, highest score and meaning of the doubts of each kind."""
        counts = Counter(one.kind for one in self.suspects)
        best = {one.kind: one.score for one in reversed(self.suspects)}
        return [
            [kind, counts[kind], best[kind], meaning]
            for kind, meaning in self.kinds.items()
            if kind in counts
        ]


@checked_options
@takes_paths
def check_labels(
    model: str | Path | Predictor,
    data: str | Path,
    *,
    split: str = "val",
    conf: float = 0.3,
    top: int = 100,
    max_det: int = 100,
    imgsz: int | tuple[int, int] | str | None = None,
    batch: int = 1,
    workers: int = 2,
    device: str = "auto",
    window: tuple[float, float] | str | None = None,
    page: int | str | None = None,
    channels: int | str | tuple[int, ...] | None = None,
    format: str | None = None,
    weights: str | Path | None = None,
    save: bool | str | Path | None = None,
    project: str | Path = "runs",
    name: str | None = None,
) -> LabelReport:
    """Compare the labels of a data set with what a trained model finds.

    What is doubted, and how much, is up to the task of the model; `docs/guide.md` lists it. A doubt
    is no proof: people look at the page and decide.

    Args:
        model: checkpoint, run folder, registered name, exported file, or a loaded `Predictor`.
        data: the data set, any format that `maskwright data check` reads.
        split: which part of the data; of data without a split val, those images that the training
            held out. Of images that it was trained on a model hides the faults.
        conf: smallest score of a doubt that is listed, from 0 to 1.
        top: most doubts that are drawn on the page; the list has all.
        max_det: most objects of an image that the model finds.
        imgsz: see `predict`.
        batch: images computed at once.
        workers: processes that load images beside the one that computes.
        device: auto, cpu, cuda, cuda:1 or mps; a `Predictor` stays on its own.
        window: see `predict`.
        page: which image of files that hold several, from 0 on; None: the first.
        channels: see `predict`.
        format: read the data as this format, where a folder has several or is taken for another.
        weights: for a registered name: published weights such as coco, or a checkpoint.
        save: write the page `report.html`, and `suspects.csv` and `suspects.json`: true into a new
            run folder, a path into that folder, false nothing.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "check".

    Raises:
        ValueError: if the model or the data cannot be read, or the data has a class that the
            model does not know.
    """
    parse_window(window)
    top, batch = whole_number("top", top, 0), whole_number("batch", batch)
    if isinstance(conf, bool) or not 0 <= conf <= 1:
        raise OptionError(f"conf lies between 0 and 1, got {conf}")
    where = check_save(save, project, name)
    called = str(model) if isinstance(model, str | Path) else model.meta.model
    if isinstance(model, str | Path):
        model = load(model, weights=weights, device=device)
    elif weights is not None:
        raise OptionError("weights is for a model given by its name; this one has its own")
    network, meta, task = model.model, model.meta, model.task
    asked = own_options(task, meta.model, {"max_det": max_det}, {"max_det": 100})
    given = {**task.doubts.options, **asked}
    settings, view = (
        task.settings(network, given, given, model.names),
        model.reading(window, channels, page),
    )
    finding = {**task.finding(network), "format": format}
    reading = task.scoring(network, meta, {})
    dataset, held = open_scored(data, split, meta, finding, reading)
    if not len(dataset):
        raise ValueError(f"data={str(data)!r} has no image in its split {split}")
    view.apply(dataset)
    warn_of_own_windows(meta, dataset)
    resize = model.resize_rule(imgsz)
    require_data_memory(model.memory, dataset.sizes, [resize], batch, str(data))
    task.prepare_data(network, [dataset], workers=workers, rank=0, world=1)
    result = evaluate(
        task.doubts.evaluator(task, network, meta, dataset, settings),
        network,
        task.eval_loader(network, dataset, resize=resize, batch=batch, workers=workers),
        total=len(dataset),
        precision=model.precision,
        label="check",
    )
    assert result is not None
    found = task.doubts.suspects(result, dataset, meta)
    found = sorted((one for one in found if one.score >= conf), key=lambda one: -one.score)
    notes = [_seen(called, data, split, held), *result.warnings(), *task.doubts.remarks(result)]
    folder = save_dir(where, project, "check", name)
    if folder is None:
        return LabelReport(found, task.doubts.kinds, notes)
    options = {
        "model": called,
        "data": str(data),
        "split": split,
        "conf": conf,
        "top": top,
        **asked,
    }
    write_args(folder / "args.yaml", options)
    rows = _write_list(folder, found, dataset)
    written = write_label_page(
        folder,
        f"Labels of {data}, {split} split, beside {called}",
        rows,
        _pictures(found[:top], dataset),
        task.doubts.kinds,
        figures=[
            ("images", f"{len(dataset):,}"),
            (f"doubts of at least {conf:g}", f"{len(found):,}"),
            (f"{task.score} of the model on these labels", f"{result.fitness:.3f}"),
        ],
        options=options,
        notes=notes,
    )
    return LabelReport(found, task.doubts.kinds, notes, folder, written)


def check_command(model: str | Path, **options: Any) -> int:
    """Compare labels with a model and print what it doubts; returns the exit status.

    Args:
        model: see `check_labels`.
        **options: those that were given, of `check_labels`; others belong to the search for faults.

    Raises:
        OptionError: if one is of the search for faults.
    """
    known = inspect.signature(check_labels).parameters
    for name in options:
        if name not in known:
            raise OptionError(f"{name} is for the search for faults, without a model: leave it out")
    report = check_labels(model, **options)
    title, columns = f"Labels that {model} doubts", ["kind", "labels", "strongest", "meaning"]
    if report.suspects:
        console.table(title, columns, report.rows())
    else:
        console.note("Labels that are doubted: none.")
    for note in report.notes:
        console.note(f"Note: {note}")
    if report.page is not None:
        console.note(f"page: {report.page}\nlist: {report.dir}/{LIST}.csv and .json")
    return 0


def _pictures(suspects: Sequence[Suspect], dataset: Dataset) -> Iterator[Image]:
    """Return the picture of each; images are decoded anew, as those of all would fill memory."""
    with console.progress("draw", total=len(suspects), unit="img") as bar:
        for one in suspects:
            yield one.picture(dataset.photo(one.index))
            bar.update()


def _write_list(
    folder: Path, suspects: Sequence[Suspect], dataset: Dataset
) -> list[dict[str, Any]]:
    """Write what is doubted as CSV and JSON, and return it as plain data."""
    rows = []
    for one in suspects:
        record = dataset[one.index]
        image = {"image": str(record.path), "image_id": record.image_id}
        rows.append({**image, **one.row()})
    write_whole(folder / f"{LIST}.json", to_json(rows, indent=1) + "\n")
    stream = io.StringIO()
    fields = list(rows[0]) if rows else ["image", "score", "kind"]
    writer = csv.DictWriter(stream, fields)
    writer.writeheader()
    for row in rows:
        flat = {key: " ".join(map(str, v)) if isinstance(v, list) else v for key, v in row.items()}
        writer.writerow(flat)
    write_whole(folder / f"{LIST}.csv", stream.getvalue())
    return rows


def _seen(model: str, data: str | Path, split: str, held: str) -> str:
    """Return whether the model was trained on these images, as far as that is known.

    Args:
        model: how it was named: a run folder tells what it was trained on.
        data: the data set.
        split: the part of it.
        held: says that these images were held out of the training; "": nobody knows.
    """
    if held:
        return f"{held}, so it has not seen them"
    path = Path(model)
    runs = [path, path.parent.parent] if path.exists() else []
    for file in (run / "args.yaml" for run in runs):
        if not file.is_file():
            continue
        try:
            trained = read_args(file)[0].get("data")
        except ValueError:
            break
        if trained is None or Path(str(trained)).resolve() != Path(data).resolve():
            return (
                f"the model was trained on {trained}, as its run says; if these images are among "
                f"those, {HIDDEN}"
            )
        if split_name(split) == "train":
            return f"the model was trained on this split: {HIDDEN}"
        return f"the model was trained on the split train of this data, not on {split}"
    return f"whether the model was trained on these images is not known; if it was: {HIDDEN}"
