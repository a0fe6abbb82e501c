"""How fast `maskwright serve` is, and what it bears: each part starts the command itself.

    python benchmarks/serving.py load batching --out benchmarks/rows/serving.json
    python benchmarks/serving.py hostile memory restart

`load`: images a second of `predict` over a folder and of the service under so many clients as keep
it busy, in turns; then latency while requests come at a share of that rate, at equal distances and
at random times (Poisson), counted from the moment at which a request was due, not from when a
client got round to it. `batching`: what `batch=` and `wait=` bring. `hostile`: uploads of
`hostile.py`; nothing may crash, hang or be written, and a good image is answered as before.
`memory`: many requests of a tiny image. `restart`: killed and stopped under load.

The images are the nuclei of the repository (CC0). The client shares the machine with the service.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import queue
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from common import Rows, machine
from hostile import photo, uploads

import maskwright as mw

PHOTOS = Path(__file__).resolve().parents[1] / "examples" / "nuclei_mini" / "images"
HEADERS = {"Content-Type": "image/png"}
HANG = 90.0  # seconds; the service itself gives up after 60
Row = dict[str, Any]


class Service:
    """`maskwright serve` as a process of its own.

    Attributes:
        process: it.
        port: where it listens.
    """

    def __init__(self, *words: str, folder: str | None = None, model: str = "nuclei") -> None:
        command = [sys.executable, "-m", "maskwright", "serve", f"model={model}", *words]
        if not any(word.startswith("port=") for word in words):
            command.append("port=0")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
        )
        self.lines: list[str] = []
        found = None
        while found is None:
            line = self.process.stdout.readline()  # type: ignore[union-attr]
            if not line:
                raise SystemExit("the service did not start:\n" + "".join(self.lines))
            self.lines.append(line)
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
        self.port = int(found[1])
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self) -> None:
        self.lines.extend(self.process.stdout)  # type: ignore[arg-type]

    def memory(self) -> float:
        """Return resident megabytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1e3  # type: ignore[index]

    def stop(self) -> int:
        """End it by SIGTERM; return its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serving(*words: str, **options: Any) -> Iterator[Service]:
    service = Service(*words, **options)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.stop()


class Client:
    """One connection that stays open."""

    def __init__(self, port: int, query: str = "") -> None:
        self.port, self.address = port, f"/predict{query}"
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, data: bytes) -> tuple[int, bytes]:
        """Return status and answer; 0 where the connection was refused or broke."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANG)
                self._connection.connect()
                self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._connection.request("POST", self.address, data, HEADERS)
            reply = self._connection.getresponse()
            answer = reply.read()
            if reply.will_close:
                self._connection = None
            return reply.status, answer
        except (OSError, http.client.HTTPException):
            self._connection = None
            return 0, b""


def closed(port: int, images: Sequence[bytes], clients: int, seconds: float, query: str) -> Row:
    """Let clients ask one after the other without a pause; return what they saw."""
    end = time.perf_counter() + seconds
    times: list[list[float]] = [[] for _ in range(clients)]
    statuses: Counter[int] = Counter()

    def work(mine: list[float], offset: int) -> None:
        client = Client(port, query)
        for data in itertools.islice(itertools.cycle(images), offset, None):
            start = time.perf_counter()
            if start > end:
                return
            statuses[client.ask(data)[0]] += 1
            mine.append(time.perf_counter() - start)

    began = time.perf_counter()
    threads = [threading.Thread(target=work, args=(one, i)) for i, one in enumerate(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - began
    done = statuses[200]
    return {
        "per_second": done / took,
        **described([one for mine in times for one in mine]),
        **refused(statuses),
    }


def opened(
    port: int, images: Sequence[bytes], rate: float, seconds: float, query: str, *, random: bool
) -> Row:
    """Let requests come at a rate, whatever becomes of those before; return what was seen."""
    count = max(int(rate * seconds), 10)
    draw = np.random.default_rng(0)
    gaps = draw.exponential(1 / rate, count) if random else np.full(count, 1 / rate)
    due = np.cumsum(gaps)
    todo: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()
    times: list[float] = []
    statuses: Counter[int] = Counter()

    def work() -> None:
        client = Client(port, query)
        while (one := todo.get()) is not None:
            moment, data = one
            status, _ = client.ask(data)
            statuses[status] += 1
            if status == 200:
                times.append(time.perf_counter() - moment)

    threads = [threading.Thread(target=work) for _ in range(96)]
    for thread in threads:
        thread.start()
    start = time.perf_counter() + 0.1
    for after, data in zip(due, itertools.cycle(images), strict=False):
        time.sleep(max(start + after - time.perf_counter(), 0))
        todo.put((start + after, data))
    for _ in threads:
        todo.put(None)
    for thread in threads:
        thread.join()
    return {"offered": rate, **described(times), **refused(statuses)}


def described(times: list[float]) -> Row:
    """Return milliseconds: the quantiles of latencies."""
    cut = np.percentile(np.array(times or [float("nan")]) * 1e3, [50, 95, 99])
    return {"p50": cut[0], "p95": cut[1], "p99": cut[2], "requests": len(times)}


def refused(statuses: Counter[int]) -> Row:
    return {"other": {str(k): v for k, v in statuses.items() if k != 200}}


def show(title: str, row: Row) -> Row:
    numbers = ", ".join(
        f"{key} {value:.1f}" if isinstance(value, float) else f"{key} {value}"
        for key, value in row.items()
        if value not in ({}, None)
    )
    print(f"{title:34s} {numbers}", flush=True)
    return {"what": title, **row}


def plain(model: Any, files: Sequence[Path], seconds: float, options: Row) -> float:
    """Return images a second of `predict` over a folder, for about so long."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(40):
            file = files[number % len(files)]
            Path(folder, f"{number:03d}{file.suffix}").symlink_to(file)
        done, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds:
            done += sum(1 for _ in mw.predict(model, folder, **options))
        return done / took


def load(files: Sequence[Path], args: Any) -> Iterator[Row]:
    """Saturation beside the plain predictor, then latency at shares of it."""
    images = [file.read_bytes() for file in files]
    model = mw.load(args.model)
    options = {} if args.imgsz is None else {"imgsz": args.imgsz}
    plain(model, files, 1, options)
    with serving(*args.words, model=args.model) as service:
        ask = (service.port, images)
        closed(*ask, 2, 3, args.query)
        single = closed(*ask, 1, args.seconds, args.query)
        yield show("one client", single)
        ratios, full = [], []
        for turn in range(args.turns):
            sides = [
                lambda: plain(model, files, args.seconds, options),
                lambda: closed(*ask, args.clients, args.seconds, args.query)["per_second"],
            ]
            rates = {}
            for side in (turn % 2, 1 - turn % 2):
                rates[side] = sides[side]()
            ratios.append(rates[1] / rates[0])
            full.append(rates[1])
            row = {"predict": rates[0], "service": rates[1], "share": rates[1] / rates[0]}
            yield show(f"turn {turn + 1} of saturation", row)
        capacity = statistics.median(full)
        share = statistics.median(ratios)
        yield show("share of predict, median", {"share": share, "capacity": capacity})
        for part in (0.25, 0.5, 0.75, 0.9, 1.2):
            for random in (False, True):
                row = opened(*ask, part * capacity, args.seconds, args.query, random=random)
                row["times_single"] = row["p99"] / single["p50"]
                yield show(f"{part:.0%} load, {'random' if random else 'even'}", row)


def batching(files: Sequence[Path], args: Any) -> Iterator[Row]:
    """What batches bring: the most images a second, and latency at half of that."""
    images = [file.read_bytes() for file in files]
    for batch, wait in ((1, 0.0), (1, 3.0), (2, 3.0), (4, 3.0), (8, 0.0), (8, 3.0), (8, 20.0)):
        words = [f"batch={batch}", f"wait={wait}", *args.words]
        with serving(*words, model=args.model) as service:
            ask = (service.port, images)
            closed(*ask, 2, 2, args.query)
            one = closed(*ask, 1, args.seconds / 3, args.query)
            full = closed(*ask, args.clients, args.seconds, args.query)
            row = {"single": one["p50"], "per_second": full["per_second"], "p99": full["p99"]}
            yield show(f"batch={batch} wait={wait:g}", row)


def hostile(files: Sequence[Path], args: Any) -> Iterator[Row]:
    """Uploads of `hostile.py`, several at a time."""
    good = files[0].read_bytes()
    statuses: Counter[str] = Counter()
    slowest: Counter[str] = Counter()
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        before = set(Path("/tmp").glob("maskwright-was-here*"))
        with serving("deadline=60", *args.words, folder=folder, model=args.model) as service:
            client = Client(service.port, args.query)
            expected = found(client.ask(good))
            todo = uploads(args.count)
            lock = threading.Lock()

            def work() -> None:
                while True:
                    with lock:
                        one = next(todo, None)
                    if one is None:
                        return
                    kind, data = one
                    start = time.perf_counter()
                    status = sent(service.port, data)
                    took = time.perf_counter() - start
                    with lock:
                        statuses[status] += 1
                        slowest[kind] = max(slowest[kind], round(took, 1))
                        if status in ("500", "hang") or service.process.poll() is not None:
                            faults.append(f"{kind}: {status}")

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                time.sleep(1)
                answer = found(client.ask(good)) if service.process.poll() is None else expected
                if answer != expected:
                    told = f"status {answer}" if isinstance(answer, int) else "other objects"
                    faults.append(f"a good image: {told}")
            same = found(client.ask(good)) == expected
            alive, memory = service.process.poll() is None, service.memory()
            log = [line for line in service.lines if "Traceback" in line]
            left = [str(path) for path in Path(folder).rglob("*")]
            left += map(str, set(Path("/tmp").glob("maskwright-was-here*")) - before)
    row = {"uploads": args.count, "answers": dict(sorted(statuses.items())), "faults": faults[:20]}
    row |= {"alive": alive, "same": same, "files": left, "tracebacks": len(log), "mb": memory}
    yield show("hostile uploads", row | {"slowest_s": dict(slowest.most_common(4))})


def found(reply: tuple[int, bytes]) -> Any:
    """Return what an answer says of the image; its status where it says nothing."""
    status, answer = reply
    return json.loads(answer)["objects"] if status == 200 else status


def sent(port: int, data: bytes) -> str:
    """Send a request as it is; return the status of the answer, "closed" or "hang"."""
    with socket.create_connection(("127.0.0.1", port), timeout=HANG) as place:
        with suppress(BrokenPipeError, ConnectionResetError):
            place.sendall(data)
        answer = b""
        try:
            while part := place.recv(65_536):
                answer += part
        except TimeoutError:
            return "hang"
        except ConnectionResetError:
            pass
    head = re.match(rb"HTTP/1\.[01] (\d+)", answer)
    return head[1].decode() if head else "closed"


def memory(files: Sequence[Path], args: Any) -> Iterator[Row]:
    """Megabytes of the service while it answers many requests."""
    random = np.random.default_rng(0)
    images = [photo(random, side=32) for _ in range(8)]
    with serving(*args.words, model=args.model) as service:
        kept, done = [], 0
        step = max(args.requests // 20, 1)
        todo = iter(range(args.requests))
        lock = threading.Lock()
        bad: Counter[int] = Counter()

        def work() -> None:
            nonlocal done
            client = Client(service.port, "?imgsz=64")
            while (number := next(todo, None)) is not None:
                status, _ = client.ask(images[number % len(images)])
                with lock:
                    done += 1
                    bad[status] += status != 200
                    if done % step == 0:
                        kept.append((done, service.memory()))

        threads = [threading.Thread(target=work) for _ in range(4)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - start
    half = kept[len(kept) // 4 :]
    slope = np.polyfit([n for n, _ in half], [mb for _, mb in half], 1)[0] * 1e3
    row = {"requests": done, "seconds": took, "first_mb": kept[0][1], "last_mb": kept[-1][1]}
    row |= {"mb_per_1000": float(slope), "other": {k: v for k, v in bad.items() if v}}
    yield show("memory", row | {"mb": [round(mb, 1) for _, mb in kept]})


def restart(files: Sequence[Path], args: Any) -> Iterator[Row]:
    """Killed under load and started again at the same port; then stopped under load."""
    images = [file.read_bytes() for file in files]
    first = Service(*args.words, model=args.model)
    port = first.port
    expected = found(Client(port, args.query).ask(images[0]))
    statuses: Counter[int] = Counter()
    ended = threading.Event()

    def work() -> None:
        client = Client(port, args.query)
        for data in itertools.cycle(images):
            if ended.is_set():
                return
            status = client.ask(data)[0]
            statuses[status] += 1
            if not status:
                time.sleep(0.2)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(3)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(30)
    start = time.perf_counter()
    second = Service(f"port={port}", *args.words, model=args.model)
    up = time.perf_counter() - start
    same = found(Client(port, args.query).ask(images[0])) == expected
    time.sleep(2)
    before = dict(statuses)
    status = second.stop()
    ended.set()
    for thread in threads:
        thread.join()
    others = {k: v for k, v in statuses.items() if k not in (0, 200)}
    row = {"seconds_to_start": up, "same": same, "answered_after_kill": before.get(200, 0)}
    yield show("kill, restart, SIGTERM", row | {"status_of_sigterm": status, "other": others})


PARTS = {one.__name__: one for one in (load, batching, hostile, memory, restart)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--imgsz", type=int, help="of predict and of the service")
    parser.add_argument("--seconds", type=float, default=15, help="of each measurement")
    parser.add_argument("--turns", type=int, default=4, help="of predict and service")
    parser.add_argument("--clients", type=int, default=4, help="that keep the service busy")
    parser.add_argument("--count", type=int, default=1_000, help="hostile uploads")
    parser.add_argument("--requests", type=int, default=10_000, help="of the part memory")
    parser.add_argument("--words", nargs="*", default=[], help="options of `maskwright serve`")
    parser.add_argument("--out", type=Path, help="JSON file that keeps the rows")
    args = parser.parse_args()
    args.query = "" if args.imgsz is None else f"?imgsz={args.imgsz}"
    warnings.filterwarnings("ignore", "max_det")
    files = sorted(PHOTOS.rglob("*.png"))
    print(machine(), flush=True)
    for part in args.parts:
        rows = Rows(args.out, part)
        rows.clear()
        start = time.perf_counter()
        made = [{**row, "machine": machine()} for row in PARTS[part](files, args)]
        rows.add(made)
        print(f"{part}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
