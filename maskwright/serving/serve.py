"""`maskwright serve`: models behind HTTP until a signal ends it."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError, checked_options, whole_number
from ..hub.loading import GRAPH_SUFFIXES
from ..paths import takes_paths
from ..prediction.load import load
from ..terminal import console

if TYPE_CHECKING:
    from ..prediction.predictor import Predictor

GRACE = 30  # seconds that requests have to end after a signal
BACKLOG = 128  # connections that the system keeps until they are taken
CONNECTIONS = 1000  # at once
HEAD = 15.0  # seconds that the head of a request may take
# Seconds that a connection may be idle between requests: longer than proxies and clients keep
# theirs (60 is usual), so that it is not closed here just as the next request comes.
IDLE = 75


@checked_options
@takes_paths
def serve(
    model: tuple[str, ...],
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    weights: str | Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    token: str | None = None,
    corrections: str | Path | None = None,
    samples: str | Path | None = None,
    batch: int | None = None,
    wait: float = 3.0,
    queue: int = 64,
    deadline: float = 60.0,
    megabytes: float = 64.0,
    megapixels: float = 100.0,
    files: int = 16,
    trust: bool = False,
) -> None:
    """Put models behind HTTP; returns when a signal (Ctrl-C, SIGTERM) has ended the service.

    `/` is a page on which people try the models. `POST /predict` takes an image as the body, or
    files in a form, and the options of `predict` for one image; `/models`, `/health`, `/metrics`
    and `/openapi.json` say what is there.
    `docs/serving.md` has examples.

    Args:
        model: registered names, checkpoints, run folders or exported files (.onnx, .xml, .pt2),
            joined by commas or each as an option of its own; the first answers requests that name
            none.
        host: address to listen at: 127.0.0.1 is this machine alone, 0.0.0.0 all its networks.
        port: to listen at; 0: a free one.
        weights: for one registered name: published weights such as coco, or a checkpoint.
        device: where to compute: auto, cpu, cuda, cuda:1, mps; exported files run on the CPU.
        precision: float32, bf16 or fp16, see `load`; exported files have their own.
        token: a secret that every request must show, as `Authorization: Bearer TOKEN`.
        corrections: folder of a COCO data set, into which the page saves what people correct.
        samples: folder of images that the page offers to try. None: those of the package, for
            models of nuclei.
        batch: most images, of the same size to the network and with the same options, that are
            computed at once. None: 8 on a GPU, 1 on a CPU.
        wait: milliseconds that an image waits for others that are on their way.
        queue: most images of a model that are in the house; beyond, the answer is 429.
        deadline: seconds after which a request is given up.
        megabytes: most of one request.
        megapixels: most of one image.
        files: most images of one request.
        trust: run the machine code in files of `maskwright export format=aoti`.

    Raises:
        OptionError: if an option is wrong.
        ValueError: if a model cannot be read, or the address is taken.
        ImportError: if the packages of the extra `serve` are missing.
    """
    from .app import create_app  # says what is missing
    from .limits import Limits

    limits = Limits(megabytes, megapixels, files, queue, deadline, batch or 1, wait)
    if batch is not None:
        whole_number("batch", batch)
    if weights is not None and len(model) > 1:
        raise OptionError("weights is for one model; give several as checkpoints or run folders")
    with listening(host, port) as place:
        # A thread that has computed keeps helpers, and where more helpers than cores wait, OpenMP
        # lets all of them sleep early: the thread that loads ends before those that compute begin.
        with ThreadPoolExecutor(1) as loader:
            options = {"weights": weights, "device": device, "precision": precision}
            predictors = loader.submit(load_all, model, **options, trust=trust).result()
        if batch is None and any(one.device.type == "cuda" for one in predictors.values()):
            limits = replace(limits, batch=8)
        own = is_loopback(host)
        hosts = ["localhost", "127.0.0.1", "::1", host] if own else None
        app = create_app(
            predictors, limits, token=token, hosts=hosts, samples=samples, corrections=corrections
        )
        number = place.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        if not own and token is None:
            console.warn(
                f"host={host} lets everybody in who reaches this machine, and there is no token: "
                "give token=..., or a proxy in front that asks for one"
            )
        console.note(
            f"{', '.join(predictors)}: http://{shown}:{number}\n"
            f"  programs: POST http://{shown}:{number}/predict (/docs has examples); Ctrl-C ends"
        )
        run(app, place)
    console.note(f"stopped; requests that were there had {GRACE} s to be answered")


def run(app: Any, place: socket.socket) -> None:
    """Answer requests that come to a socket until a signal comes."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http=request_reader(),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=IDLE,
    )
    with suppress(KeyboardInterrupt):  # the signal that ended it comes again when all is done
        uvicorn.Server(config).run(sockets=[place])


def request_reader() -> type[Any]:
    """Return uvicorn's reader of requests, with a bound to the time that a head takes."""
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol  # it bounds the size of heads, too

    class Reader(H11Protocol):
        """Closes a connection whose request has not begun in time."""

        _waiting: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget()
            super().connection_lost(exc)

        def _watch(self) -> None:
            if self.conn.their_state is not h11.IDLE:
                self._forget()
            elif self._waiting is None:
                self._waiting = self.loop.call_later(HEAD, self.transport.close)

        def _forget(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

    return Reader


def listening(host: str, port: int) -> socket.socket:
    """Return a socket at an address, before anything that takes long.

    Raises:
        OptionError: if there is no such port.
        ValueError: if the address cannot be had.
    """
    if isinstance(port, bool) or not 0 <= port < 2**16:
        raise OptionError(f"port lies between 0 and {2**16 - 1}, got {port}")
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"host={host}: there is no such address ({error})") from None
    place = socket.socket(family, kind)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind(address)
        place.listen(BACKLOG)
    except OSError as error:
        place.close()
        why = f"host={host} port={port}: "
        if error.errno == errno.EADDRINUSE:
            why += "another program listens there; choose another port, or port=0 for a free one"
        elif error.errno == errno.EACCES:
            why += "ports below 1024 are for the system; choose a higher one"
        elif error.errno == errno.EADDRNOTAVAIL:
            why += "this machine has no such address; 0.0.0.0 stands for all that it has"
        else:
            why += str(error)
        raise ValueError(why) from None
    return place


def load_all(models: tuple[str, ...], **options: Any) -> dict[str, Predictor]:
    """Return the models by the names under which they are served; see `load`."""
    if not models:
        raise OptionError("model is empty: name at least one")
    paths = [Path(one) for one in models]
    # Checkpoints are mostly called alike, in runs that are not.
    called = [_name(path) for path in paths]
    taken: Counter[str] = Counter()
    loaded = {}
    for model, name in zip(models, called, strict=True):
        taken[name] += 1
        own = name if taken[name] == 1 else f"{name}-{taken[name]}"
        graph = Path(model).suffix in GRAPH_SUFFIXES
        given = {k: v for k, v in options.items() if not (graph and k in ("device", "precision"))}
        loaded[own] = load(model, **given)
    return loaded


def _name(path: Path) -> str:
    """Return what a model is called: its name, its run or its file."""
    if path.is_file() and path.parent.name == "weights" and path.parent.parent.name:
        return path.parent.parent.name
    return path.stem if path.is_file() else path.name


def is_loopback(host: str) -> bool:
    """Return whether an address is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
