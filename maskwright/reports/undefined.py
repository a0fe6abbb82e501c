"""Rows of metrics that are undefined throughout, since the data holds nothing that they measure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from ..errors import first_few

Rows = dict[str, dict[str, float]]
ALL = "all"  # what a metric without a kind measures


def is_defined(value: float | None) -> bool:
    """Whether a metric was measured and has a value."""
    return value is not None and not math.isnan(value)


def named_metric(metric: str) -> tuple[str, str] | None:
    """Return what a metric of one name measures and the name, by a key "kind/metric/name".

    None for the keys "metric" and "kind/metric" of all names together.
    """
    kind, *rest = metric.split("/", 2)
    return (f"{kind} {rest[0]}", rest[1]) if len(rest) == 2 else None


Named = Callable[[str], tuple[str, str] | None]


def metric_rows(metrics: Mapping[str, float], named: Named = named_metric) -> tuple[Rows, Rows]:
    """Return the numbers of an evaluation as rows of tables.

    Args:
        metrics: numbers by key, as `val` returns them.
        named: see `named_metric`.

    Returns:
        Of keys "kind/metric": metric to kind to number, the kind of "metric" alone being "all"; and
        of those with a name: name to "kind metric" to number.
    """
    total: Rows = {}
    by_name: Rows = {}
    for key, value in metrics.items():
        if (place := named(key)) is not None:
            column, name = place
            by_name.setdefault(name, {})[column] = value
        else:
            kind, _, metric = key.rpartition("/")
            total.setdefault(metric, {})[kind or ALL] = value
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
        name if kind == ALL else f"{kind}/{name}"
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
        named = first_few(names, most)
        parts.append(
            f"all of {named}" if len(names) == 1 else f"all of {len(names)} names ({named})"
        )
    if not parts:
        return ""
    return f"undefined, because the data has nothing to measure: {', '.join(parts)}"
