"""Train the nuclei model of the package, or pack a run that is there, and say how good it is.

    python scripts/make_nuclei_model.py DATA                # train by `recipes.nuclei`, then pack
    python scripts/make_nuclei_model.py DATA --run FOLDER   # pack the last weights of a run
    python scripts/make_nuclei_model.py DATA --run FILE     # or those in a file

DATA is the nuclei set (BBBC038v1, CC0) with the splits train and val. The last weights are taken,
not the best ones, so that nothing is chosen by the validation images. They are stored in half
precision, and the figures that go into the file are those of the stored weights.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

import maskwright as mw
from maskwright.recipes import nuclei
from maskwright.storage.checkpoint import load_checkpoint, resolve_checkpoint, save_checkpoint

OUT = Path(__file__).resolve().parents[1] / "maskwright" / "weights"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path, help="run folder or file; none: train a new one")
    args = parser.parse_args()
    run = args.run or mw.train(nuclei(args.data)).dir
    checkpoint = load_checkpoint(resolve_checkpoint(run, "last"))
    path = OUT / "mask_rcnn_lite0_nuclei.safetensors"
    meta = replace(
        checkpoint.meta,
        licence="CC0-1.0 (weights); backbone started from EfficientNet-Lite0, Apache-2.0",
        source="trained by maskwright (recipes.nuclei) on 382 images of BBBC038v1 (CC0)",
        metrics={},
    )
    save_checkpoint(path, meta, checkpoint.model, dtype=torch.float16)
    metrics = mw.val(path, args.data, max_det=500)
    chosen = {key: round(metrics[key], 4) for key in ("box/AP", "mask/AP", "mask/AP50")}
    save_checkpoint(path, replace(meta, metrics=chosen), checkpoint.model, dtype=torch.float16)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, {chosen}")


if __name__ == "__main__":
    main()
