"""What it costs that other programs compute on the same machine, by how long threads wait awake.

    python benchmarks/neighbours.py [--repeats 3]

Each turn starts a process for each setting of OpenMP, which looks at the sample images of the
repository with the packaged model of nuclei: on a machine without other programs, then beside
one and two that compute all the time. Medians of the milliseconds of an image.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from common import machine, parse

PHOTOS = Path(__file__).resolve().parents[1] / "examples" / "nuclei_mini" / "images"
LOOK = f"""
import statistics, time, warnings
import maskwright as mw
import numpy as np
from pathlib import Path
from PIL import Image

warnings.simplefilter("ignore")
files = sorted(Path({str(PHOTOS)!r}).rglob("*.png"))[:4]
photos = [np.asarray(Image.open(file).convert("RGB")) for file in files]
predictor = mw.load("nuclei", device="cpu")
taken = []
for turn in range(3):
    for photo in photos:
        begin = time.perf_counter()
        predictor(photo)
        if turn:
            taken.append(1e3 * (time.perf_counter() - begin))
print(statistics.median(taken))
"""
SETTINGS = {"awake for 300,000 turns, as the library has it": "300000", "1,000 turns": "1000"}
NEIGHBOURS = (0, 1, 2)


def main() -> None:
    options = parse(__doc__, repeats=3)
    print(f"{machine()}\n\n| other programs | {' | '.join(SETTINGS)} | gain |")
    print("| --- | " + "--- | " * (len(SETTINGS) + 1))
    for count in NEIGHBOURS:
        others = [
            subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)
        ]
        times: dict[str, list[float]] = {name: [] for name in SETTINGS}
        try:
            for _ in range(options.repeats):
                for name, turns in SETTINGS.items():
                    found = subprocess.run(
                        [sys.executable, "-c", LOOK],
                        env={**os.environ, "GOMP_SPINCOUNT": turns},
                        capture_output=True,
                        check=True,
                    )
                    times[name].append(float(found.stdout))
        finally:
            for process in others:
                process.kill()
                process.wait()
        medians = [statistics.median(found) for found in times.values()]
        pairs = [a / b for a, b in zip(*times.values(), strict=True)]
        print(
            f"| {count} | {' | '.join(f'{ms:.0f} ms' for ms in medians)} | "
            f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
