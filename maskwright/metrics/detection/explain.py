"""Why an average precision is zero or undefined, in sentences that say how to mend it.

Works from the ground truth and the detections alone. Each check looks for one known accident: ids
of another numbering, pixels of another frame, class lists in another order, masks that came out
empty, a network that has not learned. Which accidents are possible depends on who made the
detections: ids and frames of our own models are right, and early in a training little is found.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .entries import class_names, compressed_rle, read_ground_truth, sorted_categories
from .table import FloatArray, Table, box_iou, by_image, read_table

# An AP below this counts as zero: even an accident hits something by chance.
ZERO = 5e-3
# Shares of the objects that count as "found" and as "not found".
MANY, FEW = 0.3, 0.05
# Who made the detections: another program, a model of ours, or one in the middle of its training.
OTHERS, MODEL, TRAINING = "others", "model", "training"
USUAL = "usual in the first epochs"
# Enough images and boxes to judge by, and few enough to try hundreds of scales in a second.
SAMPLE_IMAGES, SAMPLE_BOXES = 12, 50


def explain_zero(
    gt: Path | str | dict[str, Any],
    detections: Sequence[dict[str, Any]],
    metrics: dict[str, float],
    *,
    names: Sequence[str | None] | None = None,
    by: str = OTHERS,
) -> list[str]:
    """Return the likely reasons for every AP of `metrics` that is zero or nan.

    Args:
        gt: COCO ground truth, or the path of its file.
        detections: COCO results that were evaluated.
        metrics: numbers of `coco_eval` ("AP", "AP/<class>") or of `val` ("box/AP", "mask/AP",
            "keypoints/AP", "mask/AP/<class>").
        names: class names that the model knows, to compare with those of the ground truth.
        by: who made the detections: "others", another program, whose ids, frames and classes may
            be others; "model", a model of this package; "training", one that still learns.

    Returns:
        Sentences, the likeliest reason first; none where every AP is above zero.
    """
    gt = read_ground_truth(gt)
    overall = {key: v for key, v in metrics.items() if key == "AP" or key.endswith("/AP")}
    classes = {
        key.partition("AP/")[2]: v
        for key, v in metrics.items()
        if key.startswith("AP/") or "/AP/" in key
    }
    zero_keys = [key for key, value in overall.items() if not value >= ZERO]
    zero_classes = [name for name, value in classes.items() if not value >= ZERO]
    if not zero_keys and not zero_classes:
        return []
    objects = read_table(gt, gt["annotations"])
    objects = objects[~objects.crowd]
    reasons = []
    if zero_keys:
        reasons = _whole(gt, objects, detections, zero_keys, by)
    reasons += _names(gt, names)
    # Where everything is zero, a list of all the classes would say nothing new.
    if len(objects) and not zero_keys:
        reasons += _classes(gt, objects, read_table(gt, detections), zero_classes)
    return reasons


def _whole(
    gt: dict[str, Any],
    objects: Table,
    detections: Sequence[dict[str, Any]],
    zero_keys: list[str],
    by: str,
) -> list[str]:
    """Reasons for which the mean over all classes is zero or undefined."""
    if not len(objects):
        return [
            f"The ground truth has no objects ({len(gt['images'])} images, only crowd regions or "
            "nothing at all), so AP is undefined: check the split and its annotation file."
        ]
    if not detections:
        mend = "lower conf (val uses 0.001); if there are still none, train longer."
        return [
            f"There are no predictions on {len(gt['images'])} images with {len(objects)} objects: "
            + (f"{USUAL}." if by == TRAINING else mend)
        ]
    found = read_table(gt, detections)
    reasons = _ids(gt, detections, found)
    known_rows = np.nonzero((found.image >= 0) & (found.label >= 0))[0].tolist()
    known = found[known_rows]
    if not len(known):
        return reasons
    reasons += _scores(known, by)
    hits, same = _hits(gt, objects, known)
    if hits < FEW * len(objects) and by == OTHERS:
        reasons += _geometry(gt, objects, known, hits)
    elif hits >= MANY * len(objects) and same < 0.5 * hits:
        reasons += _wrong_class(gt, objects, known, hits, by)
    rows = [detections[i] for i in known_rows]
    if any(key in ("AP", "mask/AP") for key in zero_keys):
        reasons += _masks(gt, rows, known, hits, len(objects), by)
    if "keypoints/AP" in zero_keys:
        reasons += _keypoints(gt, rows, known, hits, by)
    if not reasons:
        best = _best_overlap(gt, objects, known)
        reasons.append(
            f"The {len(known)} predictions overlap the objects too little: at IoU 0.5 they find "
            f"{hits} of {len(objects)}, the median best IoU is {best:.2f}. "
            + (f"That is {USUAL}; " if by == TRAINING else "Train longer, or ")
            + "check that imgsz keeps the objects large enough to see."
        )
    return reasons


def _ids(gt: dict[str, Any], detections: Sequence[dict[str, Any]], found: Table) -> list[str]:
    """Predictions for images or categories that the ground truth does not have."""
    reasons = []
    strange = np.nonzero(found.image < 0)[0].tolist()
    if strange:
        theirs = sorted({repr(detections[i]["image_id"]) for i in strange})[:3]
        ours = [repr(image["id"]) for image in gt["images"][:3]]
        reasons.append(
            f"{len(strange)} of {len(found)} predictions carry an image_id that the ground truth "
            f"lacks ({', '.join(theirs)}, ...; it has {', '.join(ours)}, ...): evaluate against "
            "the split that was predicted, with the ids of its file and their type."
        )
    strange = np.nonzero(found.label < 0)[0].tolist()
    if strange:
        ids = {category["id"] for category in gt["categories"]}
        theirs_ids = {detections[i]["category_id"] for i in range(len(found))}
        text = (
            f"{len(strange)} of {len(found)} predictions carry a category_id that the ground "
            f"truth lacks ({_some(sorted(map(repr, theirs_ids - ids)))}; it has "
            f"{_some([repr(i) for i in sorted(ids)])})"
        )
        shift = _shift(theirs_ids, ids)
        if shift:
            text += f"; every id fits after adding {shift:+d}"
        reasons.append(text + ": write the category ids of the ground truth, not class indices.")
    return reasons


def _shift(theirs: set[Any], ours: set[Any]) -> int:
    """Return +1 or -1 where adding it makes every id known, else 0."""
    if not all(isinstance(i, int) for i in theirs):
        return 0
    return next((s for s in (1, -1) if {i + s for i in theirs} <= ours), 0)


def _scores(found: Table, by: str) -> list[str]:
    """Scores of a network that has not learned, or lost its weights."""
    low, high = float(found.scores.min()), float(found.scores.max())
    if len(found) >= 20 and high - low < 0.02:
        mend = {
            OTHERS: "check that the checkpoint was loaded (and its head not re-initialised).",
            MODEL: "train the model on data like these, or take other weights.",
            TRAINING: f"{USUAL}.",
        }
        return [
            f"All {len(found)} scores lie between {low:.3f} and {high:.3f}, as those of untrained "
            f"weights do: {mend[by]}"
        ]
    if high < 0.05:
        mend = {
            OTHERS: "Train longer, and check that the weights were loaded.",
            MODEL: "Train longer, or on more data like these.",
            TRAINING: f"That is {USUAL}.",
        }
        return [
            f"The highest of {len(found)} scores is {high:.3f}: the network sees nothing for sure "
            f"yet. {mend[by]}"
        ]
    return []


def _geometry(gt: dict[str, Any], objects: Table, found: Table, hits: int) -> list[str]:
    """Boxes that would hit if they were read in another way, or that lie outside the image."""
    sizes = np.array([[i.get("width", 0), i.get("height", 0)] for i in gt["images"]], float)
    sample = []
    for i, (rows, cols) in by_image(len(gt["images"]), objects, found):
        if len(rows) and len(cols):
            best = cols[np.argsort(-found.scores[cols], kind="stable")[:SAMPLE_BOXES]]
            sample.append((sizes[i], objects.boxes[rows[:SAMPLE_BOXES]], found.boxes[best]))
        if len(sample) == SAMPLE_IMAGES:
            break
    total = sum(len(boxes) for _, boxes, _ in sample)
    if not total:
        return [
            "No image has both objects and predictions: they were made on other images, or the "
            "annotations of the images are missing."
        ]

    def rate(read: Any) -> float:
        good = sum((box_iou(t, read(d, s)) >= 0.5).any(1).sum() for s, t, d in sample)
        return float(good) / total if good >= min(3, total) else 0.0

    guesses: list[tuple[float, str]] = [
        (rate(_read_corners), "if their bbox is read as x1, y1, x2, y2: write x, y, width, height"),
        (rate(lambda d, s: d[:, [1, 0, 3, 2]]), "after swapping x and y: write x first"),
        (
            rate(lambda d, s: d * np.concatenate([s, s])),
            "after multiplying by the image size: write pixels, not fractions",
        ),
    ]
    factors = np.exp(np.arange(-180, 181) * 0.01)
    scaled = [rate(lambda d, s, f=f: d * f) for f in factors]
    k = int(np.argmax(scaled))
    guesses.append(
        (
            scaled[k],
            f"after scaling by {factors[k]:.2f}: they are in pixels of another image size; "
            "map them back to the original image",
        )
    )
    sides = np.exp(np.arange(np.log(64), np.log(4096), 0.01))
    resized = [rate(lambda d, s, side=side: d * (s.max() / side)) for side in sides]
    k = int(np.argmax(resized))
    guesses.append(
        (
            resized[k],
            f"after mapping images of long side {sides[k]:.0f} to the original sizes: they are in "
            "pixels of the resized image",
        )
    )
    share, how = max(guesses, key=lambda guess: guess[0])
    if share >= MANY:
        return [
            f"The boxes hit {hits} of {len(objects)} objects as they are, but {share:.0%} of a "
            f"sample {how}."
        ]
    limit = sizes[found.image]
    outside = (found.boxes[:, :2] >= limit).any(1) | (found.boxes[:, 2:] <= 0).any(1)
    outside &= (limit > 0).all(1)
    if outside.mean() > 0.2:
        return [
            f"{outside.sum()} of {len(found)} predicted boxes lie wholly outside their image: "
            "they are in another frame; write bbox as x, y, width, height in original pixels."
        ]
    return []


def _read_corners(boxes: FloatArray, _size: FloatArray) -> FloatArray:
    """Undo the sum of corner and size: what was taken for x, y, w, h was x1, y1, x2, y2."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)


def _hits(gt: dict[str, Any], objects: Table, found: Table) -> tuple[int, int]:
    """Count objects that a box meets at IoU 0.5: by any class, and by a box of their own class."""
    hits = same = 0
    for _, (rows, cols) in by_image(len(gt["images"]), objects, found):
        overlap = box_iou(objects.boxes[rows], found.boxes[cols]) >= 0.5
        hits += int(overlap.any(1).sum())
        equal = objects.label[rows][:, None] == found.label[cols][None]
        same += int((overlap & equal).any(1).sum())
    return hits, same


def _best_overlap(gt: dict[str, Any], objects: Table, found: Table) -> float:
    best = np.zeros(len(objects))
    for _, (rows, cols) in by_image(len(gt["images"]), objects, found):
        if len(cols):
            best[rows] = box_iou(objects.boxes[rows], found.boxes[cols]).max(1)
    return float(np.median(best))


def _wrong_class(gt: dict[str, Any], objects: Table, found: Table, hits: int, by: str) -> list[str]:
    """Objects found under the name of another class."""
    pairs: Counter[tuple[int, int]] = Counter()
    for _, (rows, cols) in by_image(len(gt["images"]), objects, found):
        if len(rows) and len(cols):
            overlap = box_iou(objects.boxes[rows], found.boxes[cols])
            best = overlap.argmax(1)
            for t, d in enumerate(best):
                if overlap[t, d] >= 0.5:
                    pairs[int(objects.label[rows[t]]), int(found.label[cols[d]])] += 1
    wrong = Counter({pair: n for pair, n in pairs.items() if pair[0] != pair[1]})
    if not wrong:
        return []
    names = class_names(gt)
    ids = [category["id"] for category in sorted_categories(gt)]
    examples = ", ".join(
        f"{names[t]!r} as {names[d]!r} {n} times" for (t, d), n in wrong.most_common(3)
    )
    text = f"The boxes hit {hits} of {len(objects)} objects, but with another class ({examples})"
    if by != OTHERS:  # its classes are matched by name
        more = USUAL if by == TRAINING else "train longer, or look for mixed-up labels in the data"
        return [f"{text}: {more}."]
    shifts = Counter[int]()
    for (t, d), n in wrong.items():
        if isinstance(ids[t], int) and isinstance(ids[d], int):
            shifts[ids[d] - ids[t]] += n
    (shift, n), *_ = shifts.most_common(1) or [(0, 0)]
    if abs(shift) == 1 and len(wrong) > 1 and n > 0.8 * wrong.total():
        text += f"; the predicted category_id is off by {shift:+d} throughout"
    return [text + ": compare the order of the class names of model and data."]


def _masks(
    gt: dict[str, Any],
    detections: list[dict[str, Any]],
    found: Table,
    hits: int,
    objects: int,
    by: str,
) -> list[str]:
    """Masks that are missing, empty, of another size, or in another place than their boxes."""
    from pycocotools import mask as rle

    images = {image["id"]: image for image in gt["images"]}
    masks = [det.get("segmentation") for det in detections]
    missing = sum(not mask for mask in masks)
    if missing == len(masks):
        return []  # boxes only: then no mask AP was computed from these
    sizes = [
        (mask["size"], images[det["image_id"]])
        for mask, det in zip(masks, detections, strict=True)
        if isinstance(mask, dict)
    ]
    other = [
        (size, image)
        for size, image in sizes
        if image.get("height") and list(size) != [image["height"], image["width"]]
    ]
    reasons = []
    if other:
        size, image = other[0]
        reasons.append(
            f"{len(other)} of {len(masks)} masks have another size than their image (height x "
            f"width {size[0]} x {size[1]}, the image {image['id']!r} has {image['height']} x "
            f"{image['width']}): paste the masks at the size of the original image."
        )
    areas = np.array(
        [
            rle.area(compressed_rle(mask, images[det["image_id"]])) if mask else 0
            for mask, det in zip(masks, detections, strict=True)
        ]
    )
    empty = int((areas == 0).sum())
    if empty > 0.5 * len(masks):
        mend = {
            OTHERS: "check the mask threshold and that the weights of the mask head were loaded.",
            MODEL: "train longer.",
            TRAINING: f"masks come after boxes, {USUAL}.",
        }
        reasons.append(f"{empty} of {len(masks)} predicted masks are empty: {mend[by]}")
    elif not reasons and hits >= MANY * objects:
        box_areas = np.clip(found.boxes[:, 2:] - found.boxes[:, :2], 1, None).prod(1)
        look = "that the outlines lie on the objects (`maskwright data check` draws them)"
        mend = {
            OTHERS: "check that the weights of the mask head were loaded, and the frame in which "
            "masks are pasted.",
            MODEL: f"train longer, and check {look}.",
            TRAINING: f"masks come after boxes, {USUAL}; if it stays so, check {look}.",
        }
        reasons.append(
            f"The boxes hit {hits} of {objects} objects, but their masks do not (they fill "
            f"{np.median(areas / box_areas):.0%} of their boxes in the median): {mend[by]}"
        )
    return reasons


def _keypoints(
    gt: dict[str, Any], detections: list[dict[str, Any]], found: Table, hits: int, by: str
) -> list[str]:
    """Keypoints that are not labelled, not predicted, or in another place than their boxes."""
    labelled = [ann for ann in gt["annotations"] if any(v > 0 for v in _shown(ann))]
    if not labelled:
        return [
            "No object of the ground truth has a labelled keypoint, so their AP is undefined: "
            "check that the annotations have keypoints with a visibility of 1 or 2."
        ]
    points = [det.get("keypoints") for det in detections]
    if not any(points):
        return ["The predictions have no keypoints: a model of keypoints must make them."]
    outside = 0
    for det, (x1, y1, x2, y2) in zip(points, found.boxes.tolist(), strict=True):
        xy = np.array(det or [], np.float64).reshape(-1, 3)[:, :2]
        room = max(x2 - x1, y2 - y1)  # a little outside of a box is nothing strange
        low, high = np.array([x1, y1]) - room, np.array([x2, y2]) + room
        outside += bool(((xy < low) | (xy > high)).any(1).mean() > 0.5) if len(xy) else 0
    if outside > 0.5 * len(points) and by == OTHERS:
        return [
            f"{outside} of {len(points)} predictions have their keypoints far outside of their "
            "boxes: they are in another frame; write x, y in original pixels."
        ]
    if hits >= MANY * len(labelled):
        return [
            f"The boxes hit {hits} objects, but the keypoints lie too far from the "
            f"{len(labelled)} labelled ones: "
            + (f"{USUAL}; if it stays so, check" if by == TRAINING else "train longer, check")
            + " the order of the keypoints, or give larger sigmas if the labels are coarse."
        ]
    return []


def _shown(annotation: dict[str, Any]) -> list[float]:
    """Return the visibility of each keypoint of an annotation."""
    return list(annotation.get("keypoints") or ())[2::3]


def _names(gt: dict[str, Any], names: Sequence[str | None] | None) -> list[str]:
    """Classes of the ground truth that the model does not know by name."""
    if names is None:
        return []
    unknown = [name for name in class_names(gt) if name not in names]
    if not unknown:
        return []
    have = [repr(name) for name in names if name is not None]
    return [
        f"The model knows no class named {_some([repr(n) for n in unknown])}; it knows "
        f"{_some(have)}: names are compared letter by letter, so rename one side."
    ]


def _classes(gt: dict[str, Any], objects: Table, found: Table, zero: list[str]) -> list[str]:
    """Classes without objects, never predicted, or predicted and hardly ever right."""
    absent, silent, wrong = [], [], []
    for i, name in enumerate(class_names(gt)):
        if name not in zero:
            continue
        truths = int((objects.label == i).sum())
        guesses = int((found.label == i).sum())
        if not truths:
            absent.append(repr(name))
        elif not guesses:
            silent.append(f"{name!r} ({truths} objects)")
        else:
            wrong.append(f"{name!r} ({truths} objects, {guesses} predictions)")
    reasons = []
    total = len(gt["categories"])
    if absent:
        reasons.append(
            f"No object in the ground truth for {len(absent)} of {total} classes "
            f"({_some(absent)}): their AP is undefined and not part of the mean."
        )
    if silent:
        reasons.append(
            f"No prediction for {len(silent)} of {total} classes ({_some(silent)}): they need more "
            "examples or longer training, or the model does not know them."
        )
    if wrong:
        reasons.append(
            f"Predictions, but hardly any in the right place, for {len(wrong)} of {total} classes "
            f"({_some(wrong)}): look at the confusion matrix for what they are taken for."
        )
    return reasons


def _some(words: Sequence[str], limit: int = 5) -> str:
    """Return the first words, and how many follow."""
    more = len(words) - limit
    return ", ".join(words[:limit]) + (f" and {more} more" if more > 0 else "")
