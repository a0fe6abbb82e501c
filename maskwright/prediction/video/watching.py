"""Videos looked at frame by frame: one result each, as they come, in constant memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import OptionError, WriteError
from ...reports.result import ImageResult
from ...tasks.answers import Settings, Tracker
from ...text import one_line, printable
from ..predictor import Predictor
from ..reading import Loaded, Reading
from ..sources import Source
from ..stream import Results
from .ahead import Ahead
from .counting import Counts
from .folder import FrameFolder, FrameSource
from .kinds import VideoSource
from .options import OutsideError, VideoOptions
from .reading import Choice, Frame, Video
from .saving import VideoFiles, VideoSaver

LIVE = ("stream", "camera")


@dataclass(frozen=True)
class Look:
    """What is done with each frame.

    Attributes:
        take: gives what the network looks at of the pixels of a frame.
        compute: gives the results of some frames that were read.
        remarks: gives what is to be said of a result.
        explain: gives a result its heat map; None: nothing does.
        tracker: makes what follows the finds of a video, of the frames a second; None: nothing.
        check: refuses options that the size of a video forbids, by its name, height and width.
        lined: whether a line is among them.
        batch: frames that are computed at once.
    """

    take: Callable[[np.ndarray], np.ndarray]
    compute: Callable[[Sequence[Loaded]], list[Any]]
    remarks: Callable[[Any], Iterable[str]]
    explain: Callable[[Any], Any] | None
    tracker: Callable[[float], Tracker] | None
    check: Callable[[str, int, int], None]
    lined: bool
    batch: int

    @classmethod
    def of(
        cls,
        predictor: Predictor,
        options: VideoOptions,
        settings: Settings,
        reading: Reading,
        explain: Callable[[Any], Any] | None,
        batch: int,
        compute: Callable[..., list[Any]],
    ) -> Look:
        """Return what a predictor does with each frame.

        Args:
            predictor: the predictor.
            options: of the video.
            settings: of the prediction.
            reading: what is taken of a frame.
            explain: gives a result its heat map, or None.
            batch: frames that are computed at once.
            compute: gives the results of frames by `settings`.
        """
        tracker = None
        shown = settings
        if (method := options.track) is not None:
            kind = predictor.task.tracker
            assert kind is not None  # the option is that of tasks which have one
            settings = kind.weaker(shown, predictor.model)

            def tracker(rate: float) -> Tracker:
                return kind(method, rate, shown, line=options.line)

        said: set[str] = set()
        return cls(
            reading.of_frame,
            lambda group: compute(group, settings=settings),
            lambda one: predictor.task.remarks([one], predictor.model, shown, said),
            explain,
            tracker,
            options.check_line,
            options.line is not None,
            batch,
        )


class VideoResults(Results):
    """Results of the frames of videos, computed while you take them.

    Attributes:
        total: frames that will be looked at, as far as the files tell; None: nobody knows.
        taken: results so far.
        videos: the annotated videos; none without `save`.
        broken: frames so far that could not be decoded.
        dropped: frames of a stream or camera so far that came while others were looked at.
    """

    UNIT = "frame"

    def __init__(
        self,
        videos: Sequence[VideoSource | FrameSource],
        choice: Choice,
        look: Look,
        saver: VideoSaver | None,
        model: str,
    ) -> None:
        """Open what there is.

        Raises:
            ValueError: if the only video cannot be read.
            ImportError: if PyAV is not installed.
        """
        if len(videos) > 1 and any(one.kind in LIVE for one in videos):
            raise OptionError("source: of streams and cameras one at a time is looked at")
        self.broken = self.dropped = 0
        self.videos: list[Path] = []
        self._counts = Counts()
        self._size: tuple[str, int, int] | None = None  # of the first video: name, height, width
        self._tracker: Tracker | None = None  # of the video that is being looked at
        self._choice, self._look, self._folder = choice, look, saver
        if saver is not None:
            saver.expect(videos)
        first = open_video(videos[0]) if len(videos) == 1 else None
        totals = [_frames(source, choice, first) for source in videos]
        total = None if None in totals else sum(filter(None, totals))
        stream = self._of_one(first) if first is not None else self._of_several(videos)
        super().__init__(stream, total, model)

    @property
    def counts(self) -> dict[str, dict[str, float]]:
        """The numbers of each name so far; see `Counts.rows`."""
        return self._counts.rows({} if self._tracker is None else self._tracker.numbers())

    @property
    def dir(self) -> Path | None:
        """Folder of the files, made before the first frame is computed; None without `save`."""
        return None if self._folder is None else self._folder.dir

    def _of_several(self, videos: Sequence[VideoSource | FrameSource]) -> Generator[ImageResult]:
        failed = 0
        for source in videos:
            try:
                video = open_video(source)
            except ValueError as error:
                failed += 1
                warnings.warn(printable(f"skipped: {error}"), stacklevel=2)
                continue
            try:
                yield from self._of_one(video)
            except OutsideError as error:  # the line may be inside of others
                failed += 1
                warnings.warn(printable(f"skipped: {error}"), stacklevel=2)
        if failed == len(videos):
            raise ValueError(f"none of the {failed} videos could be read")

    def _of_one(self, video: Video | FrameFolder) -> Generator[ImageResult]:
        name, choice = one_line(video.source.name), self._choice
        rate = video.rate / choice.stride if choice.fps is None else min(choice.fps, video.rate)
        tracker = None if self._look.tracker is None else self._look.tracker(float(rate))
        self._tracker = tracker
        counts, files, failing = Counts(), None, False
        frames = Ahead(video.read(choice), newest=video.live)
        try:
            while group := list(islice(frames, self._look.batch)):
                if not counts.frames:  # what is wrong is told before the work
                    self._check(name, *group[0].pixels.shape[:2])
                    if self._folder is not None:
                        files = self._files(self._folder, video, rate, tracker)
                for frame, result in self._results(video, group, tracker):
                    if files is not None:
                        files.add(result, frame.time)
                        if not counts.frames:
                            self.videos.append(files.video)
                    counts.add(result)
                    self._counts.add(result)
                    if files is not None:
                        files.count(partial(_rows, counts, tracker))
                    yield result
        except WriteError as error:
            failing = True
            if not counts.frames:
                raise
            kept = "1 frame is" if counts.frames == 1 else f"{counts.frames} frames are"
            raise WriteError(
                f"{error}; {kept} kept in {self.dir}, of which the video may lack the last second",
                error.number,
            ) from None
        except ValueError as error:
            if video.source.kind not in LIVE or not counts.frames:
                raise
            kept = "" if self.dir is None else f", and their files are in {self.dir}"
            raise ValueError(f"{error}; {counts.frames} frames came before{kept}") from None
        finally:
            frames.close()
            self.broken += video.broken
            self.dropped += frames.dropped
            numbers = {} if tracker is None else tracker.numbers()
            self._counts.add_further(numbers)
            self._tracker = None
            if files is not None:
                with suppress(WriteError) if failing else nullcontext():
                    files.close(_rows(counts, tracker))
            _tell(video, name, frames.dropped, none=not counts.frames)

    def _check(self, name: str, height: int, width: int) -> None:
        """Refuse a line that is outside of a video; say where it means another place than before.

        Raises:
            OutsideError: if nothing of it is in the picture.
        """
        self._look.check(name, height, width)
        first = self._size = self._size or (name, height, width)
        if self._look.lined and first[1:] != (height, width):
            warnings.warn(
                f"line is in pixels of each video, and {name} is {width} x {height}, {first[0]} "
                f"{first[2]} x {first[1]}: does it mean the same place in both?",
                stacklevel=3,
            )

    def _results(
        self, video: Video | FrameFolder, group: Sequence[Frame], tracker: Tracker | None
    ) -> Generator[tuple[Frame, ImageResult]]:
        look, source = self._look, video.source
        loaded = [
            Loaded(
                frame.image or Source(None, f"{source.name} frame {frame.number}", source.path),
                # Images of a folder were read as any others are.
                look.take(frame.pixels) if frame.image is None else frame.pixels,
                frame.ms,
                frame=frame.number,
                time=float(frame.time),
            )
            for frame in group
        ]
        for text in (frame.said for frame in group if frame.said):
            warnings.warn(text, stacklevel=2)
        for frame, found in zip(group, look.compute(loaded), strict=True):
            result = found if tracker is None else tracker.follow(found)
            for text in look.remarks(result):
                warnings.warn(text, stacklevel=2)
            yield frame, result if look.explain is None else look.explain(result)

    def _files(
        self,
        saver: VideoSaver,
        video: Video | FrameFolder,
        rate: Fraction,
        tracker: Tracker | None,
    ) -> VideoFiles:
        files = saver.files(video, rate, tracker)
        if video.sound:
            warnings.warn(
                f"{one_line(video.source.name)}: its sound is left out, {files.video.name} is "
                "silent",
                stacklevel=2,
            )
        return files


def _rows(counts: Counts, tracker: Tracker | None) -> dict[str, dict[str, float]]:
    """Return the numbers of each name in a video so far."""
    return counts.rows({} if tracker is None else tracker.numbers())


def open_video(source: VideoSource | FrameSource) -> Video | FrameFolder:
    """Return an open video, or a folder of frames in its place.

    Raises:
        ValueError: if it cannot be read.
        ImportError: if PyAV is not installed.
    """
    return FrameFolder(source) if isinstance(source, FrameSource) else Video(source)


def _frames(
    source: VideoSource | FrameSource, choice: Choice, video: Video | FrameFolder | None
) -> int | None:
    """Return how many frames of a video will be looked at, if that is known."""
    if video is None:
        try:
            video = open_video(source)
        except ValueError:  # said when its turn comes
            return 0
        video.close()
    return None if video.frames is None else choice.of(video.frames, video.seconds)


def _tell(video: Video | FrameFolder, name: str, dropped: int, *, none: bool) -> None:
    """Say what of a video was not looked at, and why; where `none` was, its error says it."""
    if video.broken and not none:
        what = "1 broken frame was" if video.broken == 1 else f"{video.broken} broken frames were"
        why = "" if not video.reason else f"; the first: {video.reason}"
        warnings.warn(printable(f"{name}: {what} passed over{why}"), stacklevel=3)
    if video.odd:
        warnings.warn(printable(f"{name}: {video.odd}"), stacklevel=3)
    if dropped:
        warnings.warn(
            f"{name}: {dropped} frames came faster than they could be looked at and were passed "
            "over: a smaller imgsz or model is faster",
            stacklevel=3,
        )
    if video.lacking:
        warnings.warn(f"{name} {video.lacking}", stacklevel=3)
