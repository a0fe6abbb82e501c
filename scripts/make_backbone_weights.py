"""Make the ImageNet backbones of the package from the published files, in half precision.

    python scripts/make_backbone_weights.py FOLDER

FOLDER holds `tf_efficientnet_lite0_imagenet.safetensors` (timm's names) and
`mobilenet_v2_features_imagenet.safetensors` (torchvision's names); see
`maskwright/weights/README.md` for their origin. Classifier and last convolution are dropped:
a detector has no use for them.
"""

import sys
from pathlib import Path

import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

OUT = Path(__file__).resolve().parents[1] / "maskwright" / "weights"


def features(name: str) -> dict[str, torch.Tensor]:
    """Return the empty state dict that the detector's backbone has."""
    return timm.create_model(name, features_only=True, out_indices=(1, 2, 3, 4)).state_dict()


def write(name: str, state: dict[str, torch.Tensor], licence: str) -> None:
    """Store weights of two and more dimensions in half precision, the rest as it is."""
    kept = {
        key: (value.half() if value.dim() > 1 else value).contiguous()
        for key, value in state.items()
        if "num_batches_tracked" not in key
    }
    path = OUT / f"{name}_imagenet.safetensors"
    save_file(kept, path, metadata={"licence": licence, "format": "pt"})
    print(f"{path}: {len(kept)} tensors, {path.stat().st_size / 1e6:.1f} MB")


def main(folder: Path) -> None:
    lite0 = load_file(folder / "tf_efficientnet_lite0_imagenet.safetensors")
    own = features("tf_efficientnet_lite0")
    write("tf_efficientnet_lite0", {k: lite0[k] for k in own if k in lite0}, "Apache-2.0")

    # torchvision and timm list the same layers in the same order under other names.
    source = load_file(folder / "mobilenet_v2_features_imagenet.safetensors")
    own = {k: v for k, v in features("mobilenetv2_100").items() if "num_batches" not in k}
    order = torchvision.models.mobilenet_v2().state_dict()
    values = [source[k] for k in order if k in source and "num_batches" not in k]
    state = dict(zip(own, values, strict=False))  # what is left over is the last convolution
    for key, value in own.items():
        assert state[key].shape == value.shape, key
    write("mobilenetv2_100", state, "MIT")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
