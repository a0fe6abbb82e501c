"""`maskwright doctor`: what this installation is made of, what is broken, and what mends it."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .._version import __version__
from . import console
from .extras import wanted

# module, name for pip, what it is for; without these nothing works
ESSENTIAL = (
    ("torch", "torch", "tensors and networks"),
    ("torchvision", "torchvision", "kernels for NMS and RoIAlign"),
    ("numpy", "numpy", "arrays"),
    ("PIL", "Pillow", "reading and writing images"),
    ("safetensors", "safetensors", "weights files"),
    ("pycocotools", "pycocotools", "run-length codes of masks"),
    ("timm", "timm", "backbones"),
    ("lightning_fabric", "lightning-fabric", "training on devices"),
    ("cyclopts", "cyclopts", "command line"),
    ("rich", "rich", "progress bars and tables"),
    ("matplotlib", "matplotlib", "curves of a training"),
    ("yaml", "PyYAML", "options of a run"),
)
OPTIONAL = (
    ("hotcoco", "hotcoco", "fast COCO metrics; without it pycocotools does the work"),
    ("supervision", "supervision", "Result.to_supervision"),
    ("tensorboard", "tensorboard", "curves in TensorBoard"),
    ("cv2", "opencv-contrib-python-headless", "selective search and EdgeBoxes"),
    ("sklearn", "scikit-learn", "fitting the SVMs of R-CNN and SPPnet"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: what was looked at.
        state: "ok"; "note" works, but could be better; "broken" does not.
        detail: version, figure or fault.
        mend: a command or an action, "" for none.
    """

    what: str
    state: Literal["ok", "note", "broken"]
    detail: str
    mend: str = ""


def doctor() -> bool:
    """Print the state of the installation; return False if something essential is broken."""
    findings = list(examine())
    console.table(
        "maskwright doctor",
        ["what", "state", "detail"],
        [[f.what, f.state, f.detail] for f in findings],
    )
    mends = [f for f in findings if f.mend]
    if mends:
        console.note("To mend:")
        for finding in mends:
            console.note(f"  {finding.what}: {finding.mend}")
    broken = [f.what for f in findings if f.state == "broken"]
    console.note(f"Broken: {', '.join(broken)}." if broken else "Everything that is needed works.")
    return not broken


def examine() -> Iterator[Finding]:
    """Yield what is found, essential parts first; never raises."""
    yield Finding("maskwright", "ok", __version__)
    yield _check_python()
    works = {}
    for module, pip, use in ESSENTIAL:
        finding = _check_module(module, pip, use)
        works[module] = finding.state == "ok"
        yield finding
    for module, pip, use in OPTIONAL:
        yield _check_optional(module, pip, use)
    yield from _check_wanted()
    if not works["torch"]:
        return
    yield from _check_devices()
    yield _check_threads()
    yield from _check_shared_memory()
    if works["torchvision"]:
        yield _try("NMS", _test_nms)
        yield _try("RoIAlign", _test_roi_align)


def environment(device: str) -> dict[str, str]:
    """Return versions and machine, for the report of a run; nothing is imported for it.

    Args:
        device: where the run computed, such as "cuda:0".
    """
    import torch

    found = {"maskwright": __version__, "Python": _check_python().detail}
    for module, pip, _ in (*ESSENTIAL, *OPTIONAL):
        if importlib.util.find_spec(module) is not None:
            found[module] = _version(pip)
    told = {pip for _, pip, _ in (*ESSENTIAL, *OPTIONAL)}
    for one in wanted():
        if one.version is not None and one.name not in told:
            found[one.name] = one.version
    found["device"] = device
    if device.startswith("cuda"):
        found["device"] += f", {torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    found["CPU"] = torch.backends.cpu.get_cpu_capability()
    found["threads"] = _check_threads().detail
    return found


def _check_python() -> Finding:
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("Python", "ok", detail)


def _check_module(module: str, pip: str, use: str) -> Finding:
    """Import an essential module."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = importlib.import_module(module)
    except Exception as error:  # a library built for another torch fails in its own way
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            return Finding(module, "broken", f"not installed ({use})", f"pip install {pip}")
        pair = "torch torchvision" if module in ("torch", "torchvision") else pip
        return Finding(
            module,
            "broken",
            f"cannot be imported: {_short(error)}",
            f"pip install --upgrade --force-reinstall {pair}",
        )
    return Finding(module, "ok", _version(pip, getattr(loaded, "__version__", "installed")))


def _check_optional(module: str, pip: str, use: str) -> Finding:
    """Look for an optional module without importing it: some take seconds."""
    if importlib.util.find_spec(module) is None:
        return Finding(module, "note", f"not installed ({use})", f"pip install {pip}")
    return Finding(module, "ok", _version(pip))


def _check_wanted() -> Iterator[Finding]:
    """Look at what the package's metadata ask for, as far as the lists above have not said it."""
    told = {pip for _, pip, _ in (*ESSENTIAL, *OPTIONAL)}
    for one in wanted():
        if one.state == "old":
            use = f"extra {one.extra} needs" if one.extra else "needed:"
            yield Finding(
                one.name, "note", f"{one.version} is too old ({use} {one.least})", one.mend
            )
        elif one.name not in told and one.state == "missing":
            why = f"not installed (extra {one.extra})" if one.extra else "not installed (needed)"
            yield Finding(one.name, "note" if one.extra else "broken", why, one.mend)
        elif one.name not in told:
            yield Finding(one.name, "ok", str(one.version))


def _version(pip: str, otherwise: object = "installed") -> str:
    try:
        return importlib.metadata.version(pip)
    except importlib.metadata.PackageNotFoundError:  # the module is from a package of another name
        return str(otherwise)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _check_devices() -> Iterator[Finding]:
    import torch

    found = False
    if torch.cuda.is_available():
        found = True
        for i in range(torch.cuda.device_count()):
            info: Any = torch.cuda.get_device_properties(i)
            yield Finding(
                f"cuda:{i}", "ok", f"{info.name}, {info.total_memory / 2**30:.0f} GiB memory"
            )
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "CUDA",
            "note",
            f"this machine has an NVIDIA driver, but torch {torch.__version__} cannot use it",
            "install torch for your CUDA version: https://pytorch.org/get-started/locally",
        )
    if torch.backends.mps.is_available():
        found = True
        yield Finding("mps", "ok", "Apple GPU")
    capability = torch.backends.cpu.get_cpu_capability()
    yield Finding("cpu", "ok", f"{capability}" + ("" if found else " (device=auto takes this one)"))


def _check_threads() -> Finding:
    import torch

    threads = torch.get_num_threads()
    # In a container the cores that may be used are often fewer than the machine has.
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    detail = f"{threads} of {cores} usable cores"
    if threads > cores:
        return Finding("threads", "note", detail, f"export OMP_NUM_THREADS={cores}")
    return Finding("threads", "ok", detail)


def _check_shared_memory() -> Iterator[Finding]:
    """Loader processes hand batches over in /dev/shm; past Docker's 64 MiB through pipes."""
    if not os.path.isdir("/dev/shm"):  # noqa: PTH112 (absent outside Linux)
        return
    free = shutil.disk_usage("/dev/shm").free / 2**20
    if free < 512:
        yield Finding(
            "shared memory",
            "note",
            f"{free:.0f} MiB free in /dev/shm: larger batches go through pipes",
            "train with workers=0, or start the container with --shm-size=2g",
        )
    else:
        yield Finding("shared memory", "ok", f"{free:.0f} MiB free")


def _try(what: str, test: Callable[[], None]) -> Finding:
    try:
        test()
    except Exception as error:  # whatever is wrong, the report must come out
        return Finding(
            what,
            "broken",
            _short(error),
            "pip install --upgrade --force-reinstall torch torchvision",
        )
    return Finding(what, "ok", "gives the right answer")


def _test_nms() -> None:
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]])
    # torchvision built for another torch lacks its operators: the call fails.
    kept = torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.5).tolist()
    if kept != [1, 2]:
        raise ValueError(f"kept {kept}, expected [1, 2]")


def _test_roi_align() -> None:
    import torch

    from ..ops import roi_align

    # A ramp is reproduced exactly by bilinear sampling: each bin gives the x of its centre.
    ramp = torch.arange(16.0).expand(1, 1, 16, 16).contiguous()
    box = torch.tensor([[4.0, 4.0, 8.0, 8.0]])
    bins = roi_align(ramp, box, torch.zeros(1, dtype=torch.int64), strides=[1], output_size=2)
    expected = torch.tensor([4.5, 6.5]).expand(1, 1, 2, 2)
    if not torch.allclose(bins, expected, atol=1e-5):
        raise ValueError(f"gave {bins.flatten().tolist()}, expected {[4.5, 6.5, 4.5, 6.5]}")
