"""Labels of labelling tools, three images with an object each, and what is wrong with them.

Like `fault_cases`, every case states its outcome; here it changes the text of a file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from faults import Clean, Data, Listed, Refused

Files = dict[str, str | bytes]
Change = Callable[[Path], object]
Outcome = Clean | Listed | Refused
LINE = "0 0.175 0.25 0.25 0.3\n"
YOLO: Files = {
    "data.yaml": "path: .\ntrain: images/train\nval: images/val\nnames: [cat, dog]\n",
    "labels/train/a.txt": LINE,
    "labels/train/b.txt": "1 0.2 0.25 0.2 0.3\n",
    "labels/train/c.txt": LINE,
    "labels/val/v.txt": LINE,
}
IMAGES = {
    "yolo": ("images/train/a.png", "images/train/b.png", "images/train/c.png", "images/val/v.png"),
}
TOOLS = {"yolo": YOLO}


def lay_tool(root: Path, tool: str) -> Path:
    """Write the labels of a tool and their images of 40 x 30 pixels (width x height)."""
    for seed, name in enumerate(IMAGES[tool]):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Data.picture(seed).save(root / name)
    for name, content in TOOLS[tool].items():
        put(name, content)(root)
    return root


def put(name: str, content: str | bytes) -> Change:
    """Write a file."""

    def change(root: Path) -> None:
        data = content.encode() if isinstance(content, str) else content
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

    return change


def swap(name: str, old: str, new: str) -> Change:
    """Replace a text that stands in a file."""

    def change(root: Path) -> None:
        text = (root / name).read_text(encoding="utf-8")
        assert old in text
        (root / name).write_bytes(text.replace(old, new).encode("utf-8", "surrogateescape"))

    return change


def gone(name: str) -> Change:
    return lambda root: (root / name).unlink()


def moved(name: str, other: str) -> Change:
    return lambda root: (root / name).rename(root / other)


def object_of_a(kind: str, action: str, says: str = "", objects: int = 3) -> Listed:
    """A fault of the object of the first image."""
    return Listed(kind, action, 1, None, 3, objects, says)


A = "labels/train/a.txt"
CASES: dict[str, tuple[str, Change, Outcome]] = {
    # YOLO: lines.
    "no line": ("yolo", put(A, ""), Clean(objects=2)),
    "blank lines and ends of Windows": ("yolo", put(A, f"\r\n{LINE.strip()}\r\n \r\n"), Clean()),
    "byte order mark": ("yolo", put(A, "\ufeff" + LINE), Clean()),
    "class as 0.0": ("yolo", put(A, LINE.replace("0 ", "0.0 ", 1)), Clean()),
    "wrong encoding": (
        "yolo",
        put(A, b"\xff\xfe0\0 \0"),
        Listed("unreadable labels", "left out", 1, None, 2, 2, "save it as UTF-8"),
    ),
    "cut off": (
        "yolo",
        put(A, "0 0.175 0.2"),
        object_of_a("bad line", "ignored", r"a\.txt, line 1.*a box needs 5"),
    ),
    "words": ("yolo", put(A, "0 a b c d"), object_of_a("bad line", "ignored", "numbers, got 'a'")),
    "name of a class": (
        "yolo",
        put(A, "cat 0.5 0.5 0.1 0.1"),
        object_of_a("bad line", "ignored", "a class is a whole number, got 'cat'"),
    ),
    "class beyond the names": (
        "yolo",
        put(A, "\n7 0.5 0.5 0.1 0.1"),
        object_of_a("unknown category", "ignored", r"a\.txt, line 2.*class number 7 is none"),
    ),
    "negative class": ("yolo", put(A, "-1 0.5 0.5 0.1 0.1"), object_of_a("bad line", "ignored")),
    "nan": (
        "yolo",
        put(A, "0 nan 0.5 0.1 0.1"),
        object_of_a("NaN or infinite coordinates", "ignored", "'nan' is not finite"),
    ),
    "one object in pixels": (
        "yolo",
        put(A, "0 20 15 10 10"),
        object_of_a("no fractions", "ignored", "divide by the size"),
    ),
    "negative side": (
        "yolo",
        put(A, "0 0.5 0.5 -0.2 0.2"),
        object_of_a("swapped corners", "repaired"),
    ),
    "no side": ("yolo", put(A, "0 0.5 0.5 0 0.2"), object_of_a("empty box", "left out", "", 2)),
    "beyond the image": (
        "yolo",
        put(A, "0 0.9 0.5 0.6 0.2"),
        object_of_a("box beyond the image", "repaired", "clipped"),
    ),
    "a hair beyond the image": ("yolo", put(A, "0 0.900001 0.5 0.2 0.2"), Clean()),
    "outside": (
        "yolo",
        put(A, "0 1.5 0.5 0.2 0.2"),
        object_of_a("box outside the image", "left out", "", 2),
    ),
    "twice": (
        "yolo",
        put(A, LINE * 2),
        object_of_a("duplicate object", "left out", r"a\.txt, line 2: the same line"),
    ),
    "confidence": (
        "yolo",
        put(A, LINE.strip() + " 0.93"),
        Listed("number beyond a line", "repaired", None, None, 3, 3, "not read"),
    ),
    "polygon and confidence": (
        "yolo",
        put(A, "0 0.1 0.1 0.3 0.1 0.3 0.4 0.5"),
        Listed("number beyond a line", "repaired", None, None, 3, 3),
    ),
    "polygon of a line": (
        "yolo",
        put(A, "0 0.1 0.1 0.2 0.1 0.3 0.1"),
        object_of_a("polygon without area", "left out", "", 2),
    ),
    "all in pixels": (
        "yolo",
        lambda root: [put(f"labels/train/{n}.txt", "0 20 15 10 10\n")(root) for n in "abc"],
        Refused(r"labels/train/a\.txt, line 1: 3 of 3 objects.*pixels: divide x by the width"),
    ),
    "keypoints that nothing announces": (
        "yolo",
        lambda root: [
            put(f"labels/train/{n}.txt", "0 .5 .5 .2 .2 .5 .5 2 .4 .4 1\n")(root) for n in "abc"
        ],
        Refused(r"a\.txt, line 1.*kpt_shape: \[17, 3\]"),
    ),
    "line of another number of keypoints": (
        "yolo",
        lambda root: (
            swap("data.yaml", "names", "kpt_shape: [2, 3]\nnames")(root),
            put(A, "0 .5 .5 .2 .2 .5 .5 2 .4 .4 1\n")(root),
            put("labels/train/b.txt", "0 .5 .5 .2 .2 .5 .5 2\n")(root),
        ),
        Listed("bad line", "ignored", 2, None, 3, 3, r"with kpt_shape: \[2, 3\] it needs 11"),
    ),
    # YOLO: files.
    "no labels of an image": (
        "yolo",
        gone(A),
        Listed("image without a file of labels", "kept", None, None, 3, 2, r"looked for .*a\.txt"),
    ),
    "labels of no image": (
        "yolo",
        moved("images/train/a.png", "images/train/A 1.png"),
        Listed("labels without an image", "left out", None, None, 3, 2, r"first .*a\.txt"),
    ),
    "no images": (
        "yolo",
        swap("data.yaml", "images/val", "photos/val"),
        Refused("the val split is to lie in .*photos/val, which does not exist"),
    ),
    "names of no list": (
        "yolo",
        swap("data.yaml", "[cat, dog]", "3"),
        Refused("names must be a list"),
    ),
    "more classes than names": (
        "yolo",
        swap("data.yaml", "names", "nc: 3\nnames"),
        Refused("nc is 3, but there are 2 names"),
    ),
    "bad kpt_shape": (
        "yolo",
        swap("data.yaml", "names", "kpt_shape: [0, 3]\nnames"),
        Refused("kpt_shape must be"),
    ),
    "bad flip_idx": (
        "yolo",
        swap("data.yaml", "names", "kpt_shape: [2, 3]\nflip_idx: [1, 1]\nnames"),
        Refused("flip_idx must name"),
    ),
    "yaml cut off": ("yolo", swap("data.yaml", "[cat, dog]", "[cat,"), Refused("no valid YAML")),
}
