"""RoIAlign and NMS as standard ONNX operators, run by ONNX Runtime, against torchvision's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torchvision.ops
from torch import Tensor, nn

from maskwright.graphs.trace import quiet
from maskwright.nn.detection.refine_stages import merge_stages
from maskwright.ops import nms_padded, roi_align
from maskwright.ops.onnx import translations

B = torch.export.Dim("b", min=1, max=64)
N = torch.export.Dim("n", min=1, max=9999)


def to_onnx(module: nn.Module, inputs: tuple, dims: dict, path: Path):
    with quiet(), torch.no_grad():
        program = torch.export.export(module, inputs, dynamic_shapes=dims, strict=False)
        made = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=18,
            custom_translation_table=translations(),
        )
    made.save(path)
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(*given: Tensor) -> list[Tensor]:
        feed = dict(zip(names, (value.numpy() for value in given), strict=True))
        return [torch.from_numpy(value) for value in session.run(None, feed)]

    return run


class Suppress(nn.Module):
    def __init__(self, labelled: bool) -> None:
        super().__init__()
        self.labelled = labelled

    def forward(self, boxes, scores, valid, labels):
        own = labels if self.labelled else None
        index, kept = nms_padded(boxes, scores, valid, 0.5, 30, labels=own)
        return index, kept, labels.sum()  # an input must have a use


@pytest.mark.parametrize("labelled", [True, False])
def test_nms_keeps_what_torchvision_keeps(labelled: bool, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def make(images: int, boxes: int):
        corner = torch.rand(images, boxes, 2, generator=generator) * 60
        side = torch.rand(images, boxes, 2, generator=generator) * 30 + 1
        box = torch.cat([corner, corner + side], -1)
        # Scores of few values: equal ones are ordered by position.
        score = torch.randint(0, 20, (images, boxes), generator=generator) / 20
        valid = torch.rand(images, boxes, generator=generator) < 0.8
        return box, score, valid, torch.randint(0, 3, (images, boxes), generator=generator)

    dims = {
        "boxes": {0: B, 1: N},
        "scores": {0: B, 1: N},
        "valid": {0: B, 1: N},
        "labels": {0: B, 1: N},
    }
    run = to_onnx(Suppress(labelled), make(2, 50), dims, tmp_path / "nms.onnx")
    for images, count in ((2, 50), (1, 200), (3, 7)):
        box, score, valid, label = make(images, count)
        valid[-1] = False  # an image without candidates
        index, kept, _ = run(box, score, valid, label)
        for b in range(images):
            slots = valid[b].nonzero()[:, 0]
            slots = slots[score[b, slots].argsort(stable=True, descending=True)]
            rank = torch.arange(len(slots), 0, -1.0)
            args = (box[b, slots], rank)
            if labelled:
                expected = torchvision.ops.batched_nms(*args, label[b, slots], 0.5)
            else:
                expected = torchvision.ops.nms(*args, 0.5)
            expected = slots[expected][:30]
            assert index[b, : len(expected)].tolist() == expected.tolist()
            assert kept[b].tolist() == [True] * len(expected) + [False] * (30 - len(expected))
            assert not index[b, len(expected) :].any()


class Merge(nn.Module):
    def forward(self, a, b, c):
        return merge_stages([a, b, c], 1)


def test_stages_of_refine_mask_merge_the_same_way(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randn(3, 1, 5, 5, generator=generator)
    stages = [coarse, *(torch.randn(3, 1, s, s, generator=generator) for s in (10, 20))]
    run = to_onnx(Merge(), tuple(stages), {"a": {0: B}, "b": {0: B}, "c": {0: B}}, tmp_path / "m")
    (found,) = run(*stages)
    expected = merge_stages(stages, 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not torch.equal(expected, stages[2]), "some pixels come from the coarser stage"


class Pool(nn.Module):
    def __init__(self, ratio: int, aligned: bool) -> None:
        super().__init__()
        self.ratio, self.aligned = ratio, aligned

    def forward(self, fine, coarse, boxes, image, levels):
        how = {"output_size": 3, "sampling_ratio": self.ratio, "aligned": self.aligned}
        many = roi_align([fine, coarse], boxes, image, strides=(4, 8), levels=levels, **how)
        return many, roi_align(coarse, boxes, image, strides=(8,), levels=levels - 1, **how)


@pytest.mark.parametrize(("ratio", "aligned"), [(2, True), (0, True), (2, False)])
def test_roi_align_pools_as_torchvision(ratio: int, aligned: bool, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    fine, coarse = (
        torch.rand(2, 5, 16, 24, generator=generator),
        torch.rand(2, 5, 8, 12, generator=generator),
    )

    def make(count: int):
        corner = torch.rand(count, 2, generator=generator) * 60 - 5
        side = torch.rand(count, 2, generator=generator) * 50
        image = torch.randint(0, 2, (count,), generator=generator)
        return torch.cat([corner, corner + side], 1), image

    boxes, image = make(9)
    levels = torch.randint(0, 2, (9,), generator=generator)
    dims = {"fine": {}, "coarse": {}, "boxes": {0: N}, "image": {0: N}, "levels": {0: N}}
    run = to_onnx(
        Pool(ratio, aligned), (fine, coarse, boxes, image, levels), dims, tmp_path / "a.onnx"
    )
    # All on one level, then on both, then some on none, which gives zeros.
    for levels in (torch.zeros(7), torch.tensor([0, 1, 0, 1, 1]), torch.tensor([1, -1, 0, 2])):
        levels = levels.long()
        boxes, image = make(len(levels))
        rois = torch.cat([image[:, None].float(), boxes], 1)
        by_level = [
            torchvision.ops.roi_align(m, rois, 3, 1 / s, ratio, aligned)
            for m, s in ((fine, 4), (coarse, 8))
        ]
        none = torch.zeros_like(by_level[0])
        pick = torch.arange(len(levels))
        expected = torch.stack([*by_level, none])[torch.where(levels < 0, 2, levels), pick]
        alone = torch.where((levels == 1)[:, None, None, None], by_level[1], 0)
        found, single = run(fine, coarse, boxes, image, levels)
        np.testing.assert_allclose(found, expected, atol=2e-6)
        np.testing.assert_allclose(single, alone, atol=2e-6)
