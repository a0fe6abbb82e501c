"""Operators of our own, one node each to compilers and exporters, and torchvision's kernels.

Both are brought in such that a photo is predicted without torch's compiler: to import it takes
longer than all the rest of a start, and torch does so at the first call of any operator that is
written in Python, as torchvision does when it is imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

_PLAIN = (Tensor, Parameter)


class Operator:
    """`torch.library.custom_op`, with a short way to the function where nobody watches the call.

    Those who do are compilers, exporters and tracers, tensors of other kinds (such as torch's
    fakes) and the gradient.

    Args:
        name: "library::operator".
        function: of tensors, numbers and sequences of them, with types that torch can read; it
            changes none of its arguments.
    """

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self.function = function
        self.node = torch.library.custom_op(name, function, mutates_args=())

    def __call__(self, *arguments: Any) -> Any:
        """Run the function, or the node that stands for it; `arguments` by position."""
        if (
            torch.compiler.is_compiling()
            or torch._C._get_tracing_state() is not None
            or _is_watched(arguments)
        ):
            return self.node(*arguments)
        return self.function(*arguments)

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """See `torch.library.register_fake`."""
        made: Callable[..., Any] = self.node.register_fake(function)
        return made

    def register_autograd(
        self, backward: Callable[..., Any], *, setup_context: Callable[..., Any]
    ) -> None:
        """See `torch.library.register_autograd`."""
        self.node.register_autograd(backward, setup_context=setup_context)


def operator(name: str) -> Callable[[Callable[..., Any]], Operator]:
    """Make an operator of the function below."""
    return lambda function: Operator(name, function)


def _is_watched(arguments: tuple[Any, ...]) -> bool:
    gradient = torch.is_grad_enabled()
    for argument in arguments:
        for value in argument if isinstance(argument, list | tuple) else (argument,):
            if isinstance(value, Tensor) and (
                type(value) not in _PLAIN or value.is_meta or (gradient and value.requires_grad)
            ):
                return True
    return False


@cache
def kernels() -> Any:
    """Return torchvision's compiled operators, `torch.ops.torchvision`, without its Python part.

    Raises:
        ImportError: if torchvision is not there, or does not fit torch.
    """
    if "torchvision" not in sys.modules:
        found = find_spec("torchvision")
        folder = Path(found.origin).parent if found is not None and found.origin else Path()
        for library in sorted(folder.glob("_C*.so")) + sorted(folder.glob("_C*.pyd")):
            try:
                torch.ops.load_library(library)
            except OSError:  # its own import tells what is wrong
                continue
    if not hasattr(torch.ops.torchvision, "nms"):
        import torchvision  # noqa: F401  (registers the operators)
    return torch.ops.torchvision
