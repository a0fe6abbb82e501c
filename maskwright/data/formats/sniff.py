"""What an annotation file holds, judged by its first bytes: COCO, Pascal VOC, or another format.

Only the beginning is read, so that a folder of thousands of files is looked through in seconds; the
reader of the format sees the whole file and has the last word.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

HEAD = 1 << 14  # bytes that tell the format of most files
MORE = 1 << 20  # bytes that are read where they do not
TAIL = 1 << 14
ARCHIVES = (
    (b"PK\x03\x04", "ZIP archive"),
    (b"PK\x05\x06", "ZIP archive"),
    (b"\x1f\x8b", "gzip archive"),
    (b"BZh", "bzip2 archive"),
    (b"\xfd7zXZ", "xz archive"),
    (b"7z\xbc\xaf", "7-Zip archive"),
    (b"Rar!", "RAR archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard archive"),
)
OTHER_BYTES = (
    (b"\x89PNG", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"%PDF", "PDF document"),
    (b"PAR1", "Parquet table"),
    (b"\x89HDF", "HDF5 file"),
    (b"version https://git-lfs", "Git LFS pointer"),
    (b"<!DOCTYPE html", "HTML page"),
    (b"<html", "HTML page"),
)
MEND = {
    **{name: "unpack it and give the folder" for _, name in ARCHIVES},
    "tar archive": "unpack it and give the folder",
    "Git LFS pointer": "fetch the file itself: git lfs pull",
    "HTML page": "a download that went wrong: fetch the file again",
    "Parquet table": "it needs the columns image and objects, with bbox and category",
}
BY_BYTES = {"empty file", "tar archive", *(name for _, name in (*ARCHIVES, *OTHER_BYTES))}
TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([{}\[\],:])', re.DOTALL)
DOTA = "DOTA labels"
DOTA_HEADINGS = ("imagesource:", "gsd:")  # lines above the objects
COCO = "COCO JSON"
TASK = "one task of Label Studio"
VOC = "Pascal VOC XML"
IMGLAB, FIFTYONE = "imglab XML", "FiftyOne JSON"
NAPARI = "shapes of napari"
BROKEN = "JSON of no known format"
MISNAMED = "JSON under another suffix"
# Files of COCO that lie beside those of objects and describe the same images.
CAPTIONS, PANOPTIC = "COCO captions", "COCO panoptic segments"
IMAGES_ONLY, RESULTS = "COCO list of images without annotations", "COCO results (detections)"
# Format of a JSON, and the keys that must all stand in it; "[]" is an element of a list.
JSON_FORMATS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (CAPTIONS, ("images", "annotations/[]/caption")),
    (PANOPTIC, ("images", "annotations/[]/segments_info")),
    ("LabelMe JSON", ("shapes", "imagePath")),
    ("LabelMe JSON", ("shapes/[]/points",)),
    ("Label Studio JSON", ("[]/data", "[]/annotations")),
    ("Label Studio JSON", ("[]/data", "[]/completions")),
    ("Label Studio JSON", ("[]/data", "[]/predictions")),
    ("Label Studio JSON", ("[]/lead_time", "[]/annotator")),
    (TASK, ("data", "annotations/[]/result")),
    (TASK, ("data", "completions/[]/result")),
    (TASK, ("task/data", "result")),
    ("CreateML JSON", ("[]/image", "[]/annotations/[]/coordinates")),
    ("CreateML JSON", ("[]/imagefilename", "[]/annotation/[]/coordinates")),
    (RESULTS, ("[]/image_id", "[]/category_id")),
    (RESULTS, ("[]/image_id", "[]/score")),
    ("Cityscapes JSON", ("imgHeight", "imgWidth", "objects")),
    ("Supervisely JSON", ("objects/[]/classTitle",)),
    ("Supervisely JSON", ("size", "tags", "objects")),
    ("Supervisely JSON", ("classes/[]/title", "classes/[]/shape")),
    ("VIA JSON", ("_via_img_metadata",)),
    ("VIA JSON", ("*/filename", "*/regions")),
    ("BDD100K JSON", ("[]/name", "[]/labels")),
    (FIFTYONE, ("samples/[]/filepath",)),
    (FIFTYONE, ("classes", "labels")),
    ("Datumaro JSON", ("items/[]/annotations", "categories")),
    ("GeoJSON", ("features/[]/geometry",)),
    ("GeoJSON", ("[]/geometry", "[]/properties")),
    ("GeoJSON", ("type", "features")),
    ("Labelbox JSON", ("[]/data_row", "[]/projects")),
    ("CrowdHuman odgt", ("ID", "gtboxes")),
    (COCO, ("images", "annotations")),
    (COCO, ("images/[]/file_name",)),
    (COCO, ("annotations/[]/image_id", "annotations/[]/bbox")),
    (COCO, ("annotations/[]/image_id", "annotations/[]/category_id")),
    (COCO, ("images", "categories")),
    ("CreateML JSON", ("[]/image", "[]/annotations")),  # without an object so far
)


def is_kind(path: Path, suffix: str, kind: str) -> bool:
    """Return whether a file has the suffix, in lower case, and the content of a format."""
    return path.suffix.lower() == suffix and sniff(path) == kind


def sniff(path: Path) -> str:
    """Return the format of a JSON, XML, text or other file: one of the names of `layouts.TABLE`.

    An empty or unreadable file is "empty file" or "unreadable file"; JSON and XML of no known
    format are said to be so.
    """
    try:
        if not path.is_file():
            return "no regular file"
        with path.open("rb") as file:
            head = file.read(HEAD)
            kind = by_bytes(head)
            if kind is not None:
                return kind
            suffix = path.suffix.lower()
            if suffix == ".json":
                kind = _json(head)
                if kind in (BROKEN, COCO) and len(head) == HEAD:
                    head += file.read(MORE - HEAD)
                    kind = _json(head, _tail(path, len(head)))
                return kind
            if suffix == ".xml":
                return _xml(head)
            if suffix in (".shp", ".gpkg"):
                return "shapefiles"
            return _text(head, suffix)
    except OSError as error:
        return f"unreadable file ({error.strerror or error})"


def by_bytes(head: bytes) -> str | None:
    """Return what the first bytes of a file say without a doubt: archive, image, empty; or None."""
    if not head.strip(b" \t\r\n\0"):
        return "empty file"
    for magic, name in (*ARCHIVES, *OTHER_BYTES):
        if head.startswith(magic):
            return name
    if head[257:262] == b"ustar":
        return "tar archive"
    return None


def inside_gzip(path: Path) -> bool:
    """Return True if a gzip file holds JSON text, not an archive of files."""
    try:
        with gzip.open(path) as file:
            return file.read(64).lstrip()[:1] in (b"{", b"[")
    except (OSError, EOFError, ValueError):
        return False


def _tail(path: Path, read: int) -> bytes:
    size = path.stat().st_size
    if size <= read:
        return b""
    with path.open("rb") as file:
        file.seek(max(size - TAIL, read))
        return file.read()


def _json(head: bytes, tail: bytes = b"") -> str:
    try:
        text = head.decode(json.detect_encoding(head), errors="replace").lstrip("\ufeff")
    except (LookupError, ValueError):
        return BROKEN
    keys = json_keys(text)
    for name, wanted in JSON_FORMATS:
        if all(key in keys for key in wanted):
            if name == COCO and b'"segments_info"' in tail:
                return PANOPTIC
            if name == COCO and b'"caption"' in tail:
                return CAPTIONS
            return name
    return BROKEN


def json_keys(text: str, deepest: int = 4) -> set[str]:
    """Return the keys in the beginning of a JSON text, with those above them: "images/[]/id".

    Keys of the outermost object are also given as "*", for formats that name their images there.
    """
    found: set[str] = set()
    stack: list[str] = []  # kinds of the open brackets, and the key before each
    names: list[str] = []
    key = ""
    waiting = False  # a text here would be a key
    last = ""
    for match in TOKEN.finditer(text):
        mark = match[2]
        if mark is None:
            last = match[1]
            continue
        if mark == ":" and waiting:
            key, waiting = last, False
            if len(names) < deepest:
                found.add("/".join((*names, key)))
                if names:
                    found.add("/".join(("*", *names[1:], key)))
        elif mark in "{[":
            if stack:
                names.append(key if stack[-1] == "{" else "[]")
            stack.append(mark)
            waiting, key = mark == "{", ""
        elif mark in "}]":
            if not stack:
                break
            stack.pop()
            if names:
                names.pop()
            waiting = False
        elif mark == ",":
            waiting = bool(stack) and stack[-1] == "{"
    return found


def _xml(head: bytes) -> str:
    tag = re.search(rb"<([A-Za-z_][\w.:-]*)", re.sub(rb"(?s)<!--.*?-->|<[?!][^>]*>", b"", head))
    name = tag[1].decode() if tag else ""
    if name == "annotation":
        return "LabelMe XML" if b"<polygon>" in head and b"<bndbox>" not in head else VOC
    if name == "annotations":
        return "CVAT XML"
    if name == "dataset" and (b"<images" in head or b"imglab" in head):
        return IMGLAB
    return f"XML of no known format (<{name}>)" if name else "XML of no known format"


def _text(head: bytes, suffix: str) -> str:
    rows_of_json = suffix in (".ndjson", ".jsonl")
    begins = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if begins in (b"{", b"[") and not rows_of_json:
        kind = _json(head)
        return MISNAMED if kind in (COCO, BROKEN) else kind
    if suffix in (".yaml", ".yml"):
        names = re.search(rb"(?m)^(names|nc)\s*:", head)
        return "YOLO data.yaml" if names else "YAML"
    if suffix == ".csv":
        return NAPARI if head.startswith(b"index,shape-type,vertex-index,") else "CSV table"
    if suffix in (".tfrecord", ".tfrecords", ".record"):
        return "TFRecord"
    if rows_of_json:
        return "JSON lines"
    lines = [line.split() for line in head.decode(errors="replace").splitlines()[:-1][:20]]
    lines = lines or [line.split() for line in head.decode(errors="replace").splitlines()]
    rows = [line for line in lines if line]
    if rows and all(_yolo_row(row) for row in rows):
        return "YOLO labels"
    if rows and all(_kitti_row(row) for row in rows):
        return "KITTI labels"
    whole = (line.split() for line in head.decode(errors="replace").splitlines()[:20])
    rows = [row for row in whole if row and not row[0].lower().startswith(DOTA_HEADINGS)]
    if rows and all(_dota_row(row) for row in rows):
        return DOTA
    return "text"


def _dota_row(words: list[str]) -> bool:
    """Return True for four corners, a class and perhaps a digit that says how difficult it is."""
    if len(words) not in (9, 10) or words[8][:1].isdigit():
        return False
    try:
        return bool([float(word) for word in words[:8]]) and words[9:] in ([], ["0"], ["1"], ["2"])
    except ValueError:
        return False


def _kitti_row(words: list[str]) -> bool:
    """Return True for the type of an object and 14 numbers, 15 with a score."""
    if len(words) not in (15, 16) or words[0][:1].isdigit():
        return False
    try:
        return bool([float(word) for word in words[1:]])
    except ValueError:
        return False


def _yolo_row(words: list[str]) -> bool:
    """Return True for a class number and box, polygon or keypoints, in fractions of the image."""
    if len(words) < 5 or not words[0].removesuffix(".0").isdecimal():
        return False
    try:  # a keypoint that is seen has a 2
        return all(
            -0.5 <= float(word) <= 1.5 or (k > 4 and float(word) == 2)
            for k, word in enumerate(words[1:])
        )
    except ValueError:
        return False
