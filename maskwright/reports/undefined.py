"""Rows of metrics that are undefined throughout, since the data holds nothing that they measure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

Rows = dict[str, dict[str, float]]


def is_defined(value: float | None) -> bool:
    """Whether a metric was measured and has a value."""
    return value is not None and not math.isnan(value)


def metric_rows(metrics: Mapping[str, float]) -> tuple[Rows, Rows]:
    """Return the numbers of an evaluation as rows of tables.

    Args:
        metrics: numbers by key, as `val` returns them.

    Returns:
        Of keys "kind/metric": metric to kind to number; and of keys "kind/metric/name": name to
        "kind metric" to number.
    """
    total: Rows = {}
    by_name: Rows = {}
    for key, value in metrics.items():
        kind, metric, *name = key.split("/", 2)
        if name:
            by_name.setdefault(name[0], {})[f"{kind} {metric}"] = value
        else:
            total.setdefault(metric, {})[kind] = value
    return total, by_name


def split_rows(rows: Rows) -> tuple[Rows, list[str]]:
    """Return the rows with a number, and the names of those without any."""
    shown = {name: row for name, row in rows.items() if any(map(is_defined, row.values()))}
    return shown, [name for name in rows if name not in shown]


def undefined_metrics(metrics: Mapping[str, float]) -> list[str]:
    """Return the metrics without a number: those of all kinds at once, then the others by key."""
    total = metric_rows(metrics)[0]
    throughout = split_rows(total)[1]
    others = [
        f"{kind}/{name}"
        for name, row in total.items()
        for kind, value in row.items()
        if name not in throughout and not is_defined(value)
    ]
    return throughout + others


def undefined_line(metrics: Iterable[str], names: Iterable[str] = (), most: int = 6) -> str:
    """Return one sentence on what tables leave out, "" where they leave out nothing.

    Args:
        metrics, names: of the rows.
        most: how many names are written out.
    """
    parts = list(metrics)
    names = list(names)
    if names:
        named = ", ".join(names[:most]) + (", ..." if len(names) > most else "")
        parts.append(
            f"all of {named}" if len(names) == 1 else f"all of {len(names)} names ({named})"
        )
    if not parts:
        return ""
    return f"undefined, because the data has nothing to measure: {', '.join(parts)}"
