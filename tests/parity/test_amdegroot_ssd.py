"""ssd.pytorch's SSD300 by its names: a plain network in its order gives the same here."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import maskwright as mw
from maskwright.converters import detect_format
from maskwright.converters.ssd import from_maskwright, to_maskwright
from maskwright.models import build
from maskwright.structures import Images

ROWS = 21
CONVS = {  # by number of `vgg`: channels in and out
    0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256), 12: (256, 256),
    14: (256, 256), 17: (256, 512), 19: (512, 512), 21: (512, 512), 24: (512, 512),
    26: (512, 512), 28: (512, 512),
}  # fmt: skip
POOLS = (4, 9, 16, 23)
EXTRAS = (
    (1024, 256, 1), (256, 512, 3), (512, 128, 1), (128, 256, 3), (256, 128, 1), (128, 256, 3),
    (256, 128, 1), (128, 256, 3),
)  # fmt: skip
HEADS = ((512, 4), (1024, 6), (512, 6), (256, 6), (256, 4), (256, 4))


def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {f"vgg.{n}": (cout, cin, 3, 3) for n, (cin, cout) in CONVS.items()}
    shapes |= {"vgg.31": (1024, 512, 3, 3), "vgg.33": (1024, 1024, 1, 1)}
    shapes |= {f"extras.{n}": (cout, cin, k, k) for n, (cin, cout, k) in enumerate(EXTRAS)}
    shapes |= {f"loc.{n}": (a * 4, cin, 3, 3) for n, (cin, a) in enumerate(HEADS)}
    shapes |= {f"conf.{n}": (a * ROWS, cin, 3, 3) for n, (cin, a) in enumerate(HEADS)}
    state = {"L2Norm.weight": 20 * torch.rand(512, generator=generator)}
    for name, shape in shapes.items():
        fan = shape[1] * shape[2] * shape[3]
        state[f"{name}.weight"] = torch.randn(shape, generator=generator) * (2 / fan) ** 0.5
        state[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return state


def reference(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Scores (1, 8732, 21) and codes (1, 8732, 4) of RGB pixels less their mean."""

    def conv(x: Tensor, name: str, **options: int) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **options)

    maps = []
    for number in range(30):
        if number == 23:
            length = x.square().sum(1, keepdim=True).sqrt() + 1e-10
            maps.append(x / length * state["L2Norm.weight"][:, None, None])
        if number in POOLS:
            x = F.max_pool2d(x, 2, 2, ceil_mode=number == 16)
        elif number in CONVS:
            x = conv(x, f"vgg.{number}", padding=1).relu()
    x = F.max_pool2d(x, 3, 1, 1)
    x = conv(x, "vgg.31", padding=6, dilation=6).relu()
    x = conv(x, "vgg.33").relu()
    maps.append(x)
    for number in range(8):
        halves = number in (1, 3)
        x = conv(x, f"extras.{number}", stride=1 + halves, padding=int(halves)).relu()
        if number % 2:
            maps.append(x)
    flat = [
        [
            conv(x, f"{kind}.{n}", padding=1).permute(0, 2, 3, 1).flatten(1)
            for n, x in enumerate(maps)
        ]
        for kind in ("conf", "loc")
    ]
    scores, codes = (torch.cat(parts, 1) for parts in flat)
    return scores.view(1, -1, ROWS).softmax(2), codes.view(1, -1, 4)


def test_same_scores_and_codes_and_the_way_back(tmp_path) -> None:
    state = weights()
    assert detect_format(state) == "amdegroot"
    with torch.device("meta"):
        names = list(build("ssd300_vgg16", 1).state_dict())
    converted = to_maskwright(state, names)
    assert converted.names[0] == "aeroplane" and len(converted.names) == 20
    assert converted.options["anchor_sizes"] == (30, 60, 111, 162, 213, 264, 315)
    detector = build("ssd300_vgg16", 20, **converted.options).eval()
    detector.load_state_dict(converted.state)
    pixels = torch.rand(1, 3, 300, 300, generator=torch.Generator().manual_seed(1)) * 255
    size = torch.tensor([[300, 300]])
    with torch.no_grad():
        # Their mean as torchvision has it, within 0.001; scores of such weights would show that.
        torch.testing.assert_close(
            detector.mean.flatten(), torch.tensor([123.0, 117, 104]), rtol=0, atol=2e-3
        )
        scores, codes = reference(state, pixels - detector.mean)
        output = detector.judged(Images(pixels, size, size))
    found = torch.cat(output.logits, 1).softmax(2).roll(1, 2)  # their background is first
    torch.testing.assert_close(found, scores, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(torch.cat(output.deltas, 1), codes, rtol=1e-3, atol=1e-2)
    back, report = from_maskwright(detector.state_dict(), {}, converted.category_ids)
    assert set(back) == set(state) and not report.filled
    assert all(torch.equal(back[key], state[key]) for key in state)

    torch.save(state, tmp_path / "ssd.pth")
    told = mw.convert(tmp_path / "ssd.pth", tmp_path / "ssd.safetensors", model="ssd300_vgg16")
    assert len(told.used) == len(state)
    mw.convert(
        tmp_path / "ssd.safetensors",
        tmp_path / "again.pth",
        model="ssd300_vgg16",
        target="amdegroot",
    )
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    assert all(torch.equal(again[key], state[key]) for key in state)


def test_other_networks_are_refused() -> None:
    state = weights()
    with torch.device("meta"):
        lite = list(build("ssdlite320_mobilenet_v3_large", 1).state_dict())
        large = list(build("ssd512_vgg16", 1).state_dict())
    with pytest.raises(ValueError, match="amdegroot has SSD on VGG-16, on no other backbone"):
        to_maskwright(state, lite)
    with pytest.raises(ValueError, match=r"no tensor 'loc\.6\.weight'"):
        to_maskwright(state, large)
