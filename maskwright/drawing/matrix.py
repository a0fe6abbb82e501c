"""A confusion matrix: of each row, how much went to which column."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .figures import INK, SMALL, SOFT, WIDTH, new_figure, save_figure, style

FEW = 12  # columns up to which each cell has its numbers


def plot_matrix(
    counts: npt.NDArray[np.integer],
    shares: npt.NDArray[np.floating],
    words: Sequence[str],
    out: str | Path,
    title: str,
) -> Path:
    """Draw a square matrix of counts, coloured by shares; return the path of the figure.

    Args:
        counts: (C, C), rows true, columns predicted.
        shares: (C, C) in [0, 1]; masked cells stay blank.
        words: what to write at rows and columns, see `figures.as_text`.
        out: file to write.
        title: above the matrix.
    """
    from matplotlib.colors import LinearSegmentedColormap

    ramp = LinearSegmentedColormap.from_list(
        "maskwright", ["#f6f8fd", "#9db7f0", "#2f5fd0", "#152a66"]
    )
    ramp.set_bad("#ffffff")
    count, longest = len(words), max(len(word) for word in words)
    side = min(max(2.4, 0.62 * count), WIDTH - 0.07 * longest - 1.2)
    figure = new_figure(side + 0.07 * longest + 1.2, side + 0.06 * longest + 0.9)
    ax = figure.add_subplot()
    style(ax, title, "predicted", "true")
    ax.grid(False)
    picture = ax.imshow(shares, cmap=ramp, vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks(range(count), words, rotation=0 if longest <= 10 and count <= 3 else 90)
    ax.set_yticks(range(count), words)
    ax.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    ax.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=1.5)
    ax.tick_params(which="both", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    if count <= FEW:
        for row in range(count):
            for col in range(count):
                if counts[row, col]:
                    ink = "white" if shares[row, col] > 0.5 else INK
                    text = f"{shares[row, col]:.0%}\n{counts[row, col]:,}"
                    ax.text(col, row, text, ha="center", va="center", color=ink, fontsize=SMALL)
    bar = figure.colorbar(picture, ax=ax, fraction=0.035, pad=0.02, format="{x:.0%}")
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=SOFT, labelsize=SMALL, length=0)
    return save_figure(figure, out)


def pooled(
    matrix: npt.NDArray[np.integer], words: Sequence[str], most: int, *, last: bool = False
) -> tuple[npt.NDArray[np.integer], list[str]]:
    """Return the matrix of the classes worth a row, with what to write at them.

    Classes that are neither true nor predicted have no row; of many those with the most errors
    have one, the rest share one.

    Args:
        matrix: (C, C) counts, rows true.
        words: of the rows.
        most: rows of classes, the shared one included.
        last: keep the last row, which is no class.
    """
    number = len(words) - int(last)
    errors = matrix.sum(0) + matrix.sum(1) - 2 * matrix.diagonal()
    used = [i for i in range(number) if matrix[i].any() or matrix[:, i].any()]
    kept = used
    if len(used) > most:
        kept = sorted(sorted(used, key=lambda i: -errors[i])[: most - 1])
    groups = [[i] for i in kept]
    labels = [words[i] for i in kept]
    if rest := [i for i in used if i not in set(kept)]:
        groups.append(rest)
        labels.append(f"{len(rest)} other classes")
    if last:
        groups.append([number])
        labels.append(words[-1])
    sums = np.array([[matrix[np.ix_(a, b)].sum() for b in groups] for a in groups])
    return sums.reshape(len(groups), len(groups)), labels
