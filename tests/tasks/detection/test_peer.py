"""torchvision's detections looked for among ours, against cases made by hand."""

from __future__ import annotations

import pytest
import torch

from maskwright.drawing.scene import drawn_scene
from maskwright.structures import Detections
from maskwright.tasks.detection.peer import match as match_peer
from maskwright.tasks.detection.result import Result


def detections(boxes: list[list[float]], scores: list[float], labels: list[int]) -> Result:
    found = Detections(
        (40, 60), torch.tensor(boxes), torch.tensor(scores), torch.tensor(labels), None
    )
    return Result(found, drawn_scene(40, 60), ["a", "b"])


def test_each_detection_serves_once() -> None:
    ours = detections([[1, 1, 9, 9], [1, 1, 9, 9.01], [30, 30, 39, 39]], [0.9, 0.8, 0.7], [0, 0, 1])
    theirs = {
        "boxes": torch.tensor([[1.0, 1, 9, 9.01], [1, 1, 9, 9], [1, 1, 9, 9], [30, 30, 39, 39.5]]),
        "scores": torch.tensor([0.8, 0.9, 0.9, 0.7]),
        "labels": torch.tensor([1, 1, 1, 2]),  # background is 0 there
    }
    match = match_peer(ours, theirs)
    assert (match.found, match.total, match.ours) == (2, 4, 3)
    assert match.mask is None


def test_masks_are_compared_pixel_by_pixel() -> None:
    probs = torch.ones(1, 28, 28)
    found = Detections(
        (40, 60), torch.tensor([[4.0, 4, 34, 34]]), torch.tensor([0.9]), torch.tensor([0]), probs
    )
    ours = Result(found, drawn_scene(40, 60), ["a"])
    assert ours.masks is not None
    for value, expected in ((0.4985, (1, 1)), (0.2, (0, 0))):
        mask = ours.masks.float()[:, None].clone()
        mask[0, 0, 10:14, 10] = value  # 4 of some 900 pixels: below the tolerance of the IoU
        theirs = {
            "boxes": found.boxes,
            "scores": found.scores,
            "labels": found.labels + 1,
            "masks": mask,
        }
        match = match_peer(ours, theirs)
        assert (match.found, match.undecided) == expected
        assert match.mask == pytest.approx(1 - 4 / int(ours.masks.sum()))


def test_a_box_side_on_a_whole_pixel_may_fall_on_either_side() -> None:
    # torchvision's paste enlarges the box by 30/28 and cuts it: its left side at 4 to 3 or 4.
    probs = torch.linspace(0, 1, 28).expand(1, 28, 28).contiguous()
    boxes = torch.tensor([[[4.999, 5, 33, 33]], [[5.001, 5, 33, 33]]])
    sides = [
        Result(
            Detections((40, 60), box, torch.tensor([0.9]), torch.tensor([0]), probs),
            drawn_scene(40, 60),
            ["a"],
            paste_mode="torchvision",
        )
        for box in boxes
    ]
    assert sides[0].masks is not None and sides[1].masks is not None
    assert not torch.equal(sides[0].masks, sides[1].masks)
    theirs = {
        "boxes": boxes[1],
        "scores": torch.tensor([0.9]),
        "labels": torch.tensor([1]),
        "masks": sides[1].masks.float()[:, None],
    }
    match = match_peer(sides[0], theirs)
    assert (match.found, match.undecided) == (1, 1)
    assert match.mask is not None and match.mask < 0.999
    # Another mask in the same place is none of that.
    theirs["masks"] = theirs["masks"].flip(3)
    assert match_peer(sides[0], theirs).found == 0
