"""A video opened and decoded frame by frame by PyAV (FFmpeg): upright RGB, with exact times.

What cannot be decoded is counted and passed over. A file that ends too early ends there; a stream
or camera that gives nothing any more is an error, behind all frames that came before.
"""

from __future__ import annotations

import errno
import socket
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ...paths import nearest_path, plain_path
from ..sources import Source
from .kinds import VideoSource, first_bytes, video_kind

TIMEOUT = 10.0  # seconds in which a stream or camera has to give something
FEW_ERRORS = 100  # of a container one after the other: then nothing follows
USUAL_RATE = Fraction(25)  # frames a second, where nothing tells it
EARLY = Fraction(9, 10)  # of the length of all, before which an end is not that of the pictures
FRAMES_LESS = Fraction(3, 2)  # that a stream may be shorter than its header tells
COUNTED = ("avi", "ivf")  # whose header counts frames, also those that only repeat others
CLOCK = Fraction(1, 1000)  # seconds in which the times of a stream without its own are counted


@dataclass(frozen=True)
class Frame:
    """One frame.

    Attributes:
        pixels: (H, W, 3) uint8 RGB, upright.
        number: how many frames stand before it in the video.
        time: seconds from the beginning.
        ms: milliseconds that it took to read.
        image: of a folder of frames: the image that it is.
        said: what is to be warned of with it.
    """

    pixels: np.ndarray
    number: int
    time: Fraction
    ms: float
    image: Source | None = None
    said: str = ""


@dataclass(frozen=True)
class Choice:
    """Which frames are looked at.

    Attributes:
        stride: the first of so many.
        fps: so many a second: the first at or behind each tick of a clock of that rate, whatever
            the rate of the video, even one that changes; None: as `stride` says.
    """

    stride: int = 1
    fps: Fraction | None = None

    def of(self, frames: int, seconds: Fraction | None) -> int:
        """Return how many are looked at, of so many frames in so many seconds."""
        if self.fps is not None and seconds is not None:
            return min(frames, -int(-seconds * self.fps // 1))
        return -(-frames // self.stride)


class Video:
    """An open video.

    Attributes:
        source: where it comes from.
        live: whether it goes on without waiting for who looks at it.
        rate: usual number of frames a second.
        tick: seconds that its times are multiples of.
        frames: their number as the file tells or its length and rate make it; None: unknown.
        seconds: its length, or None.
        aspect: width of a pixel by its height, upright from the first frame on.
        sound: whether there is sound beside the pictures.
        broken: frames that could not be decoded so far.
        reason: why the first of them could not, where more than that is known; else "".
        reached: seconds up to the end of the last frame so far.
        lacking: what says that the file is shorter than it tells, known behind its end; or "".
    """

    reason = lacking = odd = ""

    def __init__(self, source: VideoSource, *, timeout: float | None = None) -> None:
        """Open.

        Args:
            source: the video.
            timeout: seconds in which a stream or camera has to give something; None: `TIMEOUT`.

        Raises:
            ValueError: if there is none, or it cannot be read.
            ImportError: if PyAV is not installed.
        """
        av = load_av()
        self.source, self.broken = source, 0
        self._timeout = TIMEOUT if timeout is None else timeout
        self._begin = self.reached = Fraction(0)
        self._heard = time.monotonic()  # when something came last
        self._closing = ExitStack()
        try:
            self._container = self._closing.enter_context(self._open(av))
            pictures = [one for one in self._container.streams.video if not _is_cover(one)]
            if not pictures:
                sound = bool(self._container.streams.audio)
                what = (
                    "only sound in it, no pictures"
                    if sound
                    else "no picture in it: was it cut off?"
                )
                raise ValueError(f"{source.path}: there is {what}")
            self._stream = max(pictures, key=lambda one: one.width * one.height)
            if not self._stream.width:
                raise ValueError(f"{source.path}: no whole frame is in it")
        except av.FFmpegError as error:
            self._closing.close()
            raise ValueError(self._told(error)) from None
        except ValueError:
            self._closing.close()
            raise
        # Several frames at once are faster, but each comes so many frames later.
        self._stream.thread_type = "AUTO" if source.kind == "file" else "SLICE"
        self.sound = bool(self._container.streams.audio)
        length = self._container.duration
        self.seconds = None if not length else Fraction(length, av.time_base)
        web = source.address.startswith(("http://", "https://"))
        self.live = source.kind != "file" and not (web and self.seconds)
        # Images that a camera pushes through HTTP have no times: those of their arrival count.
        self._clocked = self._container.format.name == "mpjpeg"
        self.tick = CLOCK if self._clocked else Fraction(self._stream.time_base or CLOCK)
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = Fraction(rate) if rate else USUAL_RATE
        self.aspect = Fraction(self._stream.sample_aspect_ratio or 1)
        self.frames: int | None = self._stream.frames or None
        if self.frames is None and self.seconds is not None and not self.live:
            self.frames = max(round(self.seconds * self.rate), 1)

    def close(self) -> None:
        """Let go of file or camera."""
        self._closing.close()

    def read(self, choice: Choice) -> Generator[Frame]:
        """Yield the frames that are chosen, in their order; the video is closed behind them.

        Raises:
            ValueError: behind the last frame, if a stream or camera gave nothing any more, or
                none could be decoded.
        """
        count, slot, start, aspect = 0, -1, time.perf_counter(), self.aspect
        last: Fraction | None = None
        try:
            for count, frame in enumerate(self._decode(), 1):
                last = moment = self._time(frame, last)
                lasts = (frame.duration or 0) * Fraction(frame.time_base or self.tick)
                self.reached = moment + max(lasts, 1 / self.rate)
                if choice.fps is None:
                    taken = (count - 1) % choice.stride == 0
                else:
                    taken, slot = moment * choice.fps // 1 > slot, moment * choice.fps // 1
                if not taken:
                    continue
                # Turned by quarters: a phone held upright films a lying picture and notes that.
                turns = round(frame.rotation / 90)
                pixels = np.rot90(frame.to_ndarray(format="rgb24"), turns)
                self.aspect = 1 / aspect if turns % 2 else aspect
                ms = 1e3 * (time.perf_counter() - start)
                yield Frame(np.ascontiguousarray(pixels), count - 1 + self.broken, moment, ms)
                start = time.perf_counter()
            self.lacking = self._lack()
        finally:
            self.close()
        if not count:
            raise ValueError(f"{self.source.path}: no frame of it could be decoded")

    def _decode(self) -> Iterator[Any]:
        """Yield the frames as PyAV has them, without those that are damaged."""
        cut: set[int] = set()  # times of the frames whose data are not whole
        decoder = self._stream.codec_context
        for packet in self._packets():
            if packet is not None and packet.is_corrupt and packet.pts is not None:
                cut.add(packet.pts)
            for frame in self._frames_of(decoder, packet):
                if frame.is_corrupt or frame.pts in cut:
                    self.broken += 1
                    cut.discard(frame.pts)
                else:
                    yield frame

    def _frames_of(self, decoder: Any, packet: Any) -> list[Any]:
        av = load_av()
        try:
            return list(decoder.decode(packet))
        except av.EOFError:
            return []
        except av.FFmpegError:
            self.broken += 1
            return []

    def _packets(self) -> Iterator[Any]:
        """Yield encoded frames, and last None, for which the decoder gives what it kept back."""
        av = load_av()
        packets = self._container.demux(self._stream)
        errors = 0
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.FFmpegError as error:
                if self.source.kind != "file":
                    yield None
                    raise ValueError(self._told(error)) from None
                errors += 1
                if errors > FEW_ERRORS:
                    break
                packets = self._container.demux(self._stream)
                continue
            errors, self._heard = 0, time.monotonic()
            if packet.size:
                yield packet
        yield None
        if self.source.kind == "camera":
            raise ValueError(f"{self.source.name} gave no more frames: is it still plugged in?")

    def _lack(self) -> str:
        """Return that the file ends before what its header tells of, or ""."""
        if self.live:
            return ""
        stream, told = self._stream, self._stream.frames
        counted = self._container.format.name in COUNTED and told
        own = Fraction(stream.duration or 0) * Fraction(stream.time_base or 0)
        # FFmpeg guesses the length of an AVI by the size of the file; its header counts frames.
        length = max(own, told / self.rate) if counted else own or _tagged(stream)
        if length:
            early = self.reached < length - FRAMES_LESS / self.rate
        else:  # that of all, which may be that of the sound
            length = self.seconds or Fraction(0)
            early = self.reached < EARLY * length - 1
        if early:
            return (
                f"ends at {float(self.reached):.1f} s, though it tells of {float(length):.1f} s: "
                "it was cut off"
            )
        return ""

    def _time(self, frame: Any, last: Fraction | None) -> Fraction:
        """Return the time of a frame; it grows from each to the next, whatever the file says."""
        if self._clocked:
            now = Fraction(round(time.monotonic() / CLOCK)) * CLOCK
            self._begin = now if last is None else self._begin
            return now - self._begin if last is None else max(now - self._begin, last + CLOCK)
        if frame.pts is None:
            moment = None
        else:
            moment = frame.pts * Fraction(frame.time_base or self.tick)
            if last is None:
                known = self._stream.start_time
                first = None if known is None or self.live else known * Fraction(self.tick)
                self._begin = moment if first is None else min(first, moment)
            moment -= self._begin
        if last is None:
            if moment is None:
                self._begin = Fraction(0)
            return moment or Fraction(0)
        return last + 1 / self.rate if moment is None or moment <= last else moment

    def _open(self, av: Any) -> Any:
        """Open the container."""
        source = self.source
        if source.kind == "file":
            path = self._closing.enter_context(plain_path(Path(source.address)))
            # What a file refers to is not fetched from elsewhere.
            near = {"protocol_whitelist": "file,crypto,data"}
            return av.open(f"file:{path}", format=source.format, options=near)
        limits = (self._timeout, self._timeout)
        if source.kind == "stream":
            # Over UDP, FFmpeg's own first choice, lost packets make broken frames.
            rtsp = source.address.lower().startswith("rtsp")
            options = {"rtsp_flags": "prefer_tcp"} if rtsp else {}
            return av.open(source.address, timeout=limits, options=options)
        if sys.platform == "darwin":
            return av.open(source.address, format="avfoundation", timeout=limits,
                           options={"framerate": "30"})  # fmt: skip
        if sys.platform == "win32":
            cameras = [one.name for one in av.enumerate_input_devices("dshow")]
            if int(source.address) >= len(cameras):
                raise ValueError(_no_camera(source, len(cameras)))
            return av.open(f"video={cameras[int(source.address)]}", format="dshow", timeout=limits)
        device = Path(f"/dev/video{source.address}")
        if not device.exists():
            raise ValueError(_no_camera(source, len(list(Path("/dev").glob("video*")))))
        return av.open(str(device), format="v4l2", timeout=limits)

    def _told(self, error: Any) -> str:
        """Return what is wrong in words; FFmpeg's own would show the password of an address."""
        av = load_av()
        source, why = self.source, error.strerror or type(error).__name__
        where = source.path if source.kind == "stream" else source.name
        # What FFmpeg gives up waiting for is not always called that.
        waited = source.kind != "file" and time.monotonic() - self._heard > 0.9 * self._timeout
        if waited or isinstance(error, av.ExitError | TimeoutError):
            return f"{where}: nothing came for {self._timeout:g} s"
        if source.kind == "camera":
            mend = ": another program may be using it" if error.errno == errno.EBUSY else ""
            return f"{where} gives no picture ({why}){mend}"
        if source.kind == "stream":
            if not self.reached and (host := _unknown_host(source.address)):
                return f"{where}: no machine is called {host}, or the network is away"
            return f"{where}: {'broke off' if self.reached else 'cannot be read'} ({why})"
        path = Path(source.address)
        if not path.exists():
            return f"{path} does not exist{nearest_path(path)}"
        if not path.stat().st_size:
            return f"{path} is empty (0 bytes): copy it again"
        if video_kind(first_bytes(path)) is None:
            return f"{path} is no video, or its beginning is damaged: it begins as none does"
        if isinstance(error, av.InvalidDataError):
            return (
                f"{path} is no video, or was cut off before the table of its frames, which many "
                "cameras write last: copy it again, or let the camera finish it"
            )
        return f"{path}: cannot be read ({why})"


def load_av() -> Any:
    """Return PyAV.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import av
    except ImportError:
        raise ImportError(
            "videos and cameras are read by PyAV: pip install 'maskwright[video]'"
        ) from None
    return av


def _no_camera(source: VideoSource, count: int) -> str:
    there = "no camera is there" if not count else f"there are {count}, counted from 0"
    return f"source={source.address}: no such camera: {there}"


def _unknown_host(address: str) -> str:
    """Return the host of an address if nobody knows it, otherwise ""."""
    try:
        host = urlsplit(address).hostname
        if host:
            socket.getaddrinfo(host, None)
    except socket.gaierror:
        return host or ""
    except (ValueError, UnicodeError):  # of an address that is none
        return ""
    return ""


def _tagged(stream: Any) -> Fraction:
    """Return the seconds of a stream that Matroska notes beside it, as in 00:01:04.48; else 0."""
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = map(Fraction, parts)
    except ValueError:
        return Fraction(0)
    return 3600 * hours + 60 * minutes + seconds


def _is_cover(stream: Any) -> bool:
    """Tell the still picture of an album or film from the film itself."""
    return bool(stream.disposition & type(stream.disposition).attached_pic)
