"""A video written picture by picture, each at its time: H.264 in MP4, which plays everywhere.

The file is whole after every second of it, not only at its end: what was written before a crash, a
full disk or the end of a process plays.
"""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...files import writing
from .reading import load_av

if TYPE_CHECKING:
    from PIL import Image

# The first that there is: MPEG-4 part 2 is in every FFmpeg.
ENCODERS = ("libx264", "libopenh264", "mpeg4")
# Rate factor 20 shows no difference to the eye at a sixth of the time of the default preset. With
# zerolatency the encoder holds no pictures back, else some for each core.
QUALITY = {"libx264": {"crf": "20", "preset": "veryfast", "tune": "zerolatency"}}
# Fragments of a second, written at once; a player that knows none gets an ordinary file in the end.
CONTAINER = {"movflags": "hybrid_fragmented", "frag_duration": "1000000", "flush_packets": "1"}
MOST_TICKS = 65_535  # a second, of MPEG-4 part 2
BT709 = 1  # the colours of high definition, which players take unless told otherwise
GROUND = (24, 26, 31)  # where a later picture is smaller than the first


class VideoWriter:
    """Writes pictures as a video; all have the size of the first, made even for the encoder.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, *, rate: Fraction, tick: Fraction, aspect: Fraction) -> None:
        """Prepare; the file is made with the first picture.

        Args:
            path: the file.
            rate: usual number of pictures a second.
            tick: seconds that all times are multiples of.
            aspect: width of a pixel by its height.
        """
        self.path, self._rate, self._tick, self._aspect = path, rate, tick, aspect
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def add(self, picture: Image.Image, moment: Fraction) -> None:
        """Write an RGB picture that is shown from `moment` on, in seconds; later ones follow.

        Raises:
            WriteError: if the disk takes nothing more; what was written before plays.
        """
        av = load_av()
        with writing(self.path):
            if self._container is None:
                self._open(picture.size)
            pixels = self._fitted(picture)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            self._last = frame.pts = max(round(moment / self._tick), self._last + 1)
            frame.time_base = self._tick
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder holds back and the end of the file.

        Raises:
            WriteError: if the disk takes nothing more; what was written before plays.
        """
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            with writing(self.path):
                container.mux(self._stream.encode())
                container.close()
        finally:
            with suppress(OSError):  # the same again, after an error
                container.close()

    def _open(self, size: tuple[int, int]) -> None:
        av = load_av()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        name = next(name for name in ENCODERS if name in av.codecs_available)
        if name == "mpeg4":
            self._tick = max(self._tick, Fraction(1, MOST_TICKS))
        self._container = av.open(f"file:{self.path}", "w", format="mp4", options=CONTAINER)
        stream = self._container.add_stream(name, rate=self._rate, options=QUALITY.get(name, {}))
        stream.width, stream.height = (side + side % 2 for side in size)
        stream.pix_fmt, stream.time_base = "yuv420p", self._tick
        codec = stream.codec_context
        codec.time_base, codec.sample_aspect_ratio = self._tick, self._aspect
        codec.colorspace = codec.color_primaries = codec.color_trc = codec.color_range = BT709
        self._stream, self._size = stream, size

    def _fitted(self, picture: Image.Image) -> np.ndarray:
        """Return the pixels of a picture in the size of the video."""
        from PIL import Image

        if picture.size != self._size:
            picture = picture.copy()
            picture.thumbnail(self._size)
            board = Image.new("RGB", self._size, GROUND)
            board.paste(picture, (0, 0))
            picture = board
        pixels = np.asarray(picture)
        height, width = pixels.shape[:2]
        if height % 2 == width % 2 == 0:
            return pixels
        # Colours are stored for squares of four pixels: odd sides get a copy of their last line.
        return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
