"""The error split against cases worked out by hand, a plain second implementation, properties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pycocotools import mask as rle

from maskwright.metrics import coco_eval
from maskwright.metrics.detection.entries import compressed_rle
from maskwright.metrics.detection.error_split import KINDS, SPECIAL, error_kinds, error_split, mend
from maskwright.metrics.detection.matching import match

SIDE = 10


def scene(objects, found, classes=2):
    """Squares of side 10; an object is (class, x), a detection (class, x, score)."""

    def entry(label, x, **more):
        polygon = [x, 0, x + SIDE, 0, x + SIDE, SIDE, x, SIDE]
        mask = rle.merge(rle.frPyObjects([polygon], SIDE, 400))
        box = [x, 0, SIDE, SIDE]
        return {"image_id": 1, "category_id": label, "bbox": box, "segmentation": mask, **more}

    gt = {
        "images": [{"id": 1, "height": SIDE, "width": 400}],
        "categories": [{"id": k, "name": f"c{k}"} for k in range(classes)],
        "annotations": [
            entry(label, x, id=i + 1, iscrowd=0) for i, (label, x) in enumerate(objects)
        ],
    }
    return gt, [entry(label, x, score=score) for label, x, score in found]


# Of the two objects of class 0 at 0 and 100 the first is found; a square moved by 5 overlaps
# by a third, by 9 by 1/19. A false detection that scores higher than the only hit halves its
# precision: recall reaches 0.5, so 51 of 101 recall levels count.
HALF = 51 / 101
HIT = (0, 0, 0.5)
CASES = {
    "classification": ([(0, 0), (0, 100)], [HIT, (1, 100, 0.9)], HALF, 1 - HALF),
    "localisation": ([(0, 0), (0, 100)], [HIT, (0, 105, 0.9)], HALF / 2, 1 - HALF / 2),
    "both": ([(0, 0), (0, 100)], [HIT, (1, 105, 0.9)], HALF, 0.0),
    "duplicate": ([(0, 0), (0, 100)], [(0, 0, 0.95), (0, 1, 0.9), (0, 100, 0.5)], None, None),
    "background": ([(0, 0), (0, 100)], [HIT, (0, 200, 0.9)], HALF / 2, HALF / 2),
    "missed": ([(0, 0), (0, 100)], [HIT], HALF, 1 - HALF),
}


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize("kind", CASES)
def test_one_error_of_each_kind(kind, iou_type):
    objects, found, ap, gain = CASES[kind]
    if kind == "duplicate":
        # Precision 1 up to recall 0.5, then 2/3.
        ap = (51 + 50 * 2 / 3) / 101
        gain = 1 - ap
    split = error_split(*scene(objects, found), iou_type)
    assert split.ap == pytest.approx(ap)
    missed = kind in ("both", "background", "missed")
    expected = dict.fromkeys(KINDS, 0) | {kind: 1} | ({"missed": 1} if missed else {})
    assert {k: split.counts[k] for k in KINDS} == expected
    assert split.gains[kind] == pytest.approx(gain)


def test_special_errors_by_hand():
    gt, found = scene([(0, 0), (0, 100)], [HIT, (0, 200, 0.9)])
    split = error_split(gt, found, "bbox")
    assert split.counts["false positives"] == split.counts["false negatives"] == 1
    assert split.gains["false positives"] == pytest.approx(HALF - HALF / 2)
    assert split.gains["false negatives"] == pytest.approx(0.5 - HALF / 2)  # precision 1/2 always


def test_the_best_of_several_candidates_is_mended():
    # Two badly located and one misnamed detection of one object, all false.
    gt, found = scene([(0, 0), (0, 100)], [HIT, (0, 105, 0.3), (0, 95, 0.9), (1, 100, 0.95)])
    split = error_split(gt, found, "bbox")
    assert split.counts["localisation"] == 2 and split.counts["classification"] == 1
    assert split.counts["missed"] == 0
    # Mending places leaves 0.9 and 0.5 right, and the weaker candidate is gone.
    assert split.ap + split.gains["localisation"] == pytest.approx(1.0)
    # Mending names leaves the detections of 0.9 and 0.3 false: 0.95 right, 0.9 false, 0.5 right.
    assert split.ap + split.gains["classification"] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_misnamed_copy_of_a_found_object_only_goes_away():
    gt, found = scene([(0, 0), (1, 100)], [(0, 0, 0.5), (1, 0, 0.9), (1, 100, 0.4)])
    split = error_split(gt, found, "bbox")
    assert split.counts["classification"] == 1
    assert split.ap == pytest.approx((1 + 0.5) / 2)
    assert split.ap + split.gains["classification"] == pytest.approx(1.0)


def test_nothing_to_find_and_nothing_found():
    gt, found = scene([(0, 0), (0, 100)], [HIT])
    empty = error_split(gt, [], "bbox")
    assert empty.ap == 0 and empty.counts["missed"] == 2
    assert empty.gains["missed"] == empty.gains["false negatives"] == 1
    nothing = error_split(gt | {"annotations": []}, found, "bbox")
    assert math.isnan(nothing.ap) and all(math.isnan(v) for v in nothing.gains.values())
    assert nothing.counts["background"] == 1
    crowd = [dict(gt["annotations"][0], iscrowd=1), gt["annotations"][1]]
    ignored = error_split(gt | {"annotations": crowd}, found, "bbox")
    assert ignored.counts["false positives"] == 0 and ignored.counts["missed"] == 1
    with pytest.raises(ValueError, match=r"background=0\.6: expected between 0 and"):
        error_split(gt, found, "bbox", background=0.6)


def plain_ap(points, objects):
    """Mean over classes; points: (class, score, right) by falling score; objects by class."""
    values = []
    for label, (total, left) in objects.items():
        if not total:
            continue
        mine = [right for c, _, right in points if c == label]
        if not left:
            values.append(0.0 if mine else 1.0)
            continue
        curve = [
            (sum(mine[: n + 1]) / left, sum(mine[: n + 1]) / (n + 1)) for n in range(len(mine))
        ]
        levels = [
            max((p for r, p in curve if r >= level), default=0.0)
            for level in np.linspace(0, 1, 101)
        ]
        values.append(sum(levels) / 101)
    return sum(values) / len(values)


def plain_split(gt, detections, iou_type, background):
    """One image, object and detection after the other, in the words of the paper."""
    images = {image["id"]: image for image in gt["images"]}

    def shape(entry):
        if iou_type == "bbox":
            return np.array([entry["bbox"]], float)
        return [compressed_rle(entry["segmentation"], images[entry["image_id"]])]

    def overlap(a, b, crowd=0):
        return float(rle.iou(shape(a), shape(b), [crowd])[0, 0])

    points, errors, missed, unfound = [], [], [], []
    totals = {c["id"]: 0 for c in gt["categories"]}
    order = sorted(images)
    for image in order:
        here = [a for a in gt["annotations"] if a["image_id"] == image]
        objects = [a for a in here if not a["iscrowd"]]
        dets = sorted((d for d in detections if d["image_id"] == image), key=lambda d: -d["score"])
        for a in objects:
            totals[a["category_id"]] += 1
        owner = {}
        saved = set()
        for d in dets:
            ious = {a["id"]: overlap(d, a) for a in objects}
            same = [a for a in objects if a["category_id"] == d["category_id"]]
            rest = [a for a in objects if a["category_id"] != d["category_id"]]
            free = [a for a in same if a["id"] not in owner and ious[a["id"]] >= 0.5]
            if free:
                best = max(ious[a["id"]] for a in free)
                owner[[a for a in free if ious[a["id"]] == best][-1]["id"]] = d
                points.append((d, d["category_id"], d["score"], True))
                continue
            if any(
                overlap(d, c, 1) >= 0.5
                for c in here
                if c["iscrowd"] and c["category_id"] == d["category_id"]
            ):
                continue
            near = max(same, key=lambda a: ious[a["id"]], default=None)
            other = max(rest, key=lambda a: ious[a["id"]], default=None)
            near_iou = ious[near["id"]] if near else 0
            other_iou = ious[other["id"]] if other else 0
            if background <= near_iou < 0.5:
                errors.append(("localisation", d, near))
            elif other_iou >= 0.5:
                errors.append(("classification", d, other))
            elif near_iou >= 0.5:
                errors.append(("duplicate", d, None))
            elif max(near_iou, other_iou) <= background:
                errors.append(("background", d, None))
            else:
                errors.append(("both", d, None))
            points.append((d, d["category_id"], d["score"], False))
        for a in objects:
            if a["id"] not in owner:
                unfound.append(a)
        saved = {a["id"] for _, _, a in errors if a is not None}
        missed += [a for a in objects if a["id"] not in owner and a["id"] not in saved]
    rank = {image: i for i, image in enumerate(order)}
    points.sort(key=lambda p: (-p[2], rank[p[0]["image_id"]]))

    def ap(points, gone=()):
        left = dict(totals)
        for a in gone:
            left[a["category_id"]] -= 1
        return plain_ap([p[1:] for p in points], {c: (totals[c], left[c]) for c in totals})

    lost = {a["id"] for a in unfound}

    def fixed(kinds):
        removed = [d for kind, d, _ in errors if kind in kinds]
        best = {}
        for kind, d, a in errors:
            if kind in kinds and a is not None and a["id"] in lost:
                old = best.get(a["id"])
                if old is None or d["score"] > old[0]["score"]:
                    best[a["id"]] = (d, a["category_id"])
        new = []
        for d, label, score, right in points:
            gift = [c for other, c in best.values() if other is d]
            if gift:
                new.append((d, gift[0], score, True))
            elif not any(d is other for other in removed):
                new.append((d, label, score, right))
        return ap(new, missed if "missed" in kinds else ())

    base = ap(points)
    gains = {kind: max(fixed({kind}) - base, 0) for kind in KINDS}
    gains["false positives"] = ap([p for p in points if p[3]]) - base
    gains["false negatives"] = max(ap(points, unfound) - base, 0)
    counts = {kind: sum(k == kind for k, _, _ in errors) for kind in KINDS}
    counts["missed"] = len(missed)
    counts["false positives"] = len(errors)
    counts["false negatives"] = len(unfound)
    return base, counts, gains, fixed(set(KINDS))


def part(gt, found, images):
    """The first images of a data set, and the classes that they hold."""
    keep = {image["id"] for image in gt["images"][:images]}
    annotations = [a for a in gt["annotations"] if a["image_id"] in keep]
    found = [d for d in found if d["image_id"] in keep]
    used = {entry["category_id"] for entry in (*annotations, *found)}
    return {
        "images": [image for image in gt["images"] if image["id"] in keep],
        "annotations": annotations,
        "categories": [c for c in gt["categories"] if c["id"] in used],
    }, found


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
@pytest.mark.parametrize(("data", "images"), [("coco", 40), ("nuclei", 3)])
def test_split_equals_a_plain_second_implementation(request, data, images, iou_type):
    gt, found = part(
        request.getfixturevalue(f"{data}_gt"), request.getfixturevalue(f"{data}_found"), images
    )
    split = error_split(gt, found, iou_type, max_det=1000)
    ap, counts, gains, everything = plain_split(gt, found, iou_type, 0.1)
    assert split.ap == pytest.approx(ap, abs=1e-12)
    assert split.counts == counts
    assert split.gains == pytest.approx(gains, abs=1e-12)
    assert everything == pytest.approx(1.0)
    assert set(split.gains) == {*KINDS, *SPECIAL}


@pytest.mark.parametrize("iou_type", ["bbox", "segm"])
def test_mending_everything_gives_one(coco_gt, coco_found, iou_type):
    matches = match(coco_gt, coco_found, iou_type)
    kinds = error_kinds(matches)
    assert mend(matches, kinds, set(KINDS)) == pytest.approx(1.0)
    assert mend(matches, kinds, set()) == pytest.approx(
        coco_eval(coco_gt, coco_found, iou_type)["AP50"], abs=1e-9
    )
    for left_out in KINDS:
        assert mend(matches, kinds, set(KINDS) - {left_out}) <= 1.0
    split = error_split(coco_gt, coco_found, iou_type)
    assert split.counts["false positives"] == sum(split.counts[k] for k in KINDS[:-1])
    assert all(0 <= gain <= 1 - split.ap + 1e-12 for gain in split.gains.values())
