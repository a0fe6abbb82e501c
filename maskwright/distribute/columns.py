"""A batch of columns in, a batch of columns out: predictions for engines that work on tables.

Ray Data, Spark, Daft and a plain loop call the same object. It is small when it is pickled: the
model is loaded where it is first called, once in each process.
"""

from __future__ import annotations

import inspect
import threading
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..channels import parse_page
from ..errors import OptionError, nearest, whole_number
from ..prediction.load import load
from ..prediction.predict import predict
from ..prediction.predictor import Predictor
from ..prediction.reading import Loaded, read, warn_of
from ..prediction.sources import Source, Sources, with_page
from ..prediction.tiles import untiled_warning
from ..prediction.windows import own_window_warning
from ..stores import StoreFile, is_address, local_copy, store_name
from ..text import printable
from .tables import IMAGE_COLUMNS, columns_of, to_table

if TYPE_CHECKING:
    import pyarrow

LOADING = ("weights", "device", "precision", "trust", "proposal_source")
FINDING = (
    *("conf", "iou", "max_det", "soft_nms", "tta", "topk", "slide", "crf"),
    *("tile", "overlap", "tile_levels"),
)
OTHERS = ("imgsz", "batch", "window", "page", "channels")
# What Spark calls kinds of columns.
SQL = {
    **{"int32": "int", "int64": "bigint", "float32": "float", "float64": "double"},
    **{"string": "string", "list<float32>": "array<float>"},
}
OPTIONS = (*LOADING, *FINDING, *OTHERS)  # of `predict` that hold here, with its defaults
Row = dict[str, Any]


class BatchPredictor:
    """Predicts on a batch of columns, and returns what was found as one.

    An image of which nothing was found is a row without a find; one that failed is a row with its
    `error`. Numbers are those of `predict`, to the bit.

    Attributes:
        columns: of the table that comes back: names and kinds, see `tables.COLUMNS`; loads the
            model.

    Example:
        >>> from maskwright.distribute import BatchPredictor
        >>> find = BatchPredictor("nuclei", conf=0.5)
        >>> find({"path": ["cells.png"]}).column_names[:5]
        ['image', 'page', 'height', 'width', 'find']
    """

    def __init__(
        self,
        model: str | Path,
        *,
        column: str | None = None,
        keep: Sequence[str] = (),
        **options: Any,
    ) -> None:
        """Take the options; the model is not loaded yet.

        Args:
            model: as for `predict`; also the address of a checkpoint in an object store.
            column: with the images: paths, addresses, bytes of files, or a structure of `bytes` and
                `path` as Hugging Face has it. None: the first of `tables.IMAGE_COLUMNS`.
            keep: further columns of the batch, such as an id, that each row of its image repeats.
            **options: of `predict`: conf, imgsz, batch, device, ...

        Raises:
            OptionError: if an option is unknown.
        """
        for name in options:
            if name not in OPTIONS:
                raise OptionError(f"BatchPredictor has no option {name!r}{nearest(name, OPTIONS)}")
        self.model, self.column, self.keep = str(model), column, tuple(keep)
        usual = inspect.signature(predict).parameters
        self.options = {name: options.get(name, usual[name].default) for name in OPTIONS}
        self.options["page"] = parse_page(self.options["page"])
        self.options["batch"] = whole_number("batch", self.options["batch"])
        self._key = uuid.uuid4().hex  # of all copies of this object

    @property
    def predictor(self) -> Predictor:
        """What predicts; loaded at the first use."""
        return self._get().predictor

    @property
    def columns(self) -> dict[str, str]:
        """Names of the columns that come back and their kinds."""
        return columns_of(self.predictor.task.columns)

    @property
    def sql_schema(self) -> str:
        """The columns as Spark writes them, without those of `keep`: "image string, page int"."""
        return ", ".join(f"{name} {SQL[kind]}" for name, kind in self.columns.items())

    def __call__(self, batch: Any) -> pyarrow.Table:
        """Return what is found in the images of a batch.

        Args:
            batch: a mapping of columns, a pyarrow Table or RecordBatch, or a pandas DataFrame.

        Returns:
            One row a find, in the order of the images; `keep` columns come last, as they are.

        Raises:
            ValueError: if a column is missing, or the model or an option is wrong.
        """
        given = _as_columns(batch)
        name = chosen_column(self.column, list(given), "the batch")
        for other in self.keep:
            if other not in given:
                raise ValueError(_no_column(other, list(given), "the batch", "keep"))
        kept = {other: list(given[other]) for other in self.keep}
        sources = [as_source(value, k) for k, value in enumerate(given[name])]
        rows: list[Row] = []
        origin: list[int] = []
        with _alone:  # engines may call from several threads
            for k, found in enumerate(self.find(sources)):
                rows += found
                origin += [k] * len(found)
            table = to_table(rows, self.columns)
        for other, values in kept.items():
            import pyarrow as pa

            if other in table.column_names:
                raise OptionError(f"keep={other}: a column of that name comes back anyway")
            table = table.append_column(other, pa.array([values[k] for k in origin]))
        return table

    def find(self, sources: Iterable[Source]) -> Iterator[list[Row]]:
        """Yield the rows of each image, in order.

        Args:
            sources: the images; one with several pages is one image here, whatever `page` says.
        """
        batch, ready = self.options["batch"], self._get()
        waiting: list[tuple[int, Loaded, list[str]]] = []
        done: dict[int, list[Row]] = {}
        pages: dict[int, int] = {}  # that are still computed
        first = 0

        def compute() -> None:
            found = ready.compute([loaded for _, loaded, _ in waiting])
            for (k, loaded, said), looked in zip(waiting, found, strict=True):
                done[k] += _rows(loaded.source, looked, said)
                pages[k] -= 1
            waiting.clear()

        for k, source in enumerate(sources):
            done[k], pages[k] = [], 0
            for page in with_page(Sources([source], single=True), self.options["page"]):
                try:
                    loaded, said = ready.load(page)
                except Exception as error:  # whatever it is: that of one image among many
                    if isinstance(error, OptionError):
                        raise
                    done[k] += _rows(page, error, [])
                    continue
                waiting.append((k, loaded, said))
                pages[k] += 1
                if len(waiting) == batch:
                    compute()
            while first <= k and not pages[first]:
                yield done.pop(first)
                first += 1
        if waiting:
            compute()
        yield from (done[k] for k in sorted(done))

    def _get(self) -> _Ready:
        # Spark unpickles a copy for each task: in one process all share one model.
        if self._key not in _loaded:
            _loaded.clear()
            _loaded[self._key] = _Ready(self.model, self.options)
        return _loaded[self._key]


@dataclass(frozen=True)
class Looked:
    """What was found in one image.

    Attributes:
        size: (height, width).
        rows: of its finds, see `ImageResult.rows`.
        said: what there is to say of it.
    """

    size: tuple[int, int]
    rows: list[Row]
    said: list[str]


_loaded: dict[str, _Ready] = {}  # the last one
_alone = threading.Lock()


class _Ready:
    """A model in memory, with its options checked."""

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        place = str(local_copy(model)) if is_address(model) else model
        self.predictor = load(place, **{name: options[name] for name in LOADING})
        given = {name: options[name] for name in FINDING}
        self.settings = self.predictor.settings(given, predict)
        self.rule = self.predictor.resize_rule(options["imgsz"], self.settings)
        self.reading = self.predictor.reading(options["window"], options["channels"])
        self.batch: int = options["batch"]

    def load(self, source: Source) -> tuple[Loaded, list[str]]:
        """Return an image in memory, and what there is to say of it."""
        settings, predictor = self.settings, self.predictor
        with _noted() as said:
            if source.data is None:
                raise ValueError(f"{source.name}: there is no image in this row")
            loaded = read(source, self.reading, settings.tiling)
            size = loaded.pixels.shape[:2]
            if settings.tiling is None or settings.tiling.fits(size):
                rules = settings.rules(self.rule)
                predictor.memory.require([size], rules, source.name, part=settings.part)
            warn_of(loaded)
        if loaded.deep and self.reading.window is None:
            said.append(own_window_warning(predictor.meta.model))
        text = untiled_warning(predictor.model, predictor.meta, self.rule, settings, [size])
        return loaded, said if text is None else [*said, text]

    def compute(self, group: Sequence[Loaded]) -> list[Looked | Exception]:
        """Return what is found in each image of a batch, or what went wrong.

        Images whose batch fails are tried one by one.
        """
        task, model = self.predictor.task, self.predictor.model
        try:
            with _noted() as said:
                results = self.predictor.infer(group, self.rule, self.settings, tiles=self.batch)
                rows = [one.rows() for one in results]
        except Exception as error:  # its trace would keep the memory
            problem = error.with_traceback(None)
        else:
            return [
                Looked(one.size, found, [*said, *task.remarks([one], model, self.settings, set())])
                for one, found in zip(results, rows, strict=True)
            ]
        if len(group) == 1:
            return [problem]
        return [self.compute([one])[0] for one in group]


def as_source(value: Any, number: int, name: str | None = None) -> Source:
    """Return the image that a value of a column stands for.

    Args:
        value: path, address, bytes of a file, array, PIL image, or a mapping of `bytes` and `path`.
        number: of its row, the first being 0.
        name: what it is called; None: its path, or "image 3" for the third.
    """
    if isinstance(value, Mapping):
        name, value = value.get("path") or name, value.get("bytes") or value.get("path")
    if isinstance(value, str | Path):
        text = str(value)
        if is_address(text):
            return Source(StoreFile(text), store_name(text), text)
        web = text.lower().startswith(("http://", "https://"))
        return Source(text if web else Path(text), Path(text).name, text)
    return Source(value, name or f"image {number + 1}", None)


def chosen_column(asked: str | None, there: Sequence[str], where: str) -> str:
    """Return the column with the images.

    Args:
        asked: the option `column`.
        there: all columns.
        where: what has them.

    Raises:
        ValueError: if it is not there.
    """
    if asked is not None:
        if asked not in there:
            raise ValueError(_no_column(asked, there, where, "column"))
        return asked
    for name in IMAGE_COLUMNS:
        if name in there:
            return name
    wanted = ", ".join(IMAGE_COLUMNS)
    raise ValueError(
        f"{where} has no column of images ({wanted}), only {', '.join(there)}: name it by column="
    )


def _no_column(name: str, there: Sequence[str], where: str, option: str) -> str:
    meant = nearest(name, there) or f"; it has {', '.join(there)}"
    return f"{where} has no column {name!r}, which {option}={name} names{meant}"


def _as_columns(batch: Any) -> Mapping[str, Sequence[Any]]:
    if isinstance(batch, Mapping):
        return batch
    if hasattr(batch, "to_pydict"):  # of pyarrow
        columns: Mapping[str, Sequence[Any]] = batch.to_pydict()
        return columns
    if hasattr(batch, "to_dict"):  # of pandas
        return {str(name): batch[name].tolist() for name in batch.columns}
    raise ValueError(
        "a batch is a mapping of columns, a pyarrow Table or RecordBatch, or a pandas DataFrame; "
        f"got {type(batch).__name__}"
    )


def _rows(source: Source, found: Looked | Exception, said: Sequence[str]) -> list[Row]:
    """Return the rows of an image, in columns that all tasks share and those of its own."""
    same: Row = {"image": source.path or source.name, "page": source.page}
    if isinstance(found, Exception):
        kind = "" if isinstance(found, ValueError) else f"{type(found).__name__}: "
        return [same | {"error": printable(f"{kind}{found}"), "note": _joined(said)}]
    height, width = found.size
    same |= {"height": height, "width": width, "note": _joined([*said, *found.said])}
    return [same | {"find": k} | row for k, row in enumerate(found.rows)] or [same]


def failed_row(source: Source, reason: str) -> Row:
    """Return the row of an image that failed."""
    return _rows(source, ValueError(reason), [])[0]


def _joined(said: Sequence[str]) -> str | None:
    return "; ".join(dict.fromkeys(map(printable, said))) or None


@contextmanager
def _noted() -> Iterator[list[str]]:
    """Give a list into which the warnings inside come, in place of the terminal."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            yield said
        finally:
            said[:0] = [str(one.message) for one in caught]
