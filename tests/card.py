"""A card that is not there: tensors that say `cuda:0`, compute on the CPU, and tell what waits.

Inside `Card()` a tensor that was moved to "cuda" is a `OnCard`. What a real card refuses is refused
(operands on two devices, a generator of another one); what makes the host wait for it is counted,
with the line that asked; the numbers are those of the CPU. Autocast is that of the CPU, too.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._library.custom_ops import OPDEFS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
ELSEWHERE = torch.device("meta")  # what torch is told in place of a card that it would look for
COMPOSITE = "CompositeImplicitAutograd"
aten = torch.ops.aten

# Their results have a size that only the card knows, or go to the host.
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_consecutive.default,
    aten.unique_dim.default,
    aten.bincount.default,
    aten.equal.default,
    aten.is_nonzero.default,
}
# They take no scalar of the host among tensors of the card, as arithmetic does.
STRICT = {
    aten.cat.default,
    aten.stack.default,
    aten.gather.default,
    aten.scatter.src,
    aten.scatter_add.default,
    aten.index_select.default,
    aten.index_copy.default,
    aten.index_add.default,
    aten.searchsorted.Tensor,
    aten.bucketize.Tensor,
    aten.bmm.default,
    aten.mm.default,
    aten.convolution.default,
    aten.grid_sampler_2d.default,
}
COPIES = {aten._to_copy.default, aten.copy_.default, aten.copy.default, aten.lift_fresh.default}
INDEXED = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
    aten._unsafe_index.Tensor,
}

GB = 2**30
CARD_SAYS = {
    "synchronize": None,
    "mem_get_info": (80 * GB, 80 * GB),
    "memory_reserved": 0,
    "memory_allocated": 0,
}


class OnCard(Tensor):
    """A tensor of the card; `value` is what it holds, in the same memory."""

    value: Tensor
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, value: Tensor) -> OnCard:
        made: OnCard = Tensor._make_subclass(cls, value)
        made.value = value.detach()
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor of the card outside of `Card()`")

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        made: Tensor = OnCard(self.value.clone())
        if isinstance(self, nn.Parameter):
            made = nn.Parameter(made, self.requires_grad)
        return memo.setdefault(id(self), made)

    def get_device(self) -> int:
        return 0

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    __array__ = numpy  # type: ignore[assignment]


class Card:
    """Makes torch believe in a card, and counts what the host waits for.

    Attributes:
        waits: how often, by operator and line of the package.
        copies: of them those from the host's memory to the card's.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()
        self._names = _Names(self)
        self._operators = _Operators(self)
        self._stack = ExitStack()

    def __enter__(self) -> Card:
        enter = self._stack.enter_context
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        self._stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        lifts = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, lifts)
        real = torch.autocast.__init__

        def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
            real(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

        enter(mock.patch.object(torch.autocast, "__init__", init))
        for name, value in CARD_SAYS.items():
            enter(mock.patch.object(torch.cuda, name, lambda *_, value=value: value))
        enter(torch.autograd.set_multithreading_enabled(False))
        enter(self._names)
        enter(self._operators)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def counting(self) -> Iterator[Card]:
        """Count from here on alone."""
        self.waits.clear()
        self.copies.clear()
        yield self

    def report(self) -> str:
        """Return what was waited for, a line each."""
        return "\n".join(f"{count:4d} {what}" for what, count in self.waits.most_common())

    def wait(self, what: str, *, copy: bool = False) -> None:
        """Count one wait."""
        lines = traceback.extract_stack()
        own = [line for line in lines if "/maskwright/" in line.filename.replace("\\", "/")]
        at = own[-1] if own else lines[-3]
        place = f"{at.filename.rpartition('maskwright/')[2]}:{at.lineno}"
        self.waits[f"{what} {place}"] += 1
        if copy:
            self.copies[f"{what} {place}"] += 1


class _Names(TorchFunctionMode):
    """Lets no call of torch hear of "cuda", which it would look for."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        if func is Tensor.tolist and isinstance(args[0], OnCard):
            self.card.wait("tolist")
            return args[0].value.tolist()
        args, kwargs = _each(_renamed, (tuple(args), kwargs))
        if func in (torch.tensor, torch.as_tensor, torch.scalar_tensor, Tensor.new_tensor):
            return self._copied(func, args, kwargs)
        operators = self.card._operators
        before = operators.inside, operators.home
        operators.inside = _has_card((args, kwargs))
        operators.home = func is Tensor.cpu or any(map(_names_host, _leaves((args[1:], kwargs))))
        try:
            if operators.home and func in (Tensor.cpu, Tensor.to) and operators.inside:
                args = (aten._to_copy(args[0], device=CPU), *args[1:])
            return func(*args, **kwargs)
        finally:
            operators.inside, operators.home = before

    def _copied(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Return a tensor of numbers of the host: a copy that a card waits for."""
        there = func is Tensor.new_tensor and isinstance(args[0], OnCard)
        device = kwargs.pop("device", None)
        there = there if device is None else device == ELSEWHERE
        if func is Tensor.new_tensor:
            kwargs.setdefault("dtype", args[0].dtype)
            args, func = args[1:], torch.tensor
        made = func(*args, **kwargs)
        if not there or isinstance(made, OnCard):
            return made
        self.card.wait("numbers from the host", copy=True)
        return OnCard(made)


def _renamed(part: Any) -> Any:
    if isinstance(part, torch.device) and part.type == "cuda":
        return ELSEWHERE
    if isinstance(part, str) and part.partition(":")[0] == "cuda":
        return ELSEWHERE
    return part


def _names_host(part: Any) -> bool:
    """Whether an argument is the CPU, which torch's own operators pass on as they find it."""
    return (
        part == "cpu" if isinstance(part, str) else part == CPU and isinstance(part, torch.device)
    )


def _leaves(part: Any) -> Iterator[Any]:
    if isinstance(part, tuple | list):
        for one in part:
            yield from _leaves(one)
    elif isinstance(part, dict):
        yield from _leaves(list(part.values()))
    else:
        yield part


def _each(change: Any, part: Any) -> Any:
    """Return arguments of a call, each changed; quicker than torch's trees."""
    if type(part) in (tuple, list):
        return type(part)([_each(change, one) for one in part])
    if type(part) is dict:
        return {key: _each(change, one) for key, one in part.items()}
    return change(part)


def _has_card(tree: Any) -> bool:
    return any(isinstance(leaf, OnCard) for leaf in _leaves(tree))


class _Operators(TorchDispatchMode):
    """Runs operators of the card on the CPU, after a look at where their operands are."""

    def __init__(self, card: Card) -> None:
        super().__init__()
        self.card = card
        self.inside = False  # in a call that was given a tensor of the card
        self.home = False  # in one that names the CPU

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # dynamo is not there, and asking takes as long as the operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE):
            with self:  # in inference mode some come as a whole
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        tensors = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        cards = [tensor for tensor in tensors if isinstance(tensor, OnCard)]
        to_card = bool(cards) or (self.inside and not tensors)
        wanted = kwargs.get("device")
        if wanted is not None:
            if wanted.type == ELSEWHERE.type:
                to_card = True
            elif func in COPIES and self.home:
                to_card = False
            kwargs["device"] = CPU
        if to_card or cards:
            self._look(func, args, kwargs, tensors, cards, to_card)
        name = func._schema.name
        if name in OPDEFS and cards:  # operators of our own: what is inside counts
            with self.card._names, self:
                return OPDEFS[name]._backend_fns[None](*args, **kwargs)
        plain, options = _each(_value, (tuple(args), kwargs))
        made = func(*plain, **options)
        if not to_card:
            return made
        given = {id(tensor.value): tensor for tensor in cards}

        def back(part: Any) -> Any:
            if not isinstance(part, Tensor):
                return part
            same = given.get(id(part))  # what was changed in place
            return OnCard(part) if same is None else same

        return _each(back, made)

    def _look(
        self,
        func: Any,
        args: Any,
        kwargs: dict[str, Any],
        tensors: list[Tensor],
        cards: list[OnCard],
        to_card: bool,
    ) -> None:
        card = self.card
        generator = kwargs.get("generator")
        if generator is not None and to_card:
            raise RuntimeError(f"{func}: expected a generator of cuda, got one of the CPU")
        hosts = [tensor for tensor in tensors if not isinstance(tensor, OnCard)]
        if func in COPIES:
            source = args[1] if func is aten.copy_.default else args[0]
            late = kwargs.get("non_blocking") or (
                func is aten.copy_.default and args[2:] == (True,)
            )
            if isinstance(source, OnCard) and (not to_card or hosts):
                card.wait(f"{func} to the host")
            elif not isinstance(source, OnCard) and not late and to_card:
                card.wait(f"{func} from the host", copy=True)
            return
        if func in INDEXED:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                card.wait(f"{func} by a mask")
            if any(not isinstance(index, OnCard) for index in indices):
                card.wait(f"{func} by positions of the host", copy=True)
            hosts = [tensor for tensor in hosts if all(tensor is not index for index in indices)]
        if func in WAITS or (
            func is aten.repeat_interleave.Tensor and not kwargs.get("output_size")
        ):
            card.wait(str(func))
        strict = func in STRICT or not cards
        wrong = [tensor for tensor in hosts if cards and (strict or tensor.dim())]
        if wrong:
            shapes = ", ".join(str(tuple(tensor.shape)) for tensor in wrong)
            raise RuntimeError(f"{func}: tensors on cuda:0 and on the CPU {shapes}")


def _value(part: Any) -> Any:
    return part.value if isinstance(part, OnCard) else part


def to_card(tree: Any) -> Any:
    """Return a structure with `to` on the card, inside `Card()`."""
    return tree.to("cuda")
