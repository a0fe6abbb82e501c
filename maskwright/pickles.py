"""Read pickles of anyone without calling anything in them: what they would build becomes records.

A pickle is a program whose instructions name functions and call them. Here no instruction can: a
name becomes a `Global`, a call a `Thing` that notes what was called with what, dictionaries are
things too, since their keys could be anything. Only lists, tuples, numbers, text and bytes are made
as they are. What torch and NumPy say of tensors and arrays in this way is read in `torch_file`.

Classes that training libraries are known to keep beside weights stay such records, never looked
at, and so do those of a network that was saved whole. A file that names any other class or function
is refused by that name; one such as `os.system` at once.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar

_Pure: Any = pickle._Unpickler  # in Python: each instruction is a method that can be replaced


# Modules of Python's library whose names stand for data; of its builtins, those that do.
_DATA = {
    *("argparse", "array", "calendar", "collections", "copy_reg", "copyreg", "dataclasses"),
    *("datetime", "decimal", "enum", "fractions", "functools", "ipaddress", "itertools"),
    *("logging", "math", "numbers", "operator", "pathlib", "random", "re", "statistics", "string"),
    *("time", "types", "typing", "uuid", "weakref", "zoneinfo", "_codecs", "_collections"),
    *("__main__", "abc", "inspect", "threading", "_thread", "contextlib", "json", "configparser"),
    *("queue", "struct", "hashlib", "textwrap"),
}
_DEEDS = {"__import__", "breakpoint", "compile", "delattr", "eval", "exec", "execfile", "file"}
_DEEDS |= {"globals", "input", "locals", "open", "raw_input", "reload", "vars", "apply"}


# What arrays, tensors, numbers and plain containers are made by, in any version of their libraries.
PLAIN = re.compile(
    r"(builtins|__builtin__)\.(dict|list|tuple|set|frozenset|int|long|float|complex|bool|str|unicode"
    r"|bytes|bytearray|slice|x?range|object)|(copyreg|copy_reg)\._reconstructor|_codecs\.encode"
    r"|_?collections\.(OrderedDict|defaultdict|deque|Counter)|(array\.)?_?array(_reconstructor|\.array)"
    r"|pathlib(\._local)?\.\w*Path|datetime\.\w+|(_py)?_?decimal\.Decimal|fractions\.Fraction"
    r"|numpy\.(core|_core)\.(multiarray\.(_reconstruct|scalar)|numeric\._frombuffer)"
    r"|numpy\.(ndarray|dtype|bool_?|\w+_|u?int\w*|float\d*|complex\d*|longdouble|dtypes\.\w+)"
    r"|torch\.(\w*Storage|Size|device|Tensor|layout|strided|dtype|bool|half|short|int|long|double"
    r"|u?int\d+|q?u?int\d+x?\d*|b?float\d\w*|complex\d+|\w+_format|channels_last\w*|per_\w+)"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_\w+|torch\.storage\.\w+"
    r"|torch\.serialization\._get_(layout|dtype)|torch\.nn\.parameter\.\w+"
)
# What training programs keep beside weights: settings, histories, optimisers, random states.
BESIDE = re.compile(
    r"argparse\.Namespace|types\.SimpleNamespace|functools\.partial|uuid\.UUID"
    r"|(mmengine\.(config|logging)|mmcv\.utils\.config|addict|omegaconf|ml_collections)\..+"
    r"|(fvcore\.common|yacs|detectron2)\.config\.(config\.)?_?CfgNode|easydict\.EasyDict"
    r"|numpy\.random\..+|torch\.(optim|amp|cuda\.amp)\..+|torch\._C\.Generator|torch\.Generator"
    r"|(pytorch_lightning|lightning|lightning_fabric)\..+"
)
# Parts of a network that was saved whole.
_PARTS = re.compile(r"torch\.(nn\..+|_C\._nn\..+|_VF\..+|relu|sigmoid|tanh|flatten)|__torch__\..+")


def is_deed(module: str, name: str) -> bool:
    """Whether a name is one of Python's own library that no data needs.

    Examples:
        >>> is_deed("posix", "system"), is_deed("collections", "OrderedDict")
        (True, False)
    """
    root = module.partition(".")[0]
    if root in ("builtins", "__builtin__"):
        return name.partition(".")[0] in _DEEDS
    if name in ("BytesIO", "StringIO"):
        return False
    own = root in sys.stdlib_module_names or root in (
        "posix",
        "nt",
        "commands",
        "popen2",
        "urllib2",
    )
    return own and root not in _DATA


@dataclass(frozen=True)
class Global:
    """The name of a class or function in a pickle."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Thing:
    """An object of a pickle that is not made: a dictionary, or whatever a call would return.

    Attributes:
        kind: what was called; None for a plain dictionary.
        args: with what.
        items: what it was given as a dictionary, by text, of which bytes are taken for UTF-8 (the
            text of Python 2, written again by Python 3); other keys are left out.
        elements: what it was given as a set, or as a list of another class.
        state: what it was given as its attributes; None: nothing.
    """

    kind: Any = None
    args: tuple[Any, ...] = ()
    items: dict[str, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)
    state: Any = None


# Functions of whose calls something is read: name to what makes a record of the arguments, or
# raises TypeError or ValueError where these are not those of the function.
Makers = dict[tuple[str, str], Callable[..., Any]]


class InertUnpickler(_Pure):
    """An unpickler that calls nothing.

    Args:
        file: where the pickle begins.
        makers: see `Makers`; what they get may be anything.
        persistent: reads the mark of an object that is stored elsewhere in the file.
    """

    def __init__(
        self, file: BinaryIO, makers: Makers, persistent: Callable[[Any], Any] | None = None
    ) -> None:
        # Text of Python 2 may be bytes; they come back with the same error handler.
        super().__init__(file, encoding="utf-8", errors="surrogateescape")
        self._makers = makers
        self._persistent = persistent
        self._names: set[Global] = set()
        self._networks: set[str] = set()  # packages of the classes of networks

    def unread(self) -> set[str]:
        """Return the names of what lies beside the weights and is not read.

        Raises:
            pickle.UnpicklingError: if one is not known to lie there.
        """
        found = {str(name) for name in self._names if not PLAIN.fullmatch(str(name))}
        for name in sorted(found):
            known = BESIDE.fullmatch(name) or _PARTS.fullmatch(name)
            if not known and name.partition(".")[0] not in self._networks:
                raise pickle.UnpicklingError(
                    f"refused, because it names {name}, which is no array, tensor, plain container "
                    "or anything that is known to lie beside weights: save the weights alone, with "
                    "`torch.save(model.state_dict(), path)`"
                )
        return found

    def find_class(self, module: str, name: str) -> Global:
        """Return a name; nothing is looked up.

        Raises:
            pickle.UnpicklingError: if it is one that no data needs.
        """
        found = Global(str(module), str(name))
        if is_deed(found.module, found.name):
            raise pickle.UnpicklingError(
                f"refused, because it names {found}, which weights have no need of: whoever made "
                "it wants that to be called"
            )
        if found.name != "getattr":  # told by what is asked for, see `_make`
            self._names.add(found)
        return found

    def persistent_load(self, pid: Any) -> Any:
        """Return what stands for an object that is stored elsewhere."""
        return Thing(args=(pid,)) if self._persistent is None else self._persistent(pid)

    def _make(self, kind: Any, args: Any) -> Any:
        args = tuple(args) if isinstance(args, list | tuple) else ()
        if isinstance(kind, Global) and kind.name == "getattr":
            if len(args) == 2 and isinstance(args[0], Global) and isinstance(args[1], str):
                return self.find_class(args[0].module, f"{args[0].name}.{args[1]}")
            raise pickle.UnpicklingError(f"refused, because it calls {kind} of more than a name")
        if isinstance(kind, Global):
            maker = self._makers.get((kind.module, kind.name))
            if maker is not None:
                with contextlib.suppress(TypeError, ValueError):
                    return maker(*args)
        return Thing(kind, args)

    def _reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], args)

    def _newobj_ex(self) -> None:
        self.stack.pop()  # named arguments
        self._reduce()

    def _inst(self) -> None:
        module, name = (self.readline()[:-1].decode("utf-8", "replace") for _ in range(2))
        args = self.pop_mark()  # and with it another `append`
        self.append(self._make(self.find_class(module, name), args))

    def _obj(self) -> None:
        kind, *args = self.pop_mark()
        self.append(self._make(kind, args))

    def _build(self) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Thing):
            target.state = state
            inner = state.items if isinstance(state, Thing) else {}
            if isinstance(target.kind, Global) and {"_parameters", "_modules"} <= inner.keys():
                self._networks.add(target.kind.module.partition(".")[0])

    def _empty(self) -> None:
        self.append(Thing())

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append(Thing())
        self._put(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._put([key, value])

    def _setitems(self) -> None:
        self._put(self.pop_mark())

    def _put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Thing):
            for key, value in zip(items[::2], items[1::2], strict=False):
                name = key.decode(errors="replace") if type(key) is bytes else key
                if type(name) is str:
                    target.items[name] = value

    def _append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def _appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif isinstance(target, Thing):
            target.elements.extend(values)

    def _frozenset(self) -> None:
        elements = self.pop_mark()
        self.append(Thing(elements=elements))

    def _bytearray8(self) -> None:
        # As bytes: the base class takes the memory before it looks whether the file has so much.
        self.append(self.read(int.from_bytes(self.read(8), "little")))

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("it uses numbers for classes that only its writer knows")

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **_Pure.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _reduce,
        pickle.NEWOBJ_EX[0]: _newobj_ex,
        pickle.INST[0]: _inst,
        pickle.OBJ[0]: _obj,
        pickle.BUILD[0]: _build,
        pickle.EMPTY_DICT[0]: _empty,
        pickle.EMPTY_SET[0]: _empty,
        pickle.DICT[0]: _dict,
        pickle.SETITEM[0]: _setitem,
        pickle.SETITEMS[0]: _setitems,
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: _appends,
        pickle.ADDITEMS[0]: _appends,
        pickle.FROZENSET[0]: _frozenset,
        pickle.BYTEARRAY8[0]: _bytearray8,
        **dict.fromkeys((op[0] for op in (pickle.EXT1, pickle.EXT2, pickle.EXT4)), _refuse),
    }


def read_pickle(
    file: BinaryIO,
    makers: Makers,
    persistent: Callable[[Any], Any] | None = None,
    unread: set[str] | None = None,
) -> Any:
    """Return the records of the pickle that begins at the file's position.

    Args:
        file: where it begins.
        makers: see `Makers`.
        persistent: reads the mark of an object that is stored elsewhere in the file.
        unread: gets the names of classes that lie beside the weights and are not read.

    Raises:
        pickle.UnpicklingError: if there is no whole pickle, or it names what nobody keeps there.
    """
    reader = InertUnpickler(file, makers, persistent)
    try:
        found = reader.load()
        names = reader.unread()
        if unread is not None:
            unread |= names
        return found
    except pickle.UnpicklingError:
        raise
    except EOFError:
        raise pickle.UnpicklingError("damaged, it ends in the middle: copy it again") from None
    except Exception as error:  # instructions without sense end in any of a dozen kinds
        raise pickle.UnpicklingError(f"{type(error).__name__}: {error}") from None
