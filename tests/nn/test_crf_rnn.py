"""CRF-RNN: recorded outputs and gradients of a public port, and gradients by differences."""

from __future__ import annotations

import pytest
import torch
from crf_golden import INDEX, part
from torch import Tensor

from maskwright.nn.semantic.crf_rnn import CRFRNN
from maskwright.ops import dense_crf

NAMES = {
    "spatial_weights": "spatial_ker_weights",
    "bilateral_weights": "bilateral_ker_weights",
    "compatibility": "compatibility_matrix",
}


def scene(batch: int, classes: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, height, width, generator=draw)
    return logits, torch.rand(batch, 3, height, width, generator=draw) * 255


@pytest.mark.parametrize("case", INDEX["crf_rnn"])
def test_outputs_and_gradients_are_those_of_the_port(case: str) -> None:
    golden = {key: torch.from_numpy(v) for key, v in part("crf_rnn.safetensors", case).items()}
    entry = INDEX["crf_rnn"][case]
    layer = CRFRNN(
        entry["classes"],
        alpha=entry["theta_alpha"],
        beta=entry["theta_beta"],
        gamma=entry["theta_gamma"],
        train_iterations=entry["iterations"],
    )
    layer.load_state_dict({ours: golden[theirs] for theirs, ours in NAMES.items()})
    logits = golden["logits"][None].requires_grad_()
    output = layer(logits, golden["image"][None])[0]
    torch.testing.assert_close(output, golden["output"], rtol=0, atol=1e-3)
    (output * golden["grad_output"]).sum().backward()
    pairs = [("grad_logits", logits.grad[0])]
    pairs += [(f"grad_{theirs}", getattr(layer, ours).grad) for theirs, ours in NAMES.items()]
    for name, grad in pairs:
        expected = golden[name]
        atol = 1e-3 * expected.abs().max().item()
        torch.testing.assert_close(grad, expected, rtol=0, atol=atol)


def test_gradients_by_differences() -> None:
    logits, images = scene(1, 3, 5, 6)
    layer = CRFRNN(3, alpha=4.0, beta=60.0, gamma=2.0, train_iterations=3)
    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(logits.shape, generator=draw)
    leaves = [logits.requires_grad_(), *layer.parameters()]
    (layer(logits, images) * weight).sum().backward()
    for leaf in leaves:
        way = torch.randn(leaf.shape, generator=draw)
        step = 1e-2 / way.norm()
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                leaf += sign * step * way
                ends.append((layer(logits, images) * weight).double().sum())
                leaf -= sign * step * way
        slope = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close((leaf.grad * way).sum(), slope.float(), rtol=2e-2, atol=2e-3)


def test_at_its_start_it_is_a_dense_crf() -> None:
    logits, images = scene(1, 3, 8, 9)
    layer = CRFRNN(3).eval()
    image = images[0].permute(1, 2, 0).to(torch.uint8)
    found = layer(logits, image.permute(2, 0, 1)[None].float())
    kernels = {"gaussian": (3, 3), "bilateral": (160, 3, 5)}
    ten = dense_crf(-logits[0], image, iterations=10, normalisation="after", **kernels)
    torch.testing.assert_close(found[0].softmax(0), ten, atol=1e-4, rtol=0)


def test_images_of_a_batch_do_not_meet() -> None:
    logits, images = scene(3, 2, 6, 7)
    layer = CRFRNN(2, alpha=5.0, beta=40.0)
    together = layer(logits, images)
    alone = torch.cat([layer(*(x[i : i + 1] for x in (logits, images))) for i in range(3)])
    torch.testing.assert_close(together, alone)
    assert layer(logits[:0], images[:0]).shape == (0, 2, 6, 7)


def test_iterations_types_and_compiling() -> None:
    logits, images = scene(1, 2, 6, 7)
    layer = CRFRNN(2, train_iterations=1, test_iterations=0)
    torch.testing.assert_close(layer.eval()(logits, images), logits)
    trained = layer.train()(logits, images)
    assert not torch.equal(trained, logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(layer(logits, images), trained)
    assert layer(logits.bfloat16(), images).dtype == torch.float32
    torch.testing.assert_close(torch.compile(layer, backend="eager")(logits, images), trained)


def test_shapes_that_do_not_fit_are_named() -> None:
    logits, images = scene(1, 2, 6, 7)
    layer = CRFRNN(2)
    with pytest.raises(ValueError, match=r"logits: expected \(B, 2, H, W\)"):
        layer(logits[:, :1], images)
    with pytest.raises(ValueError, match=r"logits: expected"):
        layer(logits[0], images)
    with pytest.raises(ValueError, match=r"images: expected \(1, 3, 6, 7\)"):
        layer(logits, images.transpose(2, 3))
