"""The command `maskwright`: its options are those of the Python functions, read from their source.

Nothing here imports torch until a command runs. `key=value` and `--key value` are the same. Exit
status: 0 done, 1 failed, 2 wrong usage, 128 and its number where a signal stopped it (130 for
Ctrl-C, 143 for SIGTERM).
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

from maskwright import commands
from maskwright._version import __version__
from maskwright.commands import UsageError, as_written, unknown
from maskwright.errors import OptionError, TrainingError, WorkerError, WriteError
from maskwright.files import EVERYWHERE, MENDS, write_fault
from maskwright.processes import Stopped, signal_name, stop_signal
from maskwright.signatures import REQUIRED, Option, describe_kind, parse_value, read_options
from maskwright.terminal import console
from maskwright.terminal.interrupt import ended_by_second_signal, stoppable
from maskwright.terminal.waiting import share_cores
from maskwright.tokens import Words, read_words

if TYPE_CHECKING:
    import cyclopts


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        run: takes the options by name and returns the exit status.
        source: module and name of the Python function whose options these are, besides those of
            `run` itself; None: there is none.
        example: a line that works, at the end of the help.
        after: more text for the help.
    """

    run: Callable[..., int]
    source: tuple[str, str] | None = None
    example: str = ""
    after: str = ""

    @property
    def summary(self) -> str:
        """One sentence for the help."""
        return inspect.getdoc(self.run).split("\n\n")[0]  # type: ignore[union-attr]

    @cached_property
    def options(self) -> dict[str, Option]:
        """What may be given, by name."""
        options: dict[str, Option] = {}
        if self.source is not None:
            read = read_options(*self.source)
            options = {o.name: o for o in read if not o.kind.startswith("Callable")}
        for option in read_options("maskwright.commands", self.run.__name__):
            known = options.get(option.name, option)
            options[option.name] = replace(option, positional=known.positional)
        return options


def training_options() -> dict[str, Option]:
    """Return the fields of the recipes of all tasks by name."""
    from maskwright.tasks import recipes
    from maskwright.tasks.recipe import marked_help, option_parameters, other_defaults

    kinds = list(recipes().values())
    meaning, others = marked_help(kinds), other_defaults(kinds)
    return {
        parameter.name: Option(
            parameter.name,
            str(parameter.annotation),
            # Without `data` a run may be resumed; the recipe knows.
            None if parameter.default == "" else parameter.default,
            meaning.get(parameter.name, ""),
            parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD,
            others.get(parameter.name, ()),
        )
        for parameter in option_parameters(*kinds)
        if parameter.name != "model_args"
    }


def without_values(options: Sequence[Option], when: str) -> dict[str, Option]:
    """Return options by name without values, so that it is known which were given.

    Args:
        options: of another function.
        when: it is called, before the meaning of each.
    """
    made = {}
    for option in options:
        default = "none" if option.default is REQUIRED else as_written(option.default)
        text = f"{when}: {option.help.rstrip('.')}; default: {default}"
        made[option.name] = replace(option, default=None, help=text, positional=False)
    return made


class TrainCommand(Command):
    """Training: its options are the fields of `TrainRecipe`, and those of the model."""

    @cached_property
    def options(self) -> dict[str, Option]:
        """The fields of the recipes; `commands.train` knows those of the model."""
        several = read_options("maskwright.distribute.training", "train")
        return training_options() | without_values(several, "on several machines")


class CompareCommand(Command):
    """Comparison: its own options, and those of a training that can hold for all models."""

    @cached_property
    def options(self) -> dict[str, Option]:
        """Its own first."""
        from maskwright.tasks.recipe import OF_ONE

        assert self.source is not None
        own = {option.name: option for option in read_options(*self.source)}
        shared = training_options()
        return own | {name: shared[name] for name in shared if name not in (*own, *OF_ONE)}


@dataclass(frozen=True)
class TwofoldCommand(Command):
    """A command that calls another function where an option asks for it, whose options come too.

    Attributes:
        also: module and name of the other function.
        when: what asks for it, before the meaning of each of its own options.
    """

    also: tuple[str, str] = ("", "")
    when: str = ""

    @cached_property
    def options(self) -> dict[str, Option]:
        """Those of the other function have no value, so that it is known which were given."""
        own, other = super().options, without_values(read_options(*self.also), self.when)
        return own | {name: option for name, option in other.items() if name not in own}


COMMANDS = {
    "train": TrainCommand(
        commands.train,
        example="train data=my_images model=mask_rcnn_lite0_fpn epochs=50",
        after="The options of the model itself, such as `anchor_sizes=8,16,32,64,128`, are given "
        "the same way, though they are not listed below: `maskwright models NAME` lists them, as "
        "in `maskwright models mask_rcnn_lite0_fpn`.",
    ),
    "val": Command(
        commands.val,
        ("maskwright.prediction.val", "val"),
        "val model=runs/train/train data=my_images",
    ),
    "compare": CompareCommand(
        commands.compare,
        ("maskwright.comparing.compare", "compare"),
        "compare data=my_images models=mask_rcnn_lite0_fpn,retinanet_lite0_fpn minutes=30",
        "The same command again goes on where it was stopped; a model that fails stands on the "
        "page with its reason, and the exit status is 1.",
    ),
    "predict": TwofoldCommand(
        commands.predict,
        ("maskwright.prediction.predict", "predict"),
        "predict model=runs/train/train source=photos/",
        "Very many images: `engine=ray`, or `engine=local`, writes tables in place of pictures.",
        also=("maskwright.distribute.run", "predict"),
        when="with engine",
    ),
    "serve": Command(
        commands.serve,
        ("maskwright.serving.serve", "serve"),
        "serve model=runs/train/train port=8000",
        "Ctrl-C or SIGTERM ends it, when the requests that are there are answered.",
    ),
    "convert": Command(
        commands.convert,
        ("maskwright.hub.loading", "convert"),
        "convert maskrcnn_resnet50_fpn.pth ours.safetensors model=mask_rcnn_resnet50_fpn",
    ),
    "export": Command(
        commands.export,
        ("maskwright.exporters.export", "export"),
        "export model=runs/train/train format=onnx",
    ),
    "models": Command(
        commands.models,
        example="models family=mask_rcnn",
        after="Without options: the families, a line each.",
    ),
    "doctor": Command(commands.doctor, example="doctor"),
    "compress": Command(
        commands.compress,
        ("maskwright.tasks.detection.compress", "compress"),
        "compress model=runs/train/train rank=1024,256 data=my_images",
    ),
    "proposals": Command(
        commands.proposals,
        ("maskwright.tasks.detection.recall", "proposals"),
        "proposals data=my_images source=selective_search",
    ),
    "data check": TwofoldCommand(
        commands.data_check,
        ("maskwright.data.checking.check", "check_data"),
        "data check data=my_images",
        "With a trained model, as in `data check data=my_images model=runs/train/train`, the "
        "labels are compared with what it finds, and those that it doubts are ranked.",
        also=("maskwright.prediction.label_check", "check_labels"),
        when="with a model",
    ),
    "data stats": Command(
        commands.data_stats,
        ("maskwright.reports.data_page", "describe_data"),
        "data stats data=my_images",
    ),
    "data anchors": Command(
        commands.data_anchors,
        ("maskwright.tasks.detection.data_options", "anchors"),
        "data anchors data=my_images model=yolo_v2",
    ),
    "data convert": Command(
        commands.data_convert,
        ("maskwright.data.rewriting.convert", "convert_data"),
        "data convert data=my_images to=yolo out=my_images_yolo",
    ),
    "data split": Command(
        commands.data_split,
        ("maskwright.data.rewriting.split", "split_data"),
        "data split data=my_images out=my_images_split fractions=0.8,0.1,0.1",
    ),
    "data merge": Command(
        commands.data_merge,
        ("maskwright.data.rewriting.merge", "merge_data"),
        "data merge data=monday,tuesday out=week",
    ),
    "data classes": Command(
        commands.data_classes,
        ("maskwright.data.rewriting.classes", "change_classes"),
        "data classes data=my_images out=my_animals rename=cat:animal,dog:animal",
    ),
    "data pseudo": Command(
        commands.data_pseudo,
        ("maskwright.tasks.classification.pseudo", "pseudo"),
        "data pseudo model=runs/train/train source=photos/ dst=photos/annotations.json",
    ),
    "benchmark": Command(
        commands.benchmark,
        ("maskwright.timing.benchmark", "benchmark"),
        "benchmark model=mask_rcnn_resnet50_fpn weights=coco source=street.jpg",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    tokens = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get("MASKWRIGHT_DEBUG", "") not in ("", "0")
    if "--debug" in tokens:
        tokens.remove("--debug")
        debug = True
    try:
        with (
            console.lenient_streams(),
            ended_by_second_signal(),
            stoppable(),
            warnings.catch_warnings(),
        ):
            warnings.showwarning = _show_warning
            warnings.filterwarnings("always", category=UserWarning, module=r"maskwright\.")
            try:
                return _dispatch(tokens)
            except Exception as error:
                if number := stop_signal(error):  # some libraries make an error of it
                    raise Stopped(number) from None
                raise
    except (UsageError, OptionError) as error:
        if debug and isinstance(error, OptionError):
            raise
        console.error(str(error))
        return 2
    except KeyboardInterrupt as error:
        number = stop_signal(error) or 0
        console.error(f"stopped by {signal_name(number)}")
        return 128 + number
    except BrokenPipeError:  # the reader of the output went away: `maskwright models | head`
        with suppress(OSError, AttributeError):  # there may be no stdout, or one without a number
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError, TrainingError, WorkerError) as error:
        if debug:
            raise
        if isinstance(error, OSError) and error.errno in EVERYWHERE:
            name = error.filename
            if name is None:
                error = WriteError(f"the output: {error.strerror}; {MENDS[error.errno]}")
            else:
                error = write_fault(Path(os.fsdecode(name)), error)
        console.error(str(error).strip() or type(error).__name__)
        return 1
    except RuntimeError as error:
        if debug or "out of memory" not in str(error).lower():
            raise
        console.error(f"{_one_line(error)}; lower batch or imgsz, or use device=cpu")
        return 1


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print our warnings like other messages; those of libraries with their place."""
    if issubclass(category, UserWarning) and Path(__file__).parent in Path(filename).parents:
        console.warn(str(message))
    else:
        console.warn(f"{message} ({category.__name__}, {filename}:{lineno})")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _dispatch(tokens: list[str]) -> int:
    name, rest = _split_command(tokens)
    words, arguments = Words(), rest
    if name:
        more = isinstance(COMMANDS[name], TrainCommand | CompareCommand)  # they know the models
        words = read_words(name, rest, COMMANDS[name].options, takes_more=more)
        given = [f"--{key}={text}" for key, text in words.given.items()]
        arguments = ["--help"] if words.help else given
    from cyclopts import CycloptsError

    app = _app(name, words)
    try:
        status = app(
            [*name.split(), *arguments],
            exit_on_error=False,
            print_error=False,
            help_on_error=False,
            result_action="return_value",
        )
    except CycloptsError as error:
        hint = f" (see `maskwright {name} --help`)" if name else ""
        raise UsageError(_one_line(error).rstrip(".") + hint) from None
    return status if isinstance(status, int) else 0


def _split_command(tokens: list[str]) -> tuple[str, list[str]]:
    """Return the command's name, "" before any, and the tokens behind it."""
    for words in (2, 1):
        name = " ".join(tokens[:words])
        if name in COMMANDS:
            return name, tokens[words:]
    if tokens[:1] == ["help"]:
        return _split_command([*tokens[1:], "--help"])
    if not tokens or tokens[0].startswith("-"):
        return "", tokens
    if tokens[0] == "data":
        if len(tokens) == 1 or tokens[1].startswith("-"):
            return "data check", ["--help"] if len(tokens) == 1 else tokens[1:]
        known = [name for name in COMMANDS if name.startswith("data ")]
        name = " ".join(tokens[:2])
        raise UsageError(f"unknown command {name!r}{unknown(name, known)}")
    raise UsageError(f"unknown command {tokens[0]!r}{unknown(tokens[0], COMMANDS)}")


def _app(chosen: str, words: Words) -> cyclopts.App:
    """Build the parser: of the chosen command all options, of the others what the help says."""
    from cyclopts import App

    app = App(
        name="maskwright",
        version=__version__,
        help="Find objects in images, cut them out and name them: train, validate and use Mask "
        "R-CNN and its family, classifiers and localizers.\n\nOptions are written `key=value` or "
        "`--key value`. `--debug` shows where an "
        "error came from.",
        help_format="markdown",
        help_epilogue=_example("predict"),
        suppress_keyboard_interrupt=False,
    )
    data = App(name="data", help="Look at a data set before training, write it anew, or begin one.")
    app.command(data)
    for name, command in COMMANDS.items():
        parent, leaf = (data, name.split()[1]) if " " in name else (app, name)
        text = "\n\n".join(part for part in (command.summary, command.after) if part)
        call = _callable(command, words) if name == chosen else command.run
        parent.command(call, name=leaf, help=text, help_epilogue=_example(name))
    return app


def _example(name: str) -> str:
    return f"Example: `maskwright {COMMANDS[name].example}`"


def _defaults(option: Option) -> str | bool:
    """Return what the help says of the default; False: nothing."""
    if option.default in (REQUIRED, None) and not option.others:
        return False
    others = [f"{as_written(value)} for {models}" for value, models in option.others]
    return "; ".join([as_written(option.default), *others])


def _callable(command: Command, words: Words) -> Callable[..., int]:
    """Return a function with the signature of a command, as the parser wants it."""
    from cyclopts import Parameter

    def call(*args: Any, **options: Any) -> int:
        options.update(zip(command.options, args, strict=False))
        if words.files:
            options["source"] = words.files
        if "device" in command.options:  # it computes
            share_cores()
        if isinstance(command, TrainCommand):
            # Only what was given: a resumed run treats that differently from defaults.
            return command.run(**options, extra=words.extra)
        if isinstance(command, CompareCommand):
            return command.run(**options, **words.extra)
        defaults = {
            name: option.default
            for name, option in command.options.items()
            if option.default is not REQUIRED
        }
        return command.run(**{**defaults, **options})

    def converter(kind: str) -> Callable[[Any, Sequence[Any]], Any]:
        return lambda _, tokens: parse_value(kind, tokens[0].value)

    parameters = []
    for option in command.options.values():
        parameter = Parameter(
            name=f"--{option.name}",
            help=option.help,
            converter=converter(option.kind),
            n_tokens=1,
            metavar=describe_kind(option.kind),
            negative="",
            show_default=_defaults(option),
        )
        place = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters.append(
            inspect.Parameter(
                option.name,
                place if option.positional else inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if option.default is REQUIRED else option.default,
                # No type that others check again, nor one that the default would tell.
                annotation=Annotated[object, parameter],
            )
        )
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    return call
