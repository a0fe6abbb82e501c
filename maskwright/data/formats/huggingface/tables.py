"""Rows of Hugging Face's tables: Parquet as on the Hub, Arrow as `save_to_disk` writes, JSON lines.

Parquet and Arrow need pyarrow (the extra `hf`). Names of the classes stand in the schema, where
`datasets` keeps its features as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PARQUET, ARROW, LINES = ".parquet", ".arrow", "metadata.jsonl"
ARROW_FILE = b"ARROW1"  # its first bytes
BATCH = 32  # rows that are unpacked at once: each may hold an image
LONGEST = 2**26  # characters of a line
IMAGE = ("image", "img", "file_name", "image_path", "path", "pixel_values")
OBJECTS = ("objects", "object", "annotations")
BOX = ("bbox", "bboxes", "boxes", "box")
LABEL = (
    *("category", "categories", "category_id", "label", "labels", "class", "classes"),
    *("class_id", "class_label", "category_name", "class_name", "name"),
)


def require_pyarrow(file: Path) -> Any:
    """Return the module pyarrow.

    Raises:
        ValueError: if it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"{file} is a table of Hugging Face, which pyarrow reads: pip install 'maskwright[hf]'"
        ) from None
    return pyarrow


def columns_of(file: Path) -> tuple[list[str], dict[str, Any]]:
    """Return the columns of a table, and the features that `datasets` notes in it.

    Raises:
        ValueError: if it cannot be read.
    """
    if file.name == LINES:
        first = next(rows_of(file, None), (0, {}))[1]
        return list(first), {}
    arrow = require_pyarrow(file)
    try:
        if file.suffix.lower() == PARQUET:
            schema = arrow.parquet.read_schema(file)
        else:
            with arrow.memory_map(str(file)) as source:
                schema = _opened(arrow, source).schema
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(_unreadable(file, error)) from None
    noted = (schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        info = json.loads(noted).get("info", {})
    except (ValueError, AttributeError, RecursionError):
        info = {}
    features = info.get("features") if isinstance(info, dict) else None
    return list(schema.names), features if isinstance(features, dict) else {}


def rows_of(file: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the rows of a table by number, from 0 on; lines of JSON from 1 on.

    Args:
        file: the table.
        columns: those that are wanted; None: all.

    Raises:
        ValueError: if it cannot be read.
    """
    if file.name == LINES:
        yield from _lines(file)
        return
    arrow = require_pyarrow(file)
    number = 0
    try:
        for batch in _batches(arrow, file, columns):
            for row in batch.to_pylist():
                yield number, row
                number += 1
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(_unreadable(file, error)) from None


def _batches(arrow: Any, file: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    wanted = None if columns is None else list(columns)
    if file.suffix.lower() == PARQUET:
        with arrow.parquet.ParquetFile(file) as table:
            yield from table.iter_batches(batch_size=BATCH, columns=wanted)
        return
    with arrow.memory_map(str(file)) as source:
        reader = _opened(arrow, source)
        stored = getattr(reader, "num_record_batches", None)  # of a file; a stream does not know
        batches = reader if stored is None else map(reader.get_batch, range(stored))
        for batch in batches:
            part = batch if wanted is None else batch.select(wanted)
            for first in range(0, part.num_rows, BATCH):
                yield part.slice(first, BATCH)


def _opened(arrow: Any, source: Any) -> Any:
    """Return the reader of Arrow's stream, as `save_to_disk` writes it, or of Arrow's file."""
    is_file = source.read(len(ARROW_FILE)) == ARROW_FILE
    source.seek(0)
    return arrow.ipc.open_file(source) if is_file else arrow.ipc.open_stream(source)


def _lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig") as stream:
            number = 0
            while line := stream.readline(LONGEST):
                number += 1
                if len(line) == LONGEST:
                    raise ValueError(f"{file}:{number} has more than {LONGEST} characters")
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ValueError(
                        f"{file}:{number}: no valid JSON ({str(error)[:100]}): it may be cut off; "
                        "copy it again"
                    ) from None
                if not isinstance(row, dict):
                    raise ValueError(f"{file}:{number}: a line is an object, got {line[:40]!r}")
                yield number, row
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text in UTF-8 ({error}): save it as UTF-8") from None


def _unreadable(file: Path, error: Exception) -> str:
    text = " ".join(str(error).split())[:150]
    return f"{file} cannot be read as a table ({text}): it may be cut off; fetch it again"


def class_names(features: Any, wanted: Sequence[str] = LABEL) -> list[str] | None:
    """Return the names of the first class label of these columns in features; None without.

    Example:
        >>> label = {"names": ["cat", "dog"], "_type": "ClassLabel"}
        >>> class_names({"objects": {"feature": {"category": label}, "_type": "Sequence"}})
        ['cat', 'dog']
    """
    if isinstance(features, list):
        features = features[0] if features else {}
    if not isinstance(features, dict):
        return None
    for key in wanted:
        if (names := _names_in(features.get(key))) is not None:
            return names
    inner = (value for key, value in features.items() if key in ("feature", *OBJECTS))
    return next((found for one in inner if (found := class_names(one, wanted))), None)


def _names_in(feature: Any) -> list[str] | None:
    """Return the names of a class label, or of a list of them."""
    while isinstance(feature, dict | list):
        if isinstance(feature, list):
            feature = feature[0] if feature else None
            continue
        names = feature.get("names")
        if feature.get("_type") == "ClassLabel" and isinstance(names, list):
            return [str(name) for name in names]
        feature = feature.get("feature")
    return None
