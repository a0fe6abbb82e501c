"""What `val localize=` leaves: a table, the curves of the thresholds, maps with their boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...data.records import Dataset
from ...drawing.draw import draw_instances, save_mosaic
from ...drawing.heatmap import draw_heatmap
from ...files import write_whole
from ...metrics.heatmap_boxes import THRESHOLDS, map_box
from ...reports.page import REPORT, escape
from ...reports.page_parts import images, number, table
from ...reports.report import Step, write_page
from ...text import to_json
from .weak import BASELINES, WeakScores, objects_of

CURVES, MAPS = "thresholds.png", "maps.jpg"
TITLES = {"gaussian": "centred Gaussian", "whole": "whole image"}
TRUE, FOUND = (0, 158, 115), (230, 159, 0)


def write_weak(
    folder: Path,
    found: WeakScores,
    data: Dataset,
    *,
    title: str,
    options: Mapping[str, Any],
    device: str,
) -> list[str]:
    """Write page, numbers, curves and maps into a folder, and return what to say of them."""
    write_whole(folder / "metrics.json", to_json(found.metrics) + "\n")
    plot_thresholds(found, folder / CURVES)
    draw_maps(found, data, folder / MAPS)
    own = found.metrics[f"{found.method}/gt_known"]
    best = max(found.metrics[f"{name}/gt_known"] for name in BASELINES)
    verdict = (
        f"{found.method} finds {own:.3f} of the objects, what has seen nothing {best:.3f}"
        if own > best
        else f"{found.method} finds {own:.3f} of the objects, no more than what has seen nothing "
        f"({best:.3f})"
    )
    step = Step(
        "Do not trust these boxes",
        f"{verdict}. Try another method or a larger imgsz; else labels alone do not suffice here: "
        "draw boxes on some images and train a localizer or a detector.",
    )
    if own > best:
        step = Step(
            "Start labelling with these boxes",
            f"{verdict}. maskwright data pseudo writes them as a COCO file, with "
            f"method={found.method} threshold={found.thresholds[found.method]:g}.",
        )
    page = write_page(
        folder,
        title,
        figures=[
            (number(own, "–"), f"GT-known, {found.method}"),
            (number(found.metrics[f"{found.method}/MaxBoxAccV2"], "–"), "MaxBoxAccV2"),
            (f"{len(found.scored.indices):,}", "images"),
        ],
        steps=[step],
        sections=[
            ("Scores", [_table(found)]),
            ("Thresholds", images(folder, CURVES)),
            ("Maps", images(folder, MAPS)),
        ],
        options=options,
        device=device,
    )
    assert page == folder / REPORT
    return [verdict, f"report: {page}"]


def _table(found: WeakScores) -> str:
    columns = ("gt_known", "top1_loc", "MaxBoxAcc", "MaxBoxAccV2")
    rows = [
        [
            escape(TITLES.get(name, name)),
            *(number(found.metrics[f"{name}/{column}"], "–") for column in columns),
            f"{found.thresholds[name]:.2f}",
        ]
        for name in (found.method, *BASELINES)
    ]
    return (
        "<p>gt_known: share of the images whose box, with the threshold that was best on "
        f"{found.tuned} images of the training part, overlaps an object by at least half "
        "(IoU 0.5); top1_loc: and whose class is named first. MaxBoxAcc and MaxBoxAccV2 take the "
        "best threshold on the scored images themselves (Choe et al. 2020): what could be "
        "reached.</p>" + table(["map", *columns, "threshold"], rows)
    )


def plot_thresholds(found: WeakScores, path: Path) -> None:
    """Draw how many boxes are right at each threshold, by method."""
    from ...drawing.figures import COLORS, WIDTH, legend, new_figure, save_figure, style

    figure = new_figure(WIDTH, 3.2)
    ax = figure.add_subplot()
    style(ax, "Boxes that are right (IoU 0.5)", "threshold, share of the maximum", "images")
    for color, name in zip(COLORS, (found.method, *BASELINES), strict=False):
        curve = (found.scored.largest[name] >= 0.5).mean(0)
        ax.plot(THRESHOLDS, curve, color=color, linewidth=1.8, label=TITLES.get(name, name))
        chosen = found.thresholds[name]
        place = int(np.argmin(np.abs(THRESHOLDS - chosen)))
        ax.plot([chosen], [curve[place]], "o", color=color, markersize=5)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    legend(ax)
    save_figure(figure, path)


def draw_maps(found: WeakScores, data: Dataset, path: Path) -> None:
    """Draw the first maps over their images, with the true boxes and those of the maps."""
    pictures, titles = [], []
    threshold = found.thresholds[found.method]
    for index, heat in zip(found.scored.indices, found.scored.kept, strict=False):
        truth = objects_of(data, index)
        assert truth is not None
        photo, side = data.photo(index), heat.shape[0]
        box = map_box(heat, threshold)
        boxes: list[Sequence[float]] = truth[1].tolist()
        if box is not None:
            scale = np.array([photo.shape[1], photo.shape[0]] * 2) / side
            boxes = [*boxes, (box * scale).tolist()]
        colors = [TRUE] * len(truth[1]) + [FOUND] * (len(boxes) - len(truth[1]))
        pictures.append(
            draw_instances(
                draw_heatmap(photo, heat, scale=False),
                boxes,
                [0] * len(boxes),
                data.names,
                colors=colors,
                texts=[""] * len(boxes),
                min_side=480,
                max_side=640,
            )
        )
        titles.append(f"{data[index].path.name}: {data.names[truth[0]]}")
    heading = "Green: the truth. Orange: the box of the map."
    save_mosaic(path, pictures, titles, columns=4, heading=heading)
