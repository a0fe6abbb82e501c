"""Console: plain lines into a log, tables that other programs can read."""

from __future__ import annotations

import io
import math
import sys

import pytest

from maskwright.terminal import console


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(console, "time", fake)
    return fake


def test_short_work_leaves_one_line_in_a_log(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with console.progress("train 1/3", total=40, unit="img") as bar:
        for _ in range(20):
            clock.now += 0.05
            bar.update(2, loss=0.123456, lr=1e-3)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "train 1/3: 40/40 img, took 1.0 s, 40 img/s, loss 0.1235, lr 0.001\n"


def test_long_work_tells_how_far_it_is(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with console.progress("val", total=100, unit="img") as bar:
        for _ in range(100):
            clock.now += 3
            bar.update()
    lines = capsys.readouterr().err.splitlines()
    assert 10 <= len(lines) <= 40
    assert lines[0] == "val: 4/100 img, 4:48 left, 0.333 img/s"
    assert lines[-1] == "val: 100/100 img, took 5:00, 0.333 img/s"


def test_total_unknown_fields_taken_away_and_slow_units(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    with console.progress("fetch", unit="file") as bar:
        clock.now += 50
        bar.update(1, note="first")
        clock.now += 50
        bar.update(1, note=None)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "fetch: 1 file, 50.0 s/file, note first",
        "fetch: 2 file, 50.0 s/file",
        "fetch: 2 file, took 1:40, 50.0 s/file",
    ]


def test_silent_processes_and_failures(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("train", total=2, enabled=False) as bar:
        bar.update(2)
    with pytest.raises(KeyError), console.progress("train", total=2) as bar:
        raise KeyError
    assert capsys.readouterr().err == ""


def test_track_passes_the_items_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.track([3, 4], "reading", unit="file")) == [3, 4]
    assert "reading: 2/2 file" in capsys.readouterr().err


def test_a_terminal_gets_a_bar_and_a_drawn_table(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with console.progress("train [1]", total=4, unit="img") as bar:
        bar.update(4, loss=0.5)
    console.table("Results [bold]", ["class", "AP"], [["cell [x]", 1.5]])
    console.warn("careful [now]")
    assert "train [1]" in err.getvalue() and "4/4" in err.getvalue()
    assert "loss 0.5" in err.getvalue() and "careful [now]" in err.getvalue()
    assert "Results [bold]" in out.getvalue() and "cell [x]" in out.getvalue()


def test_plain_table_is_aligned_and_never_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    console.table("T", ["name", "AP", "n"], [[long, 55.61234, 3], ["b", None, 400]])
    title, head, first, second, *_ = capsys.readouterr().out.splitlines()
    assert title == "T" and head.split() == ["name", "AP", "n"]
    assert first.split() == [long, "55.61", "3"] and second.split() == ["b", "-", "400"]
    assert len(first) == len(second)
    console.table("", ["a"], [])
    assert capsys.readouterr().out == "a\n\n"


def test_undefined_numbers_are_dashes(capsys: pytest.CaptureFixture[str]) -> None:
    console.table("", ["a", "b"], [["x", math.nan], ["y", 0.5], ["z", None]])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[:4] == [["a", "b"], ["x", "-"], ["y", "0.5"], ["z", "-"]]


def test_messages(capsys: pytest.CaptureFixture[str]) -> None:
    console.note("done")
    console.warn("odd")
    console.error("no")
    out, err = capsys.readouterr()
    assert out == "done\n" and err == "warning: odd\nerror: no\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (60, "1:00"), (125.4, "2:05"), (3725, "1:02:05")],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert console.format_seconds(seconds) == text


def test_one_display_at_a_time_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with console.progress("outer", total=2) as outer:
        with console.progress("inner", total=2) as inner:
            inner.update(2)
            assert not outer._bar.live.is_started and inner._bar.live.is_started
        assert outer._bar.live.is_started
        outer.update(2)
    text = stream.getvalue()
    # What is left at the end is the outer one, done.
    assert text.rindex("outer") > text.rindex("inner") and "2/2" in text[text.rindex("outer") :]
    assert console.Progress._shown == []
