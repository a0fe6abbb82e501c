"""What the commands of the command line do; `cli` reads their options and calls them.

The keyword-only options of a function here come on top of those of the Python function that it
calls. Heavy modules are imported inside, so that the help stays instant.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

from maskwright.errors import first_few, nearest
from maskwright.signatures import model_options, parse_value
from maskwright.terminal import console

# Options of trainings of some tasks, which models of other tasks have as their own.
OF_MODELS_TOO = ("loss",)


class UsageError(Exception):
    """The command line is wrong: exit status 2."""


def unknown(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for a name that is near, otherwise all that are known."""
    known = list(dict.fromkeys(known))
    return nearest(name, known) or f"; known are {', '.join(known) or 'none'}"


def keep_memory(device: str) -> None:
    """Keep what is freed, where the CPU computes: this process has nothing else to do with it."""
    from maskwright.devices import pick_device
    from maskwright.terminal import heap

    if pick_device(device).type == "cpu":
        heap.keep_memory()


def of_other(options: dict[str, Any], usual: Iterable[str]) -> dict[str, Any]:
    """Take options out that are not among the usual ones; return those that were given."""
    own = [name for name in options if name not in set(usual)]
    return {name: value for name in own if (value := options.pop(name)) is not None}


def train(*, extra: dict[str, str], **options: Any) -> int:
    """Train a model on your own images."""
    model_args: dict[str, Any] = {}
    if not {"data", "resume"} & set(options):
        raise UsageError("train needs data=... (folder or file of the data set), or resume=...")
    others = sorted(set(options) & set(OF_MODELS_TOO)) if "resume" not in options else []
    if extra or others:
        from maskwright.hub.names import architecture
        from maskwright.tasks import task_of
        from maskwright.tasks.recipe import TrainRecipe

        entry = architecture(options.get("model", TrainRecipe.model))
        kinds = model_options(entry.options)
        own = [field.name for field in fields(task_of(entry.name).recipe)]
        for name in others:
            if name in kinds and name not in own:
                extra = {**extra, name: str(options.pop(name))}
        for name, text in extra.items():
            if name not in kinds:
                raise UsageError(no_train_option(name, entry.name, kinds))
            try:
                model_args[name] = parse_value(kinds[name].kind, text)
            except ValueError as error:
                raise UsageError(f"{name}: {error}") from None
    if "engine" in options:
        from maskwright.distribute import train as run
    elif several := sorted({"address", "processes", "cores"} & set(options)):
        raise UsageError(f"{', '.join(several)}: to train on a cluster, give engine=ray too")
    else:
        from maskwright.training.train import train as run

    if model_args:
        options["model_args"] = model_args
    keep_memory(options.get("device", "auto"))
    result = run(**options)
    return 128 + result.signal if result.interrupted else 0


def no_train_option(name: str, model: str, kinds: Iterable[str]) -> str:
    """Return what is wrong with an option `name` of a model that neither it nor training has."""
    import maskwright
    from maskwright.models import list_models
    from maskwright.tasks.recipe import TrainRecipe

    having = [other for other, entry in list_models().items() if name in entry.arguments()]
    if having:
        return f"{model} has no option {name!r}; {first_few(having, 3)} have it: give model=..."
    looks: dict[str, Any] = {"predict": maskwright.predict, "val": maskwright.val}
    if there := [one for one, run in looks.items() if name in inspect.signature(run).parameters]:
        return f"train has no option {name!r}: it is one of {' and '.join(there)}"
    own = [field.name for field in fields(TrainRecipe) if field.name != "model_args"]
    return (
        f"train has no option {name!r}{nearest(name, [*own, *kinds])} (see `maskwright train "
        f"--help`, and for the options of the model `maskwright models {model}`)"
    )


def val(*, model: str | Path, save: bool | str | Path | None = True, **options: Any) -> int:
    """Score a model on annotated images.

    Args:
        model: checkpoint, run folder or registered name; `maskwright models` lists the names.
        save: write `report.html`, its figures and `metrics.json`: true into a new run folder, a
            path into that folder, false nothing.
    """
    from maskwright.prediction.val import val as run
    from maskwright.reports.undefined import metric_rows, split_rows, undefined_line

    keep_memory(options["device"])
    metrics = run(model, save=save, **options)
    total, by_class = metric_rows(metrics, metrics.named)
    total, without = split_rows(total)
    by_class, absent = split_rows(by_class)
    kinds = list(dict.fromkeys(kind for row in total.values() for kind in row))
    if total:
        console.table(
            f"{model} on {options['data']}, {options['split']} split",
            ["metric", *kinds],
            [[name, *map(row.get, kinds)] for name, row in total.items()],
        )
    if by_class:
        columns = list(dict.fromkeys(column for row in by_class.values() for column in row))
        console.table(
            "By class",
            ["class", *columns],
            [[console.short(name), *map(row.get, columns)] for name, row in by_class.items()],
        )
    if line := undefined_line(without, absent):
        console.note(line)
    for line in metrics.lines:
        console.note(line)
    if metrics.command is not None:
        console.note(f"next:\n  {metrics.command}")
    return 0


def predict(*, model: str | Path, save: bool | str | Path | None = True, **options: Any) -> int:
    """Look at images or videos: what is found goes into a run folder as pictures and data.

    Args:
        model: checkpoint, run folder, registered name or exported file (.onnx, .xml, .pt2);
            `maskwright models` lists the names.
        save: write a picture and a JSON file of each image, and a page that shows several; or the
            annotated video, a line of JSON a frame and counts: true into a new run folder, a path
            into that folder, false nothing.
    """
    from maskwright.prediction.predict import predict as run
    from maskwright.prediction.video.command import show
    from maskwright.prediction.video.watching import VideoResults

    given = of_other(options, inspect.signature(run).parameters)
    keep_memory(options["device"])
    if "engine" in given:
        from maskwright.distribute.command import predict_tables

        return predict_tables({"model": model, "save": save, **options, **given})
    if given:
        raise UsageError(f"{', '.join(given)}: for tables of very many images, give engine=... too")
    results = run(model, save=save, **options)
    if isinstance(results, VideoResults):
        return show(results)
    rows: list[list[object]] = []
    with console.progress("predict", total=results.total, unit="img") as bar:
        for result in results:
            ms = round(sum(result.speed.values()))
            rows.append([result.name, result.summary(), ms])
            bar.update()
    console.table("", ["image", "found", "ms"], rows)
    if results.dir is not None:
        console.note(f"pictures and data: {results.dir}")
    if results.page is not None:
        console.note(f"page: {results.page}")
    return 1 if results.failed else 0


def serve(**options: Any) -> int:
    """Put models behind HTTP: a page to try them in a browser, and a service for programs."""
    from maskwright.serving.serve import serve as run

    keep_memory(options["device"])
    run(**options)
    return 0


def export(*, model: str | Path, **options: Any) -> int:
    """Write a model as one graph, from pixels to objects, that runs without its code.

    Args:
        model: checkpoint, run folder or registered name; `maskwright models` lists the names.
    """
    from maskwright.exporters.export import export as run

    run(model, **options)
    return 0


def convert(**options: Any) -> int:
    """Convert weights between maskwright and other libraries."""
    from maskwright.hub.loading import convert as run

    console.note(str(run(**options)))
    return 0


def benchmark(**options: Any) -> int:
    """Time inference stage by stage, beside torchvision where it has the model."""
    from maskwright.timing import benchmark as run

    result = run.benchmark(**options)
    run.report(result)
    if result.file is not None:
        console.note(f"all figures: {result.file}")
    return 0


def compare(**options: Any) -> int:
    """Train and time several models on your own images, and write one page to choose by."""
    from maskwright.comparing.compare import compare as run
    from maskwright.comparing.page import table_of
    from maskwright.comparing.rows import unbeaten

    keep_memory(options.get("device", "auto"))
    made = run(**options)
    front = unbeaten(made.rows, made.score) if made.score else []
    console.table(f"Models on {options['data']}, {made.split} split", *table_of(made, front))
    console.note(f"page: {made.page}")
    if made.signal:
        console.note("the same command again goes on")
        return 128 + made.signal
    return 1 if made.failed else 0


def models(name: str | None = None, *, family: str | None = None, task: str | None = None) -> int:
    """List the families of models, the models of one family, or the options of one model.

    Args:
        name: a model, whose options are listed.
        family: a family, whose models are listed, such as mask_rcnn.
        task: list only models that do this: detect, segment, keypoints, classify, ...
    """
    from maskwright.hub.listing import show_families, show_models
    from maskwright.hub.names import SHIPPED_MODELS, architecture
    from maskwright.models.registry import find_entry, known_words, list_models, open_names

    if name is not None:
        if family is not None or task is not None:
            raise UsageError(
                "models lists the options of one model, or several models: give the "
                "name alone, or family= and task="
            )
        for option, words in known_words().items():
            if name in words and find_entry(name) is None:
                raise UsageError(f"{name} is a {option}: `maskwright models {option}={name}`")
        entry = architecture(name)
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
    entries = list_models(family=family, task=task)
    if not entries:
        raise UsageError(f"no model of the family {family} is for task={task}")
    if family is None:
        show_families(list(entries.values()))
        trained = [
            key
            for key, shipped in SHIPPED_MODELS.items()
            if shipped.model in entries and shipped.path.is_file()
        ]
        if trained:
            console.note(f"Trained models that come with the package: {', '.join(trained)}.")
        console.note("`maskwright models family=NAME` lists the models of a family.")
    else:
        show_models(list(entries.values()))
        alike = sorted(other for other in known_words()["family"] - {family} if family in other)
        if alike:
            console.note(f"Families with {family} in their name: {', '.join(alike)}.")
    for beginning, names in open_names(entries).items():
        console.note(f"`{beginning}NAME` is a model with {names} as NAME.")
    console.note("`maskwright models NAME` lists the options of one; backbone= takes timm's names.")
    return 0


def compress(**options: Any) -> int:
    """Shrink the fully connected layers of a trained detector by truncated SVD."""
    from maskwright.tasks.detection.compress import compress as run

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


def proposals(*, save: bool | str | Path | None = True, **options: Any) -> int:
    """Compute region proposals of a data set and measure how many objects they find.

    Args:
        save: write the recall curves and the proposals themselves: true into a new run folder, a
            path into that folder, false nothing.
    """
    from maskwright.tasks.detection.recall import proposals as run

    report = run(save=save, **options)
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
    if report.dir is not None:
        console.note(f"curves, table and proposals: {report.dir}")
    return 0


def data_pseudo(**options: Any) -> int:
    """Write boxes and masks from a classifier's heat maps as a COCO file, to start labelling."""
    from maskwright.tasks.classification.pseudo import pseudo

    keep_memory(options["device"])
    report = pseudo(**options)
    if report.found:
        console.table("", ["class", "objects"], [[*row] for row in report.found.items()])
    elif not report.empty:
        console.warn(f"no object: no class has a probability of conf={options['conf']:g}")
    if report.empty:
        console.warn(
            f"{report.empty} heat maps are empty, so without an object: at the last stage of the "
            "network no place speaks more for the class than another; a larger imgsz has more"
        )
    for reason in report.skipped:
        console.warn(f"skipped: {reason}")
    console.note(
        f"{report.images} images, made by a network and not drawn by people: {report.file}"
    )
    return 0


def data_anchors(**options: Any) -> int:
    """Find anchors that fit the boxes of a data set by k-means, with 1 to 9 of them."""
    from maskwright.tasks.detection.data_options import anchors

    report = anchors(**options)
    console.table(
        f"{report.boxes} boxes, {options['split']} split",
        ["anchors", "mean IoU", "anchors=, width and height of each in cells of 32 pixels"],
        [
            [count, report.overlaps[count], ",".join(f"{side:g}" for side in sizes)]
            for count, sizes in report.anchors.items()
        ],
    )
    return 0


def as_written(value: Any) -> str:
    """Return a value as it would be given on the command line."""
    if isinstance(value, list | tuple):
        return ",".join(str(item) for item in value)
    return "none" if value is None else str(value)


def doctor() -> int:
    """Check this installation and print the command that mends what is missing."""
    from maskwright.terminal.doctor import doctor as run

    return 0 if run() else 1


def data_check(*, save: bool | str | Path | None = True, **options: Any) -> int:
    """Look for faults in a data set and draw samples; with a model, for labels that it doubts.

    Args:
        save: write samples, statistics and the list of faults, or the page of what a model doubts
            and its list: true into a new run folder, a path into that folder, false nothing.
    """
    from maskwright.data.checking.check import FAULTS, SHOWN, check_data

    usual = inspect.signature(check_data).parameters
    given = of_other(options, usual)
    if "model" in given:
        from maskwright.prediction.label_check import check_command

        changed = {name: v for name, v in options.items() if v != usual[name].default}
        keep_memory(given.get("device", "auto"))
        return check_command(save=save, **given, **changed)
    if given:
        raise UsageError(f"{', '.join(given)}: to compare labels with a model, give model=... too")
    with console.bars() as show:
        report = check_data(**options, save=save, progress=show)
    for title, header, rows in report.tables():
        console.table(title, header, [[console.short(str(row[0])), *row[1:]] for row in rows])
    listed: list[list[object]] = []
    for key, messages in report.by_kind().items():
        listed.append([*key, len(messages), messages[0]])
        listed += [["", "", "", "", message] for message in messages[1:SHOWN]]
    if listed:
        console.table("Faults", ["split", "fault", "what happens", "times", "the first"], listed)
        if len(listed) < len(report.faults):
            place = "save=true writes them" if report.dir is None else report.dir / FAULTS
            console.note(f"all {len(report.faults)} faults: {place}")
    else:
        console.note("Faults: none.")
    for note in report.notes:
        console.note(f"Note: {note}")
    if report.dir is not None:
        console.note(f"samples, statistics and all faults: {report.dir}")
    if not report.ok:
        console.error("training would fail on this data: mend the faults marked 'error'")
    return 0 if report.ok else 1


def data_stats(*, save: bool | str | Path | None = True, **options: Any) -> int:
    """Count what a data set has: images, objects, classes, sizes and shapes, by split.

    Args:
        save: write a page with all numbers and pictures: true into a new run folder, a path into
            that folder, false nothing.
    """
    from maskwright.reports.data_page import describe_data

    with console.bars() as show:
        made = describe_data(**options, save=save, progress=show)
    for title, header, rows in made.tables:
        console.table(title, header, [[console.short(str(row[0])), *row[1:]] for row in rows])
    for note in made.notes:
        console.note(f"Note: {note}")
    if made.faults:
        console.note(f"{made.faults} fault(s) in what was read: `maskwright data check` lists them")
    if made.page is not None:
        console.note(f"page: {made.page}")
    return 0


def data_convert(**options: Any) -> int:
    """Write a data set in another format, and say what that format cannot hold."""
    from maskwright.data.rewriting.convert import convert_data

    return rewrite(convert_data, options)


def data_split(**options: Any) -> int:
    """Write a data set divided into train, val and test, each with its share of every class."""
    from maskwright.data.rewriting.split import split_data

    return rewrite(split_data, options, classes=True)


def data_merge(**options: Any) -> int:
    """Write several data sets as one, their classes matched by name."""
    from maskwright.data.rewriting.merge import merge_data

    return rewrite(merge_data, options)


def data_classes(**options: Any) -> int:
    """Write a data set with other classes: renamed, put together, left out."""
    from maskwright.data.rewriting.classes import change_classes

    return rewrite(change_classes, options, classes=True)


def rewrite(run: Callable[..., Any], options: dict[str, Any], *, classes: bool = False) -> int:
    """Run what writes a data set, and say what was written, what is lost and what to know."""
    from maskwright.data.rewriting.told import tell

    with console.bars() as show:
        report = run(**options, progress=show)
    tell(report, as_written(options["data"]), classes=classes)
    return 0
