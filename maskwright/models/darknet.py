"""The published networks of YOLO as tables of layers, in the language that their files have.

| form | layers |
| --- | --- |
| v1 | 24 convolutions of 7x7, 3x3 and 1x1, four poolings and two strides, 4096 units, 7 x 7 x 30 |
| v1_local | the same with batch norm, a layer of local filters, 7 x 7 x (3 x 5 + C): as released |
| v1_tiny | 8 convolutions with batch norm, six poolings, 7 x 7 x 30 |
| v2 | Darknet-19 without its last layer, two 3x3, the finer map folded in, a 3x3, five anchors |
| v2_tiny | 8 convolutions, five poolings and one of stride 1, five anchors |
| darknet19 | 19 convolutions, five poolings, the mean of each class's map |

Redmon et al. 2016 (v1), Redmon & Farhadi 2017 (v2, Darknet-19).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..nn.darknet.table import Table, make_table, outputs_of, read_table

Row = tuple[str, Mapping[str, Any]]
POOL: Row = ("maxpool", {"size": 2, "stride": 2})
# Width and height in cells of 32 pixels, by k-means over the boxes of VOC and COCO.
VOC_TINY_ANCHORS = (1.08, 1.19, 3.42, 4.41, 6.63, 11.38, 9.42, 5.11, 16.62, 10.52)
COCO_ANCHORS = (
    *(0.57273, 0.677385, 1.87446, 2.06253, 3.33843),
    *(5.47434, 7.88282, 3.52778, 9.77052, 9.16828),
)
EVERY_OBJECT = 1000  # `max` of our own networks; Darknet's is 30


def conv(
    filters: int, size: int = 3, stride: int = 1, *, norm: bool = True, activation: str = "leaky"
) -> Row:
    """Return a convolution that keeps the size, but for its stride."""
    own = {"batch_normalize": 1} if norm else {}
    places = {"filters": filters, "size": size, "stride": stride, "pad": 1}
    return "convolutional", {**own, **places, "activation": activation}


def net(side: int, *, jitter: Mapping[str, Any]) -> Row:
    """Return the first section of a square network, with the options of its published training."""
    rate = {"momentum": 0.9, "decay": 0.0005, "learning_rate": 0.001}
    size = {"batch": 64, "subdivisions": 8, "height": side, "width": side, "channels": 3}
    return "net", {**size, **rate, **jitter}


def detection(boxes: int, side: int = 7) -> Row:
    """Return the layer of a grid of `side` x `side` cells for one class, as published."""
    form = {"classes": 1, "coords": 4, "rescore": 1, "side": side, "num": boxes, "softmax": 0}
    scales = {"object_scale": 1, "noobject_scale": 0.5, "class_scale": 1, "coord_scale": 5}
    return "detection", {**form, "sqrt": 1, "jitter": 0.2, **scales}


def region(anchors: tuple[float, ...]) -> Row:
    """Return the layer of anchors for one class, as published."""
    form = {"bias_match": 1, "classes": 1, "coords": 4, "num": len(anchors) // 2, "softmax": 1}
    scales = {"object_scale": 5, "noobject_scale": 1, "class_scale": 1, "coord_scale": 1}
    rest = {"absolute": 1, "thresh": 0.6, "random": 1, "max": EVERY_OBJECT}
    return "region", {"anchors": anchors, **form, "jitter": 0.3, "rescore": 1, **scales, **rest}


def dense_rows(head: Row) -> Iterable[Row]:
    """Return the linear layer that leads to a head, and the head."""
    section = make_table([("net", {"width": 1, "height": 1}), head])[1]
    if head[0] == "region":
        return conv(outputs_of(section), 1, norm=False, activation="linear"), head
    return ("connected", {"output": outputs_of(section), "activation": "linear"}), head


def _v1_body(*, norm: bool) -> list[Row]:
    """Return the 24 convolutions of YOLO v1."""
    pairs = [conv(256, 1, norm=norm), conv(512, norm=norm)]
    deeper = [conv(512, 1, norm=norm), conv(1024, norm=norm)]
    return [
        *(conv(64, 7, 2, norm=norm), POOL, conv(192, norm=norm), POOL),
        *(conv(128, 1, norm=norm), conv(256, norm=norm), *pairs, POOL),
        *(pairs * 4 + deeper),
        POOL,
        *(deeper * 2),
        *(conv(1024, norm=norm), conv(1024, 3, 2, norm=norm)),
        *(conv(1024, norm=norm), conv(1024, norm=norm)),
    ]


def _darknet19() -> list[Row]:
    """Return the first 18 convolutions of Darknet-19, with its poolings."""

    def block(width: int, count: int) -> list[Row]:
        return [conv(width, 3) if i % 2 == 0 else conv(width // 2, 1) for i in range(count)]

    rows: list[Row] = []
    for width, count in ((32, 1), (64, 1), (128, 3), (256, 3), (512, 5)):
        rows += [*block(width, count), POOL]
    return rows + block(1024, 5)


def _tiny_body(widths: Iterable[int]) -> list[Row]:
    return [row for width in widths for row in (conv(width), POOL)]


_V1_JITTER = {"saturation": 1.5, "exposure": 1.5, "hue": 0.1}
FORMS: dict[str, Table] = {
    form: make_table(rows)
    for form, rows in {
        "v1": [
            net(448, jitter=_V1_JITTER),
            *_v1_body(norm=False),
            ("connected", {"output": 4096, "activation": "leaky"}),
            ("dropout", {"probability": 0.5}),
            *dense_rows(detection(2)),
        ],
        "v1_local": [
            net(448, jitter=_V1_JITTER),
            *_v1_body(norm=True),
            ("local", {"size": 3, "stride": 1, "pad": 1, "filters": 256, "activation": "leaky"}),
            ("dropout", {"probability": 0.5}),
            *dense_rows(detection(3)),
        ],
        "v1_tiny": [
            net(448, jitter=_V1_JITTER),
            *_tiny_body((16, 32, 64, 128, 256, 512)),
            *(conv(1024), conv(256)),
            *dense_rows(detection(2)),
        ],
        "v2": [
            net(416, jitter=_V1_JITTER),
            *_darknet19(),
            *(conv(1024), conv(1024), ("route", {"layers": (-9,)}), conv(64, 1)),
            *(("reorg", {"stride": 2}), ("route", {"layers": (-1, -4)}), conv(1024)),
            *dense_rows(region(COCO_ANCHORS)),
        ],
        "v2_tiny": [
            net(416, jitter=_V1_JITTER),
            *_tiny_body((16, 32, 64, 128, 256)),
            *(conv(512), ("maxpool", {"size": 2, "stride": 1}), conv(1024), conv(1024)),
            *dense_rows(region(VOC_TINY_ANCHORS)),
        ],
        "darknet19": [
            net(224, jitter={"saturation": 0.75, "exposure": 0.75, "hue": 0.1}),
            *_darknet19(),
            *(conv(1000, 1, norm=False, activation="linear"), ("avgpool", {})),
            ("softmax", {"groups": 1}),
        ],
    }.items()
}
# The same kinds of layers, for tests.
TINY: dict[str, Table] = {
    "darknet19": make_table(
        [
            net(32, jitter={}),
            *(conv(8), POOL, conv(8), POOL, conv(16), conv(8, 1), conv(16)),
            *(conv(10, 1, norm=False, activation="linear"), ("avgpool", {}), ("softmax", {})),
        ]
    ),
    "v1": make_table(
        [
            net(128, jitter={}),
            *(conv(8, 7, 2), POOL, conv(12, 3, 2, norm=False), POOL, conv(8, 1), conv(16)),
            conv(16, 1),
            ("local", {"size": 3, "stride": 1, "pad": 1, "filters": 4, "activation": "leaky"}),
            ("dropout", {"probability": 0.5}),
            *dense_rows(detection(2, 3)),
        ]
    ),
    "v2": make_table(
        [
            net(96, jitter={}),
            *_tiny_body((8, 8, 12, 16)),
            *(conv(16), POOL, conv(16), ("route", {"layers": (-3,)}), conv(4, 1)),
            *(("reorg", {"stride": 2}), ("route", {"layers": (-1, -4)}), conv(16)),
            *dense_rows(region((0.5, 0.7, 1.2, 1.0))),
        ]
    ),
}


def table_of(form: str, layers: str) -> Table:
    """Return the network of a text, or the published one of a form where there is none."""
    return read_table(layers) if layers else FORMS[form]
