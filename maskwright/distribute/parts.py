"""A source cut into parts, each computed by one process and written as one file."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ..data.pixels.kinds import image_suffixes
from ..paths import home_path
from ..prediction.sources import Source, list_sources
from ..stores import is_address, list_store, open_binary
from .columns import as_source, chosen_column
from .tables import need_pyarrow, reading

SUFFIXES = (".parquet", ".pq")
# Images of a part: so few that a part which is lost costs little, so many that it is no small file.
FEWEST, MOST, USUAL_PARTS = 32, 1024, 2000
WHOLE = 2048  # rows: a group of so many images is read at once, a longer one of paths in pieces


@dataclass(frozen=True)
class Part:
    """Some images of a source, in its order.

    Attributes:
        number: of the part.
        paths: of the images, or addresses; of a table none.
        names: what they are called.
        file: a Parquet file, or "".
        group: number of its row group.
        start, stop: the rows in it.
        column: with the images.
    """

    number: int
    paths: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    file: str = ""
    group: int = 0
    start: int = 0
    stop: int = 0
    column: str = ""

    def __len__(self) -> int:
        return len(self.paths) or self.stop - self.start

    @property
    def output(self) -> str:
        """Name of the file of its finds."""
        return f"part-{self.number:06d}.parquet"

    def sources(self) -> Iterator[Source]:
        """Yield the images.

        Raises:
            ValueError: if the table cannot be read.
        """
        for path, name in zip(self.paths, self.names, strict=True):
            source = as_source(path, 0)
            yield Source(source.data, name, source.path)
        if self.file:
            yield from self._of_table()

    def _of_table(self) -> Iterator[Source]:
        import pyarrow.parquet as pq

        with reading(self.file), open_binary(self.file) as file:
            table = pq.ParquetFile(file).read_row_group(self.group, columns=[self.column])
        stem = PurePosixPath(self.file).name
        values = table.column(self.column).slice(self.start, self.stop - self.start).to_pylist()
        for number, value in enumerate(values, self.start):
            name = f"{stem}, group {self.group}, row {number}"
            if isinstance(value, str):
                value = beside(self.file, value)
            elif isinstance(value, dict) and not value.get("bytes") and value.get("path"):
                value = {**value, "path": beside(self.file, value["path"])}
            yield as_source(value, number, name)


@dataclass(frozen=True)
class Listed:
    """What a source holds, cut into parts.

    Attributes:
        parts: all of them.
        text: the source as the user gave it.
        digest: of all that is in it; another one, another source.
        passed_over: what was passed over.
    """

    parts: list[Part] = field(repr=False)
    text: str
    digest: str
    passed_over: str = ""

    @property
    def images(self) -> int:
        """The number of images; of files with several pages the number of files."""
        return sum(map(len, self.parts))


def beside(file: str, path: str) -> str:
    """Return a path of a table: a relative one counts from the folder of its file."""
    absolute = Path(home_path(path)).is_absolute() or "://" in path
    if absolute:
        return path
    if is_address(file):
        return f"{file.rpartition('/')[0]}/{path}"
    return str(Path(file).parent / path)


def usual_size(images: int) -> int:
    """Return how many of so many images make a part."""
    return min(max(-(-images // USUAL_PARTS), FEWEST), MOST)


def list_parts(source: Any, size: int | None = None, column: str | None = None) -> Listed:
    """Cut a source into parts.

    Args:
        source: Parquet files (one, a folder or a pattern of them, or a list), or what
            `list_sources` takes, as far as it is a path or an address.
        size: images of a part; None: `usual_size`.
        column: of the tables, see `BatchPredictor`.

    Raises:
        ValueError: if nothing is there, or a table lacks the column.
    """
    tables = _tables(source)
    if tables:
        return _of_tables(tables, str(source), size, column)
    if column is not None:
        raise ValueError(f"column={column} is of Parquet files, and source={source} names none")
    listed = list_sources(source)
    paths = [one.path for one in listed]
    if not all(isinstance(one.data, str | Path) or one.path for one in listed) or None in paths:
        raise ValueError(
            "source: other processes read paths and addresses; of pixels in memory make a Parquet "
            "file, or call a BatchPredictor"
        )
    size = size or usual_size(len(paths))
    parts = [
        Part(
            start // size,
            tuple(str(path) for path in paths[start : start + size]),
            tuple(one.name for one in listed.items[start : start + size]),
        )
        for start in range(0, len(paths), size)
    ]
    text = str(source) if isinstance(source, str | Path) else f"{len(paths)} paths"
    return Listed(parts, text, _digest(paths), listed.passed_over)


def _digest(lines: Sequence[Any]) -> str:
    made = hashlib.sha256()
    for line in lines:
        made.update(f"{line}\n".encode(errors="surrogateescape"))
    return made.hexdigest()


def _tables(source: Any) -> list[str]:
    """Return the Parquet files that a source names; none: it is of images."""
    if isinstance(source, list | tuple):
        every = [_tables(one) for one in source]
        if any(every) and not all(every):
            raise ValueError("source: a list of Parquet files and images: give either")
        return [one for some in every for one in some]
    if not isinstance(source, str | Path):
        return []
    text = str(home_path(source))
    if is_address(text):
        if text.lower().endswith(SUFFIXES) and "*" not in text:
            return [text]
        if text.lower().endswith(SUFFIXES) or not _of_images(text):
            return [one for one in list_store(text) if one.lower().endswith(SUFFIXES)]
        return []
    path = Path(text)
    if path.is_dir():
        files = sorted(path.iterdir())
        if any(one.suffix.lower() in image_suffixes() for one in files):
            return []
    elif text.lower().endswith(SUFFIXES):
        # As for patterns of images.
        found = glob.glob(text, recursive=True) if "*" in text else [text]  # noqa: PTH207
        files = sorted(map(Path, found))
    else:
        return []
    return [str(one) for one in files if one.suffix.lower() in SUFFIXES and one.name[0] not in "._"]


def _of_images(address: str) -> bool:
    """Tell whether an address is surely that of images: a pattern, or a file with a suffix."""
    return "*" in address or "." in address.rsplit("/", 1)[-1]


def _of_tables(files: Sequence[str], text: str, size: int | None, column: str | None) -> Listed:
    import pyarrow as pa

    need_pyarrow()
    import pyarrow.parquet as pq

    found, lines = [], []
    for file in files:
        with reading(file), open_binary(file) as opened:
            described = pq.ParquetFile(opened)
            schema, held = described.schema_arrow, described.metadata
            name = chosen_column(column, schema.names, file)
            kind = schema.field(name).type
            groups = [held.row_group(k).num_rows for k in range(held.num_row_groups)]
            content = _content(held, name)
        texts = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not texts and not _has_image(kind) and not _is_bytes(kind):
            raise ValueError(
                f"{file}: the column {name!r} holds {kind}, not paths or bytes of images: name "
                "another by column="
            )
        found.append((file, name, texts, groups))
        lines.append(json.dumps([file, name, groups, content]))
    size = size or usual_size(sum(sum(groups) for *_, groups in found))
    parts: list[Part] = []
    for file, name, texts, groups in found:
        for group, rows in enumerate(groups):
            step = size if texts or rows > WHOLE else max(rows, 1)
            for start in range(0, rows, step):
                stop = min(start + step, rows)
                parts.append(Part(len(parts), (), (), file, group, start, stop, name))
    if not parts:
        raise ValueError(f"source: {text!r} has no rows")
    return Listed(parts, text, _digest(lines))


def _content(held: Any, column: str) -> list[str]:
    """Return what the footer of a table says of a column: sizes and bounds, other ones of others.

    The column itself may be all the images.
    """
    said = []
    for group in map(held.row_group, range(held.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            if f"{chunk.path_in_schema}.".startswith(f"{column}."):
                bounds = chunk.statistics
                ends = (bounds.min, bounds.max) if bounds and bounds.has_min_max else ()
                said.append(f"{chunk.total_compressed_size} {chunk.total_uncompressed_size} {ends}")
    return said


def _has_image(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_struct(kind) and any(
        kind.field(k).name in ("bytes", "path") for k in range(kind.num_fields)
    )


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))
