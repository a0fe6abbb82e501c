"""On Ray: the same tables and trainings, whatever process is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_runs import as_options, table

from maskwright.distribute import predict

ray = pytest.importorskip("ray")
pq = pytest.importorskip("pyarrow.parquet")

# To start Ray takes 15 seconds of a core and more; its warnings are its own.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
SIZE: dict[str, Any] = {"imgsz": 64}


@pytest.fixture
def photos(tmp_path: Path, nuclei_mini: Path) -> Path:
    """Twelve crops with nuclei, and a file that is no image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for k, file in enumerate(sorted((nuclei_mini / "images" / "val").glob("*.png"))[:12]):
        Image.open(file).convert("RGB").crop((0, 0, 64, 64)).save(folder / f"{k:02d}.png")
    (folder / "12.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody else's cluster, and none that is left over."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    ray.shutdown()


def test_ray_makes_the_same_tables(photos: Path, tmp_path: Path, session: None) -> None:
    made = predict(
        "nuclei", photos, engine="ray", processes=1, part=4, save=tmp_path / "ray", **SIZE
    )
    here = predict("nuclei", photos, part=13, save=tmp_path / "here", **SIZE)
    assert made.count == here.count and made.count.failed == 1
    assert pq.read_table(made.finds).equals(pq.read_table(here.finds))
    assert len(list(Path(made.finds).iterdir())) == 4


def children(name: str) -> list[int]:
    """Return the processes of the tests' own user whose name begins so, newest last."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_text()
            own = f"MASKWRIGHT_TEST={os.getpid()}" in (place / "environ").read_text(
                errors="replace"
            )
        except OSError:
            continue
        if words.startswith(name) and own:
            found.append(int(place.name))
    return sorted(found)


def start(line: list[str], log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "maskwright", *line],
            stdout=file,
            stderr=file,
            env={**os.environ, "MASKWRIGHT_TEST": str(os.getpid())},
        )


def wait(what: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 240
    while not what():
        assert process.poll() is None and time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.05)


def test_a_killed_worker_and_a_killed_run(photos: Path, tmp_path: Path, session: None) -> None:
    save, log = tmp_path / "out", tmp_path / "log"
    line = ["predict", "model=nuclei", f"source={photos}", "engine=ray", "part=1", "imgsz=64"]
    line += [f"save={save}", "processes=1"]

    def parts(count: int) -> Callable[[], bool]:
        return lambda: len(list((save / "finds").glob("part-*"))) >= count

    process = start(line, log)
    wait(parts(2), process, log)
    os.kill(children("ray::MapWorker")[-1], signal.SIGKILL)
    wait(parts(5), process, log)
    process.kill()
    process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in (save / "finds").glob("part-*")}
    assert len(before) < 13
    process = start(line, log)
    assert process.wait(240) == 0, log.read_text()[-3000:]
    after = {path.name: path.stat().st_mtime_ns for path in (save / "finds").iterdir()}
    assert len(after) == 13 and before.items() <= after.items()
    here = predict("nuclei", photos, save=tmp_path / "here", **SIZE)
    assert pq.read_table(save / "finds").equals(pq.read_table(here.finds))


def test_a_training_loses_a_process_and_goes_on_alone(
    options: dict[str, Any], tmp_path: Path, session: None
) -> None:
    """Two processes on Ray, one is killed; then one alone: the losses of a run without a fault."""
    # At a low rate, or thirty epochs make much of the rounding of sums in another order.
    options |= {"epochs": 30, "val_every": 99, "lr": 1e-4}
    options |= options.pop("model_args") | {"norm": "affine"}
    log = tmp_path / "log"
    process = start(["train", *as_options(options | {"name": "whole"})], log)
    assert process.wait(240) == 0, log.read_text()[-3000:]
    line = ["train", *as_options(options | {"name": "lost", "batch": 1})]
    process = start([*line, "engine=ray", "processes=2"], log)
    folder = options["project"] / "train" / "lost"
    wait(lambda: (folder / "results.csv").exists(), process, log)
    os.kill(children("ray::RayTrainWorker")[-1], signal.SIGKILL)
    assert process.wait(240) == 1
    text = log.read_text()
    assert f"maskwright train resume={folder} engine=ray processes=2" in text
    assert len(table(folder)) < 30
    process = start(["train", f"resume={folder}"], log)
    assert process.wait(240) == 0, log.read_text()[-3000:]
    for a, b in zip(table(folder), table(folder.parent / "whole"), strict=True):
        numbers = [{k: float(v) for k, v in row.items() if v} for row in (a, b)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-4, abs=1e-6, nan_ok=True)


def test_ctrl_c_is_heard_by_all_processes(
    options: dict[str, Any], tmp_path: Path, session: None
) -> None:
    """They finish the step and save, and the training goes on without Ray."""
    options |= {"epochs": 30, "val_every": 99, "batch": 1, "name": "stopped"}
    options |= options.pop("model_args") | {"norm": "affine"}
    log = tmp_path / "log"
    process = start(["train", *as_options(options), "engine=ray", "processes=2"], log)
    folder = options["project"] / "train" / "stopped"
    wait(lambda: (folder / "results.csv").exists(), process, log)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, log.read_text()[-3000:]
    text = log.read_text()
    assert f"by Ctrl-C; go on with\n  maskwright train resume={folder}\n" in text
    assert "RayTrainWorker pid" not in text and "logging.cc" not in text  # Ray's own words
    stopped = table(folder)
    assert 0 < len(stopped) < 30
    process = start(["train", f"resume={folder}"], log)
    assert process.wait(240) == 0, log.read_text()[-3000:]
    rows = table(folder)
    assert [int(row["epoch"]) for row in rows] == list(range(1, 31))
    assert [{key: row[key] for key in stopped[0]} for row in rows[: len(stopped)]] == stopped
