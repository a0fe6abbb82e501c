"""Start-up: the help of the command, imports, and a detector ready to be called, in new processes.

    python benchmarks/startup.py [--repeats 5]

Each turn starts one process for each row; times are medians of whole processes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from common import machine, parse

BUILD = "import maskwright.models as m; m.build('mask_rcnn_resnet50_fpn', 80)"
ROWS = {
    "python alone": ["-c", "pass"],
    "maskwright --help": ["-m", "maskwright", "--help"],
    "import maskwright": ["-c", "import maskwright"],
    "import torch": ["-c", "import torch"],
    "import torchvision": ["-c", "import torchvision"],
    "import and build mask_rcnn_resnet50_fpn": ["-c", BUILD],
    "load the packaged nuclei model": ["-c", "import maskwright as mw; mw.load('nuclei')"],
}


def main() -> None:
    options = parse(__doc__, repeats=5)
    times: dict[str, list[float]] = {name: [] for name in ROWS if options.only in name}
    for turn in range(options.repeats + 1):
        for name, seconds in times.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, *ROWS[name]], check=True, stdout=subprocess.DEVNULL)
            if turn:  # the first one fills the disk's cache
                seconds.append(time.perf_counter() - begin)
    print(f"{machine()}\n\n| process | seconds (lowest to highest) |\n| --- | --- |")
    for name, seconds in times.items():
        low, high = min(seconds), max(seconds)
        print(f"| {name} | {statistics.median(seconds):.2f} ({low:.2f} to {high:.2f}) |")


if __name__ == "__main__":
    main()
