"""Streams and cameras: what comes is looked at, what stalls or breaks off is told, in time."""

from __future__ import annotations

import io
import socket
import struct
import threading
from base64 import b64encode
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_videos import drawn, write_video

from maskwright.prediction.video.ahead import Ahead
from maskwright.prediction.video.kinds import find_videos
from maskwright.prediction.video.reading import Choice, Video

SOON = 1.0  # seconds after which these tests give up waiting
STILL = b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=cut\r\n\r\n"


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Answer each connection to a port of this machine in a thread, and give the port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                try:
                    answer(connection)
                except OSError:  # the other side went away
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def wait_for_the_end(connection: socket.socket) -> None:
    """Send nothing more until the other side closes."""
    while connection.recv(65536):
        pass


def request(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
        data += more
    return data


def camera(count: int, *, stall: bool) -> Callable[[socket.socket], None]:
    """Return what answers as a camera does, with JPEG images one after the other."""

    def answer(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(STILL)
        for pixels in drawn(count):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "JPEG", quality=95)
            data = stream.getvalue()
            head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            connection.sendall(head.encode() + data + b"\r\n")
        connection.sendall(b"--cut\r\n")
        if stall:
            wait_for_the_end(connection)

    return answer


def web_file(data: bytes) -> Callable[[socket.socket], None]:
    """Return what answers with a file."""

    def answer(connection: socket.socket) -> None:
        request(connection)
        head = f"HTTP/1.0 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)

    return answer


def test_a_stream_that_stalls_ends_with_an_error_behind_its_frames() -> None:
    with server(camera(6, stall=True)) as port:
        (source,) = find_videos(f"http://me:secret@127.0.0.1:{port}/live")
        assert source.kind == "stream"
        video = Video(source, timeout=SOON)
        assert video.live and video.frames is None
        seen = []
        with pytest.raises(ValueError, match="nothing came for 1 s") as caught:
            for frame in video.read(Choice()):
                seen.append(frame)
        assert "secret" not in str(caught.value) and str(port) in str(caught.value)
    # The reader of this form knows an image to be whole when the next one begins.
    assert [frame.number for frame in seen] == list(range(len(seen))) and len(seen) >= 5
    expected = drawn(6)
    assert all(
        np.abs(f.pixels.astype(int) - e).mean() < 12 for f, e in zip(seen, expected, strict=False)
    )
    times = [frame.time for frame in seen]
    assert times[0] == 0 and all(a < b for a, b in pairwise(times))


def test_a_stream_that_breaks_off_gives_what_came() -> None:
    seen = []
    with server(camera(6, stall=False)) as port:
        video = Video(find_videos(f"http://127.0.0.1:{port}/live")[0], timeout=30)
        with pytest.raises(ValueError, match="broke off"):
            for frame in video.read(Choice()):
                seen.append(frame)
    assert len(seen) >= 5


SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=door\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 33\r\nc=IN IP4 0.0.0.0\r\na=control:track1\r\n"
)
ANSWERS = {
    "OPTIONS": ["Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN"],
    "DESCRIBE": ["Content-Type: application/sdp", f"Content-Length: {len(SDP)}"],
    "SETUP": ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"],
    "PLAY": ["Session: 1"],
}


def rtsp_camera(data: bytes, *, stall: bool) -> Callable[[socket.socket], None]:
    """Return what answers as a camera that wants a password and sends a transport stream by RTP.

    RFC 2326 (RTSP), RFC 3550 (RTP), RFC 2250 (seven packets of the stream in one of RTP).
    """

    def answer(connection: socket.socket) -> None:
        while head := request(connection).decode():
            method, number = head.split()[0], head.split("CSeq:")[1].split()[0]
            lines, body = [f"CSeq: {number}"], ""
            if method == "DESCRIBE" and f"Basic {b64encode(b'me:secret').decode()}" not in head:
                status, lines = "401 Unauthorized", [*lines, 'WWW-Authenticate: Basic realm="x"']
            else:
                status, lines = "200 OK", [*lines, *ANSWERS.get(method, [])]
                body = SDP if method == "DESCRIBE" else ""
            text = "\r\n".join([f"RTSP/1.0 {status}", *lines, "", body])
            connection.sendall(text.encode())
            if method == "PLAY":
                for place in range(0, len(data), 7 * 188):
                    part = data[place : place + 7 * 188]
                    count = place // (7 * 188)
                    header = struct.pack("!BBHII", 0x80, 33, count, 900 * count, 1)
                    framed = struct.pack("!BBH", 0x24, 0, len(header) + len(part))
                    connection.sendall(framed + header + part)
                if stall:
                    wait_for_the_end(connection)
                return

    return answer


@pytest.mark.parametrize("stall", [True, False])
def test_a_camera_with_a_password_is_looked_at_until_it_stalls_or_breaks_off(
    tmp_path: Path, stall: bool
) -> None:
    path = write_video(tmp_path / "a.ts", drawn(40))
    local = {frame.time: frame.pixels for frame in Video(find_videos(path)[0]).read(Choice())}
    seen = []
    with server(rtsp_camera(path.read_bytes(), stall=stall)) as port:
        video = Video(find_videos(f"rtsp://me:secret@127.0.0.1:{port}/door")[0], timeout=SOON)
        assert video.live and video.frames is None
        with pytest.raises(ValueError, match="nothing came") if stall else nullcontext():
            for frame in video.read(Choice()):
                seen.append(frame)
    # What is not known to be whole when the stream ends is not given.
    assert 38 <= len(seen) <= 40 and video.broken == 0
    assert all(np.array_equal(frame.pixels, local[frame.time]) for frame in seen)


def test_a_camera_that_answers_nothing_is_given_up() -> None:
    with server(wait_for_the_end) as port:
        (source,) = find_videos(f"rtsp://me:secret@127.0.0.1:{port}/door")
        with pytest.raises(ValueError, match=rf"127.0.0.1:{port}/door: nothing came for 1 s"):
            Video(source, timeout=SOON)


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for address in (f"rtsp://127.0.0.1:{port}/door", f"http://127.0.0.1:{port}/a.mp4"):
        with pytest.raises(ValueError, match=f"127.0.0.1:{port}.*refused"):
            Video(find_videos(address)[0], timeout=SOON)


def test_a_file_behind_a_web_address_is_no_live_stream(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", drawn(9))
    local = [frame.pixels for frame in Video(find_videos(path)[0]).read(Choice())]
    with server(web_file(path.read_bytes())) as port:
        for name in ("a.mkv", "what?id=3"):  # of the second the server is asked
            video = Video(find_videos(f"http://127.0.0.1:{port}/{name}")[0], timeout=SOON)
            assert not video.live and video.frames == 9
            seen = [frame.pixels for frame in video.read(Choice())]
            assert all(np.array_equal(a, b) for a, b in zip(seen, local, strict=True))


def counted(made: list[int], gate: threading.Semaphore | None, count: int) -> Generator[int]:
    for number in range(count):
        if gate is not None:
            gate.acquire()
        made.append(number)
        yield number


def test_a_file_waits_for_who_looks_at_it() -> None:
    made: list[int] = []
    ahead = Ahead(counted(made, None, 1000))
    taken = [next(ahead) for _ in range(3)]
    assert taken == [0, 1, 2] and len(made) <= 3 + 4 + 1 and ahead.dropped == 0
    assert list(ahead) == list(range(3, 1000))
    ahead.close()


def test_of_a_camera_the_newest_frame_is_taken() -> None:
    made: list[int] = []
    gate = threading.Semaphore(0)
    ahead = Ahead(counted(made, gate, 7), newest=True)
    gate.release()
    assert next(ahead) == 0
    gate.release(6)  # all others come while the first is looked at
    ahead._thread.join()
    assert list(ahead) == [6] and ahead.dropped == 5
    ahead.close()


def test_an_error_comes_behind_what_was_made_and_closing_ends_the_thread() -> None:
    closed: list[bool] = []

    def failing() -> Generator[int]:
        try:
            yield from range(3)
            raise ValueError("unplugged")
        finally:
            closed.append(True)

    ahead = Ahead(failing())
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="unplugged"):
        next(ahead)
    assert list(ahead) == [] and closed == [True]
    endless = Ahead(counted([], None, 10**9))
    next(endless)
    endless.close()
    assert not endless._thread.is_alive()
