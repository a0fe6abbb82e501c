"""What tests of the service share: a model of the package, photos, and a service in a thread."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 128  # of the network's input


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def photos(folder: Path, count: int) -> list[bytes]:
    """Return the bytes of some images of the mini set of nuclei."""
    return [path.read_bytes() for path in sorted((folder / "images" / "val").iterdir())[:count]]


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application as `maskwright serve` does, in a thread; gives its address."""
    import uvicorn

    from maskwright.serving.serve import listening, request_reader

    with listening("127.0.0.1", 0) as place:
        config = uvicorn.Config(app, http=request_reader(), ws="none", log_level="error")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{place.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
