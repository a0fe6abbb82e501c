"""Reliability diagrams: the share that is right by the height of the score."""

from __future__ import annotations

import numpy as np
import pytest

from maskwright.drawing.figures import new_figure
from maskwright.drawing.reliability import draw_reliability
from maskwright.metrics.calibration import bin_scores

pytestmark = pytest.mark.figures


def test_bars_are_shares_and_points_stand_at_mean_scores() -> None:
    scores = np.array([0.1, 0.2, 0.7, 0.8, 0.9, 0.9])
    right = np.array([0, 1, 1, 1, 1, 0], bool)
    figure = new_figure(4, 4)
    grid = figure.add_gridspec(2, 2)
    for column, taken in enumerate((slice(None), slice(0))):
        one = bin_scores(scores[taken], right[taken], 2, closed="left")
        draw_reliability(
            figure, grid, column, one, "a title", "facts", score="probability", counted="images"
        )
    above, below, empty, bare = figure.axes
    assert [bar.get_height() for bar in above.patches] == [0.5, 0.75]
    assert [bar.get_x() for bar in above.patches] == [0.0, 0.5]
    points = above.lines[1]
    assert points.get_label() == "at the mean probability"
    assert points.get_xydata().ravel().tolist() == pytest.approx([0.15, 0.5, 0.825, 0.75])
    assert [bar.get_height() for bar in below.patches] == [2, 4]
    assert above.get_legend().get_title().get_text() == "facts"
    assert [text.get_text() for text in empty.texts] == ["no images"]
    assert [bar.get_height() for bar in bare.patches] == [0, 0]
