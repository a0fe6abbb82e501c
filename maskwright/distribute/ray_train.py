"""Ray Train: it starts the processes of a training and lets them meet; the training is our own."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future, wait
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError, TrainingError
from ..reports.next_command import command
from ..terminal.console import Outlet
from ..terminal.interrupt import Interrupt, pass_on
from .on_ray import own_error, start_ray

if TYPE_CHECKING:
    from ..training.result import TrainResult

LOOK = 0.5  # seconds between two looks at what the others have to say


class Board:
    """Holds what the processes of a training tell each other, also when some of them are lost."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        self.lines: list[tuple[str, str]] = []

    def post(self, name: str, value: Any) -> None:
        """Take something in."""
        self.said[name] = value

    def read(self) -> dict[str, Any]:
        """Return all of it."""
        return self.said

    def add(self, stream: str, text: str) -> None:
        """Take in what the first process prints."""
        self.lines.append((stream, text))

    def take(self) -> list[tuple[str, str]]:
        """Return what was printed since the last call, by stream."""
        lines, self.lines = self.lines, []
        return lines


def train_on_ray(
    options: Mapping[str, Any], address: str | None, processes: int, cores: int
) -> TrainResult:
    """Train in processes of a cluster; see `training.train`.

    Args:
        options: of `maskwright.train`.
        address: of the cluster.
        processes: how many.
        cores: of each.
    """
    ray = start_ray(address)
    there = ray.cluster_resources()
    gpus = 0 if options.get("device") == "cpu" else int(there.get("GPU", 0))
    most = gpus or int(there.get("CPU", 0)) // cores
    if processes > most:
        of = "one GPU" if gpus else f"{cores} cores"
        raise OptionError(f"processes={processes}: the cluster has room for {most}, each with {of}")
    train, torch_train = import_module("ray.train"), import_module("ray.train.torch")
    board = ray.remote(num_cpus=0)(Board).remote()
    given = pickle.dumps(dict(options))
    with tempfile.TemporaryDirectory() as folder:
        trainer = torch_train.TorchTrainer(
            _train,
            train_loop_config={"options": given, "board": board, "cwd": str(Path.cwd())},
            torch_config=torch_train.TorchConfig(backend="nccl" if gpus else "gloo"),
            scaling_config=train.ScalingConfig(
                num_workers=processes,
                use_gpu=bool(gpus),
                resources_per_worker={"GPU": 1} if gpus else {"CPU": cores},
            ),
            run_config=train.RunConfig(
                storage_path=folder, failure_config=train.FailureConfig(max_failures=0)
            ),
        )
        try:
            _wait(trainer, board)
        except Exception as error:  # of Ray, by any of several names
            said: dict[str, Any] = {}
            with suppress(Exception):  # it may be lost with the cluster
                said = ray.get(board.read.remote())
            raise _told(error, said.get("dir"), processes) from None
    made: TrainResult = pickle.loads(ray.get(board.read.remote())["result"])
    return made


def _wait(trainer: Any, board: Any) -> None:
    """Wait for the end of a training: print what it says, and let it know of signals."""
    ray = import_module("ray")
    ended: Future[Any] = Future()

    def fit() -> None:
        try:
            ended.set_result(trainer.fit())
        except BaseException as error:
            ended.set_exception(error)

    # Ray's own way with Ctrl-C, which it takes in the main thread alone, loses what was learned.
    threading.Thread(target=fit, daemon=True).start()
    told = 0
    with Interrupt() as interrupt:
        while True:
            wait([ended], LOOK)
            over = ended.done()
            if interrupt.number != told:
                told = interrupt.number
                board.post.remote("signal", told)
            for stream, text in ray.get(board.take.remote()):
                Outlet(stream).write(text)
                Outlet(stream).flush()
            if over:
                ended.result()
                return


def _told(error: Exception, folder: str | None, processes: int) -> Exception:
    """Return the error of a training that Ray has ended."""
    own = own_error(error)
    if isinstance(own, ValueError) or folder is None:
        return own
    text = str(own)
    reason = " (its own message tells why)" if "maskwright train" in text else f" ({text})"
    line = command(
        "maskwright", "train", f"resume={folder}", "engine=ray", f"processes={processes}"
    )
    return TrainingError(
        f"a process of this training has ended{reason}, so all end; go on, in as many processes as "
        f"can share the images of a step, with\n  {line}"
    )


def _train(config: dict[str, Any]) -> None:
    """Do what one process of several does: Ray has let them meet and given each its number."""
    from ..training.train import train

    with suppress(OSError):  # relative paths count from where the user stands
        os.chdir(config["cwd"])
    # As torchrun says it.
    os.environ["TORCHELASTIC_RUN_ID"] = "ray"
    os.environ["GROUP_RANK"] = os.environ.get("NODE_RANK", "0")
    options: dict[str, Any] = pickle.loads(config["options"])
    board, first = config["board"], os.environ.get("RANK", "0") == "0"

    def tell(moment: Any) -> None:
        board.post.remote("dir", str(moment.dir.absolute()))

    asked = options.pop("on_train_start", None) or []
    asked = [asked] if callable(asked) else list(asked)
    with ExitStack() as stack:
        if first:  # the others say the same or nothing
            stack.enter_context(redirect_stdout(Printed(board, "stdout")))
            stack.enter_context(redirect_stderr(Printed(board, "stderr")))
            over = threading.Event()
            threading.Thread(target=_listen, args=(board, over), daemon=True).start()
            stack.callback(over.set)
        result = train(**options, on_train_start=[*asked, tell])
        if first:
            import_module("ray").get(board.post.remote("result", pickle.dumps(result)))


def _listen(board: Any, over: threading.Event) -> None:
    """Stop what this process does once the one that started it was sent a signal."""
    ray = import_module("ray")
    while not over.wait(LOOK):
        if number := ray.get(board.read.remote()).get("signal"):
            pass_on(number)  # again and again, for what begins later as well


class Printed(io.TextIOBase):
    """A stream whose text is printed where the training was started.

    Args:
        board: takes the text.
        stream: stdout or stderr.
    """

    def __init__(self, board: Any, stream: str) -> None:
        self._board, self._stream = board, stream

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Hand text over."""
        self._board.add.remote(self._stream, text)
        return len(text)
