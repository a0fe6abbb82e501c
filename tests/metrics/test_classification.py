"""Measures of classifiers against scikit-learn and by hand."""

import math
import warnings

import numpy as np
import pytest

from maskwright.metrics.classification import (
    average_precision,
    brier_score,
    class_scores,
    classification_metrics,
    confusion_matrix,
    log_loss,
    multilabel_metrics,
    topk_accuracy,
    true_ranks,
)

NAMES = ["ant", "bee", "cat/dog", "dog", "elk", "fox", "gnu"]
# "gnu" has no images and is never predicted, "fox" is predicted without having images.
SEEN = [0, 1, 2, 3, 4]


@pytest.fixture(scope="module")
def answers():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(400, 7)) * 2
    logits[:, 6] -= 20
    labels = rng.choice(SEEN, 400, p=[0.5, 0.3, 0.1, 0.05, 0.05])
    logits[np.arange(400), labels] += 2
    probs = np.exp(logits)
    return probs / probs.sum(1, keepdims=True), labels


def test_scores_equal_scikit_learn(answers):
    sk = pytest.importorskip("sklearn.metrics")
    probs, labels = answers
    found = classification_metrics(probs, labels, NAMES, topk=(2, 5, 7))
    predicted = probs.argmax(1)
    both = (labels, predicted)
    wanted = {
        "top1": sk.accuracy_score(*both),
        "top2": sk.top_k_accuracy_score(labels, probs, k=2, labels=range(7)),
        "top5": sk.top_k_accuracy_score(labels, probs, k=5, labels=range(7)),
        "macro/F1": sk.f1_score(*both, average="macro"),
        "macro/precision": sk.precision_score(*both, average="macro"),
        "macro/recall": sk.recall_score(*both, average="macro", zero_division=0),
        "nll": sk.log_loss(labels, probs, labels=range(7)),
        "brier": sk.brier_score_loss(labels, probs, labels=range(7)),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted without having images
        wanted["balanced_accuracy"] = sk.balanced_accuracy_score(*both)
    each = {"zero_division": np.nan, "average": None, "labels": range(7)}
    for kind, score in (
        ("F1", sk.f1_score),
        ("precision", sk.precision_score),
        ("recall", sk.recall_score),
    ):
        wanted |= {f"{kind}/{n}": v for n, v in zip(NAMES, score(*both, **each), strict=True)}
    ece = found.pop("ece")
    assert list(found)[:3] == ["top1", "top2", "top5"] and 0 < ece < 1
    assert found == pytest.approx(wanted, abs=1e-12, nan_ok=True)
    matrix = confusion_matrix(labels, predicted, 7)
    assert (matrix == sk.confusion_matrix(labels, predicted, labels=range(7))).all()
    assert class_scores(matrix).support.tolist() == np.bincount(labels, minlength=7).tolist()


def test_what_is_undefined_is_nan(answers):
    found = classification_metrics(*answers, NAMES)
    assert math.isnan(found["F1/gnu"]) and math.isnan(found["recall/gnu"])
    assert math.isnan(found["precision/gnu"])
    assert found["F1/fox"] == 0 and math.isnan(found["recall/fox"]) and found["precision/fox"] == 0


def test_float32_and_any_order_and_parts_give_the_same(answers):
    probs, labels = answers
    order = np.random.default_rng(0).permutation(len(labels))
    found = classification_metrics(probs[order], labels[order], NAMES)
    assert found == pytest.approx(classification_metrics(probs, labels, NAMES), nan_ok=True)
    small = classification_metrics(probs.astype(np.float32), labels.astype(np.int32), NAMES)
    assert small == pytest.approx(found, abs=1e-6, nan_ok=True)
    many, times = np.tile(probs, (25, 1)), np.tile(labels, 25)  # more than one block of rows
    assert classification_metrics(many, times, NAMES) == pytest.approx(found, nan_ok=True)


def test_ties_count_against():
    assert topk_accuracy([[0.25] * 4], [0]) == 0 and topk_accuracy([[0.25] * 4], [0], k=3) == 0
    assert topk_accuracy([[0.25] * 4], [0], k=4) == 1
    assert true_ranks([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2]], [0, 2]).tolist() == [1, 2]
    assert true_ranks([[0.4, math.nan, 0.2]], [0]).tolist() == [1]
    assert true_ranks([[math.nan, 0.3, 0.2]], [0]).tolist() == [2]


def test_no_images_and_few_classes():
    found = classification_metrics(np.zeros((0, 3)), np.zeros(0, int), ["a", "b", "c"])
    assert found and all(math.isnan(v) for v in found.values()) and "top5" not in found
    assert all(math.isnan(v) for v in classification_metrics([], [], ["a", "b"]).values())
    assert all(math.isnan(v) for v in classification_metrics([], [], []).values())
    one = classification_metrics([[1.0]], [0], ["a"])
    assert one["top1"] == 1 and one["nll"] == 0 and one["ece"] == 0 and one["macro/F1"] == 1
    nothing = multilabel_metrics(np.zeros((0, 2)), np.zeros((0, 2), bool), ["a", "b"])
    assert nothing and all(math.isnan(v) for v in nothing.values())


def test_a_sure_mistake_costs_a_finite_loss():
    assert log_loss([[1.0, 0.0]], [1]) == pytest.approx(-math.log(np.finfo(float).eps))
    assert brier_score([[1.0, 0.0], [0.5, 0.5]], [1, 0]) == pytest.approx((2 + 0.5) / 2)


def test_faults_are_named():
    with pytest.raises(ValueError, match=r"0\.\.1, got 2"):
        classification_metrics([[0.5, 0.5]], [2], ["a", "b"])
    with pytest.raises(ValueError, match=r"0\.\.1, got -1"):
        confusion_matrix([0], [-1], 2)
    with pytest.raises(ValueError, match=r"scores \(N, 3\).*\(1, 2\)"):
        classification_metrics([[0.5, 0.5]], [0], ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"labels \(N, 2\).*\(1,\)"):
        multilabel_metrics([[0.5, 0.5]], [0], ["a", "b"])
    with pytest.raises(ValueError, match="whole numbers, got float64"):
        topk_accuracy([[0.5, 0.5]], [0.0])
    with pytest.raises(ValueError, match="at least 1, got 0"):
        topk_accuracy([[0.5, 0.5]], [0], k=0)


def test_several_labels_equal_scikit_learn():
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(5)
    labels = rng.random((300, 5)) < [0.5, 0.3, 0.1, 0.2, 0.0]
    probs = np.round(np.clip(rng.normal(0.3 + 0.3 * labels, 0.2), 0.01, 0.99), 2)  # with ties
    names = ["a", "b", "c", "d", "never"]
    found = multilabel_metrics(probs, labels, names)
    predicted = probs > 0.5
    both = (labels, predicted)
    ap = [sk.average_precision_score(labels[:, k], probs[:, k]) for k in range(4)]
    wanted = {
        "mAP": np.mean(ap),
        **{name: score(*both, average="micro") for name, score in (
            ("F1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score))},
        "macro/F1": sk.f1_score(*both, average="macro", zero_division=0),
        "macro/precision": sk.precision_score(*both, average="macro", zero_division=0),
        "macro/recall": sk.recall_score(*both, average="macro", zero_division=0),
        "exact": sk.accuracy_score(*both),
        "nll": np.mean([sk.log_loss(labels[:, k], probs[:, k], labels=[0, 1]) for k in range(5)]),
        **{f"AP/{name}": value for name, value in zip(names, [*ap, math.nan], strict=True)},
    }  # fmt: skip
    each = {"zero_division": np.nan, "average": None}
    for kind, score in (
        ("F1", sk.f1_score),
        ("precision", sk.precision_score),
        ("recall", sk.recall_score),
    ):
        wanted |= {f"{kind}/{n}": v for n, v in zip(names, score(*both, **each), strict=True)}
    assert found == pytest.approx(wanted, abs=1e-12, nan_ok=True)
    lower = multilabel_metrics(probs, labels, names, threshold=0.3)
    assert lower["F1"] == pytest.approx(sk.f1_score(labels, probs > 0.3, average="micro"))
    assert lower["mAP"] == found["mAP"]


def test_average_precision_by_hand():
    assert average_precision([0.9, 0.8, 0.7], [True, False, True]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([0.5, 0.5], [True, False]) == 0.5  # whichever came first
    assert math.isnan(average_precision([0.5], [False])) and math.isnan(average_precision([], []))
