"""A place in which nothing can be written is refused before the work, not after it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maskwright.prediction.val import val
from maskwright.runs import check_save

pytestmark = pytest.mark.skipif(not hasattr(os, "setresuid"), reason="permissions of POSIX")
NOBODY = 65534


@contextmanager
def without_rights() -> Iterator[None]:
    """Ask for permissions as somebody who owns nothing: root may write everywhere."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(NOBODY, -1, -1)
    try:
        yield
    finally:
        os.setresuid(0, -1, -1)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter, with one that nobody may write in."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        Path(folder, "closed").mkdir()
        Path(folder, "closed").chmod(0o555)
        yield Path(folder)
        Path(folder, "closed").chmod(0o755)


def test_a_closed_folder_is_refused_before_the_work(place: Path) -> None:
    closed = place / "closed"
    for save in (closed, closed / "new" / "below"):
        with without_rights(), pytest.raises(ValueError, match=f"^save={save}: nothing can be"):
            check_save(save)
    for project in (closed, closed / "runs"):
        with without_rights(), pytest.raises(ValueError, match=f"^project={project}: nothing can"):
            check_save(True, project)
    with without_rights():
        assert check_save(False, closed) is False
        # Before the model is looked for, which is not there.
        with pytest.raises(ValueError, match="nothing can be written"):
            val("no_model", "no_data", save=closed)


def test_a_folder_for_runs_that_is_open_below_is_taken(place: Path) -> None:
    closed, inner = place / "closed", place / "closed" / "val"
    closed.chmod(0o755)
    inner.mkdir()
    inner.chmod(0o777)
    closed.chmod(0o555)
    with without_rights():
        assert check_save(True, closed) is True
        assert check_save(inner / "new") == inner / "new"
