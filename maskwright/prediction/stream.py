"""What `predict` returns: results one by one, and their files written as they come."""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar

from ..reports.gallery import ResultWriter, write_gallery
from ..reports.result import Gathered, ImageResult
from ..reports.saved import SavedResult
from ..runs import new_run_dir
from ..text import one_line


class Saver:
    """Writes the files of a stream of results, and behind the last a page of several images.

    Attributes:
        dir: the folder; None until something is written.
        page: the page, once it is there.
        failed: why the files of an image could not be written, by its name.
    """

    def __init__(
        self,
        save: bool | Path,
        *,
        project: str | Path,
        name: str | None,
        formats: Sequence[str],
        labels: bool,
        title: str,
        several: bool,
        gathered: Gathered | None = None,
    ) -> None:
        """Prepare.

        Args:
            save: True: a new run folder, made with the first result; or the folder itself.
            project: folder of all runs.
            name: name of the run folder.
            formats: further files of each image, see `ImageResult.FILES`.
            labels: write names and scores into the pictures.
            title: heading of the page.
            several: whether there is to be a page.
            gathered: takes all results, to write them together at the end; None: nothing does.
        """
        self._project, self._name, self._formats = project, name, formats
        self._labels, self._title, self._several = labels, title, several
        self._gathered = gathered
        self._saved: list[SavedResult] = []
        self._writer = self._make(save) if isinstance(save, Path) else None
        self.page: Path | None = None

    def _make(self, folder: Path) -> ResultWriter:
        return ResultWriter(
            folder, originals=self._several, formats=self._formats, labels=self._labels
        )

    @property
    def dir(self) -> Path | None:
        """The folder, or None while there is none."""
        return None if self._writer is None else self._writer.folder

    @property
    def failed(self) -> Mapping[str, str]:
        """Why the files of an image could not be written, by its name."""
        return {} if self._writer is None else self._writer.failed

    def write(self, result: ImageResult) -> None:
        """Write the files of one result; see `ResultWriter.try_write`."""
        if self._writer is None:  # not before there is something to keep
            self._writer = self._make(new_run_dir(self._project, "predict", self._name))
        saved = self._writer.try_write(result)
        if saved is not None:
            self._saved.append(saved)
            if self._gathered is not None:
                self._gathered.add(result)

    def finish(self, count: int) -> None:
        """Write the page, and say how many of `count` images could not be saved."""
        if self._several and self.dir is not None and self._saved:
            self.page = write_gallery(self._saved, self.dir, self._title)
        elif self._saved:
            self.page = self._saved[0].page  # of a large image
        if self._gathered is not None and self.dir is not None:
            self._gathered.write(self.dir)
        if self.failed:
            names = ", ".join(map(one_line, islice(self.failed, 3)))
            more = ", ..." if len(self.failed) > 3 else ""
            warnings.warn(
                f"{len(self.failed)} of {count} images could not be saved: {names}{more}",
                stacklevel=2,
            )


class Results(Iterator[ImageResult]):
    """Results that are computed while you take them: iterate, or call `next` or `list`.

    Attributes:
        total: images of the source; None: nobody knows.
        taken: results so far.
        UNIT: what each is of.
    """

    UNIT: ClassVar[str] = "image"

    def __init__(
        self,
        stream: Generator[ImageResult],
        total: int | None,
        model: str,
        saver: Saver | None = None,
    ) -> None:
        self._stream, self._model, self._saver = stream, model, saver
        self.total, self.taken = total, 0

    def __iter__(self) -> Results:
        return self

    def __next__(self) -> ImageResult:
        result = next(self._stream)
        self.taken += 1
        return result

    def close(self) -> None:
        """End here: what has not been computed yet never is."""
        self._stream.close()

    @property
    def dir(self) -> Path | None:
        """Folder of the files, once one is written; None without `save`."""
        return None if self._saver is None else self._saver.dir

    @property
    def page(self) -> Path | None:
        """The page of all images, when the last of several is done, or of a single large one."""
        return None if self._saver is None else self._saver.page

    @property
    def failed(self) -> Mapping[str, str]:
        """Why the files of an image could not be written, by its name."""
        return {} if self._saver is None else self._saver.failed

    def __repr__(self) -> str:
        many = "some" if self.total is None else self.total
        images = f"1 {self.UNIT}" if self.total == 1 else f"{many} {self.UNIT}s"
        return (
            f"<Results of {one_line(self._model)} over {images}, {self.taken} taken: each is "
            "computed when you ask for it, as in `for result in results: ...`; list(results) takes "
            "all>"
        )
