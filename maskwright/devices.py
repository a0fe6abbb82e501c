"""The device that an option such as `device=auto` names."""

from __future__ import annotations

import torch

from .errors import OptionError


def pick_device(device: str | int | torch.device = "auto") -> torch.device:
    """Return the device that `device` names; "auto" is CUDA, else Apple's MPS, else the CPU.

    Raises:
        ValueError: if there is no such device on this machine.
    """
    if isinstance(device, torch.device):
        device = str(device)
    name = str(device).strip().lower()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and torch.backends.mps.is_available():
            name = "mps"
    if name.isdigit():
        name = f"cuda:{name}"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdigit()):
        raise OptionError(f"device is auto, cpu, cuda, cuda:N or mps; got {device!r}")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= int(index or 0):
            raise ValueError(
                f"device={device!r}: this torch ({torch.__version__}) sees {count} CUDA devices; "
                "use device=cpu, or see `maskwright doctor`"
            )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={device!r}: MPS is not available here; use device=cpu")
    return torch.device(name)
