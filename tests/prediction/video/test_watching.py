"""Prediction over videos: a result for each frame, files that grow and play, whatever happens."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from small_videos import brightness, by_opencv, drawn, write_video
from tiny_models import fresh

from maskwright.errors import OptionError
from maskwright.models import Meta
from maskwright.models.detection.base import Detector
from maskwright.prediction.predict import predict
from maskwright.prediction.predictor import Predictor
from maskwright.prediction.video.command import show
from maskwright.prediction.video.kinds import find_videos
from maskwright.prediction.video.options import VideoOptions
from maskwright.prediction.video.reading import Choice, Video
from maskwright.prediction.video.watching import VideoResults
from maskwright.structures import Images, Instances, Resize

ROOT = Path(__file__).resolve().parents[3]


class BrightDetector(Detector):
    """Finds the brightest square of 16 pixels on a grid, and says how bright it is."""

    task = "segment"

    def __init__(self) -> None:
        super().__init__(2, mean=(0.0,) * 3, std=(1.0,) * 3, resize=Resize(None, 64))
        self.batches: list[int] = []

    def forward(self, images: Images, post: Any = None) -> Instances:
        self.batches.append(len(images))
        mean = torch.nn.functional.avg_pool2d(images.pixels.mean(1, keepdim=True), 16)[:, 0]
        score, place = mean.flatten(1).max(1, keepdim=True)
        y, x = place // mean.shape[2] * 16.0, place % mean.shape[2] * 16.0
        return Instances(
            boxes=torch.stack([x, y, x + 16, y + 16], -1),
            labels=(place % 2).long(),
            valid=torch.ones_like(place, dtype=torch.bool),
            scores=score / 255,
            mask_crops=torch.ones(len(images), 1, 8, 8),
        )


def make() -> tuple[Predictor, BrightDetector]:
    detector = BrightDetector()
    return Predictor(detector, Meta("bright", {}, ["left", "right"]), device="cpu"), detector


def test_each_frame_has_the_result_of_its_picture(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "a.mkv", drawn(10), rate=30, times=[0, 1, 2, 5, 6, 7, 8, 30, 31, 40]
    )
    predictor, _ = make()
    results = predict(predictor, path)
    assert isinstance(results, VideoResults) and "frames" in repr(results)
    frames = list(Video(find_videos(path)[0]).read(Choice()))
    for result, frame in zip(results, frames, strict=True):
        alone = predictor(frame.pixels)
        assert result.frame == frame.number and result.time == pytest.approx(float(frame.time))
        assert np.array_equal(result.image, frame.pixels)
        assert torch.equal(result.boxes, alone.boxes) and torch.equal(result.scores, alone.scores)
        assert result.name == f"a.mkv frame {frame.number}" and result.path == str(path)
        said = json.loads(result.to_json())
        assert (said["frame"], said["time"]) == (result.frame, result.time)
    assert results.taken == 10 and results.dir is None and results.videos == []


def test_batches_change_nothing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(10))
    predictor, detector = make()
    one = list(predict(predictor, path))
    assert detector.batches == [1] * 10
    four = list(predict(predictor, path, batch=4))
    assert detector.batches[10:] == [4, 4, 2]
    assert [r.frame for r in four] == list(range(10))
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(one, four, strict=True))


@pytest.mark.parametrize(
    ("suffix", "size", "turn", "given"),
    [
        (".mp4", (48, 64), None, {}),
        (".mp4", (48, 64), 90, {}),
        (".webm", (49, 67), None, {}),
        (".mkv", (48, 64), None, {"stride": 3}),
        (".mkv", (48, 64), None, {"fps": 10}),
        (".avi", (48, 64), None, {"track": True, "line": "0,24,64,24"}),
    ],
)
def test_what_a_video_leaves(
    tmp_path: Path,
    suffix: str,
    size: tuple[int, int],
    turn: int | None,
    given: dict[str, Any],
) -> None:
    """The annotated video has the times of the frames, upright, and each line is a result."""
    path = write_video(tmp_path / f"clip{suffix}", drawn(12, *size), turn=turn)
    predictor, _ = make()
    results = predict(predictor, path, save=tmp_path / "out", **given)
    taken = list(results)
    assert isinstance(results, VideoResults) and results.total == len(taken)
    out = tmp_path / "out"
    assert results.dir == out and results.videos == [out / "clip.mp4"]
    lines = (out / "clip.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(r.to_json()) for r in taken]
    frames, times = by_opencv(out / "clip.mp4")
    assert [t - times[0] for t in times] == pytest.approx([r.time for r in taken], abs=1e-3)
    for frame, result in zip(frames, taken, strict=True):
        height, width = result.image.shape[:2]
        assert frame.shape == (height + height % 2, width + width % 2, 3)
        drawn_on = np.asarray(result.plot())
        if "line" not in given:
            seen = frame[:height, :width]
            assert np.abs(brightness(seen) - brightness(drawn_on)).mean() < 4
    rows = list(csv.DictReader((out / "clip.counts.csv").read_text().splitlines()))
    by_name = {name: sum(name in r.counts() for r in taken) for name in predictor.names}
    assert {row["name"]: int(row["frames"]) for row in rows} == {
        k: v for k, v in by_name.items() if v
    }
    assert {row["name"] for row in rows} == {*results.counts}
    names = {"clip.mp4", "clip.jsonl", "clip.counts.csv"}
    if "track" in given:
        names |= {"clip.tracks.csv", "clip.mot.txt", "clip.crossings.csv"}
        assert all(r.ids is not None for r in taken)
    assert {one.name for one in out.iterdir()} == names


def test_several_videos_and_one_that_is_none(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mkv"):
        write_video(tmp_path / name, drawn(4))
    (tmp_path / "c.mp4").write_bytes(b"nothing")
    predictor, _ = make()
    results = predict(predictor, tmp_path, save=tmp_path / "out")
    with pytest.warns(UserWarning, match=r"skipped: .*c.mp4 is no video"):
        frames = [(r.file_name, r.frame) for r in results]
    assert frames == [(name, k) for name in ("a.mp4", "b.mkv") for k in range(4)]
    assert results.total == 8
    assert len([*(tmp_path / "out").glob("*.mp4")]) == 2
    with pytest.raises(ValueError, match=r"c\.mp4 is no video"):
        predict(predictor, tmp_path / "c.mp4")


def test_files_of_videos_that_are_called_alike_tell_whose_they_are(tmp_path: Path) -> None:
    for count, name in enumerate(("a.avi", "A.mkv", "a.mp4", "b.mkv"), 1):
        write_video(tmp_path / name, drawn(count))
    list(predict(make()[0], tmp_path, save=tmp_path / "out"))
    lines = {p.stem: p.read_text().count("\n") for p in (tmp_path / "out").glob("*.jsonl")}
    assert lines == {"a_avi": 1, "A_mkv": 2, "a_mp4": 3, "b": 4}
    assert {p.stem for p in (tmp_path / "out").glob("*.mp4")} == {*lines}


def test_pictures_and_other_files_of_frames_only_if_asked(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(3))
    predictor, _ = make()
    list(predict(predictor, path, save=tmp_path / "out", formats="pictures,geojson,labels"))
    found = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*_0*"))
    assert found == [
        *(f"a_00000{k}.geojson" for k in range(3)),
        *(f"labels/a_00000{k}.png" for k in range(3)),
        *(f"pictures/a_00000{k}.jpg" for k in range(3)),
    ]
    with pytest.raises(OptionError, match="formats=coco"):
        predict(predictor, path, save=tmp_path / "out", formats="coco")


def test_a_folder_of_frames_is_followed_like_a_video(tmp_path: Path) -> None:
    """Objects are followed through images in the order of their names, so many a second."""
    folder = tmp_path / "img1"
    folder.mkdir()
    frames = drawn(8)
    for number, pixels in enumerate(frames):
        Image.fromarray(pixels).save(folder / f"{number:03d}.png")
    (folder / "004.png").write_bytes(b"broken")
    predictor, _ = make()
    results = predict(predictor, folder, track=True, fps=10, save=tmp_path / "out")
    assert isinstance(results, VideoResults) and results.total == 8
    with pytest.warns(UserWarning, match="img1: 1 broken frame was passed over"):
        taken = list(results)
    assert [r.frame for r in taken] == [0, 1, 2, 3, 5, 6, 7]
    assert [r.time for r in taken] == pytest.approx([0, 0.1, 0.2, 0.3, 0.5, 0.6, 0.7])
    assert [r.name for r in taken] == [f"{r.frame:03d}.png" for r in taken]
    assert all(r.ids is not None for r in taken)
    assert all(np.array_equal(r.image, frames[r.frame]) for r in taken)
    played, times = by_opencv(tmp_path / "out" / "img1.mp4")
    assert len(played) == 7 and times == pytest.approx([r.time for r in taken], abs=1e-3)
    assert (tmp_path / "out" / "img1.mot.txt").is_file()
    (folder / "004.png").unlink()
    taken = list(predict(predictor, f"{folder}/*.png", stride=3))
    assert [r.name for r in taken] == ["000.png", "003.png", "007.png"]
    plain = predict(predictor, folder)
    assert not isinstance(plain, VideoResults) and next(plain).frame is None


def test_large_frames_are_looked_at_in_tiles(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(3, 96, 160))
    predictor, detector = make()
    taken = list(predict(predictor, path, tile=64, batch=2, track=True))
    assert len(taken) == 3 and sum(detector.batches) > 3 * 3
    frames = list(Video(find_videos(path)[0]).read(Choice()))
    for result, frame in zip(taken, frames, strict=True):
        alone = predictor(frame.pixels, tile=64)
        assert torch.equal(result.boxes, alone.boxes)


def test_what_does_not_go_together(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(3))
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"")
    predictor, _ = make()
    for source, options, message in (
        (path, {"show": True}, "show=true"),
        (photo, {"stride": 2}, "stride is for videos.* one image"),
        (photo, {"fps": 2}, "fps is for videos.* one image"),
        (photo, {"track": True}, "track is for videos.* one image"),
        ([0, 1], {}, "one at a time"),
        (path, {"formats": "geo,pictures", "save": tmp_path / "o"}, "formats=geo is a data set"),
    ):
        with pytest.raises(OptionError, match=message):
            predict(predictor, source, **options)
    cut = tmp_path / "cut.mp4"
    data = path.read_bytes()
    cut.write_bytes(data[: data.index(b"moov") + 200])  # in the middle of its table of frames
    with pytest.raises(ValueError, match=r"cut\.mp4: .*cut off"):
        predict(predictor, cut)
    with pytest.raises(ValueError, match="is a video, and an image is expected here"):
        predictor(path)
    with pytest.raises(OptionError, match="would overwrite"):
        list(predict(predictor, path, save=tmp_path))
    others = [write_video(tmp_path / name, drawn(2)) for name in ("a.mkv", "a.avi")]
    third = write_video(tmp_path / "a_mkv.mp4", drawn(3))  # what of the first would be written
    with pytest.raises(OptionError, match="would overwrite"):
        list(predict(predictor, [*others, third], save=tmp_path))
    assert len(by_opencv(path)[0]) == len(by_opencv(third)[0]) == 3


@pytest.mark.parametrize("name", ["alexnet", "fcn8s_resnet18"])
def test_other_tasks_look_at_videos(tmp_path: Path, name: str) -> None:
    """A classifier draws its bars and a segmenter its map, in one size for all frames."""
    torch.manual_seed(0)
    model = fresh(name, 3)
    predictor = Predictor(model, Meta(name, {}, ["one", "two", "three"]), device="cpu")
    path = write_video(tmp_path / "a.mp4", drawn(4))
    taken = list(predict(predictor, path, save=tmp_path / "out"))
    frames, _ = by_opencv(tmp_path / "out" / "a.mp4")
    sizes = {r.plot().size for r in taken}
    assert len(frames) == 4 and len(sizes) == 1
    width, height = sizes.pop()
    assert frames[0].shape == (height + height % 2, width + width % 2, 3) and height > 48
    with pytest.raises(OptionError, match="track is for models that find objects"):
        predict(predictor, path, track=True)


@pytest.mark.filterwarnings("ignore:.*heat map of . is empty")
def test_heat_maps_become_a_video_of_their_own(tmp_path: Path) -> None:
    predictor = Predictor(fresh("alexnet", 2), Meta("alexnet", {}, ["a", "b"]), device="cpu")
    path = write_video(tmp_path / "a.mp4", drawn(3))
    list(predict(predictor, path, save=tmp_path / "out", explain="gradcam"))
    assert len(by_opencv(tmp_path / "out" / "a.heatmap.mp4")[0]) == 3


def test_sound_and_broken_frames_and_early_ends_are_told(tmp_path: Path) -> None:
    predictor, _ = make()
    path = write_video(tmp_path / "a.mkv", drawn(3), sound=True)
    with pytest.warns(UserWarning, match="a.mkv: its sound is left out, a.mp4 is silent"):
        list(predict(predictor, path, save=tmp_path / "out"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(predict(predictor, path))
    for name in ("b.avi", "b.mkv"):
        path = write_video(tmp_path / name, drawn(90))
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        results = predict(predictor, path)
        with pytest.warns(UserWarning) as said:
            taken = list(results)
        texts = {str(one.message) for one in said}
        assert (
            f"{name} ends at {len(taken) / 25:.1f} s, though it tells of 3.6 s: it was cut off"
            in (texts)
        )
        assert (f"{name}: 1 broken frame was passed over" in texts) == (name == "b.avi")
        assert isinstance(results, VideoResults) and 30 <= len(taken) <= 60
        assert results.broken == (name == "b.avi")


def test_files_of_uneven_times_are_not_called_cut_off(tmp_path: Path) -> None:
    for name, times in (("a.avi", [0, 1, 5, 9]), ("a.mp4", [0, 1, 5, 90]), ("a.mkv", [0, 1, 90])):
        path = write_video(tmp_path / name, drawn(len(times)), times=times)
        video = Video(find_videos(path)[0])
        assert len(list(video.read(Choice()))) == len(times) and not video.lacking


class NothingDetector(BrightDetector):
    def forward(self, images: Images, post: Any = None) -> Instances:
        found = super().forward(images, post)
        return replace(found, valid=torch.zeros_like(found.valid))


def test_counts_are_there_from_the_first_frame_on_and_nothing_found_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(4))
    results = predict(make()[0], path, save=tmp_path / "out", track=True)
    first = next(results)
    rows = list(csv.DictReader((tmp_path / "out" / "a.counts.csv").read_text().splitlines()))
    assert [(row["name"], row["frames"]) for row in rows] == [
        (name, str(count)) for name, count in first.counts().items()
    ]
    results.close()
    nothing = Predictor(NothingDetector(), Meta("bright", {}, ["a", "b"]), device="cpu")
    results = predict(nothing, path, save=tmp_path / "none", stride=2)
    assert isinstance(results, VideoResults) and show(results) == 0
    said = capsys.readouterr().out
    assert "2 frames" in said and "no objects" in said
    table = (tmp_path / "none" / "a.counts.csv").read_text()
    assert table == "name,frames,most,mean\n"


def test_an_animation_is_followed_at_its_own_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    pages = [Image.fromarray(pixels) for pixels in drawn(4)]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=[100, 60, 200, 40])
    predictor, _ = make()
    with pytest.raises(
        OptionError, match="source is one image of 4: page=all takes them as frames"
    ):
        predict(predictor, path, track=True)
    for given, rate in (({}, 10), ({"fps": 2}, 2)):
        taken = list(predict(predictor, path, track=True, page="all", **given))
        assert [r.time for r in taken] == pytest.approx([k / rate for k in range(4)])


def test_who_stops_early_has_a_file_that_plays(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(30))
    predictor, _ = make()
    results = predict(predictor, path, save=tmp_path / "out")
    for _ in range(7):
        next(results)
    results.close()
    assert len(by_opencv(tmp_path / "out" / "a.mp4")[0]) == 7
    assert len((tmp_path / "out" / "a.jsonl").read_text().splitlines()) == 7
    assert (tmp_path / "out" / "a.counts.csv").is_file()


SCRIPT = """
import sys
sys.path[:0] = [{tests!r}, {here!r}]
import resource, signal
from test_watching import make
from maskwright.prediction.predict import predict
from maskwright.prediction.video.command import show
from pathlib import Path
import numpy as np
source, out = sys.argv[1:3]
"""


def run_script(body: str, *args: object, **options: Any) -> subprocess.Popen[str]:
    head = SCRIPT.format(tests=str(ROOT / "tests"), here=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", head + body, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


def noise(count: int, height: int, width: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (height, width, 3), np.uint8) for _ in range(count)]


def test_a_disk_that_fills_ends_it_with_one_error_and_what_was_written_plays(
    tmp_path: Path,
) -> None:
    path = write_video(tmp_path / "a.avi", noise(90, 48, 64))
    body = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    show(predict(make()[0], source, save=out))
except ValueError as error:
    print("TOLD", error)
"""
    process = run_script(body, path, tmp_path / "out")
    said, problem = process.communicate(timeout=120)
    assert "TOLD" in said and "a.mp4: cannot be written (File too large)" in said, problem
    assert "Traceback" not in problem
    counts = list(csv.DictReader((tmp_path / "out" / "a.counts.csv").read_text().splitlines()))
    assert f"{tmp_path / 'out'}, of which the video may lack the last second" in said
    assert f"data of each frame, counts: {tmp_path / 'out'}" in said
    kept = int(said.partition(" frames are kept in")[0].rpartition(" ")[2])
    assert sum(int(row["frames"]) for row in counts) == kept
    frames, _ = by_opencv(tmp_path / "out" / "a.mp4")
    lines = (tmp_path / "out" / "a.jsonl").read_text().splitlines()
    assert 10 < len(frames) <= kept + 1 and kept <= len(lines) < 90
    assert [json.loads(line)["frame"] for line in lines] == list(range(len(lines)))


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_finishes_the_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(400))
    process = run_script(
        "sys.exit(show(predict(make()[0], source, save=out)))", path, tmp_path / "out"
    )
    lines = tmp_path / "out" / "a.jsonl"
    while process.poll() is None and (not lines.exists() or lines.read_text().count("\n") < 5):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, problem = process.communicate(timeout=120)
    assert process.returncode == 130, problem
    count = lines.read_text().count("\n")
    assert 5 <= count < 400 and f"{count} frames" in said
    assert len(by_opencv(tmp_path / "out" / "a.mp4")[0]) == count


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory as Linux tells it")
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Forty frames of 0.3 MB held back would show, and so would a leak of 60 kB a frame."""
    body = """
peak = lambda: int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
peaks = []
for number, _ in enumerate(predict(make()[0], source, save=out, track=True)):
    if number in (60, 259):
        peaks.append(peak())
print("GROWN", peaks[1] - peaks[0])
"""
    path = write_video(tmp_path / "a.mp4", drawn(260, 240, 416))
    said, problem = run_script(body, path, tmp_path / "out").communicate(timeout=300)
    assert int(said.split("GROWN")[1]) < 12_000, problem


@pytest.fixture
def quiet_camera(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from test_live_streams import camera, server

    monkeypatch.setattr("maskwright.prediction.video.reading.TIMEOUT", 1.0)
    with server(camera(6, stall=True)) as port:
        yield f"http://127.0.0.1:{port}/live"


@pytest.mark.filterwarnings("ignore:.*came faster than they could be looked at")
def test_the_command_shows_a_stream_of_unknown_length(
    quiet_camera: str, capsys: pytest.CaptureFixture[str]
) -> None:
    results = predict(make()[0], quiet_camera)
    assert isinstance(results, VideoResults) and "some frames" in repr(results)
    with pytest.raises(ValueError, match="nothing came for 1 s"):
        show(results)
    assert f"{results.taken} frames" in capsys.readouterr().out and results.taken > 1


@pytest.mark.filterwarnings("ignore:.*came faster than they could be looked at")
def test_a_stream_that_stalls_leaves_what_was_done(tmp_path: Path, quiet_camera: str) -> None:
    predictor, _ = make()
    results = predict(predictor, quiet_camera, save=tmp_path / "out")
    assert results.total is None
    taken = []
    with pytest.raises(ValueError, match=r"nothing came for 1 s; \d frames came before.*out"):
        for result in results:
            taken.append(result)
    assert taken and len(by_opencv(tmp_path / "out" / "live.mp4")[0]) == len(taken)
    assert (tmp_path / "out" / "live.counts.csv").is_file()


def test_the_command_shows_counts_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(4))
    results = predict(make()[0], path, save=tmp_path / "out")
    assert isinstance(results, VideoResults)
    assert show(results) == 0
    said = capsys.readouterr()
    table = [line.split() for line in said.out.splitlines()]
    assert ["4", "frames"] in table and ["name", "frames", "most", "mean"] in table
    assert results.counts
    for name, row in results.counts.items():
        assert [name, *(f"{value:.4g}" for value in row.values())] in table
    assert f"video: {tmp_path / 'out' / 'a.mp4'}" in said.out and "4/4 frame" in said.err


@pytest.mark.parametrize("line", ["2000,5,5000,5", "-9,0,-1,48", "0,49,64,60", "60,-9,99,30"])
def test_a_line_outside_of_the_video_is_refused_before_a_frame_is_computed(
    tmp_path: Path, line: str
) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(2))
    predictor, detector = make()
    results = predict(predictor, path, track=True, line=line, save=tmp_path / "out")
    with pytest.raises(
        OptionError, match=rf"line={line} is .* a\.mp4.* 64 pixels wide and 48 high"
    ):
        next(results)
    assert detector.batches == [] and not (tmp_path / "out").exists()


def test_a_line_over_videos_of_several_sizes_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    for name, width in (("a", 64), ("b", 32), ("c", 96)):
        write_video(tmp_path / f"{name}.mp4", drawn(3, width=width))
    predictor, _ = make()
    results = predict(predictor, tmp_path, track=True, line="50,0,50,40", save=tmp_path / "out")
    with (
        pytest.warns(UserWarning, match=r"skipped: line=.* b\.mp4, which is 32 pixels wide"),
        pytest.warns(UserWarning, match=r"c\.mp4 is 96 x 48, a\.mp4 64 x 48: does it mean"),
    ):
        taken = [(result.file_name, result.frame) for result in results]
    assert taken == [(name, k) for name in ("a.mp4", "c.mp4") for k in range(3)]


def test_a_line_of_which_some_is_in_the_picture_is_taken() -> None:
    """A slow reference: some point of many along the line is in the picture."""
    random = np.random.default_rng(0)
    shares = np.linspace(0, 1, 4001)[:, None]
    seen = set()
    for ends in random.integers(-100, 200, (200, 4)).tolist():
        points = np.array(ends[:2]) * (1 - shares) + np.array(ends[2:]) * shares
        inside = bool(((points >= 0) & (points <= (64, 48))).all(1).any())
        options = VideoOptions.parse(stride=1, fps=None, track=True, line=ends)
        try:
            options.check_line("a.mp4", 48, 64)
            taken = True
        except OptionError:
            taken = False
        assert taken == inside, ends
        seen.add(inside)
    assert seen == {True, False}


@pytest.mark.parametrize("place", ["file", "/proc/nowhere"])
def test_a_folder_that_cannot_be_made_is_told_before_a_frame_is_computed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("a system without /proc")
    (tmp_path / "file").write_text("taken")
    path = write_video(tmp_path / "a.mp4", drawn(2))
    predictor, detector = make()
    with pytest.raises(ValueError, match="project="):
        results = predict(predictor, path, save=True, project=tmp_path / place)
        assert isinstance(results, VideoResults)
        show(results)
    assert detector.batches == [] and capsys.readouterr().out == ""


def test_a_frame_that_could_not_be_written_is_counted_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_video(tmp_path / "a.mp4", drawn(2))
    (tmp_path / "out" / "a.jsonl").mkdir(parents=True)
    results = predict(make()[0], path, save=tmp_path / "out")
    assert isinstance(results, VideoResults)
    with pytest.raises(ValueError, match=r"a\.jsonl"):
        show(results)
    assert results.taken == 0 and results.counts == {} and results.videos == []
    assert capsys.readouterr().out == ""


def test_the_command_line_takes_videos_and_tells_wrong_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from maskwright.cli import main

    path = write_video(tmp_path / "a.mp4", drawn(2))
    common = ["predict", "model=nuclei", f"source={path}", "save=false", "imgsz=64"]
    assert main([*common, "stride=2"]) == 0
    assert "1 frame\n" in capsys.readouterr().out
    for given, message in (
        (["stride=2", "fps=3"], "both choose frames"),
        (["track=deepsort"], "track is true or one of"),
        (["track=true", "line=1,2,3"], "line is x1,y1,x2,y2"),
    ):
        assert main([*common, *given]) == 2
        assert message in capsys.readouterr().err
    assert main(["predict", "model=nuclei", "source=97", "save=false"]) == 1
    assert "no such camera" in capsys.readouterr().err
    assert main(["predict", "model=nuclei", f"source={tmp_path / 'b.mp4'}", "save=false"]) == 1
    assert "b.mp4' does not exist; did you mean" in capsys.readouterr().err


class ChannelDetector(BrightDetector):
    """Keeps what it is shown, in any number of channels."""

    def __init__(self, count: int) -> None:
        Detector.__init__(self, 2, mean=(0.0,) * count, std=(1.0,) * count, resize=Resize(None, 64))
        self.batches, self.seen = [], []

    def forward(self, images: Images, post: Any = None) -> Instances:
        self.seen.append(images.pixels[0].permute(1, 2, 0).round().to(torch.uint8).numpy())
        return super().forward(images, post)


def of_channels(*trained: int, every: bool = False) -> tuple[Predictor, ChannelDetector]:
    detector = ChannelDetector(len(trained))
    meta = Meta("bright", {}, ["a", "b"], channels=[*trained], all_channels=every)
    return Predictor(detector, meta, device="cpu"), detector


def test_videos_and_models_of_other_channels(tmp_path: Path) -> None:
    """A video has red, green and blue: what an image of these is told, a video is told too."""
    path = write_video(tmp_path / "a.avi", drawn(2))
    frames = [frame.pixels for frame in Video(find_videos(path)[0]).read(Choice())]
    for trained, every, given, taken in (
        ((2, 0, 1), False, {}, [2, 0, 1]),
        ((0, 1, 2, 3), True, {"channels": "0,1,2,2"}, [0, 1, 2, 2]),
        ((0,), True, {"channels": 1}, [1]),
    ):
        predictor, detector = of_channels(*trained, every=every)
        assert len(list(predict(predictor, path, **given))) == 2
        for seen, frame in zip(detector.seen, frames, strict=True):
            np.testing.assert_array_equal(seen[:48, :64], frame[..., taken])
    predictor, detector = of_channels(0)
    (first, _) = predict(predictor, path)
    weighed = frames[0] @ np.array([0.299, 0.587, 0.114])
    assert np.abs(detector.seen[0][:48, :64, 0] - weighed).max() <= 1
    np.testing.assert_array_equal(first.image[..., 0], first.image[..., 2])
    photo = Image.fromarray(frames[0])
    for trained, every, mend in (
        ((4, 0, 2), False, "channels=0,1,2"),
        ((0, 1, 2, 3), False, "channels=0,1,2,2"),
        ((0, 1, 2, 3), True, "channels=0,1,2,2"),
    ):
        predictor, _ = of_channels(*trained, every=every)
        with pytest.raises(ValueError) as of_image:
            predictor(photo)
        with pytest.raises(OptionError) as of_video:
            predict(predictor, path)
        said = str(of_image.value).partition("the given PIL image ")[2]
        assert said in str(of_video.value) and str(of_video.value).endswith(f"as in {mend}")
        assert len(list(predict(predictor, path, channels=mend.partition("=")[2]))) == 2


def test_a_folder_of_frames_has_the_channels_of_its_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 255, (3, 48, 64, 4), np.uint8)
    for number, pixels in enumerate(frames):
        tifffile.imwrite(
            tmp_path / f"{number}.tif", pixels, photometric="minisblack", planarconfig="contig"
        )
    predictor, detector = of_channels(0, 1, 2, 3, every=True)
    for given, taken in (({}, [0, 1, 2, 3]), ({"channels": "3,1,0,2"}, [3, 1, 0, 2])):
        detector.seen = []
        assert len(list(predict(predictor, tmp_path, fps=5, save=tmp_path / "o", **given))) == 3
        for seen, pixels in zip(detector.seen, frames, strict=True):
            np.testing.assert_array_equal(seen[:48, :64], pixels[..., taken])
    predictor, _ = of_channels(5, 0)
    with (
        warnings.catch_warnings(),
        pytest.raises(
            ValueError, match=r"none of the 3 frames.*the first: .*0\.tif has 4 channels"
        ),
    ):
        warnings.simplefilter("error")  # told once
        list(predict(predictor, tmp_path, stride=1, fps=5))


def test_a_folder_of_deep_frames_is_told_what_an_image_is_told(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(4):
        values = random.random((48, 64), np.float32)
        values[0, :number] = np.nan
        tifffile.imwrite(tmp_path / f"{number}.tif", values)
    predictor, _ = of_channels(0, 1, 2)
    predictor.meta = replace(predictor.meta, channels=None)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(predict(predictor, tmp_path, fps=5))
        list(predict(predictor, tmp_path, fps=5, window=(0.0, 1.0)))
    said = [str(one.message) for one in caught]
    assert sum("each is stretched from its own" in text for text in said) == 1
    assert sum("3 frames have odd samples; 1.tif: " in text for text in said) == 2
    for file in tmp_path.glob("*.tif"):
        tifffile.imwrite(file, random.integers(0, 255, (48, 64), np.uint8))
    with pytest.warns(UserWarning, match="window=0,1 is for samples of more than 8 bits: all im"):
        list(predict(predictor, tmp_path, fps=5, window=(0, 1)))
