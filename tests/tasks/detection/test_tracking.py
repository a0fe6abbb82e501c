"""Objects keep their ids: squares whose ways are known cross, hide, come back, and cross a line."""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from maskwright.drawing.draw import id_colors
from maskwright.models import PostProcess, build_tiny
from maskwright.structures import Detections
from maskwright.tasks.detection.result import Result
from maskwright.tasks.detection.settings import DetectionSettings
from maskwright.tasks.detection.tracking.crossings import Line
from maskwright.tasks.detection.tracking.tracker import MOT, TRACKS, ObjectTracker

NAMES = ["car", "truck"]
SIZE = (240, 320)
RATE = 25.0
# x, y of the centre, side, label, score; None: not found in this frame
Square = tuple[float, float, float, int, float] | None


def settings(conf: float = 0.25, floors: tuple[float, ...] | None = None) -> DetectionSettings:
    return DetectionSettings(PostProcess(conf, 0.5, 100), floors=floors)


def result(number: int, squares: list[Square], rate: float = RATE) -> Result:
    """Return what a detector finds of squares, by falling score as always."""
    found = sorted((s for s in squares if s is not None), key=lambda s: -s[4])
    boxes = [[x - a / 2, y - a / 2, x + a / 2, y + a / 2] for x, y, a, _, _ in found]
    return Result(
        Detections(
            SIZE,
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor([s[4] for s in found]),
            torch.tensor([s[3] for s in found], dtype=torch.int64),
        ),
        np.zeros((*SIZE, 3), np.uint8),
        NAMES,
        frame=number,
        time=number / rate,
    )


def ids_of(tracker: ObjectTracker, frames: list[list[Square]]) -> list[list[int]]:
    """Return the id of each true square in each frame: 0 without one, -1 where it is hidden."""
    rows = []
    for number, squares in enumerate(frames):
        made = tracker.follow(result(number, squares))
        assert made.ids is not None
        centres = [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in made.boxes.tolist()]
        row = []
        for square in squares:
            at = []
            if square is not None:
                far = [abs(x - square[0]) + abs(y - square[1]) for x, y in centres]
                at = [place for place, distance in enumerate(far) if distance < 0.01]
            row.append(-1 if square is None else int(made.ids[at[0]]) if at else 0)
        rows.append(row)
    return rows


def crossing_ways(count: int = 60) -> list[list[Square]]:
    """Two squares that pass each other at half a side's distance, and one that stands."""
    return [
        [
            (20 + 4.5 * k, 100, 30, 0, 0.9),
            (290 - 4.5 * k, 118, 30, 0, 0.8),
            (160, 200, 40, 1, 0.7),
        ]
        for k in range(count)
    ]


@pytest.mark.parametrize("method", ObjectTracker.METHODS)
def test_ids_stay_through_a_crossing(method: str) -> None:
    rows = ids_of(ObjectTracker(method, RATE, settings()), crossing_ways())
    settled = rows[3:]  # an id comes with the second or third frame
    assert all(row == settled[0] for row in settled) and len({*settled[0]}) == 3
    assert min(settled[0]) == 1 and max(settled[0]) == 3


@pytest.mark.parametrize("method", ObjectTracker.METHODS)
@pytest.mark.parametrize("gap", [1, 5, 12])
def test_ids_stay_through_a_gap(method: str, gap: int) -> None:
    ways = crossing_ways()
    for k in range(10, 10 + gap):  # a pillar hides the first one
        ways[k][0] = None
    rows = ids_of(ObjectTracker(method, RATE, settings()), ways)
    before = rows[9]
    assert [row[0] for row in rows[10 : 10 + gap]] == [-1] * gap
    assert all(row == before for row in rows[10 + gap + 3 :]), rows[10 + gap : 10 + gap + 5]


@pytest.mark.parametrize("method", ObjectTracker.METHODS)
def test_who_was_away_for_long_is_somebody_else(method: str) -> None:
    still: list[list[Square]] = [[(100, 100, 30, 0, 0.9)] for _ in range(80)]
    still[10:50] = [[None] for _ in range(40)]  # 1.6 seconds
    rows = ids_of(ObjectTracker(method, RATE, settings()), still)
    assert {row[0] for row in rows[4:10]} == {1} and {row[0] for row in rows[54:]} == {2}


def test_time_counts_and_not_frames() -> None:
    """The same motion at a third of the frames, every third of them, has the same ids."""
    ways = crossing_ways()
    tracker = ObjectTracker("bytetrack", RATE / 3, settings())
    rows = [
        made.ids.tolist()
        for k in range(0, 60, 3)
        if (made := tracker.follow(result(k, ways[k]))).ids is not None
    ]
    assert all(row == rows[2] for row in rows[2:]) and sorted(rows[2]) == [1, 2, 3]


def test_weak_finds_carry_a_track_on_and_begin_none() -> None:
    ways: list[list[Square]] = [
        [(50 + 2 * k, 100, 30, 0, 0.15 if 5 <= k < 15 else 0.9), (250, 60, 30, 0, 0.15)]
        for k in range(25)
    ]
    tracker = ObjectTracker("bytetrack", RATE, settings(0.25))
    rows = ids_of(tracker, ways)
    assert [row[0] for row in rows[3:]] == [1] * 22
    assert {row[1] for row in rows} == {0}  # and it is not among the results at all
    assert len(tracker.follow(result(25, ways[-1]))) == 1


def test_without_tracks_the_same_objects_are_shown() -> None:
    """Shown is what a prediction without tracking shows, and what is weak but has a track."""
    random = np.random.default_rng(0)
    floors = (0.3, 0.6)
    tracker = ObjectTracker("bytetrack", RATE, settings(0.3, floors))
    model: Any = build_tiny("mask_rcnn_resnet50_fpn", 2)
    weaker = ObjectTracker.weaker(settings(0.3, floors), model)
    assert weaker.post.score_thresh == pytest.approx(0.12)
    assert weaker.floors == pytest.approx((0.12, 0.24))
    for number in range(30):
        squares: list[Square] = [
            (*random.uniform(20, 220, 2), 20, int(random.integers(2)), float(random.uniform(0, 1)))
            for _ in range(8)
        ]
        made = tracker.follow(result(number, squares))
        assert made.ids is not None
        plain = sorted(s[4] for s in squares if s is not None and s[4] > floors[s[3]])
        alone = [s for s, i in zip(made.scores.tolist(), made.ids.tolist(), strict=True) if not i]
        strong = [
            s
            for s, label in zip(made.scores.tolist(), made.labels.tolist(), strict=True)
            if s > floors[label]
        ]
        assert sorted(strong) == pytest.approx(plain) and {*alone} <= {*strong}
        assert made.scores.tolist() == sorted(made.scores.tolist(), reverse=True)


def test_the_class_of_a_track_is_the_one_it_was_called_most() -> None:
    ways: list[list[Square]] = [
        [(50 + 2 * k, 100, 30, int(k % 4 == 3), 0.9), (250, 60, 30, 1, 0.8)] for k in range(20)
    ]
    tracker = ObjectTracker("bytetrack", RATE, settings())
    rows = ids_of(tracker, ways)
    assert all(row == rows[5] for row in rows[5:])
    assert tracker.numbers() == {"car": {"tracks": 1}, "truck": {"tracks": 1}}


def test_files_of_tracks() -> None:
    tracker = ObjectTracker("bytetrack", RATE, settings(), line=(0, 150, 320, 150))
    texts = dict(tracker.files)
    expected = []
    for number in range(10):
        made = tracker.follow(result(number, [(100, 60 + 14 * number, 20, 1, 0.75)]))
        if made.ids is not None and int(made.ids[0]):
            expected.append((number, made.boxes[0].tolist()))
        for ending, text in tracker.lines(made).items():
            texts[ending] += text
    rows = list(csv.DictReader(io.StringIO(texts[TRACKS])))
    assert [(int(r["frame"]), [float(r[c]) for c in ("x1", "y1", "x2", "y2")]) for r in rows] == [
        (n, pytest.approx(box)) for n, box in expected
    ]
    assert {(r["id"], r["name"], r["score"]) for r in rows} == {("1", "truck", "0.75")}
    mot = [[float(v) for v in line.split(",")] for line in texts[MOT].splitlines()]
    assert [line[:6] for line in mot] == [
        pytest.approx([n + 1, 1, b[0], b[1], b[2] - b[0], b[3] - b[1]]) for n, b in expected
    ]
    assert all(line[6:] == [0.75, -1, -1, -1] for line in mot)
    crossed = list(csv.DictReader(io.StringIO(texts[".crossings.csv"])))
    assert [(r["id"], r["name"], r["direction"]) for r in crossed] == [("1", "truck", "down")]
    assert tracker.numbers() == {"truck": {"tracks": 1, "down": 1, "up": 0}}


def test_a_track_has_one_colour_and_its_number() -> None:
    tracker = ObjectTracker("bytetrack", RATE, settings())
    seen: dict[int, set[tuple[int, ...]]] = {}
    for number, squares in enumerate(crossing_ways(30)):
        made = tracker.follow(result(number, squares))
        assert made.ids is not None
        pixels = np.asarray(made.plot(labels=False))
        for id, box in zip(made.ids.tolist(), made.boxes.tolist(), strict=True):
            x, y = round((box[0] + box[2]) / 2), round(box[1])
            seen.setdefault(id, set()).add(tuple(pixels[y, x].tolist()))
        entries = made.content()["objects"]
        assert [e["id"] for e in entries] == [id or None for id in made.ids.tolist()]
        assert made.to_supervision().tracker_id.tolist() == made.ids.tolist()
        assert made[0].ids is not None and made[0].ids.tolist() == made.ids.tolist()[:1]
    followed = {id: colors for id, colors in seen.items() if id}
    assert {*followed} == {1, 2, 3}
    # Where two cross, the edge of one lies over the other.
    assert all(id_colors([id])[0] in colors for id, colors in followed.items())
    assert len(set(id_colors(range(1, 40)))) == 39


@pytest.mark.parametrize(
    ("ends", "ways"),
    [
        ((0, 100, 200, 100), ("down", "up")),
        ((200, 100, 0, 100), ("down", "up")),  # whichever end is named first
        ((100, 0, 100, 200), ("right", "left")),
        ((100, 200, 100, 0), ("right", "left")),
        ((0, 0, 200, 190), ("down", "up")),
    ],
)
def test_both_ways_across_a_line(ends: tuple[float, ...], ways: tuple[str, str]) -> None:
    """Walks by chance, whose crossings are counted by a plain rule on their corners in time."""
    line = Line(ends)
    assert line.directions == ways
    random = np.random.default_rng(1)
    expected = dict.fromkeys(ways, 0)
    x1, y1, x2, y2 = ends
    for id in range(40):
        start, end = random.uniform(0, 200, (2, 2))
        points = [start + (end - start) * t for t in np.linspace(0, 1, 30)]
        sides = []
        for x, y in points:
            cross = (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1)
            sides.append(np.sign(cross))
            line.see(id, (x - 0.1, y - 0.1, x + 0.1, y + 0.1))
        if sides[0] == sides[-1]:
            continue
        # Where the two straight lines meet, solved as a system of two equations.
        matrix = np.array([[end[0] - start[0], x1 - x2], [end[1] - start[1], y1 - y2]])
        _, at = np.linalg.solve(matrix, np.array([x1, y1]) - start)
        if 0 <= at <= 1:
            grows = end[1] > start[1] if ways[0] == "down" else end[0] > start[0]
            if ends == (0, 0, 200, 190):  # down is where y grows faster than the line does
                grows = end[1] - 0.95 * end[0] > start[1] - 0.95 * start[0]
            expected[ways[0] if grows else ways[1]] += 1
    assert min(expected.values()) >= 3
    assert {way: line.counts[way] for way in ways} == expected


def test_a_box_that_trembles_on_the_line_does_not_cross_it() -> None:
    line = Line((0, 100, 200, 100))
    random = np.random.default_rng(0)
    for _ in range(200):
        x, y = random.normal(0, 0.8, 2)
        line.see(1, (80 + x, 80 + y, 120 + x, 120 + y))
    assert not line.counts
    for y in itertools.chain(range(40, 160), range(160, 40, -1)):
        line.see(2, (80, y - 20, 120, y + 20))
    assert line.counts == {"down": 1, "up": 1}


def test_past_the_end_of_a_line_is_no_crossing() -> None:
    line = Line((0, 100, 50, 100))
    for y in range(50, 150, 5):
        line.see(1, (60, y, 70, y + 10))
    assert not line.counts


def test_without_the_library_its_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trackers", None)
    with pytest.raises(ImportError, match=r"maskwright\[track\]"):
        ObjectTracker("bytetrack", RATE, settings())


def test_frames_without_objects() -> None:
    tracker = ObjectTracker("bytetrack", RATE, settings())
    for number in range(3):
        made = tracker.follow(replace(result(number, []), frame=number))
        assert len(made) == 0 and made.ids is not None and made.ids.shape == (0,)
        assert tracker.lines(made)[TRACKS] == ""
    assert tracker.numbers() == {}
