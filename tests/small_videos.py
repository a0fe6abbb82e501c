"""Small videos written by PyAV, and their frames as OpenCV decodes them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

# Container, encoder and its options, by the ending of the file.
KINDS: dict[str, tuple[str, str, dict[str, str]]] = {
    ".mp4": ("libx264", "yuv420p", {}),
    ".mkv": ("libx264", "yuv420p", {"bf": "0"}),
    ".mov": ("mpeg4", "yuv420p", {}),
    ".webm": ("libvpx", "yuv420p", {}),
    ".avi": ("mjpeg", "yuvj420p", {}),
    ".ts": ("libx264", "yuv420p", {}),
    ".mpg": ("mpeg2video", "yuv420p", {}),
    ".flv": ("flv", "yuv420p", {}),
    ".h264": ("libx264", "yuv420p", {"bf": "0"}),
    ".wmv": ("wmv2", "yuv420p", {}),
    ".mxf": ("mpeg2video", "yuv420p", {}),
    ".ivf": ("libvpx", "yuv420p", {}),
    ".ogv": ("libvpx", "yuv420p", {}),
    ".m2v": ("mpeg2video", "yuv420p", {}),
    ".3gp": ("mpeg4", "yuv420p", {}),
}


def drawn(count: int, height: int = 48, width: int = 64, seed: int = 0) -> list[np.ndarray]:
    """Return frames of a still picture that wanders to the right, so that each is another one."""
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3))
    still = np.kron(coarse, np.ones((8, 8, 1)))[:height, :width].astype(np.uint8)
    return [np.roll(still, 3 * k, 1) for k in range(count)]


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    *,
    rate: int = 25,
    times: Sequence[int] | None = None,
    turn: int | None = None,
    kind: tuple[str, str, dict[str, str]] | None = None,
    sound: bool = False,
    container: dict[str, str] | None = None,
) -> Path:
    """Write frames (H, W, 3) uint8 as a video of the kind that its name tells, and return its path.

    Args:
        path: the file.
        frames: RGB.
        rate: frames a second.
        times: of the frames, in `1 / rate` seconds; None: one after the other.
        turn: degrees by which players turn the pictures, counterclockwise.
        kind: encoder, kind of pixels, options; None: usual ones.
        sound: add a silent track.
        container: options of the container.
    """
    import av

    encoder, pixels, options = kind or KINDS[path.suffix]
    with av.open(str(path), "w", options=container or {}) as out:
        stream: Any = out.add_stream(encoder, rate=rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if turn is not None:
            stream.set_display_rotation(turn)
        noise: Any = out.add_stream("mp2", rate=48000) if sound else None
        for number, pixel in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixel), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, rate)
            out.mux(stream.encode(frame.reformat(format=pixels)))
        if noise is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1152 * 2), np.int16), layout="stereo")
            silence.rate, silence.pts = 48000, 0
            out.mux(noise.encode(silence))
            out.mux(noise.encode())
        out.mux(stream.encode())
    return path


def brightness(pixels: Any) -> np.ndarray:
    """Return the brightness (H, W) of RGB, as ITU-R BT.709 weighs it.

    Videos keep it for each pixel, and the colours of four pixels once.
    """
    weighed: np.ndarray = np.asarray(pixels) @ np.array([0.2126, 0.7152, 0.0722])
    return weighed


def by_opencv(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """Return the frames of a video, upright RGB, and their times in seconds, as OpenCV has them."""
    import cv2

    video = cv2.VideoCapture(str(path))
    frames, times = [], []
    while True:
        there, frame = video.read()
        if not there:
            return frames, times
        frames.append(frame[..., ::-1])
        times.append(video.get(cv2.CAP_PROP_POS_MSEC) / 1000)
