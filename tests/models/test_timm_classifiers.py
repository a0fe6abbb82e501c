"""Networks of timm as classifiers: the same logits, the stages by rule, input as timm states it."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from timm.data import resolve_data_config

from maskwright.errors import OptionError
from maskwright.models import build, get_entry, list_models
from maskwright.models.registry import find_entry
from maskwright.structures import Images
from maskwright.training.step import seed_dropout

# timm's name, whether it takes one size alone, number of stages, some parts of the first and last
NETWORKS: list[tuple[str, bool, int, set[str], set[str]]] = [
    ("tf_efficientnet_lite0", False, 6, {"conv_stem", "bn1"}, {"blocks.6", "conv_head", "bn2"}),
    ("mobilenetv2_100", False, 6, {"conv_stem", "bn1"}, {"blocks.6", "conv_head", "bn2"}),
    ("resnet18d", False, 5, {"conv1", "bn1"}, {"layer4"}),
    ("vit_tiny_patch16_224", True, 13, {"patch_embed"}, {"blocks.11", "norm"}),
    ("convnext_atto", False, 5, {"stem"}, {"stages.3"}),
    ("deit_tiny_distilled_patch16_224", True, 13, {"patch_embed"}, {"blocks.11", "norm"}),
]


def images(count: int, side: int) -> Images:
    size = torch.tensor([[side, side]] * count)
    return Images(torch.rand(count, 3, side, side) * 255, size, size)


@pytest.mark.parametrize(("name", "fixed", "count", "first", "last"), NETWORKS)
def test_logits_stages_and_freezing(
    name: str, fixed: bool, count: int, first: set[str], last: set[str]
) -> None:
    torch.manual_seed(0)
    options = {"imgsz": 64} if fixed else {}
    model = build(f"classify_{name}", 5, **options).eval()
    theirs = timm.create_model(name, num_classes=5, **({"img_size": 64} if fixed else {})).eval()
    theirs.load_state_dict(
        {key.removeprefix("network.body."): value for key, value in model.state_dict().items()}
    )
    batch = images(2, 64)
    with torch.no_grad():
        assert torch.equal(model(batch), theirs(model.normalise(batch)))
    stages = model.network.stages()
    assert len(stages) == count
    names = {id(module): key for key, module in model.network.body.named_modules()}
    shown = [{names.get(id(module), "") for module in stage} for stage in (stages[0], stages[-1])]
    assert first <= shown[0] and last <= shown[1]
    # Each parameter but those of the classes belongs to one stage, positions and tokens too.
    held = [id(p) for stage in stages for module in stage for p in module.parameters()]
    assert len(held) == len(set(held))
    rest = {key for key, p in model.network.body.named_parameters() if id(p) not in set(held)}
    assert {key.split(".")[0] for key in rest} <= {"classifier", "fc", "head", "head_dist"}
    model.freeze(count)
    assert {k for k, p in model.network.body.named_parameters() if p.requires_grad} == rest
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.train()
    (logits, weight), *others = model.network.all_logits(model.normalise(batch))
    assert logits.shape == (2, 5) and weight == 1 and not others
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    model.freeze(0)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("name", [network[0] for network in NETWORKS])
def test_input_is_what_timm_states(name: str) -> None:
    with torch.device("meta"):
        how = build(f"classify_{name}", 5).preprocess
    stated = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    assert how.crop == stated["input_size"][1]
    assert how.short == math.floor(how.crop / stated["crop_pct"])
    assert how.interpolation == stated["interpolation"]
    assert [255 * value for value in stated["mean"]] == pytest.approx(how.mean, abs=1e-3)
    assert [255 * value for value in stated["std"]] == pytest.approx(how.std, abs=1e-3)


def test_names_are_resolved_and_unknown_ones_answered() -> None:
    entry = get_entry("classify_resnet50d")
    assert entry.task == "classify" and entry.arguments()["backbone"] == "resnet50d"
    assert entry is get_entry("classify_resnet50d")
    assert {"classify_tf_efficientnet_lite0", "classify_mobilenetv2_100"} <= set(list_models())
    assert "classify_resnet50d" not in list_models()
    with pytest.raises(ValueError, match=r"no network called 'resnt50d'; did you mean 'resnet50d'"):
        build("classify_resnt50d", 2)
    assert find_entry("classify_resnt50d") is None
    with pytest.raises(ValueError, match="has no option 'depth'"):
        build("classify_resnet50d", 2, depth=3)


def test_a_network_of_one_size_says_so() -> None:
    with torch.device("meta"):
        model = build("classify_vit_tiny_patch16_224", 2, imgsz=96)
    assert model.buckets == ((96, 96),)
    model = build("classify_vit_tiny_patch16_224", 2, imgsz=32).eval()
    with pytest.raises(OptionError, match="32 x 32 pixels alone, got 64 x 64: set imgsz"):
        model(images(1, 64))


def test_two_heads_are_both_rows_of_classes() -> None:
    with torch.device("meta"):
        network = build("classify_deit_tiny_distilled_patch16_224", 7).network
    assert set(network.class_rows) == {"body.head", "body.head_dist"}
    assert all(network.get_submodule(name).out_features == 7 for name in network.class_rows)


def test_dropout_is_timms_and_repeats_itself() -> None:
    """A resumed training drops the same values of the same images."""
    torch.manual_seed(0)
    model = build("classify_mobilenetv2_100", 7, dropout=0.3)
    assert model.network.body.drop_rate == 0.3
    keys, maps = torch.arange(4), torch.randn(4, 1280, 2, 2)
    found = []
    for shift in (0, 0, 1):
        seed_dropout(model, keys + shift)
        found.append(model.network.head(maps))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
