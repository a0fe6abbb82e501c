"""Where weights come from: names, files, run folders, the package itself, published files.

Stands above models and converters: the models never import a converter, and everything that asks
for "a model, by name or path" asks here.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..converters import CHECKS, CONVERTERS, Converted, ConvertReport, networks
from ..converters.common import OURS_ALONE, default_skeleton
from ..converters.darknet import is_weights
from ..errors import OptionError, checked_options
from ..files import replacing
from ..models.base import Model
from ..models.conventions import get_conventions
from ..models.meta import Meta
from ..models.registry import ModelEntry, build, build_blank, get_entry
from ..models.semantic.encoder import Encoder
from ..models.transfer import transfer
from ..paths import home_path, takes_paths
from ..storage.checkpoint import (
    Checkpoint,
    load_checkpoint,
    load_state,
    save_checkpoint,
)
from ..storage.published import WeightsFile, read_tensors
from ..storage.published import read_weights as read_file
from .backbone_weights import backbone_file, backbone_names, load_parts
from .classifiers import backbone_state, imagenet_weights, merged, plain_state, start_state
from .darknet import convert_in, convert_out
from .foreign import (
    convert_weights,
    converts_by_name,
    found_format,
    known_names,
    recognised,
)
from .names import SHIPPED_MODELS, architecture
from .reading import (
    LOCAL_BACKBONE,
    build_described,
    check_described,
    is_ours,
    read_model,
    read_weights,
    same_kind,
    same_model,
)
from .settings import settings_there

# How exported graphs end, which only predict.
GRAPH_SUFFIXES = (".onnx", ".xml", ".pt2")
# How the files end that `convert` writes.
SUFFIXES = {
    "maskwright": (".safetensors",),
    "torchvision": (".pth", ".pt", ".safetensors"),
    "mmdetection": (".pth", ".pt"),
    "detectron2": (".pkl", ".pth", ".pt"),
    "amdegroot": (".pth", ".pt"),
    "timm": (".pth", ".pt", ".safetensors"),
    "smp": (".pth", ".pt", ".safetensors"),
    "milesial": (".pth", ".pt"),
    "wkentaro": (".pth", ".pt"),
    "crfasrnn": (".pth", ".pt"),
    "darknet": (".weights",),
}
# What `start_model` reports where no weights were loaded.
RANDOM_START = "starting from random weights, so nothing is frozen"


@takes_paths
def load_model(
    model: str | Path,
    *,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    backbone: str | None = None,
) -> tuple[Model, Meta]:
    """Return a model and its description.

    Args:
        model: a registered name, a shipped model ("nuclei"), a checkpoint, a run folder, or a file
            of another library whose tensors tell the model, see `convert`.
        weights: for a registered name: a published name ("coco"), a checkpoint, a run folder, or
            None for random weights (with a warning).
        num_classes: for a registered name without weights; None: 80.
        backbone: for a registered name: another backbone.

    Raises:
        ValueError: if model or weights do not exist or do not fit together.
    """
    name = str(model)
    if Path(model).suffix in GRAPH_SUFFIXES:
        raise OptionError(
            f"{model} is an exported graph, which only predicts: give the checkpoint that it is "
            "from"
        )
    path = SHIPPED_MODELS[name].path if name in SHIPPED_MODELS else Path(name)
    if name in SHIPPED_MODELS or path.exists() or path.suffix or len(path.parts) > 1:
        if weights is not None or num_classes is not None or backbone is not None:
            raise OptionError(
                f"{model} is a checkpoint and says itself what it is: leave out weights, "
                "num_classes and backbone"
            )
        checkpoint = read_model(path)
        meta = checkpoint.meta
        made = build_described(meta, checkpoint.model, path)
        load_state(made, checkpoint.model, path)
        return made, meta
    entry = architecture(name)
    options: dict[str, Any] = {} if backbone is None else {"backbone": backbone}
    if weights is None:
        warnings.warn(
            f"{name} has random weights: what it predicts means nothing; give weights=, for "
            f"example one of {', '.join([*entry.weights, 'a checkpoint'])}",
            stacklevel=3,
        )
        count = 80 if num_classes is None else num_classes
        made = build(name, count, **options)
        names: list[str | None] = [f"class_{i}" for i in range(count)]
        skeleton = default_skeleton(getattr(made, "num_keypoints", 0))
        return made, Meta(name, options, names, keypoints=skeleton)
    found = read_weights(entry, weights, options)
    same_model(found.meta, entry, backbone, weights)
    if num_classes is not None and num_classes != len(found.meta.names):
        raise OptionError(
            f"the weights have {len(found.meta.names)} classes, num_classes says {num_classes}; "
            "for other classes train with weights= as the start"
        )
    made = build_described(found.meta, found.model, weights)
    load_state(made, found.model, str(weights))
    return made, found.meta


@takes_paths
def start_model(
    model: str,
    names: list[str],
    *,
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    described: Mapping[str, Any] | None = None,
) -> tuple[Model, dict[str, Any], str]:
    """Return a model for the classes `names` with the weights that training starts from.

    Args:
        model: a registered name.
        names: class names.
        weights: None: ImageNet weights of the backbone where they can be had, else random ones
            with a warning; "imagenet": the same, but an error where they can't; "imagenet:FILE":
            those of a classifier in a local file, with timm's or torchvision's names; "none":
            random; a published name, a shipped model, a checkpoint or a run folder: every tensor
            that fits, class rows by class name.
        options: builder options.
        described: what the data says beside the names: its "keypoints", for a model that finds
            some.

    Returns:
        The model, the builder options that were used (weights bring their conventions along), and
        one line that reports what was loaded.

    Raises:
        ValueError: if the weights do not exist or almost nothing of them fits.
    """
    entry = architecture(model)
    options = dict(options or {})
    local = str(weights).startswith(LOCAL_BACKBONE)
    path = Path(home_path(str(weights).removeprefix(LOCAL_BACKBONE)))
    if entry.kind == "detector" and path.is_file() and not is_ours(path) and not is_weights(path):
        body = backbone_file(path)
        if body is not None and not (local and body[1] is None):
            return _start_body(entry, names, options, path, *body)
    if entry.task == "classify":
        if local:
            weights = path
        elif weights in (None, "imagenet"):
            return _start_classifier(entry, names, options, asked=weights is not None)
    elif local:
        made = build(model, len(names), **options)
        state = _backbone_tensors(path, backbone_names(made))
        return made, options, f"backbone starts from {load_parts(made, state, str(path))}"
    elif weights != "none" and weights in (None, "imagenet"):
        made = build(model, len(names), **options)
        if weights is None and isinstance(made.backbone, Encoder):
            return made, options, RANDOM_START  # as it is always trained
        try:
            return made, options, f"backbone starts from {load_parts(made)}"
        except ValueError as error:
            if weights == "imagenet":
                raise
            warnings.warn(
                f"the backbone starts from random weights, which needs far more data: {error}",
                stacklevel=2,
            )
            weights = "none"
    if weights == "none":
        # Batch norm with the statistics of nothing cannot stay as it is.
        if options.get("norm") is None and "norm" in entry.arguments():
            options["norm"] = "bn"
        return build(model, len(names), **options), options, RANDOM_START
    assert weights is not None
    found = read_weights(entry, weights, dict(options))
    same_kind(found.meta, entry, weights)
    if found.meta.model == model:
        if not found.meta.extra.get("body"):
            check_described(found.meta, found.model, weights)
        # Sizes, anchors and conventions that the weights were trained with.
        options = merged(found.meta.args, options)
    made = build(model, len(names), **options)
    report = transfer(
        made,
        names,
        start_state(found, options),
        found.meta.names,
        skeleton=(described or {}).get("keypoints"),
        source_skeleton=found.meta.keypoints,
    )
    return made, options, f"{weights}: {report}"


def _start_body(
    entry: ModelEntry,
    names: list[str],
    options: dict[str, Any],
    path: Path,
    state: dict[str, Tensor],
    rules: str | None,
) -> tuple[Model, dict[str, Any], str]:
    """Return a model with the ResNet of a file, by the rules that it needs; None: by any.

    Raises:
        OptionError: if the model has no such rules, or others are asked for.
    """
    if rules is not None:
        asked = options.get("conventions")
        caffe = get_conventions(rules).caffe
        known = "conventions" in entry.arguments()
        if not known or (asked is not None and get_conventions(str(asked)).caffe != caffe):
            order = "blue first and a stride in the 1x1" if caffe else "red first"
            raise OptionError(
                f"weights={path}: this backbone needs images with {order}: "
                + (f"leave out conventions={asked}" if known else f"{entry.name} has no such rules")
            )
        options = {**options, "conventions": asked or rules}
    made = build(entry.name, len(names), **options)
    return made, options, f"backbone starts from {load_parts(made, state, str(path))}"


def _start_classifier(
    entry: ModelEntry, names: list[str], options: dict[str, Any], *, asked: bool
) -> tuple[Any, dict[str, Any], str]:
    """Return a classifier with ImageNet weights, or with random ones if there are none.

    Args:
        entry: the model.
        names: class names.
        options: builder options.
        asked: somebody asked for these weights: without them it is an error.

    Raises:
        ValueError: if there are none, or they cannot be fetched.
    """
    found = None
    try:
        if "imagenet" in entry.weights:
            found = read_weights(entry, "imagenet", options)
        else:
            found = imagenet_weights(entry, options)
        if found is None and asked:
            raise ValueError(
                f"nobody publishes ImageNet weights of {entry.name}: choose weights=none"
            )
    except ValueError as error:
        if asked:
            raise
        warnings.warn(
            f"the network starts from random weights, which needs far more data: {error}",
            stacklevel=4,
        )
    if found is None:
        return build(entry.name, len(names), **options), options, RANDOM_START
    options = merged(found.meta.args, options)
    model = build(entry.name, len(names), **options)
    report = transfer(model, names, found.model, found.meta.names)
    return model, options, f"ImageNet weights ({found.meta.source}): {report}"


def _backbone_tensors(path: Path, known: Callable[[str], bool]) -> dict[str, Tensor]:
    """Return the tensors of a classifier's file, of anyone's, by the names of a backbone."""
    if path.is_dir() or is_ours(path):
        return backbone_state(load_checkpoint(path), known)
    return read_tensors(path, known)


def _converted_back(
    checkpoint: Checkpoint, entry: ModelEntry, target: str
) -> tuple[dict[str, Tensor], ConvertReport]:
    """Return the tensors of a checkpoint as another library has them.

    Raises:
        ValueError: if it has no such model.
    """
    args = checkpoint.meta.args
    if converts_by_name(entry):
        networks.check_options(entry.name, args)
        state, whole = plain_state(checkpoint), entry.resolved(args)
        return networks.from_maskwright(state, model=entry.name, target=target, args=whole)
    if target not in CONVERTERS:
        raise ValueError(f"{target} has no counterpart of {entry.name}")
    if target in CHECKS:
        CHECKS[target](checkpoint.meta.model, args)
    _, from_ours = CONVERTERS[target]
    own = {key: value for key, value in checkpoint.model.items() if key != OURS_ALONE}
    tensors, report = from_ours(own, checkpoint.extras, checkpoint.meta.category_ids)
    rules = str(args.get("conventions", "maskwright"))
    if not rules.startswith(target):
        report.notes.append(
            f"made with conventions={rules}: {target} samples regions and resizes images by rules "
            "of its own, so its numbers will differ a little"
        )
    if rules != target:
        made = build(entry.name, len(checkpoint.meta.names), **args)
        if told := settings_there(made, target):
            report.notes.append(f"{target} must be told, or finds little: {', '.join(told)}")
    return tensors, report


def _name_classes(converted: Converted, names: str | tuple[str, ...], src: Path) -> None:
    """Give the classes of converted weights the names that the user has for them.

    Raises:
        OptionError: if there are not as many, or two are alike.
    """
    given = [names] if isinstance(names, str) else list(names)
    if len(given) != len(converted.names) or len(set(given)) != len(given):
        raise OptionError(
            f"names={','.join(given)}: {src} has {len(converted.names)} classes, which need as "
            f"many names, each another; got {len(given)}"
        )
    converted.names[:] = given


@checked_options
@takes_paths
def convert(
    src: str | Path,
    dst: str | Path,
    *,
    model: str | None = None,
    source: str = "auto",
    target: str = "maskwright",
    drop_unused: bool = False,
    conventions: str | None = None,
    cfg: str | Path | None = None,
    names: str | tuple[str, ...] | None = None,
) -> ConvertReport:
    """Convert a weights file between libraries.

    Args:
        src: a torch or safetensors file, or one of Darknet's, `.weights`.
        dst: the file to write; for torchvision, timm and smp `.pth` or `.safetensors`, for Darknet
            `.weights`, beside which comes a `.cfg`, for detectron2 `.pkl` or `.pth`, for others
            `.pth`.
        model: our name of the model; None: as the file says, which that of a detector does.
        source: "torchvision", "mmdetection", "detectron2", "detectron" (Caffe2's), "amdegroot"
            (ssd.pytorch), "darknet", "timm", "smp" (segmentation_models_pytorch), "milesial"
            (Pytorch-UNet), "wkentaro" (pytorch-fcn), "crfasrnn" (crfasrnn_pytorch), "maskwright" or
            "auto".
        target: "maskwright", or one of these but "detectron" that has such a model: the first six
            have detectors, torchvision and timm classifiers, torchvision and those behind timm
            segmenters.
        drop_unused: leave out classes without a name (lossy).
        conventions: rules of the source if the file cannot tell: "torchvision" or
            "torchvision_v1" (batch norm with an epsilon of 0, as in the published files of
            version 1), "mmdetection" or "mmdetection_caffe" (its `_caffe_` configurations),
            "detectron2", "detectron2_rgb" (on ResNets of torchvision) or "detectron2_legacy" (the
            older RoIAlign); of Darknet "darknet_cpu" (the default) or "darknet", its arithmetic on
            GPUs.
        cfg: the network of Darknet's weights; None: the `.cfg` of the same name beside them.
        names: what the classes are called, in the order of the file, where it does not tell, such
            as cat,dog; None: as it tells, or class_1, class_2, ...

    Raises:
        ValueError: if the file cannot be read or does not fit the model.
    """
    src, dst = Path(src), Path(dst)
    formats = tuple(SUFFIXES)
    if source not in ("auto", "detectron", *formats):
        raise OptionError(f"source is one of auto, detectron, {', '.join(formats)}; got {source!r}")
    if target not in formats:
        raise OptionError(f"target is one of {', '.join(formats)}; got {target!r}")
    if dst.suffix in SUFFIXES["darknet"] and target == "maskwright":
        target = "darknet"  # nothing else ends so
    if dst.suffix not in SUFFIXES[target]:
        raise OptionError(
            f"dst={str(dst)!r}: a file for {target} ends in {' or '.join(SUFFIXES[target])}, which "
            "is how its readers know it"
        )
    if cfg is not None and not is_weights(src):
        raise OptionError(f"cfg={cfg}: for weights of Darknet alone, which {src} is not")
    if names is not None and (is_weights(src) or target != "maskwright"):
        raise OptionError(
            "names= is for files of other libraries that become ours; those of Darknet stand in a "
            "file of names"
        )
    if is_weights(src):
        if source not in ("auto", "darknet") or target != "maskwright":
            raise ValueError(f"{src} has the format 'darknet', which converts to maskwright alone")
        return convert_in(
            src, dst, model=model, cfg=Path(cfg) if cfg else None, conventions=conventions
        )
    ours = src.is_dir() or (src.is_file() and is_ours(src))
    file: WeightsFile | None = None
    if model is None and ours:
        model = load_checkpoint(src).meta.model
    elif model is None:
        entry, file = recognised(src)
        model = entry.name
    entry = get_entry(model)
    try:
        own_names = list(build_blank(entry.name, 1).state_dict())
        if not ours and file is None:
            file = read_file(src, known_names(entry, own_names))
        found = "maskwright" if file is None else found_format(file.tensors, entry, own_names)
    except ValueError as error:
        message = str(error)
        raise ValueError(message if message.startswith(str(src)) else f"{src}: {message}") from None
    if source not in ("auto", found):
        raise ValueError(f"{src} has the format {found!r}, not {source!r}")
    source = found
    bare = source == "maskwright" and not ours  # our names, but no description
    if source == target and not bare:
        raise ValueError(f"{src} already has the format {target!r}")
    if bare and target != "maskwright":
        raise ValueError(
            f"{src} has our names, but does not say which model they belong to: convert it to a "
            ".safetensors file of ours first"
        )
    if target == "maskwright":
        converted = convert_weights(
            src, entry, {}, drop_unused=drop_unused, conventions=conventions, file=file
        )
        if names is not None:
            _name_classes(converted, names, src)
        detector = build_blank(entry.name, len(converted.names), **converted.options)
        own = detector.state_dict()
        for key, tensor in converted.state.items():
            if own[key].shape != tensor.shape:
                raise ValueError(
                    f"{src}: {key} is {tuple(tensor.shape)}, {model} needs "
                    f"{tuple(own[key].shape)}; is it another model?"
                )
            if own[key].is_floating_point() != tensor.is_floating_point():
                raise ValueError(
                    f"{src}: {key} holds {tensor.dtype}, {model} needs {own[key].dtype}"
                )
        meta = Meta(
            model,
            converted.options,
            converted.names,
            converted.category_ids,
            converted.skeleton,
            source=f"converted from {src.name} ({source})",
        )
        save_checkpoint(dst, meta, converted.state, extras=converted.extras)
        converted.report.model = model
        return converted.report
    checkpoint = load_checkpoint(src)
    if checkpoint.meta.model != model:
        raise ValueError(f"{src} is a {checkpoint.meta.model}, not a {model}")
    if target == "darknet":
        return convert_out(checkpoint, entry, dst)
    tensors, report = _converted_back(checkpoint, entry, target)
    with replacing(dst) as temporary:
        if dst.suffix == ".safetensors":
            from safetensors.torch import save_file

            save_file(tensors, temporary)
        else:
            wrapped: dict[str, Any] = dict(tensors)
            if target == "mmdetection":
                names = tuple(name or f"class {i}" for i, name in enumerate(checkpoint.meta.names))
                wrapped = {"meta": {"CLASSES": names}, "state_dict": tensors}
            with temporary.open("wb") as out:
                if dst.suffix == ".pkl":  # as detectron2's model zoo has them
                    arrays = {key: value.numpy() for key, value in tensors.items()}
                    pickle.dump({"model": arrays, "__author__": "maskwright"}, out)
                else:
                    torch.save(wrapped, out)
    return report
