"""What the commands of the command line do; `cli` reads their options and calls them.

The keyword-only options of a function here come on top of those of the Python function that it
calls. Heavy modules are imported inside, so that the help stays instant.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

from maskwright.engine import console
from maskwright.errors import nearest
from maskwright.signatures import Option, parse_value, read_arguments

WEIGHTS = Path(__file__).parent / "weights"
SIZES = ("small", "medium", "large")  # of objects, in COCO's terms


class UsageError(Exception):
    """The command line is wrong: exit status 2."""


def unknown(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for a name that is near, otherwise all that are known."""
    known = list(dict.fromkeys(known))
    return nearest(name, known) or f"; known are {', '.join(known) or 'none'}"


def keep_memory(device: str) -> None:
    """Keep what is freed, where the CPU computes: this process has nothing else to do with it."""
    from maskwright.engine import heap
    from maskwright.engine.predict import pick_device

    if pick_device(device).type == "cpu":
        heap.keep_memory()


def train(*, extra: dict[str, str], **options: Any) -> int:
    """Train a model on your own images."""
    model_args: dict[str, Any] = {}
    if not {"data", "resume"} & set(options):
        raise UsageError("train needs data=... (folder or file of the data set), or resume=...")
    if extra:
        from maskwright.engine.recipe import TrainRecipe
        from maskwright.models import get_entry

        entry = get_entry(options.get("model", TrainRecipe.model))
        kinds = model_options(entry.options)
        for name, text in extra.items():
            if name not in kinds:
                raise UsageError(no_train_option(name, entry.name, kinds))
            try:
                model_args[name] = parse_value(kinds[name].kind, text)
            except ValueError as error:
                raise UsageError(f"{name}: {error}") from None
    from maskwright.engine.train import train as run

    if model_args:
        options["model_args"] = model_args
    keep_memory(options.get("device", "auto"))
    result = run(**options)
    return 130 if result.interrupted else 0


def no_train_option(name: str, model: str, kinds: Iterable[str]) -> str:
    """Return what is wrong with an option that neither training nor model has.

    Args:
        name: the option.
        model: registered name.
        kinds: the options of the model.
    """
    from maskwright.engine.recipe import TrainRecipe
    from maskwright.models import list_models

    having = [other for other, entry in list_models().items() if name in entry.arguments()]
    if having:
        others = f"{', '.join(having[:3])}{', ...' if len(having) > 3 else ''}"
        return f"{model} has no option {name!r}; {others} have it: give model=..."
    own = [field.name for field in fields(TrainRecipe) if field.name != "model_args"]
    return (
        f"train has no option {name!r}{nearest(name, [*own, *kinds])} (see `maskwright train "
        f"--help`, and for the options of the model `maskwright models {model}`)"
    )


def model_options(options: type) -> dict[str, Option]:
    """Return the options of a model's builder by name, from its dataclass and the docstring."""
    meaning: dict[str, str] = {}
    for base in reversed(options.__mro__):
        doc = inspect.getdoc(base) if "__doc__" in vars(base) else None
        text = (doc or "").replace("Attributes:", "Args:")
        meaning.update(read_arguments(text))
    return {
        field.name: Option(field.name, str(field.type), field.default, meaning.get(field.name, ""))
        for field in fields(options)
    }


def val(
    *,
    model: str | Path,
    weights: str | Path | None = None,
    device: str = "auto",
    save: bool = True,
    **options: Any,
) -> int:
    """Score a model on annotated images.

    Args:
        model: checkpoint, run folder or registered name; `maskwright models` lists the names.
        weights: for a registered name: published weights such as coco, or a checkpoint.
        device: where to compute: auto, cpu, cuda, cuda:1, mps.
        save: write `report.html`, its figures and `metrics.json` into a new run folder.
    """
    from maskwright.engine.val import val as run
    from maskwright.hub import load

    keep_memory(device)
    named: Any = model
    if weights is not None:
        named = load(
            model,
            weights=weights,
            device=device,
            precision=options["precision"],
            proposal_source=options["proposal_source"],
        )
    metrics = run(named, device=device, save=save, **options)
    rows: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        kind, metric = key.split("/", 1)
        rows.setdefault(metric, {})[kind] = value
    kinds = list(dict.fromkeys(key.split("/")[0] for key in metrics))
    total = [row for row in rows if "/" not in row]
    by_class: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        if key.count("/") > 1:
            kind, metric, name = key.split("/", 2)
            by_class.setdefault(name, {})[f"{kind} {metric}"] = value
    console.table(
        f"{model} on {options['data']}, {options['split']} split",
        ["metric", *kinds],
        [[name, *(rows[name].get(kind) for kind in kinds)] for name in total],
    )
    if by_class:
        columns = list(dict.fromkeys(column for row in by_class.values() for column in row))
        console.table(
            "AP by class",
            ["class", *columns],
            [[name, *map(row.get, columns)] for name, row in by_class.items()],
        )
    if metrics.dir is not None and metrics.diagnosis is not None:
        from maskwright.engine.report import announce

        announce(metrics.diagnosis, metrics.dir)
        console.note(f"next:\n  {metrics.command}")
    return 0


def predict(
    *,
    model: str | Path,
    weights: str | Path | None = None,
    device: str = "auto",
    save: bool = True,
    formats: str | None = None,
    show: bool = False,
    project: str | Path = "runs",
    name: str | None = None,
    trust: bool = False,
    **options: Any,
) -> int:
    """Find objects in images; pictures, data and a page to look at go into a run folder.

    Args:
        model: checkpoint, run folder, registered name or exported file (.onnx, .xml, .pt2);
            `maskwright models` lists the names.
        weights: for a registered name: published weights such as coco, or a checkpoint.
        device: where to compute: auto, cpu, cuda, cuda:1, mps.
        save: write a picture and a JSON file per image, and a page for several.
        formats: further files per image, joined by commas: geojson (polygons with holes, for
            QuPath and GIS tools), labels (16-bit PNG with the object's number at each pixel).
        show: open each picture in a window.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "predict".
        trust: run the machine code in a file of `maskwright export format=aoti`.
    """
    from maskwright.engine.gallery import (
        ResultWriter,
        SavedResult,
        check_formats,
        write_gallery,
    )
    from maskwright.engine.predict import predict as run
    from maskwright.engine.rundir import new_run_dir
    from maskwright.engine.sources import list_sources
    from maskwright.hub import load

    files = tuple(part.strip() for part in (formats or "").split(",") if part.strip())
    if files and not save:
        raise UsageError("formats= names files to write, but save=false writes none")
    check_formats(files)
    sources = list_sources(options["source"])
    keep_memory(device)
    predictor = load(
        model,
        weights=weights,
        device=device,
        precision=options["precision"],
        trust=trust,
        proposal_source=options["proposal_source"],
    )
    if "labels" in files and not predictor.detector.predicts_masks:
        raise UsageError(f"formats=labels needs masks, and {model} predicts boxes alone")
    results = run(predictor, **{**options, "source": sources})
    writer: ResultWriter | None = None
    rows: list[list[object]] = []
    saved: list[SavedResult] = []
    with console.progress("predict", total=len(sources), unit="img") as bar:
        for result in results:
            objects = ", ".join(f"{count} {what}" for what, count in result.counts().items())
            ms = round(sum(result.speed.values()))
            rows.append([result.file_name, objects or "no objects", ms])
            if save:
                if writer is None:  # not before there is something to keep
                    folder = new_run_dir(project, "predict", name)
                    writer = ResultWriter(folder, originals=len(sources) > 1, formats=files)
                saved.append(writer.write(result))
            if show:
                result.show()
            bar.update(objects=len(result))
    console.table("", ["image", "objects", "ms"], rows)
    if writer is not None:
        console.note(f"pictures and data: {writer.folder}")
        if len(sources) > 1:
            page = write_gallery(saved, writer.folder, f"{options['source']}")
            console.note(f"page: {page}")
    return 0


def export(*, model: str | Path, weights: str | Path | None = None, **options: Any) -> int:
    """Write a model as one graph, from pixels to objects, that runs without its code.

    Args:
        model: checkpoint, run folder or registered name; `maskwright models` lists the names.
        weights: for a registered name: published weights such as coco, or a checkpoint.
    """
    from maskwright.engine.export import export as run
    from maskwright.hub import load

    named: Any = model
    if weights is not None:
        source = options["proposal_source"]
        named = load(model, weights=weights, device="cpu", proposal_source=source)
    run(named, **options)
    return 0


def convert(**options: Any) -> int:
    """Convert weights between maskwright and other libraries."""
    from maskwright.hub import convert as run

    console.note(str(run(**options)))
    return 0


def benchmark(*, save: str | Path | None = None, **options: Any) -> int:
    """Time inference stage by stage, beside torchvision where it has the model.

    Args:
        save: file for all figures, as JSON.
    """
    from maskwright.engine import benchmark as run

    if save is not None and not Path(save).resolve().parent.is_dir():
        raise ValueError(f"save={save}: there is no folder {Path(save).resolve().parent}")
    result = run.benchmark(**options)
    run.report(result)
    if save is not None:
        run.save(result, Path(save))
        console.note(f"all figures: {save}")
    return 0


def models(name: str | None = None) -> int:
    """List the models, or the options of one.

    Args:
        name: a model; none: all of them.
    """
    from maskwright.engine.backbone_weights import pretrained_place
    from maskwright.hub import SHIPPED_MODELS
    from maskwright.models import get_entry, list_models

    if name is not None:
        entry = get_entry(name)
        values = entry.arguments()
        console.table(
            f"{name} ({entry.paper}): options for `maskwright train model={name} key=value`",
            ["option", "value", "meaning"],
            [
                [key, as_written(values[key]), option.help]
                for key, option in model_options(entry.options).items()
            ],
        )
        return 0
    rows = []
    for entry in list_models().values():
        licences = {weights.licence for weights in entry.weights.values()}
        backbone = str(entry.arguments()["backbone"])
        rows.append(
            [
                entry.name,
                entry.task,
                backbone,
                pretrained_place(backbone),
                f"{count_parameters(entry.name) / 1e6:.1f} M",
                ", ".join(entry.weights) or None,
                ", ".join(sorted(licences)) or None,
            ]
        )
    columns = ["name", "task", "backbone", "its ImageNet weights", "parameters"]
    console.table("Models", [*columns, "weights=", "licence of these"], rows)
    trained = [key for key, file in SHIPPED_MODELS.items() if (WEIGHTS / file).is_file()]
    if trained:
        console.note(f"Trained models that come with the package: {', '.join(trained)}.")
    console.note("backbone= takes any timm name; `maskwright models NAME` lists the options.")
    return 0


def count_parameters(name: str) -> int:
    """Return the number of parameters of a model with 80 classes, without making its tensors."""
    import torch

    from maskwright.models import build

    with torch.device("meta"):
        return sum(p.numel() for p in build(name, 80).parameters())


def compress(**options: Any) -> int:
    """Shrink the fully connected layers of a trained detector by truncated SVD."""
    from maskwright.engine.compress import compress as run

    made = run(**options)
    columns = ["", "parameters of the layers", "ms an image", "box/AP", "box/AP50"]
    shown = len(columns) if options["data"] is not None else 2
    console.table(
        f"{options['model']}, ranks {as_written(options['rank'])}",
        columns[:shown],
        [row[:shown] for row in made.rows],
    )
    if options["data"] is None:
        console.note("data=... measures speed and AP before and after")
    console.note(f"model: {made.dir}")
    return 0


def proposals(
    *, save: bool = True, project: str | Path = "runs", name: str | None = None, **options: Any
) -> int:
    """Compute region proposals of a data set and measure how many objects they find.

    Args:
        save: write the recall curves and the proposals themselves into a run folder.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "proposals".
    """
    from maskwright.engine.recall import proposals as run
    from maskwright.engine.recall import save_report
    from maskwright.engine.rundir import new_run_dir, write_args

    report = run(**options)
    recall = report.recall
    shown = [i for i, iou in enumerate(recall.ious) if iou in (0.5, 0.7, 0.9)]
    console.table(
        f"{report.source} on {options['data']}, {options['split']} split: {recall.objects} "
        f"objects, {sum(report.counts) / max(len(report.counts), 1):.0f} proposals an image, "
        f"{report.seconds:.2g} s an image"
        + (f", {report.cached} of {len(report.counts)} from the cache" if report.cached else ""),
        ["proposals", *(f"recall at IoU {recall.ious[i]:g}" for i in shown), "average recall"],
        [
            [count, *(float(row[i]) for i in shown), float(average)]
            for count, row, average in zip(
                recall.counts, recall.recall, recall.average, strict=True
            )
        ],
    )
    if save:
        folder = new_run_dir(project, "proposals", name)
        write_args(folder / "args.yaml", {key: str(value) for key, value in options.items()})
        save_report(report, folder)
        console.note(f"curves, table and proposals: {folder}")
    return 0


def as_written(value: Any) -> str:
    """Return a value as it would be given on the command line."""
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return "none" if value is None else str(value)


def doctor() -> int:
    """Check this installation and print the command that mends what is missing."""
    from maskwright.engine.doctor import doctor as run

    return 0 if run() else 1


def data_check(
    *, save: bool = True, project: str | Path = "runs", name: str | None = None, **options: Any
) -> int:
    """Look for faults in a data set and draw samples, before any training.

    Args:
        save: write samples, statistics and the list of faults into a run folder.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "check".
    """
    from maskwright.data.check import check_data, require_samples
    from maskwright.data.discover import find_splits
    from maskwright.engine.rundir import new_run_dir

    require_samples(options["samples"])
    find_splits(options["data"])  # what is no data set leaves no run folder behind
    folder = new_run_dir(project, "check", name) if save else None
    with ExitStack() as stack:
        bars: dict[str, console.Progress] = {}

        def show(split: str, done: int, total: int) -> None:
            if split not in bars:
                bar = console.progress(f"check {split}", total=total, unit="img")
                bars[split] = stack.enter_context(bar)
            bars[split].update(done - bars[split].done)
            if done == total:
                stack.close()

        report = check_data(**options, save=folder, progress=show)
    splits = report.splits
    console.table(
        f"{report.data}",
        [
            "split",
            "images",
            "without objects",
            "objects",
            *SIZES,
            "crowd, difficult",
            "most in an image",
        ],
        [
            [
                split,
                stats.images,
                stats.without_objects,
                stats.objects,
                *(stats.by_size[size] for size in SIZES),
                stats.crowds,
                int(stats.per_image.max(initial=0)),
            ]
            for split, stats in splits.items()
        ],
    )
    classes = dict.fromkeys(name for stats in splits.values() for name in stats.per_class)
    console.table(
        "Objects by class",
        ["class", *splits],
        [[name, *(stats.per_class.get(name, 0) for stats in splits.values())] for name in classes],
    )
    faults: dict[tuple[str, str, str], list[str]] = {}
    for split, fault in report.faults:
        faults.setdefault((split, fault.kind, fault.action), []).append(fault.message)
    if faults:
        console.table(
            "Faults",
            ["split", "fault", "what happens", "times", "the first"],
            [[*key, len(messages), messages[0]] for key, messages in faults.items()],
        )
    else:
        console.note("Faults: none.")
    for note in report.notes:
        console.note(f"Note: {note}")
    if folder is not None:
        console.note(f"samples, statistics and all faults: {folder}")
    if not report.ok:
        console.error("training would fail on this data: mend the faults marked 'error'")
    return 0 if report.ok else 1
