"""SVMs and ridge regression on region features against scikit-learn and closed forms."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.svm import LinearSVC

from maskwright.errors import OptionError
from maskwright.nn.detection import svm_fit
from maskwright.nn.detection.box_head import BoxTargets
from maskwright.nn.detection.svm_fit import Objects, RegionFitter, linear_svm, ridge
from maskwright.nn.detection.svm_head import SLOPE, SVMHead
from maskwright.ops.boxes import encode_deltas

WIDTH, POOLED = 12, 20


@pytest.mark.parametrize("count", [6, 60])
def test_ridge_equals_scikit_learn_and_the_normal_equations(count: int) -> None:
    """With fewer rows than columns, and with more: two systems, one solution."""
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, 15, generator=generator) + 2
    y = torch.randn(count, 4, generator=generator)
    weight, bias = ridge(x, y, 7.0)
    reference = Ridge(alpha=7.0).fit(x.double().numpy(), y.double().numpy())
    np.testing.assert_allclose(weight.T, reference.coef_, atol=1e-5)
    np.testing.assert_allclose(bias, reference.intercept_, atol=1e-5)
    # The gradient of the penalised squares vanishes.
    left = x.double().T @ (x.double() @ weight.double() + bias.double() - y.double())
    torch.testing.assert_close(left, -7.0 * weight.double(), rtol=1e-3, atol=1e-3)


def scene(seed: int, *, classes: int = 2, regions: int = 40) -> tuple[torch.Tensor, Objects]:
    """Regions, two objects and features that tell the class of what a region overlaps."""
    rng = torch.Generator().manual_seed(seed)
    gt = torch.tensor([[10.0, 10, 50, 50], [60, 20, 95, 80]])
    labels = torch.tensor([seed % classes, (seed + 1) % classes])
    corner = torch.rand(regions, 2, generator=rng) * 60
    boxes = torch.cat([corner, corner + 10 + torch.rand(regions, 2, generator=rng) * 30], 1)
    jitter = torch.randn(8, 4, generator=rng) * 2
    boxes = torch.cat([boxes, gt.repeat(4, 1) + jitter])
    last = torch.randn(len(boxes) + 2, WIDTH, generator=rng).abs()
    for row, box in enumerate(torch.cat([boxes, gt])):
        for obj, label in zip(gt, labels, strict=True):
            overlap = (torch.min(box[2:], obj[2:]) - torch.max(box[:2], obj[:2])).clamp(0).prod()
            last[row, label] += 4 * overlap / (obj[2:] - obj[:2]).prod()
    return last, Objects(boxes, gt, labels, torch.zeros(2, dtype=torch.bool))


def fit(
    scenes: list[tuple[torch.Tensor, Objects]], passes: int = 1, **options: Any
) -> tuple[RegionFitter, Any, list[str]]:
    said: list[str] = []
    names = options.pop("names", ["cat", "dog"])
    fitter = RegionFitter(
        names, WIDTH, POOLED, svm=True, images=len(scenes), say=said.append, **options
    )
    for number, (last, objects) in enumerate(scenes):
        rows, owner = fitter.pairs(objects)
        pooled = torch.randn(len(rows), POOLED, generator=torch.Generator().manual_seed(number))
        fitter.see(number, last, objects, rows, owner, pooled)
    fitter.begin()
    for _ in range(passes):
        for number, (last, objects) in enumerate(scenes):
            fitter.mine(number, last, objects)
    return fitter, fitter.finish(), said


def slow_sets(
    scenes: list[tuple[torch.Tensor, Objects]], label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives of a class by loops: objects, and regions with an IoU below 0.3."""
    positives, negatives = [], []
    for last, objects in scenes:
        own = [k for k in range(len(objects.gt)) if objects.labels[k] == label]
        positives += [last[len(objects.boxes) + k] for k in own]
        for row, box in enumerate(objects.boxes.tolist()):
            worst = 0.0
            for k in own:
                obj = objects.gt[k].tolist()
                w = min(box[2], obj[2]) - max(box[0], obj[0])
                h = min(box[3], obj[3]) - max(box[1], obj[1])
                inter = max(w, 0) * max(h, 0)
                areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, obj)]
                worst = max(worst, inter / (sum(areas) - inter))
            if worst < 0.3:
                negatives.append(last[row])
    return torch.stack(positives).numpy(), torch.stack(negatives).numpy()


def test_margins_are_the_decisions_of_scikit_learn() -> None:
    """All negatives taken at once: the SVM is the one that scikit-learn fits to all regions."""
    scenes = [scene(seed) for seed in range(6)]
    _, ((weight, bias), _), said = fit(scenes)
    assert not said
    scale = 20 / np.mean(np.concatenate([np.linalg.norm(last, axis=1) for last, _ in scenes]))
    x = scenes[0][0].numpy()
    for label in (0, 1):
        positives, negatives = slow_sets(scenes, label)
        machine = LinearSVC(
            C=1e-3,
            loss="hinge",
            intercept_scaling=10,
            class_weight={1: 2},
            max_iter=20_000,
            random_state=0,
        )
        features = np.concatenate([positives, negatives]) * scale
        machine.fit(features, [1] * len(positives) + [-1] * len(negatives))
        margins = x @ weight[label].numpy() + bias[label].item()
        np.testing.assert_allclose(margins, machine.decision_function(x * scale), atol=0.02)
        own = scenes[0][1].labels.numpy() == label
        assert margins[-2:][own].min() > np.quantile(margins, 0.9)


def test_hard_negatives_are_as_good_as_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negatives that are no support vectors do not matter: few and the hard ones are enough."""
    scenes = [scene(seed, regions=150) for seed in range(6)]
    _, ((all_weight, all_bias), _), _ = fit(scenes)
    monkeypatch.setattr(svm_fit, "FIRST", 60)
    monkeypatch.setattr(svm_fit, "REFIT", 30)
    few = fit(scenes, passes=0)[1][0]
    fitter, ((weight, bias), _), _ = fit(scenes, passes=2)
    kept = sum(len(rows.rows) for rows in fitter._negatives)
    total = sum(len(slow_sets(scenes, label)[1]) for label in (0, 1))
    assert kept < 0.8 * total
    x = torch.cat([last for last, _ in scenes])
    margins, expected, first = (
        x @ w.T + b for w, b in ((weight, bias), (all_weight, all_bias), few)
    )
    error = (margins - expected).abs().mean()
    assert error < 0.02 and error < 0.3 * (first - expected).abs().mean()


def test_memory_bounds_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm_fit, "MEMORY", 0)
    scenes = [scene(seed, regions=300) for seed in range(4)]
    fitter, ((weight, _), (ridge_weight, _)), _ = fit(scenes)
    assert all(len(rows.rows) <= 200 for rows in fitter._negatives)
    assert all(len(rows.rows) <= 100 for rows in fitter._pairs)
    assert weight.any() and ridge_weight.any()


def test_ridge_learns_from_regions_near_an_object() -> None:
    scenes = [scene(seed) for seed in range(5)]
    fitter, (_, (weight, bias)), _ = fit(scenes)
    for label in (0, 1):
        x, y = [], []
        for number, (_, objects) in enumerate(scenes):
            rows, owner = fitter.pairs(objects)
            generator = torch.Generator().manual_seed(number)
            pooled = torch.randn(len(rows), POOLED, generator=generator)
            own = objects.labels[owner] == label
            x.append(pooled[own])
            deltas = encode_deltas(objects.gt[owner], objects.boxes[rows], (1, 1, 1, 1))
            y.append(deltas[own])
        features, goals = torch.cat(x).numpy(), torch.cat(y).numpy()
        every = []
        for number, (_, objects) in enumerate(scenes):
            count = len(fitter.pairs(objects)[0])
            generator = torch.Generator().manual_seed(number)
            every.append(torch.randn(count, POOLED, generator=generator).norm(dim=1))
        scale = 20 / float(torch.cat(every).mean())
        reference = Ridge(alpha=1000.0).fit(features * scale, goals)
        np.testing.assert_allclose(weight[label], reference.coef_ * scale, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(bias[label], reference.intercept_, rtol=1e-3, atol=1e-5)


def test_a_class_without_objects_is_told_and_never_found() -> None:
    scenes = [scene(seed, classes=1) for seed in range(3)]
    _, ((weight, bias), (ridge_weight, ridge_bias)), said = fit(scenes)
    assert len(said) == 1 and "'dog'" in said[0] and "never found" in said[0]
    assert not weight[1].any() and bias[1] == -10
    assert weight[0].any() and not ridge_weight[1].any() and not ridge_bias[1].any()


def test_a_class_without_background_is_told_and_never_found() -> None:
    last, objects = scene(0, classes=1)
    near = Objects(objects.gt, objects.gt, objects.labels, objects.crowd)
    feats = torch.cat([last[-2:], last[-2:]])
    _, ((weight, bias), _), said = fit([(feats, near)], names=["cat"])
    assert len(said) == 1 and "no negatives" in said[0] and "never found" in said[0]
    assert not weight.any() and (bias == -10).all()


def test_crowds_are_neither_positive_nor_negative() -> None:
    last, objects = scene(0)
    crowd = Objects(objects.boxes, objects.gt, objects.labels, torch.tensor([True, False]))
    fitter, _, said = fit([(last, crowd)])
    assert len(said) == 1 and "'cat'" in said[0]
    within = (crowd.boxes >= 10).all(1) & (crowd.boxes <= 50).all(1)
    kept = {key & 0xFFFFFF for key in fitter._negatives[1].keys}
    assert within.any() and not kept & set(within.nonzero()[:, 0].tolist())
    assert not (fitter.pairs(crowd)[1] == 0).any()


def test_images_without_objects_or_regions_are_fine() -> None:
    none = torch.zeros(0, 4)
    labels, crowd = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)
    last, objects = scene(0)
    empty = (torch.zeros(0, WIDTH), Objects(none, none, labels, crowd))
    bare = (last[:-2], Objects(objects.boxes, none, labels, crowd))
    _, ((weight, _), _), said = fit([empty, bare, (last, objects), scene(1)])
    assert weight.any(1).all() and not said


def test_without_scikit_learn_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("sklearn"):
            raise ImportError("No module named 'sklearn'")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"maskwright\[proposals\].*classifier=softmax"):
        linear_svm(np.ones((2, 3)), np.zeros((2, 3)))


@pytest.mark.parametrize("classifier", ["svm", "softmax"])
def test_scores_and_boxes_change_once_fitted(classifier: str) -> None:
    torch.manual_seed(0)
    head = SVMHead(4, 2, pool=2, width=8, classifier=classifier)
    x = torch.randn(5, 4, 2, 2)
    before = head(x)
    softmax = before.logits.softmax(-1)[:, :-1]
    torch.testing.assert_close(head.scores(before), softmax)
    assert not before.deltas.any()
    svm, bias = torch.randn(2, 8), torch.randn(2)
    weight, shift = torch.randn(2, 4, 16), torch.randn(2, 4)
    head.set_fit((svm, bias), (weight, shift))
    after = head(x)
    flat = x.permute(0, 2, 3, 1).flatten(1)
    torch.testing.assert_close(after.deltas[:, 1], flat @ weight[1].T + shift[1])
    margins = head.hidden(x) @ svm.T + bias
    expected = (SLOPE * margins).sigmoid() if classifier == "svm" else softmax
    torch.testing.assert_close(head.scores(after), expected)
    losses = head.loss(
        after,
        torch.rand(5, 4),
        BoxTargets(torch.tensor([0, 1, 2, 2, 0]), torch.rand(5, 4)),
        torch.ones(5, dtype=torch.bool),
    )
    assert list(losses) == ["roi/class"]


def test_there_are_two_classifiers() -> None:
    with pytest.raises(OptionError, match="classifier is 'svm' or 'softmax'"):
        SVMHead(4, 2, classifier="forest")


def test_what_memory_has_no_room_for_is_left_out_at_random(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the last images: those would often be another kind of picture."""
    monkeypatch.setattr(svm_fit, "MOST", 100)
    count = 600
    gt = torch.tensor([[10.0, 10, 50, 50]])
    said: list[str] = []
    fitter = RegionFitter(["cat"], 4, 3, svm=True, images=count, say=said.append)
    for number in range(count):
        shift = 4.0 if number < count // 2 else -4.0
        boxes = torch.tensor([[10 + shift, 10, 50 + shift, 50], [70.0, 70, 90, 90]])
        objects = Objects(boxes, gt, torch.tensor([0]), torch.zeros(1, dtype=torch.bool))
        rows, owner = fitter.pairs(objects)
        assert rows.tolist() == [0]
        last = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, shift]])
        fitter.see(number, last, objects, rows, owner, torch.zeros(1, 3))
    fitter.begin()
    assert said == [
        "600 objects of the class 'cat' are too many for memory: its SVM learns from 200 of them, "
        "at random"
    ]
    (weight, _), (_, bias) = fitter.finish()
    # The mean offset of a hundred regions: plus or minus a tenth of their width, evenly.
    assert abs(float(bias[0, 0])) < 0.03 and abs(4 / 40 - abs(float(bias[0, 0]))) > 0.05
    assert abs(float(weight[0, 3])) < abs(float(weight[0, 2]))
