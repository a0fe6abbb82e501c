"""What the user sees in the terminal: progress bars, tables, notes, warnings and errors.

On a terminal rich draws bars and tables; into a file or a pipe go plain lines, few enough for a
log. Progress, warnings and errors go to stderr, notes and tables to stdout, so that the output of
a command can be redirected and read by a program.

    with progress("train", total=1200, unit="img") as bar:
        for batch in loader:
            ...
            bar.update(advance=len(batch.images), loss=0.4312, lr=2e-3)

    for path in track(paths, "reading", unit="file"):
        ...

    table("Results", ["class", "AP"], [["nucleus", 55.6], ["cell", 48.1]])
    note("saved to runs/segment/exp"); warn("no GPU found"); error("no such file")
"""

from __future__ import annotations

import io
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Any, ClassVar, Self, TextIO, TypeVar

from ..text import encodable, one_line, printable

T = TypeVar("T")

LINE_SECONDS = 10.0  # into a log: a line this often at the latest
STEP_SECONDS = 2.0  # and at each tenth of the way, but not more often than this


class Outlet:
    """One of the program's two streams: what is written never fails for its characters.

    The stream is looked up at each use, for notebooks and tests replace it. There may be none, as
    in a service or under pythonw, or a closed one: then nothing is written.
    """

    def __init__(self, name: str, stream: TextIO | None = None) -> None:
        self.name, self._stream = name, stream

    def bound(self) -> Any:
        """Return this stream for rich, which puts a catcher into its place while a bar is shown."""
        return Outlet(self.name, self.stream)

    @property
    def stream(self) -> TextIO | None:
        """The stream, or None where there is none that can be written to."""
        stream: TextIO | None = self._stream or getattr(sys, self.name, None)
        return None if stream is None or getattr(stream, "closed", False) else stream

    @property
    def encoding(self) -> str:
        """Encoding of the stream, UTF-8 where it has none."""
        return getattr(self.stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write text, characters that the encoding lacks as escapes."""
        stream = self.stream
        if stream is not None:
            try:
                stream.write(text)
            except UnicodeEncodeError:
                stream.write(encodable(text, self.encoding))
        return len(text)

    def flush(self) -> None:
        """Pass on what was written."""
        if self.stream is not None:
            self.stream.flush()

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return bool(getattr(self.stream, "isatty", lambda: False)())

    def fileno(self) -> int:
        """Return the number of the stream, for its size in columns."""
        if self.stream is None:
            raise OSError(f"there is no {self.name}")
        return self.stream.fileno()

    def print(self, text: str = "") -> None:
        """Write a line and pass it on."""
        self.write(text + "\n")
        self.flush()


OUT, ERR = Outlet("stdout"), Outlet("stderr")


@contextmanager
def lenient_streams() -> Iterator[None]:
    """Let stdout and stderr take any character inside: libraries print to them as well."""
    changed = []
    for outlet in (OUT, ERR):
        stream = outlet.stream
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
            changed.append(stream)
    try:
        yield
    finally:
        for stream in changed:
            if not stream.closed:
                with suppress(OSError):  # it passes on what was written, and its reader may be gone
                    stream.reconfigure(errors="strict")


def format_value(value: object) -> str:
    """Return a number with four digits that matter, a dash for None and nan, or text."""
    if value is None or value != value:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def format_seconds(seconds: float) -> str:
    """Return a duration as people write it: "0.8 s", "2:05", "1:02:05"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """A progress display, used as a context manager; see `progress`.

    One inside another takes its place on the terminal for as long as it is there.
    """

    _shown: ClassVar[list[Progress]] = []  # from the outermost to the one that is seen

    def __init__(
        self, label: str, total: int | None, unit: str, enabled: bool, since: float | None
    ) -> None:
        self.label, self.total, self.unit = one_line(label), total, one_line(unit)
        self.done = 0
        self.fields: dict[str, Any] = {}
        self._enabled = enabled
        self._bar: Any = None  # rich.progress.Progress, on a terminal
        self._task: Any = None
        self._since = since
        self._start = self._last_line = time.monotonic()
        self._last_step = 0

    def __enter__(self) -> Self:
        self._last_line = time.monotonic()
        self._start = self._last_line if self._since is None else self._since
        if self._enabled and ERR.isatty():
            if self._shown:
                self._shown[-1]._hide()
            self._open_bar()
            self._shown.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            outer = self._shown[: self._shown.index(self)]
            self._shown.remove(self)
            self._bar.live.transient = bool(outer)
            self._bar.stop()
            if outer:
                outer[-1]._bar.start()
        elif self._enabled and kind is None:
            self._write_line(final=True)

    def _hide(self) -> None:
        """Take the bar off the terminal, to be started again."""
        self._bar.live.transient = True
        self._bar.stop()
        self._bar.live.transient = False

    def update(self, advance: int = 1, **fields: object) -> None:
        """Move on by `advance` units and show `fields` (numbers or text) behind the bar.

        A field stays until it is given again; None takes it away.
        """
        self.done += advance
        self.fields.update(fields)
        self.fields = {name: value for name, value in self.fields.items() if value is not None}
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.update(
                self._task, completed=self.done, speed=self._speed(), info=self._info("  ")
            )
            return
        now = time.monotonic()
        step = 10 * self.done // self.total if self.total else 0
        waited = now - self._last_line
        if waited >= LINE_SECONDS or (step > self._last_step and waited >= STEP_SECONDS):
            if self.done != self.total:  # the last line comes with the end of the block
                self._write_line()
            self._last_line, self._last_step = now, step

    def _speed(self) -> str:
        seconds = time.monotonic() - self._start
        if not self.done or seconds <= 0:
            return ""
        rate = self.done / seconds
        if rate < 0.1:
            return f"{seconds / self.done:.1f} s/{self.unit}"
        return f"{rate:.3g} {self.unit}/s" if rate < 1000 else f"{rate:.0f} {self.unit}/s"

    def _info(self, separator: str) -> str:
        shown = separator.join(f"{name} {format_value(v)}" for name, v in self.fields.items())
        return one_line(shown)

    def _write_line(self, *, final: bool = False) -> None:
        seconds = time.monotonic() - self._start
        count = f"{self.done}/{self.total}" if self.total else str(self.done)
        parts = [f"{self.label}: {count} {self.unit}"]
        if final:
            parts.append(f"took {format_seconds(seconds)}")
        elif self.total and self.done:
            left = seconds / self.done * (self.total - self.done)
            parts.append(f"{format_seconds(left)} left")
        parts += [part for part in (self._speed(), self._info(", ")) if part]
        ERR.print(", ".join(parts))

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}", style="cyan", markup=False),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[info]}", style="dim", markup=False),
            console=Console(file=ERR.bound()),
            # A redirected stdout must keep its lines: only what shares the terminal is caught.
            redirect_stdout=OUT.isatty(),
        )
        self._bar.start()
        self._task = self._bar.add_task(self.label, total=self.total, speed="", info="")


def progress(
    label: str,
    *,
    total: int | None = None,
    unit: str = "it",
    enabled: bool = True,
    since: float | None = None,
) -> Progress:
    """Return a context manager that shows how far a piece of work has come.

    Args:
        label: what is being done, e.g. "train 3/100".
        total: number of units of work; None when it is not known.
        unit: what is counted, e.g. "img".
        enabled: False shows nothing, for all processes but the first.
        since: when the work began, by `time.monotonic`; None: it begins now.
    """
    return Progress(label, total, unit, enabled, since)


def track(
    items: Iterable[T],
    label: str,
    *,
    total: int | None = None,
    unit: str = "it",
    enabled: bool = True,
) -> Iterator[T]:
    """Yield `items` with a progress display; `total` is asked of `items` when not given."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(label, total=total, unit=unit, enabled=enabled) as bar:
        for item in items:
            yield item
            bar.update()


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows a bar for each thing that is done, told how far it is."""
    shown: dict[str, Progress] = {}
    with ExitStack() as stack:

        def show(what: str, done: int, total: int) -> None:
            if what not in shown:
                stack.close()  # what came before is done
                shown[what] = stack.enter_context(progress(what, total=total, unit="img"))
            shown[what].update(done - shown[what].done)

        yield show


def short(name: str, most: int = 40) -> str:
    """Return a name of a class for a table: on a terminal a very long one is cut in its middle.

    In a log it stays whole, for programs that read it.
    """
    if len(name) <= most or not OUT.isatty():
        return name
    end = most // 3
    return f"{name[: most - end - 1]}…{name[-end:]}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table to stdout; columns that hold only numbers are set to the right.

    Args:
        title: the line above, "" for none.
        columns: their names.
        rows: values in the order of the columns; None and nan print as a dash.
    """
    rows = [list(row) for row in rows]
    right = [
        bool(rows) and all(isinstance(row[i], int | float | None) for row in rows)
        for i in range(len(columns))
    ]
    title = encodable(printable(title), OUT.encoding)
    cells = [
        [encodable(one_line(format_value(value)), OUT.encoding) for value in row] for row in rows
    ]
    columns = [encodable(one_line(column), OUT.encoding) for column in columns]
    if not OUT.isatty():
        _plain_table(title, columns, cells, right)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name, at_right in zip(columns, right, strict=True):
        drawn.add_column(Text(name), justify="right" if at_right else "left", overflow="fold")
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(file=OUT.bound()).print(drawn)


def _plain_table(
    title: str, columns: Sequence[str], cells: list[list[str]], right: list[bool]
) -> None:
    """Print columns padded with spaces, never wrapped: for logs and other programs."""
    lines = [list(columns), *cells]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(columns))]
    if title:
        OUT.print(title)
    for line in lines:
        padded = (
            " " * (width - _width(cell)) + cell if at_right else cell + " " * (width - _width(cell))
            for cell, width, at_right in zip(line, widths, right, strict=True)
        )
        OUT.write("  ".join(padded).rstrip() + "\n")
    OUT.print()


def _width(text: str) -> int:
    """Return how many columns text takes: Chinese characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


def note(message: str) -> None:
    """Print a line for the user to stdout."""
    OUT.print(printable(message))


def warn(message: str) -> None:
    """Print a warning to stderr."""
    _print_error("warning", message, "bold yellow")


def error(message: str) -> None:
    """Print what went wrong to stderr."""
    _print_error("error", message, "bold red")


def _print_error(kind: str, message: str, style: str) -> None:
    # A line break in a name must not begin a line that looks like a message of its own.
    message = printable(message).replace("\n", "\n  ")
    if not ERR.isatty():
        ERR.print(f"{kind}: {message}")
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(file=ERR.bound(), highlight=False, soft_wrap=True)
    console.print(Text.assemble((f"{kind}: ", style), message))
