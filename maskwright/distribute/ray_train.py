"""Ray Train: it starts the processes of a training and lets them meet; the training is our own."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError, TrainingError
from ..reports.next_command import command
from .on_ray import own_error, start_ray

if TYPE_CHECKING:
    from ..training.result import TrainResult


class Board:
    """Holds what the first process of a training has to say, also when the others are lost."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}

    def post(self, name: str, value: Any) -> None:
        """Take something in."""
        self.said[name] = value

    def read(self) -> dict[str, Any]:
        """Return all of it."""
        return self.said


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
    ray = start_ray(address, logs=True)
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
            trainer.fit()
        except Exception as error:  # of Ray, by any of several names
            said: dict[str, Any] = ray.get(board.read.remote())
            raise _told(error, said.get("dir"), processes) from None
    made: TrainResult = pickle.loads(ray.get(board.read.remote())["result"])
    return made


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
    result = train(**options, on_train_start=[*asked, tell])
    if first:
        import_module("ray").get(board.post.remote("result", pickle.dumps(result)))
