"""Videos that are written play elsewhere: at their times, in their size, and before their end."""

from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_videos import brightness, by_opencv, drawn

from maskwright.prediction.video.kinds import find_videos
from maskwright.prediction.video.reading import Choice, Frame, Video
from maskwright.prediction.video.writing import VideoWriter


def writer(path: Path, **options: Any) -> VideoWriter:
    usual = {"rate": Fraction(25), "tick": Fraction(1, 1000), "aspect": Fraction(1)}
    return VideoWriter(path, **{**usual, **options})


def read(path: Path) -> list[Frame]:
    return list(Video(find_videos(path)[0]).read(Choice()))


@pytest.mark.parametrize("tick", [Fraction(1, 25), Fraction(1, 90_000), Fraction(1001, 30_000)])
@pytest.mark.parametrize("encoder", ["libx264", "mpeg4"])
def test_times_stay_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tick: Fraction, encoder: str
) -> None:
    monkeypatch.setattr("maskwright.prediction.video.writing.ENCODERS", (encoder,))
    path = tmp_path / "a.mp4"
    times = [k * tick for k in (0, 1, 2, 7, 8, 100, 2000)]
    film = writer(path, tick=tick)
    for pixels, moment in zip(drawn(7), times, strict=True):
        film.add(Image.fromarray(pixels), moment)
    film.close()
    # Ticks of MPEG-4 part 2 are coarser than those of a transport stream.
    near = Fraction(1, 60_000) if encoder == "mpeg4" else 0
    ours = read(path)
    assert all(abs(f.time - t) <= near for f, t in zip(ours, times, strict=True))
    frames, _ = by_opencv(path)
    for frame, expected in zip(frames, drawn(7), strict=True):
        assert np.abs(brightness(frame) - brightness(expected)).mean() < 4


def test_what_is_written_plays_before_the_end(tmp_path: Path) -> None:
    """As if the process were killed: only what the system has of the file counts."""
    film = writer(tmp_path / "a.mp4")
    for number, pixels in enumerate(drawn(100)):
        film.add(Image.fromarray(pixels), Fraction(number, 25))
    shutil.copy(tmp_path / "a.mp4", tmp_path / "killed.mp4")
    film.close()
    film.close()  # once is enough
    assert 50 <= len(by_opencv(tmp_path / "killed.mp4")[0]) <= 100
    assert len(by_opencv(tmp_path / "a.mp4")[0]) == 100


def test_odd_sides_and_pictures_of_another_size(tmp_path: Path) -> None:
    film = writer(tmp_path / "a.mp4")
    sizes = [(67, 49), (67, 49), (40, 30), (134, 98), (10, 200)]
    for number, size in enumerate(sizes):
        film.add(Image.new("RGB", size, (200, 200, 200)), Fraction(number, 25))
    film.close()
    frames, _ = by_opencv(tmp_path / "a.mp4")
    assert [frame.shape for frame in frames] == [(50, 68, 3)] * 5
    filled = [(frame[:49, :67].mean(-1) > 110).mean() for frame in frames]
    shares = [1, 1, 40 * 30 / (67 * 49), 1, 3 * 49 / (67 * 49)]  # larger ones are scaled to fit
    assert filled == pytest.approx(shares, abs=0.05)


def test_pixels_that_are_no_squares_stay_so(tmp_path: Path) -> None:
    film = writer(tmp_path / "a.mp4", aspect=Fraction(16, 15))
    film.add(Image.new("RGB", (64, 48)), Fraction(0))
    film.close()
    video = Video(find_videos(tmp_path / "a.mp4")[0])
    assert video.aspect == Fraction(16, 15)
    video.close()


def test_without_a_picture_there_is_no_file(tmp_path: Path) -> None:
    writer(tmp_path / "a.mp4").close()
    assert not (tmp_path / "a.mp4").exists()
