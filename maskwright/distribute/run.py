"""Prediction over very many images: tables of finds, part by part, on one machine or a cluster."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from ..data.formats.coco.found import NEEDED, write_found
from ..errors import OptionError, checked_options, whole_number
from ..hub.names import SHIPPED_MODELS
from ..models.registry import find_entry
from ..paths import takes_paths
from ..reports.gallery import check_formats, split_names
from ..runs import check_save, new_run_dir
from ..stores import Place, is_address
from ..terminal import console
from ..text import printable
from .columns import OPTIONS, BatchPredictor
from .job import FINDS, Job, Run, fingerprint, open_run, run_here
from .parts import Part, list_parts
from .tables import TRYING, Count, need_pyarrow, read_rows

COCO = "annotations.json"
SHOWN = 3  # errors that are told


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        dir: path or address of its folder; `finds` in it holds the tables.
        count: images, finds, failed and noted images.
        errors: the first few images that failed, and why.
        coco: path or address of the COCO file; None: none was asked for.
    """

    dir: str
    count: Count
    errors: list[str]
    coco: str | None = None

    @property
    def finds(self) -> str:
        """Path or address of the folder of the tables."""
        return Place(self.dir).at(FINDS)


@checked_options
@takes_paths
def predict(
    model: str | Path,
    source: Any,
    *,
    engine: Literal["local", "ray"] = "local",
    address: str | None = None,
    processes: int | None = None,
    cores: int = 1,
    part: int | None = None,
    column: str | None = None,
    conf: float | str = 0.25,
    iou: float | None = None,
    max_det: int = 100,
    imgsz: int | tuple[int, int] | str | None = None,
    batch: int = 1,
    device: str = "auto",
    precision: str = "float32",
    save: bool | str | Path | None = True,
    soft_nms: str | None = None,
    tta: str | None = None,
    window: tuple[float, float] | str | None = None,
    page: int | str | None = None,
    channels: int | str | tuple[int, ...] | None = None,
    proposal_source: str | None = None,
    weights: str | Path | None = None,
    formats: str | tuple[str, ...] | None = None,
    project: str | Path = "runs",
    name: str | None = None,
    trust: bool = False,
    topk: int = 5,
    slide: int | None = None,
    crf: bool | str | tuple[float, ...] | None = None,
    tile: int | None = None,
    overlap: float = 0.2,
    tile_levels: int = 1,
) -> Outcome:
    """Predict over very many images, and write what is found as Parquet tables.

    One row a find, with the numbers of `maskwright.predict` to the bit; an image that fails is a
    row with its error. The source is cut into parts, one file each: the same call with the same
    `save` goes on where a run was stopped, whatever stopped it.

    Args:
        model: checkpoint, run folder, registered name or exported file, which all machines reach by
            this path; or the address of a checkpoint in an object store.
        source: as for `maskwright.predict` but videos; or Parquet files, one or a folder or a
            pattern of them, here or in an object store, with paths or with the bytes of images.
        engine: where it runs: local, in this process; ray, on a Ray cluster, or on Ray on this
            machine (the extra cluster).
        address: of the cluster, as in 10.0.0.1:6379 or ray://10.0.0.1:10001. None: that in
            RAY_ADDRESS, otherwise this machine alone.
        processes: that compute at once, each with a model of its own. None: one a GPU, or as many
            as the cores of the cluster allow.
        cores: of the CPU that each process computes with, where there is no GPU.
        part: images that one process takes at once and that are written as one file. None: 32 to
            1,024, by their number.
        column: of the Parquet files: where paths or bytes of the images are. None: path, image,
            file_name or bytes, the first that is there.
        conf: smallest score, see `maskwright.predict`.
        iou: the weaker of two is dropped, see `maskwright.predict`.
        max_det: most objects in an image or tile.
        imgsz: image size, see `maskwright.predict`.
        batch: images that are computed at once.
        device: where to compute: auto, cpu, cuda, cuda:1, mps.
        precision: float32, bf16 or fp16, see `load`.
        save: the folder of the run: true into a new run folder, a path into that folder, which may
            be the address of one in an object store, and has to be one that all machines reach.
        soft_nms: see `maskwright.predict`: linear, gaussian, or gaussian:0.3.
        tta: look at each image several times, see `maskwright.predict`.
        window: sample values that become 0 to 255, see `maskwright.predict`.
        page: which image of files that hold several: a number, or all.
        channels: of the files, see `maskwright.predict`.
        proposal_source: where regions come from, for models that take them with the image.
        weights: for a registered name: published weights such as coco, or a checkpoint.
        formats: further files: coco, one COCO JSON file of all images, for models of objects.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "predict".
        trust: run the machine code in a file of `maskwright export format=aoti`.
        topk: for models that classify images: most names that are kept of each.
        slide: side of the windows, see `maskwright.predict`.
        crf: draw borders to the edges of the image, see `maskwright.predict`.
        tile: look at larger images in tiles, see `maskwright.predict`.
        overlap: of tiles.
        tile_levels: sizes of tiles.

    Returns:
        The folder, and how many images, finds and failures there are.

    Raises:
        OptionError: if an option is wrong, or the folder holds another run.
        ValueError: if the source, the model or the cluster is not there.

    Example:
        >>> from maskwright import distribute
        >>> distribute.predict("nuclei", "cells/", engine="ray")  # doctest: +SKIP
    """
    options = {key: value for key, value in locals().items() if key in OPTIONS}
    need_pyarrow()
    if engine not in ENGINES:
        raise OptionError(f"engine={engine}: there are {' and '.join(ENGINES)}")
    if engine == "local" and not (address is None and processes in (None, 1)):
        raise OptionError("engine=local is this process alone; address and processes: engine=ray")
    for key, number in (("processes", processes), ("part", part), ("cores", cores)):
        if number is not None:
            whole_number(key, number)
    files = split_names(formats)
    check_formats(files, ("coco",))
    if not save:
        raise OptionError("the tables are all that comes of it: give save=true or a folder")
    if is_address(save):
        if name is not None:
            raise OptionError(f"save={save} is the folder itself: leave out name")
    else:
        save = check_save(save, project, name)
    if find_entry(str(model)) and weights is None and str(model) not in SHIPPED_MODELS:
        raise OptionError(f"{model} has random weights, others in each process: give weights=")
    find = BatchPredictor(model, column=column, **options)
    checked = find
    if engine != "local":  # this process checks options; others compute, and may have GPUs
        own = {"device": "cpu", "precision": "float32"}
        checked = BatchPredictor(model, column=column, **{**options, **own})
    predictor, columns = checked.predictor, checked.columns
    if files and not set(columns) >= NEEDED:
        raise OptionError(f"formats=coco is for models that find objects, not {model}")
    listed = list_parts(source, part, column)
    if listed.passed_over:
        warnings.warn(printable(listed.passed_over), stacklevel=4)
    if save is True:
        save = new_run_dir(project, "predict", name)
    meta = predictor.meta
    description = {
        "model": meta.model,
        "names": predictor.names,
        "category_ids": list(meta.category_ids),
        "weights": fingerprint(predictor, str(model)),
        "columns": columns,
        "options": {key: value for key, value in find.options.items() if key not in FREE},
    }
    assert isinstance(save, str | Path)
    run = open_run(save, listed, description)
    job = Job(find, run.place, columns)
    there = sum(len(one) for one in run.parts if one.number in run.done)
    if there:
        console.note(f"{there} of {listed.images} images are there already, in {run.folder}")
    compute = ENGINES[engine](job, run.missing, address, processes, cores)
    try:
        with console.progress("predict", total=listed.images, unit="img") as bar:
            bar.update(there)
            for one, count in compute:
                run.done[one.number] = count
                bar.update(len(one))
    except BaseException:
        if run.done and run.missing:
            console.note(f"what is done stays: the same with save={run.folder} goes on")
        raise
    return _conclude(run, files, description)


FREE = ("device", "trust", "weights")  # which change nothing in the tables, or are named apart
Engine = Callable[[Job, list[Part], str | None, int | None, int], Iterator[tuple[Part, Count]]]


def _local(
    job: Job, parts: list[Part], address: str | None, processes: int | None, cores: int
) -> Iterator[tuple[Part, Count]]:
    return run_here(job, parts)


def _ray(
    job: Job, parts: list[Part], address: str | None, processes: int | None, cores: int
) -> Iterator[tuple[Part, Count]]:
    from .on_ray import run_on_ray

    return run_on_ray(job, parts, address, processes, cores)


ENGINES: dict[str, Engine] = {"local": _local, "ray": _ray}


def _conclude(run: Run, files: tuple[str, ...], description: dict[str, Any]) -> Outcome:
    """Write what is made of all tables, and tell what failed."""
    run.place.tidy(TRYING)
    total = sum(run.done.values(), Count())
    names = [part.output for part in run.parts]
    failing = [part.output for part in run.parts if run.done[part.number].failed]
    errors = [
        row["error"] if row["image"] in row["error"] else f"{row['image']}: {row['error']}"
        for row in islice((r for r in read_rows(run.place, failing) if r["error"]), SHOWN)
    ]
    if total.failed:
        more = ", ..." if total.failed > len(errors) else ""
        warnings.warn(
            f"{total.failed} of {total.images} images failed, see the column error: "
            + ", ".join(errors)
            + more,
            stacklevel=5,
        )
    if total.noted:
        noting = [part.output for part in run.parts if run.done[part.number].noted]
        ((text, _),) = Counter(
            row["note"] for row in read_rows(run.place, noting[:10]) if row["note"]
        ).most_common(1)
        warnings.warn(
            f"there is something to say of {total.noted} images, see the column note, mostly: "
            f"{text}",
            stacklevel=5,
        )
    coco = None
    if files:
        coco = run.folder.at(COCO)
        run.folder.write(
            COCO,
            lambda file: write_found(
                file,
                lambda: read_rows(run.place, names),
                description["names"],
                description["category_ids"],
            ),
        )
    return Outcome(str(run.folder), total, errors, coco)
