"""What tables leave out, and how they say so."""

from __future__ import annotations

from math import nan

from maskwright.reports.undefined import metric_rows, split_rows, undefined_line, undefined_metrics

METRICS = {
    "box/AP": 0.5, "box/AP_large": nan, "box/AP/cat": 0.5, "box/AP/a/b": nan, "box/VOC_AP50": 0.4,
    "box/VOC_AP50/cat": 0.4, "box/VOC_AP50/a/b": nan, "mask/AP": nan, "mask/AP_large": nan,
    "mask/AP/cat": nan, "mask/AP/a/b": nan,
}  # fmt: skip


def test_rows_by_metric_and_by_class() -> None:
    total, by_class = metric_rows(METRICS)
    assert list(total) == ["AP", "AP_large", "VOC_AP50"]
    assert total["VOC_AP50"] == {"box": 0.4}
    assert list(by_class) == ["cat", "a/b"]
    assert by_class["cat"]["box VOC_AP50"] == 0.4
    shown, left_out = split_rows(total)
    assert list(shown) == ["AP", "VOC_AP50"] and left_out == ["AP_large"]
    shown, left_out = split_rows(by_class)
    assert list(shown) == ["cat"] and left_out == ["a/b"]
    assert undefined_metrics(METRICS) == ["AP_large", "mask/AP"]


def test_one_line_says_what_is_left_out() -> None:
    assert undefined_line([]) == ""
    assert undefined_line(["AP_large"]) == (
        "undefined, because the data has nothing to measure: AP_large"
    )
    assert undefined_line([], ["cat"]).endswith("nothing to measure: all of cat")
    many = undefined_line(["AP_large"], [f"c{i}" for i in range(9)])
    assert many.endswith("AP_large, all of 9 names (c0, c1, c2, c3, c4, c5, ...)")
