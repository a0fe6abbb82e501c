"""A list of everything that is wrong with real data, and what becomes of each.

Every case states its outcome: read as it is, read and noted, listed as a fault while the rest is
read, an image that fails by name when it is used, or a file that is refused. All layouts are
tried, and what is kept is counted.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from faults import (
    INF,
    LAYOUTS,
    NAN,
    SQUARE,
    Change,
    Clean,
    Data,
    Fails,
    Listed,
    Outcome,
    Refused,
    add,
    annotation,
    copied,
    crowded,
    encoded,
    exif,
    frames,
    ids,
    image,
    instead,
    left_out_image,
    left_out_object,
    mask_like_pycocotools,
    named,
    names,
    only_box,
    own_image,
    pixels_like,
    placed,
    png_header,
    polygon,
    renamed,
    repaired,
    rle,
    sixteen_bit,
    stored,
    text,
)
from PIL import Image

from maskwright.cli import main
from maskwright.data import check_data, load_image, make_loader, open_dataset
from maskwright.data.records import Dataset
from maskwright.engine.checkpoint import save_checkpoint
from maskwright.models import Meta, build, get_entry
from maskwright.structures import Resize

BOW_TIE = (2, 2, 12, 12, 12, 2, 2, 12)
ZIGZAG = [v for k in range(40_000) for v in (k % 40, 30 * (k % 2))]
LONG = "9" * 5000
BAD_JPEG = encoded("JPEG", quality=95)[:-900]

CASES: dict[str, tuple[Change, Outcome]] = {
    # Image files.
    "truncated JPEG": (
        stored("a.jpg", BAD_JPEG),
        Fails("unreadable image", "damaged or incomplete.*copy it again or remove it"),
    ),
    "truncated PNG": (
        stored("a.png", encoded("PNG")[:900]),
        Fails("unreadable image", "damaged or incomplete"),
    ),
    "no bytes": (stored("a.png", b""), left_out_image("empty image file", "copy it again")),
    "PNG bomb": (
        stored("a.png", png_header(100_000, 100_000)),
        Fails("unreadable image", "refused.*cut it into tiles"),
    ),
    "PNG bomb of stated size": (
        stored("a.png", png_header(100_000, 100_000), height=100_000, width=100_000),
        left_out_image("bad image size", "cut the image into tiles"),
    ),
    "PNG bomb of unstated size": (
        stored("a.png", png_header(100_000, 100_000), height=None, width=None),
        left_out_image("unreadable image", "refused"),
    ),
    "text as image": (stored("a.png", b"no image"), Fails("unreadable image", "is not an image")),
    "PostScript": (
        stored("a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40 30\n%%EndComments\n"),
        Fails("unreadable image", "no raster image: save it as PNG or JPEG"),
    ),
    "CMYK": (
        stored("a.jpg", encoded("JPEG", "CMYK")),
        Clean(test=pixels_like(lambda im: im.convert("RGB")), note="mode CMYK are read as 8-bit"),
    ),
    "16 bits": (stored("a.png", sixteen_bit()), Clean(note="1 image(s) of mode I;16")),
    "grey": (
        stored("a.png", encoded("PNG", "L")),
        Clean(test=pixels_like(lambda im: im.convert("RGB")), note="mode L are"),
    ),
    "one bit": (stored("a.png", encoded("PNG", "1")), Clean(note="mode 1 are")),
    "alpha": (
        stored("a.png", encoded("PNG", "RGBA")),
        Clean(test=pixels_like(lambda im: im.convert("RGB")), note="mode RGBA are"),
    ),
    "palette": (
        stored("a.png", encoded("PNG", "P")),
        Clean(test=pixels_like(lambda im: im.convert("RGB")), note="mode P are"),
    ),
    "animated GIF": (
        stored("a.gif", frames("GIF")),
        Listed("several frames", "kept", 5, None, 3, 3, "holds 3 frames or pages: only the first"),
    ),
    "pages of TIFF": (
        stored("a.tif", frames("TIFF")),
        Listed("several frames", "kept", 5, None, 3, 3, "only the first"),
    ),
    "turned and annotated upright": (
        stored("a.jpg", encoded("JPEG", exif=exif(6)), height=40, width=30),
        Clean(test=pixels_like(lambda im: im.transpose(Image.Transpose.ROTATE_270))),
    ),
    "turned and annotated unturned": (
        stored("a.jpg", encoded("JPEG", exif=exif(6))),
        Listed("EXIF orientation", "repaired", 5, None, 3, 3, "read unturned"),
    ),
    "broken EXIF": (
        stored("a.jpg", encoded("JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")),
        Listed("broken EXIF block", "kept", 5, None, 3, 3, "read unturned"),
    ),
    "wrong suffix": (
        stored("a.png", encoded("JPEG")),
        Listed("wrong file suffix", "kept", 5, None, 3, 3, "is JPEG by its content"),
    ),
    "folder": (placed(Path.mkdir), left_out_image("folder instead of an image")),
    "broken link": (
        placed(lambda path: path.symlink_to("nowhere.png")),
        left_out_image("missing image", "is a link to nowhere.png, which does not exist"),
    ),
    "loop of links": (
        placed(lambda path: path.symlink_to(path)),
        left_out_image("missing image", "cannot be looked up"),
    ),
    "link": (
        placed(lambda path: path.symlink_to("b.png")),
        Listed("duplicate image", "kept", 9, None, 3, 3, "is the same image as"),
    ),
    "pipe": (placed(os.mkfifo), left_out_image("no regular file", "pipe or a device")),
    "device": (
        placed(lambda path: path.symlink_to("/dev/zero")),
        left_out_image("no regular file", "pipe or a device"),
    ),
    "missing": (placed(lambda path: None), left_out_image("missing image", "does not exist")),
    "other size": (
        image(height=31),
        Fails("image of another size", "40x30 pixels but .*40x31.*Correct the size"),
    ),
    "no size": (
        image(height=None, width=None),
        Listed("missing image size", "repaired", 5, None, 3, 3),
    ),
    "size zero": (image(width=0), left_out_image("bad image size", "at least 1")),
    "size negative": (image(height=-30), left_out_image("bad image size", "at least 1")),
    "size of words": (image(height="tall"), left_out_image("bad image size", "'tall'")),
    "size as text": (image(height="30", width=40.0), Clean()),
    "one pixel": (own_image(1, 1, [0, 0, 1, 1]), Clean()),
    "one row": (own_image(1, 3000, [10, 0, 50, 1]), Clean()),
    "two entries of one file": (
        image(file_name="b.png"),
        Listed("duplicate image file", "kept", 9, None, 3, 3, "give them one image id"),
    ),
    "two equal files": (copied, Listed("duplicate image", "kept", 11, None, 3, 3, "twice?")),
    # Names of files.
    "way out": (
        image(file_name="../a.png"),
        left_out_image("path outside the data set", "write it relative to the image folder"),
    ),
    "hidden way out": (
        image(file_name="x/../../a.png"),
        left_out_image("path outside the data set"),
    ),
    "absolute": (image(file_name="/etc/passwd"), left_out_image("path outside the data set")),
    "drive": (image(file_name="C:\\a.png"), left_out_image("path outside the data set")),
    "zero in the name": (image(file_name="a\0.png"), left_out_image("path outside the data set")),
    "half a surrogate": (image(file_name="\ud800.png"), left_out_image("path outside")),
    "endless name": (image(file_name="a" * 5000), left_out_image("missing image")),
    "backslashes": (
        lambda data: (renamed("sub/a.png")(data), image(file_name="sub\\a.png")(data)),
        Clean(),
    ),
    "Unicode and blanks": (renamed("Ünïcode  日本 🐈.png"), Clean()),
    "signs": (renamed("[1] %20 #$x^{'\"<b>&amp;.png"), Clean()),
    "line break": (renamed("a\nb\tc.png"), Clean()),
    "capitals": (renamed("A.PNG"), Clean()),
    # The annotation file.
    "byte order mark": (
        lambda d: text(b"\xef\xbb\xbf" + json.dumps(d.content).encode())(d),
        Clean(),
    ),
    "UTF-16": (lambda d: text(json.dumps(d.content).encode("utf-16"))(d), Clean()),
    "Latin-1": (text('{"images": ["é"]}'.encode("latin-1")), Refused("no valid JSON")),
    "truncated JSON": (
        lambda d: text(json.dumps(d.content).encode()[:-50])(d),
        Refused("no valid JSON.*cut off; export or copy it again"),
    ),
    "empty JSON": (text(b""), Refused("no valid JSON")),
    "deep JSON": (text(b"[" * 200_000), Refused("nested too deeply")),
    "deep segmentation": (
        lambda d: text(
            json.dumps(d.content).replace(json.dumps(SQUARE), "[" * 900 + "]" * 900, 1).encode()
        )(d),
        left_out_object("bad polygon", "no list of numbers"),
    ),
    "5000 digits": (
        lambda d: text(json.dumps(d.content).replace('"id": 5', f'"id": {LONG}').encode())(d),
        Refused("no valid JSON"),
    ),
    "list as JSON": (text(b"[1, 2]"), Refused("no COCO JSON: expected an object with the lists")),
    "missing key": (
        text(b'{"images": [], "categories": []}'),
        Refused("lists images, annotations"),
    ),
    "folder as JSON": (instead(Path.mkdir), Refused("a folder, a pipe or a device, not a JSON")),
    "pipe as JSON": (instead(os.mkfifo), Refused("a folder, a pipe or a device, not a JSON")),
    "broken link as JSON": (
        instead(lambda path: path.symlink_to("nowhere")),
        Refused("cannot read .*No such file"),
    ),
    "no images": (lambda d: d.content.update(images=[]), Refused("no usable image of 0")),
    "no categories": (lambda d: d.content.update(categories=[]), Refused("categories' is empty")),
    "no annotations": (
        lambda d: d.content.update(annotations=[]),
        Clean(3, 0, note="train has not one object: there is nothing to learn from"),
    ),
    # Ids and classes.
    "ids from 0": (ids({3: 0, 7: 1}), Clean(test=named("cat", "dog"))),
    "sparse ids": (ids({3: 90, 7: 10**15}), Clean(test=named("cat", "dog"))),
    "negative ids": (ids({3: -9, 7: -1}), Clean(test=named("cat", "dog"))),
    "negative image id": (
        lambda d: (image(id=-5)(d), annotation(image_id=-5)(d)),
        Clean(),
    ),
    "id beyond 64 bits": (
        image(id=2**64),
        Listed("bad image entry", "left out", None, None, 2, 2, "whole number 'id'"),
    ),
    "duplicate image id": (
        lambda d: d.content["images"][1].update(id=5),
        Listed("duplicate image id", "left out", 5, None, 2, 2, "give each image its own id"),
    ),
    "duplicate annotation id": (
        lambda d: d.content["annotations"][1].update(id=1),
        Listed("duplicate annotation id", "repaired", None, 1, 3, 3, "both are kept"),
    ),
    "duplicate annotation": (
        lambda d: d.content["annotations"].append(dict(d.first)),
        Listed("duplicate annotation", "left out", None, 1, 3, 3, "occurs twice"),
    ),
    "duplicate object": (
        lambda d: d.content["annotations"].append({**d.first, "id": 8}),
        Listed("duplicate object", "kept", 5, 8, 3, 4, "1 and 8 of a.png are the same object"),
    ),
    "duplicate category": (add("categories", {"id": 3, "name": "cat"}), Clean()),
    "category id used twice": (
        add("categories", {"id": 3, "name": "fox"}),
        Refused("category id 3 is used for both 'cat' and 'fox': give each its own id"),
    ),
    "category name used twice": (
        add("categories", {"id": 8, "name": "cat"}),
        Listed("duplicate category name", "repaired", None, None, 3, 3, "read as one class"),
    ),
    "category without a name": (add("categories", {"id": 8}), Refused("'id' and a 'name'")),
    "category of words": (add("categories", "fox"), Refused("'id' and a 'name'")),
    "classes alike": (names("cat ", "Cat"), Clean(note="blanks or capitals only: ['Cat', 'cat ']")),
    "class names of signs": (names("$x^{$", "<b>\n🐈\x1b[31m"), Clean()),
    "unknown image": (annotation(image_id=77), Listed("unknown image", "left out", 77, 1, 3, 2)),
    "image id of words": (
        annotation(image_id="x"),
        Listed("unknown image", "left out", None, 1, 3, 2, "'x', which does not exist"),
    ),
    "image id of dashes": (
        annotation(image_id="--5"),
        Listed("unknown image", "left out", None, 1, 3, 2),
    ),
    "image id as text": (annotation(image_id="5"), Clean()),
    "unknown category": (annotation(category_id=77), left_out_object("unknown category")),
    "category as list": (annotation(category_id=[3]), left_out_object("unknown category")),
    "category true": (annotation(category_id=True), left_out_object("unknown category")),
    "annotation of words": (
        add("annotations", "a dog"),
        Listed("bad annotation", "left out", None, None, 3, 3, "an annotation is an object"),
    ),
    # Boxes, areas, crowd.
    "negative sides": (only_box(12, 12, -10, -10), left_out_object("empty box")),
    "negative sides with a mask": (annotation(bbox=[12, 12, -10, -10]), repaired("empty box")),
    "NaN": (only_box(NAN, 2, 10, 10), left_out_object("NaN or infinite coordinates")),
    "infinite": (only_box(2, 2, INF, 10), left_out_object("NaN or infinite coordinates")),
    "1e300": (only_box(2, 2, 1e300, 10), left_out_object("NaN or infinite coordinates")),
    "huge whole number": (only_box(2, 2, 10**400, 10), left_out_object("NaN or infinite")),
    "box of text": (only_box("2", "2", "10", "10"), left_out_object("bad box", "four numbers")),
    "box of five": (only_box(2, 2, 10, 10, 1), left_out_object("bad box", "four numbers")),
    "box as object": (annotation(bbox={"x": 1}, segmentation=[]), left_out_object("bad box")),
    "box outside": (only_box(100, 2, 10, 10), left_out_object("box outside the image")),
    "corners": (annotation(bbox=[30, 20, 38, 28]), repaired("box and mask disagree")),
    "area of words": (annotation(area="large"), repaired("bad area", "'large'.*measured anew")),
    "negative area": (annotation(area=-100), repaired("bad area", "measured anew")),
    "area NaN": (annotation(area=NAN), repaired("bad area", "measured anew")),
    "crowd of words": (annotation(iscrowd="yes"), repaired("bad iscrowd", "read as 0")),
    "crowd of 2": (annotation(iscrowd=2), repaired("bad iscrowd", "read as 0")),
    "crowd as text": (
        annotation(iscrowd="1"),
        Clean(test=lambda _, dataset: dataset[0].crowd.tolist() == [True] or pytest.fail("no")),
    ),
    "10,000 objects": (crowded, Clean(3, 10_002, note="up to 10000 objects in one image")),
    # Masks.
    "RLE": (
        lambda d: (rle([62, 5, 25, 5, 1103])(d), annotation(bbox=None)(d)),
        Clean(test=mask_like_pycocotools),
    ),
    "RLE of another size": (rle([1240], (31, 40)), left_out_object("RLE of another size", "has")),
    "RLE of swapped size": (rle([1200], (40, 30)), left_out_object("RLE of another size", "swap")),
    "RLE of 1e18 pixels": (
        rle([0, 10**18], (10**9, 10**9)),
        left_out_object("RLE of another size"),
    ),
    "image and RLE of 1e18 pixels": (
        lambda d: (image(height=10**9, width=10**9)(d), rle([0, 10**18], (10**9, 10**9))(d)),
        left_out_image("bad image size"),
    ),
    "garbage counts": (rle("\u00ff\u0001!!"), left_out_object("bad RLE")),
    "counts of spaces": (rle("   "), left_out_object("bad RLE")),
    "cut counts": (rle("oooo"), left_out_object("bad RLE", "middle of a number")),
    "counts too short": (rle([100, 5]), left_out_object("bad RLE", "sum to 105")),
    "counts negative": (rle([600, -5, 605]), left_out_object("bad RLE", "negative")),
    "counts of 1e30": (rle([10**30, 5]), left_out_object("bad RLE")),
    "counts wrap around": (rle([2**63, 2**63 + 1200]), left_out_object("bad RLE")),
    "counts of fractions": (rle([600.5, 599.5]), left_out_object("bad RLE", "whole")),
    "no counts": (annotation(segmentation={"size": [30, 40]}), left_out_object("bad RLE")),
    "empty RLE": (rle([1200]), left_out_object("empty mask")),
    "mask of words": (annotation(segmentation="x"), left_out_object("bad segmentation")),
    "mask as number": (annotation(segmentation=7), left_out_object("bad segmentation")),
    "no mask": (annotation(segmentation=None), repaired("no mask", "its box serves")),
    "two points": (polygon(1, 1, 5, 5), left_out_object("polygon with too few points", "2 point")),
    "odd polygon": (polygon(1, 1, 5, 5, 5, 1, 9), left_out_object("bad polygon", "flat list")),
    "polygon of text": (polygon("1", "1", "5", "1", "5", "5"), left_out_object("bad polygon")),
    "polygon of truth": (polygon(True, 1, 5, 1, 5, 5), left_out_object("bad polygon")),
    "polygon of null": (polygon(None, 1, 5, 1, 5, 5), left_out_object("bad polygon")),
    "polygon NaN": (polygon(NAN, 1, 5, 1, 5, 5), left_out_object("NaN or infinite coordinates")),
    "polygon infinite": (polygon(INF, 1, -INF, 1, 5, 5), left_out_object("NaN or infinite")),
    "polygon of huge numbers": (polygon(10**400, 1, 5, 1, 5, 5), left_out_object("NaN or inf")),
    "self-crossing": (polygon(*BOW_TIE), Clean(test=mask_like_pycocotools)),
    "polygon a line": (polygon(1, 1, 5, 1, 9, 1), left_out_object("polygon without area")),
    "polygon outside": (polygon(90, 90, 95, 90, 95, 95), left_out_object("polygon outside")),
    "polygon partly outside": (
        lambda d: (polygon(-5, 2, 12, 2, 12, 12, -5, 12)(d), d.first.pop("bbox")),
        Clean(test=mask_like_pycocotools),
    ),
    "polygon to 1e9": (polygon(1, 1, 1e9, 1, 1e9, 1e9), left_out_object("polygon outside")),
    "endless polygon": (polygon(*ZIGZAG), left_out_object("endless polygon", "simplify it")),
    "one part broken": (
        annotation(segmentation=[list(SQUARE), [1, 1, 2, 2]]),
        repaired("polygon with too few points", "this part is left out"),
    ),
    "flat polygon": (annotation(segmentation=list(SQUARE)), repaired("flat polygon")),
    "thin polygon": (
        lambda d: (polygon(2.55, 2, 2.58, 12, 2.56, 12)(d), annotation(bbox=[2.5, 2, 1, 10])(d)),
        Listed("empty mask", "left out", 5, 1, 3, 3, "no pixel lies in its polygons"),
    ),
}


LEFT_OUT = [("10,000 objects", "file"), ("10,000 objects", "roboflow")]


@pytest.fixture(autouse=True)
def deadline() -> Iterator[None]:
    """Turn a case that hangs, at a pipe for example, into one that fails."""

    def stop(*_: object) -> None:
        raise TimeoutError("the case took more than a minute")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def count(dataset: Dataset) -> tuple[int, int]:
    return len(dataset), sum(len(dataset[i].labels) for i in range(len(dataset)))


def use(dataset: Dataset) -> None:
    """Make every training sample."""
    loader = make_loader(
        dataset, batch=2, resize=Resize(None, 64), augment=None, seed=0, workers=0, shuffle=True
    )
    assert sum(len(batch) for batch in loader) == len(dataset)


@pytest.mark.parametrize(
    ("case", "layout"),
    # The largest takes its time in one layout only.
    [(case, layout) for case in CASES for layout in LAYOUTS if (case, layout) not in LEFT_OUT],
)
def test_every_fault_has_its_outcome(case: str, layout: str, tmp_path: Path) -> None:
    change, outcome = CASES[case]
    data = Data(tmp_path, layout)
    change(data)
    root = data.write()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = check_data(root)
    assert "val" in report.splits or "classes" in case, "the other split is not touched"
    if isinstance(outcome, Refused):
        with pytest.raises(ValueError, match=f"(?s){outcome.says}") as refused:
            open_dataset(root, "train")
        assert str(data.file) in str(refused.value)
        assert ("train", "unusable split", "error") in [
            (split, fault.kind, fault.action) for split, fault in report.faults
        ]
        assert not report.ok
    else:
        dataset = open_dataset(root, "train")
        found = [fault for split, fault in report.faults if split == "train"]
        if isinstance(outcome, Clean):
            assert found == []
            assert outcome.note in "\n".join(report.notes)
            assert count(dataset) == (outcome.images, outcome.objects)
            outcome.test(data, dataset)
            use(dataset)
        elif isinstance(outcome, Listed):
            match = [f for f in found if f.kind.startswith(outcome.kind)]
            assert match, found
            fault = match[-1]
            assert (fault.action, fault.image_id, fault.annotation_id) == (
                outcome.action,
                outcome.image,
                outcome.annotation,
            )
            assert str(tmp_path) in fault.file
            assert re.search(outcome.says, fault.message) or (outcome.says in fault.message)
            assert count(dataset) == (outcome.images, outcome.objects)
            assert report.ok
            use(dataset)
        else:
            assert [(f.kind, f.action, f.image_id) for f in found] == [(outcome.kind, "error", 5)]
            assert not report.ok
            name = data.image["file_name"]
            with pytest.raises(ValueError, match=rf"(?s){name}.*{outcome.says}.*image id 5"):
                use(dataset)
            others = dataset.select([1, 2])
            use(others)
    # In kilobytes: a bomb of 100,000 x 100,000 would take 30 gigabytes.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 400_000


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Act as somebody whom permissions bind, as they do not bind root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_without_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        data = Data(root, "file")
        data.write()
        root.chmod(0o755)
        (data.folder / "a.png").chmod(0)
        with ordinary_user():
            dataset = open_dataset(data.file)
            assert [(f.kind, f.action, f.image_id) for f in dataset.faults] == [
                ("unreadable image", "left out", 5)
            ]
            assert "change its permissions" in dataset.faults[0].message
            assert count(dataset) == (2, 2)
            with pytest.raises(ValueError, match=r"a\.png may not be read"):
                load_image(data.folder / "a.png")
        data.file.chmod(0)
        with ordinary_user(), pytest.raises(ValueError, match=r"train\.json: Permission denied"):
            open_dataset(data.file)
        root.chmod(0)
        with ordinary_user(), pytest.raises(ValueError, match="Permission denied"):
            open_dataset(root)
        root.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x" * 5000, "cannot be looked up"),
        ("nothing", "does not exist"),
        ("/dev/zero", "is a pipe or a device"),
        ("a\0b", "does not exist"),
    ],
)
def test_paths_that_are_no_data(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        open_dataset(name)


def test_yaml_that_grows_without_end(tmp_path: Path) -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    )
    file = tmp_path / "data.yaml"
    file.write_text(f"- {laughs.replace(chr(10), chr(10) + '  ')}")
    with pytest.raises(ValueError, match=r"data\.yaml: expected the entries train and val"):
        open_dataset(file)
    for key in ("path", "images"):
        file.write_text(f"{laughs}train: x.json\n{key}: *i\n")
        with pytest.raises(ValueError, match=rf"data\.yaml: the entry {key} must name a folder"):
            open_dataset(file)
    file.write_text("[" * 3000)
    with pytest.raises(ValueError, match=r"data\.yaml"):
        open_dataset(file)


@pytest.mark.parametrize("missing", ["val", "train"])
def test_a_category_that_one_split_lacks(missing: str, tmp_path: Path) -> None:
    data = Data(tmp_path, "pairs")
    content = data.val_content if missing == "val" else data.content
    content["categories"] = [{"id": 7, "name": "dog"}]
    content["annotations"] = [a for a in content["annotations"] if a["category_id"] == 7]
    data.val_content["images"] += [{**data.val_content["images"][0], "id": 2}]
    if missing == "train":
        data.val_content["annotations"][0]["category_id"] = 3
    root = data.write()
    report = check_data(root)
    names = open_dataset(root, "train").names
    if missing == "val":
        dataset = open_dataset(root, "val", names=names)
        assert (dataset.names, dataset.category_ids) == (["cat", "dog"], [-1, 7])
        assert report.ok
    else:
        with pytest.raises(ValueError, match=r"val\.json.*\['cat'\].*\['dog'\]"):
            open_dataset(root, "val", names=names)
        assert [fault.kind for _, fault in report.faults if fault.action == "error"] == [
            "unusable split"
        ]


def damaged(root: Path) -> Data:
    """A data set with many faults that leave something to train on."""
    data = Data(root, "pairs")
    for case in ("no mask", "crowd of words", "area of words", "signs"):
        CASES[case][0](data)
    images, annotations = data.content["images"], data.content["annotations"]
    names = {"pipe.png": os.mkfifo, "folder.png": Path.mkdir, "empty.png": Path.touch}
    for number, (name, place) in enumerate(names.items(), 20):
        place(data.folder / name)
        images.append({"id": number, "file_name": name, "height": 30, "width": 40})
        annotations.append({**data.first, "id": number, "image_id": number})
    (data.folder / "gone.png").symlink_to("nowhere")
    for name in ("gone.png", "../way/out.png"):
        images.append({"id": 40 + len(images), "file_name": name, "height": 30, "width": 40})
    annotations += [
        {**data.first, "id": 50, "image_id": 77},
        {**data.first, "id": 51, "category_id": 77},
        {**data.first, "id": 52, "segmentation": [[1, 1, 5, 5]]},
        {**data.first, "id": 53, "segmentation": {"size": [30, 40], "counts": "\u00ff"}},
        {**data.first, "id": 54, "segmentation": [], "bbox": [12, 12, -10, -10]},
    ]
    CASES["class names of signs"][0](data)
    (root / "runs").mkdir()
    return data


MODEL = "mask_rcnn_resnet50_fpn"
TINY = (
    f"model={MODEL} backbone=test_efficientnet width=16 box_width=32 proposals=50 "
    "rois=32 imgsz=64 anchor_sizes=8,16,32,64,128 weights=none epochs=1 workers=0 device=cpu"
)


def test_every_command_goes_on_with_the_rest_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = damaged(tmp_path / "data")
    root = data.write()
    assert main(["data", "check", str(root)]) == 0
    out = capsys.readouterr().out
    kinds = [fault.kind for fault in open_dataset(root).faults]
    assert len(set(kinds)) >= 11
    assert all(kind in out for kind in kinds)
    assert (tmp_path / "runs/check/check/faults.csv").read_text().count("\n") > len(kinds)
    assert main(["train", str(root), *TINY.split(), "name=x"]) == 0
    err = capsys.readouterr().err
    assert f"warning: {data.file}: " in err and "`maskwright data check` lists all" in err
    assert main(["val", "runs/train/x", str(root), "split=train", "workers=0", "save=no"]) == 0
    assert f"warning: {data.file}: " in capsys.readouterr().err
    assert main(["predict", "runs/train/x", str(data.folder), "conf=0"]) == 0
    err = capsys.readouterr().err
    assert "empty.png is empty" in err and "1 of 4 images could not be read" in err


@pytest.mark.parametrize("case", ["truncated JPEG", "PNG bomb", "other size", "truncated JSON"])
def test_every_command_fails_in_one_line(
    case: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = Data(tmp_path / "data", "pairs")
    change, outcome = CASES[case]
    change(data)
    root = data.write()
    assert isinstance(outcome, Fails | Refused)
    file = data.file if isinstance(outcome, Refused) else data.folder / data.image["file_name"]
    assert main(["data", "check", str(root), "save=no"]) == 1
    out, err = capsys.readouterr()
    assert str(file) in out and "training would fail" in err
    tiny = dict(get_entry(MODEL).tiny or {})
    meta = Meta(MODEL, tiny, ["cat", "dog"])
    model = save_checkpoint(tmp_path / "m.safetensors", meta, build(MODEL, 2, **tiny).state_dict())
    lines = [["val", str(model), str(root), "split=train", "workers=0", "save=no"]]
    if case != "PNG bomb":  # one training of each kind is enough
        lines += [["train", str(root), *TINY.split()]]
    for line in lines:
        assert main(line) == 1
        err = capsys.readouterr().err
        assert err.count("error: ") == 1 and "Traceback" not in err
        assert str(file) in err and re.search(f"(?s){outcome.says}", err)
