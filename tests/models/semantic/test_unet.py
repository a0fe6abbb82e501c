"""U-Nets and semantic FPN: sizes of all kinds, any backbone, what they start from.

What they compute is compared with plain networks in `tests/parity/test_segmenter_files.py`.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from maskwright import hub
from maskwright.errors import OptionError
from maskwright.hub.loading import RANDOM_START, start_model
from maskwright.models import build, get_entry, list_models
from maskwright.storage.published import read_tensors

SMALL = {"widths": (16, 12, 8, 8, 4)}
WEIGHTS = Path(hub.__file__).parents[1] / "weights"


@pytest.mark.parametrize(
    ("name", "classes", "options", "count"),
    [
        ("unet", 4, {}, 31_037_828),
        ("unet", 4, {"bilinear": True}, 17_263_172),
        ("unet_resnet34", 21, {}, 24_439_269),
        ("semantic_fpn_resnet34", 21, {}, 23_157_973),
    ],
)
def test_number_of_parameters(
    name: str, classes: int, options: dict[str, bool], count: int
) -> None:
    with torch.device("meta"):
        model = build(name, classes, **options)
    assert sum(p.numel() for p in model.parameters()) == count


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("unet", {"width": 4}),
        ("unet", {"width": 4, "bilinear": True}),
        ("unet_resnet18", SMALL),
        ("unet_vgg11", SMALL),  # its maps are rounded down
        ("unet_convnext_atto", SMALL),  # it has no map at stride 2
        ("semantic_fpn_resnet18", {"pyramid_width": 16, "width": 64}),
    ],
)
@pytest.mark.parametrize("sides", [(33, 50), (63, 95), (64, 32)])
def test_sides_that_do_not_divide(
    name: str, options: dict[str, object], sides: tuple[int, int]
) -> None:
    with torch.device("meta"):
        network = build(name, 3, **options).eval().network
        logits = network(torch.zeros(2, 3, *sides))
    height, width = sides
    if name.startswith("semantic_fpn"):
        height, width = -(-height // 4), -(-width // 4)
    assert logits.shape == (2, 3, height, width)


def test_any_backbone_by_name() -> None:
    assert {"unet", "unet_resnet18", "unet_lite0", "semantic_fpn_lite0"} <= set(list_models())
    assert get_entry("unet_lite0").presets == {"backbone": "tf_efficientnet_lite0"}
    assert get_entry("unet_regnety_002").presets == {"backbone": "regnety_002"}
    assert get_entry("unet_regnety_002").family == "unet"
    with pytest.raises(ValueError, match="no model is called 'unet_resnet19'"):
        get_entry("unet_resnet19")
    with pytest.raises(OptionError, match="alexnet has maps at strides 4, 8 and 16"):
        build("unet_alexnet", 2)


@pytest.mark.parametrize("name", ["unet_lite0", "semantic_fpn_mobilenetv2_100"])
def test_starts_from_the_weights_of_the_package(name: str) -> None:
    model, _, report = start_model(name, ["a", "b"])
    backbone = model.backbone.name
    assert "ImageNet weights that come with the package" in report
    own = read_tensors(WEIGHTS / f"{backbone}_imagenet.safetensors")
    found = model.backbone.body.body.state_dict()
    same = [
        key for key in found if key in own and torch.equal(found[key].float(), own[key].float())
    ]
    missing = [key for key in found if key not in same]
    assert all(key.endswith("num_batches_tracked") for key in missing) and len(same) > 100


def test_a_network_of_its_own_starts_from_random_weights(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, options, report = start_model("unet", ["a", "b"], options={"width": 4})
    assert (options, report) == ({"width": 4}, RANDOM_START)
    for weights in ("imagenet", f"imagenet:{tmp_path / 'any.pth'}"):
        with pytest.raises(ValueError, match="no classifier has the encoder of this model"):
            start_model("unet", ["a", "b"], weights=weights, options={"width": 4})


def test_its_levels_are_its_stages() -> None:
    """Which freezing counts, and of which the coarsest is explained."""
    network = build("unet", 2, width=4).network
    assert len(network.backbone.stages()) == 5
    assert network.last_stage() is network.backbone.levels[4]


def test_options_that_cannot_be() -> None:
    with pytest.raises(OptionError, match="widths are 5 numbers"):
        build("unet_resnet18", 2, widths=(16, 8))
    with pytest.raises(OptionError, match="width must be a multiple of 32"):
        build("semantic_fpn_resnet18", 2, width=100)
    with pytest.raises(OptionError, match="the backbone's norm is one of"):
        build("unet_resnet18", 2, norm="batch")
