"""Small JSON files of labelling tools, read whole and refused by file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 1 << 29  # some hold their image as text


def load_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ValueError: if it cannot be read, is no JSON, cut off, too large or nested too deeply.
    """
    try:
        if not path.is_file():
            raise ValueError(f"{path} is no file")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} has more than {MAX_BYTES} bytes: divide it")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return json.loads(content.decode(json.detect_encoding(content)).lstrip("\ufeff"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8 ({error}): save it as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno}: no valid JSON ({error.msg}): it may be cut off; export or "
            "copy it again"
        ) from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be read") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{path}: no valid JSON ({str(error)[:200]})") from None
