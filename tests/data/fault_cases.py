"""The list of faults: what is changed in a small data set, and what must become of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from faults import (
    INF,
    LAYOUTS,
    NAN,
    SQUARE,
    Change,
    Clean,
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
    ignored,
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
        Fails("unreadable image", "refused.*cut the image into tiles.*MASKWRIGHT_MAX_PIXELS="),
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
    "16 bits": (stored("a.png", sixteen_bit()), Clean(note="1 of 3 images have more than 8 bits")),
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
    "size zero": (
        image(width=0, height=0),
        Listed("missing image size", "repaired", 5, None, 3, 3, "read from the image file"),
    ),
    "size negative": (
        image(height=-30),
        Listed("bad image size", "repaired", 5, None, 3, 3, "read from the image file"),
    ),
    "size of words": (
        image(height="tall"),
        Listed("bad image size", "repaired", 5, None, 3, 3, "'tall'"),
    ),
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
    "drive": (image(file_name="C:\\q.png"), left_out_image("path outside the data set")),
    "of another machine": (
        image(file_name="C:\\photos\\a.png"),
        Listed("image under another name", "repaired", None, None, 3, 3, "of another machine"),
    ),
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
        repaired("bad polygon", "no list of numbers"),
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
        Listed("duplicate image id", "left out", 5, None, 1, 1, "give each image its own id"),
    ),
    "duplicate image entry": (
        lambda d: d.content["images"].append(dict(d.content["images"][0])),
        Listed("duplicate image entry", "repaired", 5, None, 3, 3, "read once"),
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
    "unknown category": (annotation(category_id=77), ignored("unknown category")),
    "category as list": (annotation(category_id=[3]), ignored("unknown category")),
    "category true": (annotation(category_id=True), ignored("unknown category")),
    "annotation of words": (
        add("annotations", "a dog"),
        Listed("bad annotation", "left out", None, None, 3, 3, "an annotation is an object"),
    ),
    # Boxes, areas, crowd.
    "negative sides": (only_box(12, 12, -10, -10), repaired("swapped corners", "put in order")),
    "negative sides with a mask": (
        annotation(bbox=[12, 12, -10, -10]),
        repaired("swapped corners"),
    ),
    "NaN": (only_box(NAN, 2, 10, 10), ignored("NaN or infinite coordinates")),
    "infinite": (only_box(2, 2, INF, 10), ignored("NaN or infinite coordinates")),
    "1e300": (only_box(2, 2, 1e300, 10), ignored("NaN or infinite coordinates")),
    "huge whole number": (only_box(2, 2, 10**400, 10), ignored("NaN or infinite")),
    "box of text": (only_box("2", "2", "10", "10"), ignored("bad box", "four numbers")),
    "box of five": (only_box(2, 2, 10, 10, 1), ignored("bad box", "four numbers")),
    "box as object": (annotation(bbox={"x": 1}, segmentation=[]), ignored("bad box")),
    "box outside": (only_box(100, 2, 10, 10), left_out_object("box outside the image")),
    "corners": (annotation(bbox=[30, 20, 38, 28]), repaired("box and mask disagree")),
    "area of words": (annotation(area="large"), repaired("bad area", "'large'.*measured anew")),
    "negative area": (annotation(area=-100), repaired("bad area", "measured anew")),
    "area NaN": (annotation(area=NAN), repaired("bad area", "measured anew")),
    "crowd of words": (annotation(iscrowd="many"), repaired("bad iscrowd", "read as 0")),
    "crowd of 2": (annotation(iscrowd=2), repaired("bad iscrowd", "read as 0")),
    "crowd as a word": (
        annotation(iscrowd=" Yes"),
        Clean(
            test=lambda _, dataset: dataset[0].crowd.tolist() == [True] or pytest.fail("no"),
            told=("many crowd regions",),
        ),
    ),
    "crowd as text": (
        annotation(iscrowd="1"),
        Clean(
            test=lambda _, dataset: dataset[0].crowd.tolist() == [True] or pytest.fail("no"),
            told=("many crowd regions",),
        ),
    ),
    "3,000 objects": (crowded, Clean(3, 3_002, note="up to 3000 objects in one image")),
    # Masks.
    "RLE": (
        lambda d: (rle([62, 5, 25, 5, 1103])(d), annotation(bbox=None)(d)),
        Clean(test=mask_like_pycocotools),
    ),
    "RLE of another size": (rle([1240], (31, 40)), repaired("RLE of another size", "has")),
    "RLE of swapped size": (rle([1200], (40, 30)), repaired("RLE of another size", "swap")),
    "RLE of 1e18 pixels": (
        rle([0, 10**18], (10**9, 10**9)),
        repaired("RLE of another size"),
    ),
    "image and RLE of 1e18 pixels": (
        lambda d: (image(height=10**9, width=10**9)(d), rle([0, 10**18], (10**9, 10**9))(d)),
        left_out_image("bad image size"),
    ),
    "garbage counts": (rle("\u00ff\u0001!!"), repaired("bad RLE")),
    "counts of spaces": (rle("   "), repaired("bad RLE")),
    "cut counts": (rle("oooo"), repaired("bad RLE", "middle of a number")),
    "counts too short": (rle([100, 5]), repaired("bad RLE", "sum to 105")),
    "counts negative": (rle([600, -5, 605]), repaired("bad RLE", "negative")),
    "counts of 1e30": (rle([10**30, 5]), repaired("bad RLE")),
    "counts wrap around": (rle([2**63, 2**63 + 1200]), repaired("bad RLE")),
    "counts of fractions": (rle([600.5, 599.5]), repaired("bad RLE", "whole")),
    "no counts": (annotation(segmentation={"size": [30, 40]}), repaired("bad RLE")),
    "empty RLE": (rle([1200]), repaired("empty mask")),
    "mask of words": (annotation(segmentation="x"), repaired("bad segmentation")),
    "mask as number": (annotation(segmentation=7), repaired("bad segmentation")),
    "no mask": (annotation(segmentation=None), repaired("no mask", "its box serves")),
    "two points": (polygon(1, 1, 5, 5), repaired("polygon with too few points", "2 point")),
    "odd polygon": (polygon(1, 1, 5, 5, 5, 1, 9), repaired("bad polygon", "flat list")),
    "polygon of text": (polygon("1", "1", "5", "1", "5", "5"), repaired("bad polygon")),
    "polygon of truth": (polygon(True, 1, 5, 1, 5, 5), repaired("bad polygon")),
    "polygon of null": (polygon(None, 1, 5, 1, 5, 5), repaired("bad polygon")),
    "polygon NaN": (polygon(NAN, 1, 5, 1, 5, 5), repaired("NaN or infinite coordinates")),
    "polygon infinite": (polygon(INF, 1, -INF, 1, 5, 5), repaired("NaN or infinite")),
    "polygon of huge numbers": (polygon(10**400, 1, 5, 1, 5, 5), repaired("NaN or inf")),
    "self-crossing": (polygon(*BOW_TIE), Clean(test=mask_like_pycocotools)),
    "polygon a line": (polygon(1, 1, 5, 1, 9, 1), repaired("polygon without area")),
    "polygon outside": (polygon(90, 90, 95, 90, 95, 95), repaired("polygon outside")),
    "polygon partly outside": (
        lambda d: (polygon(-2, 2, 12, 2, 12, 12, -2, 12)(d), d.first.pop("bbox")),
        Clean(test=mask_like_pycocotools),
    ),
    "polygon beyond the image": (
        lambda d: (polygon(-5, 2, 12, 2, 12, 12, -5, 12)(d), d.first.pop("bbox")),
        repaired("polygon beyond the image", "reaches 5 pixels beyond"),
    ),
    "polygon to 1e9": (polygon(1, 1, 1e9, 1, 1e9, 1e9), repaired("polygon outside")),
    "endless polygon": (polygon(*ZIGZAG), repaired("endless polygon", "simplify it")),
    "one part broken": (
        annotation(segmentation=[list(SQUARE), [1, 1, 2, 2]]),
        repaired("polygon with too few points", "this part is left out"),
    ),
    "one part unreadable": (
        annotation(segmentation=[[2, 2, 6, 2, 6, 6], [8, 8, 12, 8, 12, 12, 8]]),
        repaired("bad polygon", "polygon 2 of 2.*its box serves"),
    ),
    "one part of NaN": (
        annotation(segmentation=[[NAN, 8, 12, 8, 12, 12], [2, 2, 6, 2, 6, 6]]),
        repaired("NaN or infinite coordinates", "polygon 1 of 2.*its box serves"),
    ),
    "flat polygon": (annotation(segmentation=list(SQUARE)), repaired("flat polygon")),
    "thin polygon": (
        lambda d: (polygon(2.55, 2, 2.58, 12, 2.56, 12)(d), annotation(bbox=[2.5, 2, 1, 10])(d)),
        Listed("empty mask", "left out", 5, 1, 3, 3, "no pixel lies in its polygons"),
    ),
}


# Images lie elsewhere in every layout; what stands in the annotations is read by one reader, and
# the layouts of COCO JSON take turns. Pascal VOC has cases of its own (test_voc.py) for all but the
# image files; what it writes otherwise is left out here.
IMAGES = list(CASES).index("byte order mark")
FILES = list(CASES).index("way out")
NOT_IN_VOC = ("one pixel", "size zero", "two entries of one file")
JSON_LAYOUTS = [layout for layout in LAYOUTS if layout != "voc"]
RUNS = [
    (case, layout)
    for i, case in enumerate(CASES)
    for j, layout in enumerate(JSON_LAYOUTS)
    if i < IMAGES or i % len(JSON_LAYOUTS) == j
]
RUNS += [(case, "voc") for case in list(CASES)[:FILES] if case not in NOT_IN_VOC]
