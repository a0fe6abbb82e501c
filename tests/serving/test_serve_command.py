"""`maskwright serve` as a process: says where it listens, ends when its requests are done."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from serving_help import photos

from maskwright.cli import main


@pytest.mark.slow
def test_sigterm_ends_it_when_the_last_request_is_answered(nuclei_mini: Path) -> None:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    httpx = pytest.importorskip("httpx", reason="needs httpx")
    command = [sys.executable, "-m", "maskwright", "serve", "model=nuclei", "port=0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ}
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        replies = []
        data = photos(nuclei_mini, 1)[0]

        def ask() -> None:
            replies.append(httpx.post(f"{found[0]}/predict", content=data, timeout=120))

        asking = threading.Thread(target=ask)
        asking.start()
        while "predict" not in httpx.get(f"{found[0]}/metrics").text:  # it is being computed
            if replies:
                break
        process.send_signal(signal.SIGTERM)
        asking.join()
        assert replies[0].status_code == 200
        assert process.wait(60) == 0
        assert "stopped" in process.stdout.read()
    finally:
        process.kill()
        process.stdout.close()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("serve", 2, "needs model="),
        ("serve model=nuclei port=70000", 2, "between 0 and 65535"),
        ("serve model=nuclei port=0 queue=0", 2, "queue must be at least 1"),
        ("serve model=nuclei model=nuclei port=0 weights=coco", 2, "weights is for one model"),
        ("serve model=nucleus port=0", 2, "nucle"),
        ("serve model=nuclei host=nowhere.invalid", 1, "no such address"),
    ],
)
def test_wrong_words_are_one_sentence(
    words: str, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fastapi", reason="needs the extra serve")
    assert main(words.split()) == status
    text = capsys.readouterr().err
    assert said in " ".join(text.split()) and "Traceback" not in text


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "maskwright.serving.app", raising=False)
    assert main(["serve", "model=nuclei", "port=0"]) == 1
    assert "pip install 'maskwright[serve]'" in " ".join(capsys.readouterr().err.split())
