"""Errors that are told apart, and the name that was meant in place of an unknown one."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from numbers import Integral
from typing import ParamSpec, TypeVar


class OptionError(ValueError):
    """An option is out of range or contradicts another: wrong usage, whatever the files hold."""


class NoOptionError(OptionError, TypeError):
    """An option that is not there for this model: like an argument that a function has not."""


class TrainingError(RuntimeError):
    """A training cannot go on; the message says why, and what to try."""


class WriteError(ValueError):
    """A file cannot be written; the message names it, and says why and what to do.

    Attributes:
        number: what the system calls the reason, as in the module `errno`; 0 if it does not say.
    """

    def __init__(self, message: str, number: int = 0) -> None:
        super().__init__(message)
        self.number = number


class WorkerError(RuntimeError):
    """A helping process has ended or cannot go on; the message says why, and what to try."""


# What other libraries call an option of ours, by ours.
_ELSEWHERE = {
    "conf": "confidence threshold thresh score min_score score_thresh score_thr conf_thres "
    "conf_thresh confidence_threshold confidence_thresh box_score_thresh",
    "iou": "iou_thres iou_thresh iou_threshold nms nms_thresh nms_threshold",
    "max_det": "max_dets max_detections max_objects detections_per_img top_k topk",
    "imgsz": "img_size image_size imgsize img_sz img size resolution input_size min_size max_size",
    "lr": "learning_rate learningrate lr0 base_lr initial_lr eta",
    "batch": "batch_size batchsize bs ims_per_batch",
    "epochs": "num_epochs n_epochs max_epochs epoch",
    "steps": "max_iter max_steps iterations iters num_steps",
    "workers": "num_workers n_workers worker jobs",
    "source": "input inputs image images photo files src",
    "data": "dataset data_dir data_path datasets dataroot",
    "save": "output out outdir output_dir out_dir save_dir dest",
    "project": "output out outdir output_dir out_dir save_dir",
    "path": "output out dest file",
    "model": "checkpoint ckpt model_path arch architecture net network",
    "weights": "pretrained init weight",
    "device": "gpu gpus cuda devices",
    "precision": "dtype amp fp16 bf16 half",
    "weight_decay": "wd decay l2",
    "optimizer": "optim opt solver",
    "schedule": "scheduler lr_schedule lr_scheduler",
    "patience": "early_stopping early_stop",
    "tta": "augment",
    "show": "view visualize display",
    "num_classes": "classes nc n_classes",
    "format": "fmt type",
}

P = ParamSpec("P")
R = TypeVar("R")


def synonym(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that other libraries call `name`, or None."""
    known = set(known)
    return next(
        (
            ours
            for ours, words in _ELSEWHERE.items()
            if ours in known and _plain(name) in words.split()
        ),
        None,
    )


def nearest(name: str, known: Iterable[str], alike: float = 0.5) -> str:
    """Return "; did you mean 'x'?" for the known name that was meant by `name`, or nothing.

    What other libraries call it comes first, then the names that begin like it, which are all
    named up to four, then the one with the fewest letters changed, then those that hold it.

    Args:
        name: the unknown name.
        known: the known ones.
        alike: least share of letters that two names have in common (`difflib`).
    """
    known = list(dict.fromkeys(known))
    ours = synonym(name, known)
    if ours is not None:
        return f"; did you mean {ours!r}?"
    plain = {_plain(other): other for other in reversed(known)}
    wanted = _plain(name)
    longer = [other for other in known if len(wanted) > 2 and _plain(other).startswith(wanted)]
    if longer:
        return _either(longer, "begin so")
    close = difflib.get_close_matches(wanted, list(plain), n=1, cutoff=alike)
    if close:
        return f"; did you mean {plain[close[0]]!r}?"
    holding = [other for other in known if len(wanted) > 2 and wanted in _plain(other)]
    return _either(holding, f"have {name!r} in them") if holding else ""


def _either(names: list[str], how: str) -> str:
    """Return "; did you mean 'x' or 'y'?" for up to four names, and how many more there are."""
    *most, last = [repr(other) for other in names[:4]]
    more = f" ({len(names) - 4} more {how})" if len(names) > 4 else ""
    return f"; did you mean {', '.join(most) + ' or ' if most else ''}{last}?{more}"


def first_few(names: Iterable[str], most: int) -> str:
    """Return the first of many names, with "..." for the others."""
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def require_known(names: Iterable[str], known: Iterable[str | None], what: str) -> None:
    """Make sure that a model knows all names of a data set.

    Args:
        names: of the data set.
        known: those of the model; None for one without a name.
        what: begin of the message, such as "photos has classes".

    Raises:
        ValueError: with the unknown names, the nearest of the known ones, and those.
    """
    had = [name for name in known if name is not None]
    missing = [name for name in names if name not in had]
    if missing:
        raise ValueError(
            f"{what} that the model does not know: {first_few(missing, 5)}"
            f"{nearest(missing[0], had)} (the model knows {first_few(had, 10)})"
        )


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def checked_options(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function name the option that was meant by one that it does not have.

    Raises:
        TypeError: at the call, with the nearest name.
    """
    parameters = inspect.signature(function).parameters
    names = [name for name in parameters if name != "self"]

    @wraps(function)
    def call(*args: P.args, **options: P.kwargs) -> R:
        for option in options:
            if option not in parameters:
                called = function.__qualname__.removesuffix(".__call__")
                raise TypeError(f"{called} has no option {option!r}{nearest(option, names)}")
        return function(*args, **options)

    return call


def whole_number(name: str, value: object, least: int = 1) -> int:
    """Return an option that counts something.

    Raises:
        OptionError: if it is no whole number, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise OptionError(f"{name} is a whole number, got {value!r}")
    if value < least:
        raise OptionError(f"{name} must be at least {least}, got {value}")
    return int(value)
