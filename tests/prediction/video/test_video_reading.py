"""Videos are decoded as OpenCV decodes them: upright, at their times, as far as they are whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from small_videos import KINDS, by_opencv, drawn, write_video

from maskwright.errors import OptionError
from maskwright.prediction.video.kinds import KINDS as TABLE
from maskwright.prediction.video.kinds import VideoSource, find_videos, video_kind
from maskwright.prediction.video.options import VideoOptions
from maskwright.prediction.video.reading import Choice, Frame, Video

ALL = Choice()


def open_video(path: Path) -> Video:
    (source,) = find_videos(path)
    return Video(source)


def read(path: Path, choice: Choice = ALL) -> list[Frame]:
    return list(open_video(path).read(choice))


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Tell whether two decoders agree but for how they round colours."""
    return ours.shape == theirs.shape and bool(np.abs(ours.astype(int) - theirs).max() <= 3)


@pytest.mark.parametrize("suffix", sorted(KINDS))
def test_frames_and_times_are_those_of_opencv(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"clip{suffix}", drawn(12))
    theirs, times = by_opencv(path)
    video = open_video(path)
    ours = list(video.read(ALL))
    assert len(ours) == len(theirs) == 12 and video.broken == 0 and not video.lacking
    assert all(same(a.pixels, b) for a, b in zip(ours, theirs, strict=True))
    assert [frame.number for frame in ours] == list(range(12))
    told = 12 - (
        suffix in (".mpg", ".m2v")
    )  # OpenCV has no time of its last frame, and invents H.264's
    if suffix != ".h264":
        seconds = [float(frame.time) for frame in ours[:told]]
        assert seconds == pytest.approx([t - times[0] for t in times[:told]], abs=1e-3)
    assert [float(f.time) for f in ours] == pytest.approx([k / 25 for k in range(12)], abs=1e-3)


@pytest.mark.parametrize("suffix", [".webm", ".mov", ".mkv"])
def test_odd_sides_stay_odd(tmp_path: Path, suffix: str) -> None:
    kind = ("libx264", "yuv444p", {}) if suffix == ".mkv" else None
    path = write_video(tmp_path / f"clip{suffix}", drawn(6, 49, 67), kind=kind)
    theirs, _ = by_opencv(path)
    for ours, expected in zip(read(path), theirs, strict=True):
        assert ours.pixels.shape == expected.shape == (49, 67, 3)
        # The colours of four pixels are stored once, and decoders smooth them in their own ways.
        assert np.abs(ours.pixels.astype(int) - expected).mean() < 4


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_a_phone_held_upright_films_upright(tmp_path: Path, turn: int) -> None:
    path = write_video(tmp_path / "phone.mp4", drawn(4), turn=turn)
    theirs, _ = by_opencv(path)
    assert [same(a.pixels, b) for a, b in zip(read(path), theirs, strict=True)] == [True] * 4
    assert theirs[0].shape == ((64, 48, 3) if turn % 180 else (48, 64, 3))


def test_times_of_a_changing_rate_are_exact(tmp_path: Path) -> None:
    times = [0, 1, 5, 6, 20, 21, 22, 60]
    path = write_video(tmp_path / "phone.mkv", drawn(8), rate=30, times=times)
    assert [float(f.time) for f in read(path)] == pytest.approx([t / 30 for t in times], abs=6e-4)


def test_an_alpha_channel_is_dropped_and_deep_samples_fit_eight_bits(tmp_path: Path) -> None:
    frames = drawn(5)
    vp9 = ("libvpx-vp9", "yuva420p", {"lossless": "1"})
    seen = read(write_video(tmp_path / "glass.webm", frames, kind=vp9))
    assert len(seen) == 5 and all(f.pixels.shape == (48, 64, 3) for f in seen)
    deep = ("ffv1", "yuv444p10le", {})
    ours = read(write_video(tmp_path / "deep.mkv", frames, kind=deep))
    assert all(
        np.abs(a.pixels.astype(int) - b).max() <= 2 for a, b in zip(ours, frames, strict=True)
    )


def test_which_frames_are_looked_at(tmp_path: Path) -> None:
    times = [0, 1, 2, 3, 10, 11, 12, 13, 14, 30, 31, 47]  # in 1/30 s
    path = write_video(tmp_path / "a.mkv", drawn(12), rate=30, times=times)
    assert [f.number for f in read(path, Choice(stride=5))] == [0, 5, 10]
    exact = [frame.time for frame in read(path)]
    for fps in (1, 2.5, 7, 30, 200):
        expected, due = [], Fraction(0)
        for number, moment in enumerate(exact):  # the first frame at or behind each tick
            if moment >= due:
                expected.append(number)
                while due <= moment:
                    due += 1 / Fraction(str(fps))
        chosen = read(path, Choice(fps=Fraction(str(fps))))
        assert [frame.number for frame in chosen] == expected, fps


def test_how_many_frames_will_come(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "a.mp4", drawn(30)))
    assert video.frames == 30 and video.rate == 25
    for choice in (ALL, Choice(stride=7), Choice(fps=Fraction(10)), Choice(fps=Fraction(1, 3))):
        told = choice.of(video.frames, video.seconds)
        assert told == len(read(tmp_path / "a.mp4", choice))
    video.close()


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".avi", ".ts", ".mpg", ".mp4", ".part.mp4"])
def test_cut_off_at_any_kilobyte(tmp_path: Path, suffix: str) -> None:
    """What is whole is read; what is cut off ends there, or is refused in words."""
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    parts = {"movflags": "frag_every_frame+empty_moov"} if suffix == ".part.mp4" else None
    kind = KINDS[whole.suffix]
    write_video(whole, drawn(16, 96, 128), kind=kind, container=parts)
    frames, data = {frame.time: frame.pixels for frame in read(whole)}, whole.read_bytes()
    assert len(frames) == 16
    most = 0
    for length in (*range(0, len(data), 1024), len(data)):
        cut.write_bytes(data[:length])
        try:
            video = open_video(cut)
            ours = list(video.read(ALL))
        except ValueError as error:
            assert str(cut) in str(error)
            continue
        wrong = [one.number for one in ours if not np.array_equal(one.pixels, frames[one.time])]
        # A transport stream does not tell where its last frame ends: FFmpeg may fill in the rest.
        assert len(wrong) <= (suffix == ".ts"), (length, wrong)
        assert most - 1 <= len(ours) <= 16
        most = max(most, len(ours))
    assert most == 16


def test_a_broken_frame_is_counted_and_the_others_are_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", drawn(10))
    data = bytearray(path.read_bytes())
    images = [k for k in range(len(data) - 2) if data[k : k + 3] == b"\xff\xd8\xff"]
    assert len(images) == 10
    data[images[4] : images[5] - 8] = bytes(images[5] - 8 - images[4])  # up to the next header
    path.write_bytes(data)
    video = open_video(path)
    numbers = [frame.number for frame in video.read(ALL)]
    assert video.broken == 1 and numbers == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_sound_is_known_and_alone_it_is_no_video(tmp_path: Path) -> None:
    video = open_video(write_video(tmp_path / "a.mkv", drawn(3), sound=True))
    assert video.sound and len(list(video.read(ALL))) == 3
    import av

    with av.open(str(tmp_path / "b.mkv"), "w") as out:
        stream = out.add_stream("mp2", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2304), np.int16), layout="stereo")
        silence.rate, silence.pts = 48000, 0
        out.mux(stream.encode(silence))
        out.mux(stream.encode())
    with pytest.raises(ValueError, match="only sound"):
        open_video(tmp_path / "b.mkv")


@pytest.mark.parametrize("suffix", sorted(KINDS))
def test_a_video_is_known_by_its_first_bytes(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"clip{suffix}", drawn(3))
    kind = video_kind(path.read_bytes()[:512])
    assert kind is not None and suffix in kind.suffixes
    for name in ("scan.001", "photo.jpg", "nothing"):
        renamed = path.rename(tmp_path / name)
        assert [video.name for video in find_videos(renamed)] == [name]
        assert len(read(renamed)) == 3
        renamed.rename(path)


def test_images_are_no_videos(tmp_path: Path) -> None:
    from PIL import Image

    for suffix in (".png", ".jpg", ".webp", ".gif", ".tif", ".bmp", ".avif", ".jp2", ".ppm"):
        path = tmp_path / f"photo{suffix}"
        Image.new("RGB", (40, 30), (9, 200, 30)).save(path)
        assert video_kind(path.read_bytes()[:512]) is None, suffix
        assert find_videos(path) == [] and find_videos([path]) == []
    assert video_kind(b"") is None and video_kind(b"\0\0\0\x18ftypheic") is None
    assert len({suffix for kind in TABLE for suffix in kind.suffixes}) == sum(
        len(kind.suffixes) for kind in TABLE
    )


def test_what_names_videos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.mp4", "a.mkv"):
        write_video(tmp_path / name, drawn(2))
    assert [v.name for v in find_videos(".")] == ["a.mkv", "b.mp4"]
    assert [v.name for v in find_videos("*.mp4")] == ["b.mp4"]
    assert [v.name for v in find_videos(["b.mp4", tmp_path / "a.mkv"])] == ["b.mp4", "a.mkv"]
    assert find_videos(0) == find_videos("0") == [VideoSource("0", "camera 0", "camera")]
    assert find_videos(np.zeros((4, 4, 3), np.uint8)) == [] and find_videos(True) == []
    secret = "rtsp://me:secret@10.0.0.7:554/door/1?password=secret"
    (stream,) = find_videos(secret)
    assert stream.path == "rtsp://10.0.0.7:554/door/1" and stream.address == secret
    assert [v.kind for v in find_videos("https://example.org/x.m3u8?t=1")] == ["stream"]
    assert find_videos("https://example.org/x.jpg") == []
    (tmp_path / "c.png").write_bytes(b"")
    assert find_videos(".") == []  # images and videos: the images count, the rest is told
    with pytest.raises(ValueError, match="images beside videos"):
        find_videos(["b.mp4", "c.png"])
    (tmp_path / "0").mkdir()
    assert find_videos("0") == []


def test_what_is_no_video_is_told_in_words(tmp_path: Path) -> None:
    empty, text = tmp_path / "a.mp4", tmp_path / "b.mp4"
    empty.touch()
    text.write_text("no video at all")
    for path, message in ((empty, "is empty"), (text, "is no video, or its beginning")):
        with pytest.raises(ValueError, match=message):
            open_video(path)
    with pytest.raises(ValueError, match="no such camera"):
        Video(VideoSource("97", "camera 97", "camera"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride must be at least 1"),
        ({"stride": 2, "fps": 3}, "give one of them"),
        ({"fps": 0}, "fps is a number"),
        ({"fps": float("nan")}, "fps is a number"),
        ({"track": "bytetrak"}, "did you mean 'bytetrack'"),
        ({"line": "0,0,5,5"}, "give track=true"),
        ({"track": True, "line": "0,0,5"}, "two different points"),
        ({"track": True, "line": (3, 3, 3, 3)}, "two different points"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    given: dict[str, object] = {"stride": 1, "fps": None, "track": None, "line": None}
    with pytest.raises(OptionError, match=message):
        VideoOptions.parse(**{**given, **options})
