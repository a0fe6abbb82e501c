"""Tables of finds: their columns, and what a Parquet file of them says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from ..stores import Place
from ..text import one_line

if TYPE_CHECKING:
    import pyarrow

# Where images are looked for in a table, the first that is there.
IMAGE_COLUMNS = ("path", "image", "file_name", "bytes")
# Before those of the task: path, address or name of the image, the number of its page, its size,
# and the number of the find in it, from 0; none: nothing was found.
COLUMNS = {
    "image": "string",
    **dict.fromkeys(("page", "height", "width", "find"), "int32"),
}
# Behind them: why there is no result, and what there is to say of one.
LAST = {"error": "string", "note": "string"}
TRYING = "_trying-"  # before the number of a part that a process has begun; readers pass it over
KEY = b"maskwright"  # in the file's own metadata


@dataclass(frozen=True)
class Count:
    """What a table or many hold.

    Attributes:
        images: in all.
        finds: in all of them.
        failed: images with an error.
        noted: images of which there is something to say.
    """

    images: int = 0
    finds: int = 0
    failed: int = 0
    noted: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


def need_pyarrow() -> None:
    """Raise ImportError that says what to install, if pyarrow is missing."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ImportError("tables need pyarrow: pip install 'maskwright[cluster]'") from None


def columns_of(own: Mapping[str, str]) -> dict[str, str]:
    """Return all columns of a table of finds by those of a task."""
    return {**COLUMNS, **own, **LAST}


def schema_of(columns: Mapping[str, str]) -> pyarrow.Schema:
    """Return the types of columns given by kind, see `ImageResult.COLUMNS`."""
    import pyarrow as pa

    kinds = {
        **{"int32": pa.int32(), "int64": pa.int64(), "float32": pa.float32()},
        **{"float64": pa.float64(), "string": pa.string()},
        "list<float32>": pa.list_(pa.float32()),
    }
    return pa.schema([(name, kinds[kind]) for name, kind in columns.items()])


def to_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pyarrow.Table:
    r"""Return rows as a table; what a row does not have is null.

    A name of a file that is no UTF-8 has "\udce9" where a byte is none: Parquet holds UTF-8 alone.
    """
    import pyarrow as pa

    need_pyarrow()
    schema = schema_of(columns)
    arrays = [
        pa.array([_valid(row.get(field.name)) for row in rows], type=field.type, from_pandas=False)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _valid(value: Any) -> Any:
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turn what pyarrow says of a Parquet file that it cannot read into one sentence.

    Raises:
        ValueError: if it cannot be read.
    """
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = one_line(lines[0].rstrip(" :") if lines else type(error).__name__)
        raise ValueError(f"{name} is damaged or cannot be read ({why})") from None


def count_rows(images: Sequence[Sequence[Mapping[str, Any]]]) -> Count:
    """Count the rows of images."""
    rows = [row for found in images for row in found]
    return Count(
        len(images),
        sum(row.get("find") is not None for row in rows),
        sum(any(row.get("error") for row in found) for found in images),
        sum(any(row.get("note") for row in found) for found in images),
    )


def write_part(
    place: Place,
    name: str,
    images: Sequence[Sequence[Mapping[str, Any]]],
    columns: Mapping[str, str],
) -> Count:
    """Write the rows of images as a Parquet file that is there as a whole or not at all.

    Raises:
        ValueError: if it cannot be written.
    """
    import pyarrow.parquet as pq

    count = count_rows(images)
    table = to_table([row for found in images for row in found], columns)
    table = table.replace_schema_metadata({KEY: json.dumps(asdict(count)).encode()})
    place.write(name, lambda file: pq.write_table(table, file, compression="zstd"))
    return count


def read_count(place: Place, name: str) -> Count:
    """Return what a file of `write_part` holds.

    Raises:
        ValueError: if it is no such file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with place.open(name) as file:
            return Count(**json.loads(pq.read_schema(file).metadata[KEY]))
    except (KeyError, TypeError, json.JSONDecodeError, pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of the file
            raise ValueError(f"{place.at(name)} cannot be read ({error.strerror})") from None
        raise ValueError(
            f"{place.at(name)} is damaged or no table of finds: remove it, and the same call "
            "computes it anew"
        ) from None


def read_rows(place: Place, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of files, one file in memory at a time."""
    import pyarrow.parquet as pq

    for name in names:
        with place.open(name) as file, reading(place.at(name)):
            rows = pq.read_table(file).to_pylist()
        yield from rows
