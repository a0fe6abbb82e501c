"""Prediction over a source of any size: results one at a time, in constant memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..channels import parse_channels, parse_page
from ..errors import OptionError, checked_options, whole_number
from ..paths import takes_paths
from ..reports.gallery import check_formats, split_names
from ..runs import check_save
from ..tasks.base import Settings
from ..tasks.thresholds import parse_conf
from ..text import one_line, printable
from ..window import parse_window
from .load import load
from .memory import TooLittleMemoryError
from .predictor import Predictor
from .reading import Loaded, Reading, read_all
from .sources import Sources, list_sources, with_page
from .stream import Results, Saver
from .tiles import Stop, untiled_warning
from .video.folder import FrameSource
from .video.kinds import VideoSource, find_videos
from .video.options import VideoOptions
from .video.saving import FRAME_FORMATS, VideoSaver
from .video.watching import Look, VideoResults
from .windows import idle_window_warning, own_window_warning


@checked_options
@takes_paths
def predict(
    model: str | Path | Predictor,
    source: Any,
    *,
    conf: float | str = 0.25,
    iou: float | None = None,
    max_det: int = 100,
    imgsz: int | tuple[int, int] | str | None = None,
    batch: int = 1,
    device: str = "auto",
    precision: str = "float32",
    save: bool | str | Path | None = None,
    soft_nms: str | None = None,
    tta: str | None = None,
    window: tuple[float, float] | str | None = None,
    page: int | str | tuple[int, ...] | None = None,
    channels: int | str | tuple[int, ...] | None = None,
    proposal_source: str | None = None,
    weights: str | Path | None = None,
    formats: str | tuple[str, ...] | None = None,
    polygons: float | None = None,
    labels: bool = True,
    show: bool = False,
    project: str | Path = "runs",
    name: str | None = None,
    trust: bool = False,
    explain: str | None = None,
    explain_target: str | int | None = None,
    topk: int = 5,
    slide: int | None = None,
    crf: bool | str | tuple[float, ...] | None = None,
    probs: bool = False,
    tile: int | None = None,
    overlap: float = 0.2,
    tile_levels: int = 1,
    stride: int = 1,
    fps: float | None = None,
    track: bool | str | None = None,
    line: str | tuple[float, ...] | None = None,
) -> Results:
    """Predict over a source of any size, one result at a time.

    Names and options are checked at once, the images are read while you iterate. Of many images
    one that cannot be read is reported as a warning and passed over.

    Args:
        model: registered name, checkpoint or run folder; `maskwright models` lists the names.
        source: image file, folder, glob pattern such as "photos/*.jpg", http(s) address, or the
            address of one of these in an object store (s3://, gs://, ...); or a video file, the
            address of a stream (rtsp, http, ...), or the number of a camera, 0 for the first; in
            Python also bytes, an open file, an array or tensor (H, W, 3), a PIL image, or a list
            of all these.
        conf: smallest score of an object, from 0 to 1; or one for some names and a number for the
            others, as in person:0.6,car:0.3,0.4. `max_det` counts before these.
        iou: of two objects of one class that overlap more than this, the weaker is dropped. None:
            the model's own, mostly 0.5; exported files keep that of their export.
        max_det: most objects in an image or tile; a warning says when one reached it.
        imgsz: image size in pixels: the long side, short and long side, or a factor such as
            1.25x. None: the rule that the model was trained with.
        batch: images that are computed at once.
        device: where to compute: auto, cpu, cuda, cuda:1, mps; a `Predictor` stays on its own.
        precision: float32, bf16 or fp16, see `load`; a `Predictor` keeps its own.
        save: write a picture and a JSON file of each image, and a page that shows several: true
            into a new run folder, a path into that folder, false nothing.
        soft_nms: let objects that overlap a better one of their class lose score instead of
            dropping them: linear, gaussian, or gaussian:0.3 with another sigma than 0.5. None:
            plain NMS.
        tta: look at each image several times and merge what is found: factors on the image size and
            the word flip, as in flip or 0.75,1,1.25,flip. None: once.
        window: sample values that become 0 to 255 in images of more than 8 bits: the smallest and
            the largest, as in 0,4095; percentile or minmax: each image's own. None: auto, as the
            model was trained; percentile, if that was on 8-bit images.
        page: which image of files that hold several, such as TIFF stacks: a number from 0 on;
            several, as in 0-4, 1,3 or 12- (to the last), or all: each is an image of its own. Time
            and z planes are numbered in the order of the file. None: the first.
        channels: numbers from 0 on of the channels of the files that the network gets, in this
            order, as in 3,0,1; of a video 0 is red, 1 green, 2 blue. None: those of the training;
            mostly red, green and blue, or grey; a model of one channel sees the grey of a video.
        proposal_source: for models that take their regions with the image, such as Fast R-CNN:
            where these come from (selective_search, regions.npz, ...). None: from where they came
            in training; a `Predictor` keeps its own.
        weights: for a registered name: published weights such as coco, or a checkpoint.
        formats: further files per image, joined by commas: geojson (polygons with holes, for
            QuPath and GIS tools), labels or png (16-bit PNG with the object's number at each pixel;
            of a model that gives every pixel a class, 8-bit with that class), probs (see there). Of
            what finds objects also labels of all images for the tool in which they are corrected,
            each in a folder of its name: coco, voc, yolo, labelme, cvat, labelstudio, supervisely,
            instances, crowdhuman, kitti, openimages, huggingface, geo, shapefile, via, createml,
            retinanet.
        polygons: of such labels, write outlines as polygons that stray at most so many pixels from
            what was found; 0: exact. None: 0.75 for tools in which people move corners (labelme,
            cvat, labelstudio, supervisely), every pixel as it is where the format can.
        labels: write class and score at the objects of the pictures of save and show.
        show: open each picture in a window, or show it in the notebook.
        project: folder that holds the run folders.
        name: name of the run folder, numbered if taken; none: "predict".
        trust: run the machine code in a file of `maskwright export format=aoti`.
        explain: show what convinced the network, as a heat map of each image: cam (classifiers
            with one linear layer on mean maps), gradcam or gradcam++. With save a
            picture of each goes into the folder `heatmaps`.
        explain_target: what to explain: a class by its name or number from 0 on; where there are
            several finds the number of one from 0 on, or a class, whose best is taken. None: the
            best.
        topk: for models that classify images: most names that are shown of each.
        slide: for models that give every pixel a class: side of the windows, in pixels of the
            network input, in which a larger image is looked at; they overlap by half and are
            blended. None: as a whole.
        crf: for these models, and those that outline objects: draw borders to the edges of the
            image by a dense CRF: true, or weight,sxy,srgb of its appearance kernel as in 4,67,3,
            or where these were published, such as deeplab_v2_vgg16; for a class at every pixel
            `val` finds them by crf=search. None: not.
        probs: for models that give every pixel a class: keep the probability of each class at
            each pixel, `result.probs`; formats=probs writes it.
        tile: look at larger images in tiles of so many of their pixels a side, best as large as the
            images of the training: `imgsz` is the size of a tile then, `batch` counts tiles,
            `max_det` holds for each. Objects that tiles cut become one again. None: as a whole.
        overlap: share of a tile that it has in common with the next one, at least, up to 0.9;
            objects that are no longer than that lie whole in some tile.
        tile_levels: look also in tiles of twice the side at half the size, and so on, for objects
            that are longer than the overlap of the smaller tiles: so many sizes in all.
        stride: of a video: look at the first of so many frames.
        fps: of a video: look at so many frames a second, evenly in time even where the video's own
            rate changes. None: as stride says. Of a folder of frames: how many there are a second.
        track: of a video or a folder of frames: follow what is found from frame to frame, and give
            it an id: true, or a way of doing it: bytetrack, ocsort, sort, botsort.
        line: with track: count what crosses the line from x1,y1 to x2,y2, in pixels of the video.

    Returns:
        An iterator of results in the order of the source; its `dir` and `page` tell where the
        files are. Of a video also its `counts`, and how many frames were `broken`.

    Raises:
        ValueError: if the source, the model or an option is wrong; while iterating, if the only
            image or all images cannot be read.
    """
    parse_window(window)
    parse_channels(channels)
    number = parse_page(page)
    parse_conf(conf)
    batch = whole_number("batch", batch)
    where, files = check_save(save, project, name), split_names(formats)
    if files and where is False:
        raise OptionError(
            "formats names files to write, but save=false writes none: give save=true"
        )
    if not labels and where is False and not show:
        raise OptionError(
            "labels=false is about pictures, but none is made: give save=true or show=true; "
            "result.plot(labels=False) draws one"
        )
    watched = VideoOptions.parse(stride=stride, fps=fps, track=track, line=line)
    found = find_videos(source)
    if found and page is not None:
        raise OptionError("page chooses from image files; a video has frames: see stride and fps")
    if found and parse_window(window) is not None:
        raise OptionError("window is about image files of more than 8 bits; a video is seen with 8")
    videos: list[VideoSource | FrameSource] = [*found]
    sources = Sources([], single=True) if videos else with_page(list_sources(source), number)
    videos += watched.frames(source, sources, Reading())
    if videos:
        watched.refuse(show=show)
    if sources.passed_over:
        warnings.warn(printable(sources.passed_over), stacklevel=4)  # beyond the two wrappers
    if isinstance(model, Predictor):
        if weights is not None:
            raise OptionError("weights is for a model given by its name; this one has its own")
        predictor = model
    else:
        predictor = load(
            model,
            weights=weights,
            device=device,
            precision=precision,
            trust=trust,
            proposal_source=proposal_source,
        )
    together = predictor.task.datasets if files else ()
    if videos and (sets := [one for one in files if one in together]):
        raise OptionError(
            f"formats={','.join(sets)} is a data set over image files, and frames of a video are "
            "none: formats=pictures writes them, formats=geojson what is found in each, in pixels"
        )
    check_formats(files, (*predictor.task.files, *(FRAME_FORMATS if videos else together)))
    gathered = [one for one in files if one in together]
    files = tuple(one for one in files if one not in together)
    if polygons is not None and not gathered:
        raise OptionError(
            f"polygons={polygons} is about labels of objects: give formats=labelme, cvat, ..."
        )
    own = [one for one in files if one not in FRAME_FORMATS]
    predictor.task.check_formats(own, predictor.model, predictor.meta.model)
    given: dict[str, Any] = {"conf": conf, "iou": iou, "max_det": max_det, "tta": tta}
    given |= {
        "soft_nms": soft_nms,
        "explain": explain,
        "explain_target": explain_target,
        "topk": topk,
    }
    given |= {"slide": slide, "crf": crf, "probs": probs or "probs" in files}
    given |= {"tile": tile, "overlap": overlap, "tile_levels": tile_levels}
    given |= {"track": watched.track, "line": watched.line}
    settings = predictor.settings(given, predict)
    rule = predictor.resize_rule(imgsz, settings)
    explainer = None
    if explain is not None and tile is not None:
        raise OptionError("explain shows an image as a whole, as the network sees it: not in tiles")
    if explain is not None:
        explainer = predictor.explainer(explain, explain_target, rule)
    elif explain_target is not None:
        raise OptionError(f"explain_target={explain_target} needs explain=, such as gradcam")
    reading = predictor.reading(window, channels)
    if videos:
        if found:
            reading.check_video()
        videos = [
            replace(one, reading=reading, window=window) if isinstance(one, FrameSource) else one
            for one in videos
        ]
        look = Look.of(
            predictor,
            watched,
            settings,
            reading,
            explainer,
            batch,
            partial(_compute, predictor, rule=rule, single=True, tiles=batch),
        )
        films = None
        if where is not False:
            films = VideoSaver(where, project=project, name=name, formats=files, labels=labels)
        return VideoResults(videos, watched.choice, look, films, predictor.meta.model)
    saver = None
    if where is not False:
        saver = Saver(
            where,
            project=project,
            name=name,
            formats=files,
            labels=labels,
            title=str(source) if isinstance(source, str | Path) else "Predictions",
            several=len(sources) > 1,
            gathered=predictor.task.gather(gathered, polygons) if gathered else None,
        )
    stream = _stream(
        predictor, sources, rule, settings, reading, batch, saver, show, labels, explainer, window
    )
    return Results(stream, len(sources), predictor.meta.model, saver)


def _stream(
    predictor: Predictor,
    sources: Sources,
    rule: Any,
    settings: Settings,
    reading: Reading,
    batch: int,
    saver: Saver | None,
    show: bool,
    labels: bool,
    explainer: Callable[[Any], Any] | None,
    window: Any,
) -> Generator[Any]:
    stretched = shrunk = False
    seen = idle = 0
    said: set[str] = set()
    images = read_all(sources, reading, predictor.memory, settings.rules(rule), settings)
    while group := list(islice(images, batch)):
        if reading.window is None and not stretched and any(loaded.deep for loaded in group):
            stretched = True
            warnings.warn(own_window_warning(predictor.meta.model), stacklevel=2)
        sizes = [loaded.pixels.shape[:2] for loaded in group]
        seen += len(group)
        idle += sum(loaded.pixels.dtype == np.uint8 for loaded in group)
        text = untiled_warning(predictor.model, predictor.meta, rule, settings, sizes)
        if text is not None and not shrunk:
            shrunk = True
            warnings.warn(text, stacklevel=2)
        stop = None if saver is None else Stop()
        for result in _compute(predictor, group, rule, settings, sources.single, batch, stop):
            for text in predictor.task.remarks([result], predictor.model, settings, said):
                warnings.warn(text, stacklevel=2)
            if explainer is not None:
                result = explainer(result)
            if saver is not None:
                saver.write(result)
            if saver is not None and stop is not None and result.stopped is not None:
                saver.finish(len(sources))
                warnings.warn(stop.warning(one_line(result.name)), stacklevel=2)
                assert stop.error is not None
                raise stop.error  # nobody is given a part for the whole
            if show:
                result.show(labels=labels)
            yield result
    if text := idle_window_warning(window, idle, seen):
        warnings.warn(text, stacklevel=2)
    if saver is not None:
        saver.finish(len(sources))


def _compute(
    predictor: Predictor,
    group: Sequence[Loaded],
    rule: Any,
    settings: Settings,
    single: bool,
    tiles: int,
    stop: Stop | None = None,
) -> list[Any]:
    """Return the results of a batch; one by one, and without those that do not fit into memory."""
    try:
        return predictor.infer(group, rule, settings, tiles=tiles, stop=stop)
    except TooLittleMemoryError as error:
        if single:
            raise
        # What it refers to would keep the memory.
        problem = str(error)
    if len(group) == 1:
        warnings.warn(printable(f"skipped: {problem}"), stacklevel=3)
        return []
    parts = []
    for one in group:
        parts += _compute(predictor, [one], rule, settings, single, tiles, stop)
        if stop is not None and stop.error is not None:
            break
    return parts
