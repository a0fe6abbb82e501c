"""What a video leaves: itself with what was found drawn on it, a line of JSON a frame, counts."""

from __future__ import annotations

import csv
import io
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import TextIO

from ...errors import OptionError
from ...files import replacing_picture, write_whole, writing
from ...reports.gallery import FreeNames
from ...reports.result import ImageResult
from ...runs import save_dir
from ...tasks.answers import Tracker
from .counting import COLUMNS
from .folder import FrameFolder, FrameSource
from .kinds import VideoSource
from .reading import Video
from .writing import VideoWriter

PICTURES = "pictures"
EACH = 1.0  # seconds after which the table of counts is written anew
FRAME_FORMATS = (PICTURES,)  # of `formats`, for videos alone: a picture of each frame


class VideoFiles:
    """The files of one video, which grow with each frame; what is in them stays, come what may."""

    def __init__(
        self,
        folder: Path,
        stem: str,
        video: Video | FrameFolder,
        rate: Fraction,
        tracker: Tracker | None,
        *,
        formats: Sequence[str],
        labels: bool,
    ) -> None:
        """Prepare.

        Args:
            folder: where they go.
            stem: what they are called, before their endings.
            video: the video.
            rate: frames a second that are looked at.
            tracker: what follows its finds, or None.
            formats: further files of each frame.
            labels: write names and scores into the pictures.
        """
        self.video = folder / f"{stem}.mp4"
        self._folder, self._stem, self._tracker = folder, stem, tracker
        self._formats, self._labels, self._of = formats, labels, video
        self._rate = rate
        self._pictures: dict[Path, VideoWriter] = {}
        self._texts: dict[str, TextIO] = {}
        self._closing = ExitStack()
        self._counted: float | None = None  # when the table of counts was written

    def add(self, result: ImageResult, moment: Fraction) -> None:
        """Write a frame.

        Raises:
            WriteError: if the disk takes nothing more.
        """
        lines = {".jsonl": result.to_json() + "\n"}
        if self._tracker is not None:
            lines |= self._tracker.lines(result)
        for ending, text in lines.items():
            self._write(ending, text)
        picture = result.plot(labels=self._labels)
        if self._tracker is not None:
            picture = self._tracker.draw(picture)
        self._film(self.video).add(picture, moment)
        if result.heatmap is not None:
            film = self._film(self.video.with_suffix(".heatmap.mp4"))
            film.add(result.plot_heatmap(), moment)
        for name in self._formats:
            number = f"{self._stem}_{result.frame:06d}"
            if name == PICTURES:
                with replacing_picture(self._folder / PICTURES / f"{number}.jpg") as path:
                    picture.save(path, quality=92)
            else:
                ending, below = result.FILES[name]
                result.writers()[name](self._folder / below / f"{number}{ending}")

    def count(self, rows: Callable[[], Mapping[str, Mapping[str, float]]]) -> None:
        """Write the table of counts anew if it is a second old.

        Args:
            rows: gives the numbers of each name.

        Raises:
            WriteError: if the disk takes nothing more; the table that was there stays.
        """
        now = time.monotonic()
        if self._counted is None or now - self._counted >= EACH:
            self._counted = now
            self._write_counts(rows())

    def close(self, counts: Mapping[str, Mapping[str, float]]) -> None:
        """End the files, and write the numbers of each name as a table.

        Raises:
            WriteError: if the disk takes nothing more.
        """
        try:
            if self._texts:
                self._write_counts(counts)
        finally:
            with writing(self.video):
                self._closing.close()

    def _write_counts(self, counts: Mapping[str, Mapping[str, float]]) -> None:
        further = () if self._tracker is None else self._tracker.columns
        columns = (*COLUMNS, *further)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", *columns])
        writer.writerows(
            [name, *(row.get(key, 0) for key in columns)] for name, row in counts.items()
        )
        write_whole(self._folder / f"{self._stem}.counts.csv", text.getvalue(), durable=False)

    def _film(self, path: Path) -> VideoWriter:
        if path not in self._pictures:
            of = self._of
            film = VideoWriter(path, rate=self._rate, tick=of.tick, aspect=of.aspect)
            self._closing.callback(film.close)
            self._pictures[path] = film
        return self._pictures[path]

    def _write(self, ending: str, text: str) -> None:
        """Append to a text file, and hand it to the system at once."""
        path = self._folder / f"{self._stem}{ending}"
        with writing(path):
            if ending not in self._texts:
                file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
                self._texts[ending] = self._closing.enter_context(file)
                if self._tracker is not None and ending in self._tracker.files:
                    file.write(self._tracker.files[ending])
            self._texts[ending].write(text)
            self._texts[ending].flush()


class VideoSaver:
    """Makes the folder of a prediction of videos, and the files of each of them.

    Attributes:
        dir: the folder; None until a first frame is there.
    """

    def __init__(
        self,
        save: bool | Path,
        *,
        project: str | Path,
        name: str | None,
        formats: Sequence[str],
        labels: bool,
    ) -> None:
        """Prepare; see `stream.Saver` for the options."""
        self._save, self._project, self._name = save, project, name
        self._formats, self._labels = formats, labels
        self._names = FreeNames()
        self._spared: set[Path] = set()
        self._alike: set[str] = set()  # stems of several videos, in small letters
        self.dir: Path | None = None

    def expect(self, videos: Iterable[VideoSource | FrameSource]) -> None:
        """Take which videos will come: none is written over, and names tell them apart."""
        files = [one for one in videos if isinstance(one, VideoSource) and one.kind == "file"]
        self._spared = {Path(one.address).resolve() for one in files}
        names = {one.name.casefold() for one in files}
        stems = Counter(Path(name).stem for name in names)
        self._alike = {stem for stem, count in stems.items() if count > 1}

    def _stem(self, source: VideoSource | FrameSource) -> str:
        """Return what the files of a video are called: with its suffix where others are alike."""
        path = Path(source.name)
        if source.kind != "file":
            return source.name
        alike = path.stem.casefold() in self._alike
        return f"{path.stem}_{path.suffix[1:]}" if alike and path.suffix else path.stem

    def files(
        self, video: Video | FrameFolder, rate: Fraction, tracker: Tracker | None
    ) -> VideoFiles:
        """Return the files of a video.

        Raises:
            OptionError: if they would overwrite it.
            ValueError: if the folder cannot be made.
        """
        if self.dir is None:  # not before there is something to keep
            self.dir = save_dir(self._save, self._project, "predict", self._name)
            assert self.dir is not None
        stem = self._names.take(self._stem(video.source))
        files = VideoFiles(
            self.dir, stem, video, rate, tracker, formats=self._formats, labels=self._labels
        )
        if files.video.resolve() in self._spared:
            raise OptionError(
                f"save={str(self.dir)!r} would overwrite the video {files.video}: give another "
                "folder"
            )
        return files
