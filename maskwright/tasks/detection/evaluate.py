"""A detector over a data set: its detections as COCO results, and what they score.

What training, `val` and `compress` share. Masks go from the network's small squares straight to
run-length codes at the original resolution, one image at a time, so that memory does not grow with
the size of the images.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ...data.loader import Batch, Loader, make_loader
from ...data.records import Dataset
from ...errors import nearest
from ...metrics.detection.coco_map import coco_eval
from ...metrics.detection.voc_map import voc_eval
from ...models.detection.base import Detector, PostProcess
from ...models.inference import fast_network, pick_precision
from ...nn.ragged import PER_OBJECT
from ...ops.masks import paste_rle
from ...structures import Detections, Images, Resize, Skeleton
from ...terminal import console
from ...training.best import fitness
from .regions import proposal_store
from .views import Views, detect_views, to_detections

CAP_SCORE = 0.05  # a full image whose weakest detection scores less has lost nothing of worth
CAP_SHARE = 0.75  # nor has one with fewer objects than this share of its detections
VOC_TITLES = {"VOC_AP50": False, "VOC07_AP50": True}  # whether by eleven points


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        metrics: keys "box/AP", "mask/AP50", "keypoints/AP", "mask/AP/<class name>", ...; in
            [0, 1] or nan.
        gt: the ground truth in COCO's form, category ids being label + 1.
        detections: the detections as COCO results with the same ids.
        capped: ids of the images where `max_det` may have cut off real objects: full of good
            detections, and with about as many objects as detections, or more.
        short: ids of those where the model's proposals may have been too few for all objects.
        advice: what helps there.
        ms: milliseconds of computing per image, loading not counted.
        sigmas: those of the keypoint AP, None for the default.
    """

    metrics: dict[str, float]
    gt: dict[str, Any]
    detections: list[dict[str, Any]]
    capped: list[int]
    ms: float
    sigmas: Sequence[float] | None = None
    short: Sequence[int] = ()
    advice: str = ""

    @property
    def fitness(self) -> float:
        """The number by which checkpoints are compared, nan if there is none; see `best`."""
        return fitness(self.metrics)


def eval_loader(
    detector: Detector,
    dataset: Dataset,
    *,
    resize: Resize | None = None,
    batch: int = 1,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Loader:
    """Return a loader over a data set in its order, without augmentation."""
    return make_loader(
        dataset,
        batch=batch,
        resize=resize or detector.resize,
        augment=None,
        seed=0,
        workers=workers,
        shuffle=False,
        divisor=detector.size_divisor,
        buckets=detector.buckets,
        rank=rank,
        world=world,
        masks=False,  # the evaluator takes them from the data set
        proposals=proposal_store(detector, dataset.split),
    )


def evaluate(
    detector: Detector,
    dataset: Dataset,
    *loaders: Iterable[Batch],
    names: Sequence[str | None],
    post: PostProcess,
    skeleton: Skeleton | None = None,
    sigmas: Sequence[float] | None = None,
    boundary: bool = False,
    voc: bool | None = None,
    views: Views | None = None,
    precision: str = "float32",
    label: str = "val",
    stop: Callable[[], bool] = lambda: False,
    gather: Callable[[Any], list[Any]] = lambda share: [share],
    enabled: bool = True,
) -> Evaluation | None:
    """Run a detector over a data set and score it.

    Args:
        detector: the model; its training mode is put back afterwards.
        dataset: the images and their objects.
        *loaders: batches of the data set, or of this process's share of it; with `views`, the same
            batches at each scale.
        names: class names of the model by label, None for a class without a name.
        post: thresholds of the detections.
        skeleton: the keypoints of the model.
        sigmas: see `engine.val.val`.
        boundary: see `engine.val.val`.
        voc: see `engine.val.val`.
        views: look at each image in these ways; None: once, as it is.
        precision: of the arithmetic, see `hub.load`.
        label: what stands in front of the progress bar.
        stop: asked after each batch; True ends the evaluation without a result.
        gather: returns the shares of all processes.
        enabled: False shows no progress, for all processes but the first.

    Returns:
        The evaluation, or None if it was stopped.

    Raises:
        ValueError: if the data set has a class or a keypoint that the model does not know.
    """
    labels = match_classes(names, dataset.names)
    joints = match_keypoints(skeleton, dataset)
    mirrored = None if skeleton is None else skeleton.mirrored
    device = detector.mean.device  # an exported graph has no parameters
    was_training = detector.training
    network = fast_network(detector.eval(), dtype=pick_precision(precision, device))
    found: list[tuple[int, bool, bool, list[dict[str, Any]]]] = []
    seconds = 0.0
    try:
        with console.progress(label, total=len(dataset), unit="img", enabled=enabled) as bar:
            for batches in zip(*loaders, strict=True):
                start = time.perf_counter()
                batch = batches[0]
                scaled = [to_device(one.images, device) for one in batches]
                with torch.no_grad():  # in inference mode a cached tensor would spoil training
                    if views is None:
                        detections = to_detections(network(scaled[0], post), scaled[0])
                    else:
                        detections = detect_views(network, scaled, post, views.flip, mirrored)
                for index, one in zip(batch.indices, detections, strict=True):
                    image_id = dataset[index].image_id
                    full = len(one) >= post.max_det and float(one.scores[-1]) >= CAP_SCORE
                    rows = to_coco_rows(one, image_id, labels, detector.paste_mode, joints)
                    short = one.short and len(one) < post.max_det
                    found.append((image_id, full, short, rows))
                seconds += time.perf_counter() - start
                bar.update(len(batch.indices))
                if stop():
                    break
    finally:
        detector.train(was_training)
    stopped = stop()  # or the loader has heard it, and ended early
    ms = 1e3 * seconds / max(len(found), 1)
    shares = gather((stopped, found))
    if any(share_stopped for share_stopped, _ in shares):
        return None
    by_image = {image_id: rest for _, share in shares for image_id, *rest in share}
    gt = dataset.to_coco(by_label=True)
    rows = [row for *_, rows in by_image.values() for row in rows]
    metrics = score(
        gt,
        rows,
        masks=detector.predicts_masks and dataset.has_masks,
        keypoints=bool(joints) and dataset.has_keypoints,
        max_det=post.max_det,
        sigmas=sigmas,
        boundary=boundary,
        voc=dataset.format == "voc" if voc is None else voc,
    )
    objects = count_objects(gt)
    near = CAP_SHARE * post.max_det
    capped = [key for key, (full, *_) in by_image.items() if full and objects[key] >= near]
    enough = (detector.num_proposals(post.max_det) or 0) / PER_OBJECT  # proposals, for so many
    few = [key for key, (_, short, _) in by_image.items() if short and objects[key] > enough]
    advice = detector.short_advice(post.max_det) if few else ""
    return Evaluation(metrics, gt, rows, capped, ms, sigmas, few, advice)


def score(
    gt: dict[str, Any],
    detections: list[dict[str, Any]],
    *,
    masks: bool = False,
    keypoints: bool = False,
    max_det: int,
    sigmas: Sequence[float] | None = None,
    boundary: bool = False,
    voc: bool = False,
) -> dict[str, float]:
    """Return the metrics of COCO results, boxes and if wanted the finer ones, by prefixed key."""
    # Without their box, results are sorted into small, medium and large by the area of the mask
    # or the extent of the keypoints, as torchvision reports it (and detectron2, for masks).
    shapes = {"box": ("bbox", "bbox")}
    if masks:
        shapes["mask"] = ("segm", "segmentation")
    if masks and boundary:
        shapes["boundary"] = ("boundary", "segmentation")
    if keypoints:
        shapes["keypoints"] = ("keypoints", "keypoints")
    metrics = {}
    for prefix, (kind, shape) in shapes.items():
        unused = {"bbox", "segmentation", "keypoints"} - {shape}
        rows = [{k: v for k, v in row.items() if k not in unused} for row in detections]
        spread = sigmas if kind == "keypoints" else None
        for key, value in coco_eval(gt, rows, kind, max_det=max_det, sigmas=spread).items():
            metrics[f"{prefix}/{key}"] = value
    for title, eleven_point in VOC_TITLES.items() if voc else ():
        for key, value in voc_eval(gt, detections, eleven_point=eleven_point).items():
            metrics[f"box/{title}{key.removeprefix('AP')}"] = value
    return metrics


def match_keypoints(model: Skeleton | None, data: Dataset) -> list[int] | None:
    """Return the model's position of each keypoint of the data set, by name.

    None if the model or the data set has none. Keypoints that only the model knows are left out.

    Raises:
        ValueError: naming the keypoints that the model does not know.
    """
    if model is None or data.skeleton is None:
        return None
    missing = [name for name in data.skeleton.names if name not in model.names]
    if missing:
        raise ValueError(
            f"{data.source} has keypoints that the model does not know: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}{nearest(missing[0], model.names)} (the model "
            f"knows {', '.join(model.names)})"
        )
    return [model.names.index(name) for name in data.skeleton.names]


def match_classes(model: Sequence[str | None], data: Sequence[str]) -> dict[int, int]:
    """Return the data set's label for each label of the model, by class name.

    Classes that only the model knows are left out of the result, and so of the evaluation.

    Raises:
        ValueError: naming the classes of the data set that the model does not know.
    """
    known = [name for name in model if name is not None]
    missing = [name for name in data if name not in known]
    if missing:
        raise ValueError(
            f"the data has classes that the model does not know: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}{nearest(missing[0], known)} (the model knows "
            f"{', '.join(known[:10])}{', ...' if len(known) > 10 else ''})"
        )
    positions = {name: label for label, name in enumerate(data)}
    return {
        label: positions[name]
        for label, name in enumerate(model)
        if name is not None and name in positions
    }


def to_coco_rows(
    found: Detections,
    image_id: int,
    labels: dict[int, int],
    paste_mode: str,
    joints: list[int] | None = None,
) -> list[dict[str, Any]]:
    """Return the detections of one image as COCO results.

    Args:
        found: the detections, in pixels of the original image.
        image_id: id of the image in the ground truth.
        labels: the data set's label of each of the model's; others are left out.
        paste_mode: see `ops.paste_masks`.
        joints: the model's position of each keypoint of the data set; None: without keypoints.
    """
    known = torch.tensor([label in labels for label in found.labels.tolist()], dtype=torch.bool)
    found = found.keep(known)
    boxes = found.boxes.double()
    boxes[:, 2:] -= boxes[:, :2]  # xyxy -> xywh
    rows: list[dict[str, Any]] = [
        {"image_id": image_id, "category_id": labels[label] + 1, "bbox": box, "score": score}
        for label, box, score in zip(
            found.labels.tolist(), boxes.tolist(), found.scores.tolist(), strict=True
        )
    ]
    if found.mask_probs is not None:
        codes = paste_rle(found.mask_probs, found.boxes, found.size, mode=paste_mode)
        for row, code in zip(rows, codes, strict=True):
            row["segmentation"] = code
    if found.keypoints is not None and joints is not None:
        for row, points in zip(rows, found.keypoints[:, joints].flatten(1).tolist(), strict=True):
            row["keypoints"] = points
    return rows


def to_device(images: Images, device: torch.device) -> Images:
    """Return the images on the device of the model, in the memory layout that it prefers."""
    images = images.to(device, non_blocking=True)
    if device.type == "mps":
        return images
    pixels = images.pixels.contiguous(memory_format=torch.channels_last)
    return replace(images, pixels=pixels)


def count_objects(gt: dict[str, Any]) -> Counter[Any]:
    """Return how many objects each image of a ground truth has, without crowd regions."""
    return Counter(ann["image_id"] for ann in gt["annotations"] if not ann["iscrowd"])


def capped_notes(result: Evaluation, max_det: int) -> list[str]:
    """Return warnings where limits of the number of objects or proposals may have cut some off."""
    notes, count = [], len(result.gt["images"])
    if result.capped:
        objects = count_objects(result.gt)
        most = max(objects[key] for key in result.capped)
        notes.append(
            f"{len(result.capped)} of {count} images reached max_det={max_det}, and "
            f"have about so many objects or more (up to {most}): those beyond it count as missed; "
            "raise max_det"
        )
    if result.short:
        notes.append(
            f"in {len(result.short)} of {count} images there may be more objects than were found: "
            f"{result.advice}"
        )
    return notes
