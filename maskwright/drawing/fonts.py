"""Fonts for names in any script, in pictures and in figures.

DejaVu Sans, which comes with matplotlib, has Latin, Greek, Cyrillic, Hebrew, Arabic and more. For
characters that it lacks, such as Chinese, a font of the system is looked for once; where there is
none, one warning names the characters and what mends it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..text import encodable

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import ImageFont

FAMILY = "DejaVu Sans"
MOST_FONTS = 400  # of the system that are looked into for a character
# These are looked into first: they have many scripts, and their letters are plain.
PREFERRED = (
    *("noto sans cjk", "noto sans", "source han sans", "droid sans fallback", "wenquanyi"),
    *("arial unicode ms", "microsoft yahei", "yu gothic", "ms gothic", "malgun gothic"),
    *("pingfang", "hiragino", "segoe ui", "nirmala", "unifont", "freesans"),
)

_told: set[str] = set()


class Letters:
    """Text in one size: measured and drawn with the fonts that have its characters."""

    def __init__(self, points: float) -> None:
        self.points = points
        self.ascent, self.descent = font(_base(), points).getmetrics()

    @property
    def height(self) -> int:
        """Pixels from the top of the highest letter to the foot of the lowest."""
        return self.ascent + self.descent

    def length(self, text: str) -> float:
        """Return the width of a line in pixels."""
        return sum(font(file, self.points).getlength(part) for part, file in runs(text))

    def draw(self, pen: Any, left: float, top: float, text: str, ink: Any) -> None:
        """Draw a line.

        Args:
            pen: Pillow's `ImageDraw`.
            left: where it begins.
            top: of the highest letter.
            text: one line.
            ink: colour.
        """
        for part, file in runs(text):
            face = font(file, self.points)
            pen.text((left, top + self.ascent), part, font=face, fill=ink, anchor="ls")
            left += face.getlength(part)

    def shorten(self, text: str, width: float, *, end: int = 0) -> str:
        """Return a line that is not wider than `width`, with "…" where it was cut.

        Args:
            text: the line.
            width: most pixels.
            end: characters at its end that stay, such as those of a score.
        """
        if self.length(text) <= width:
            return text
        begin, rest = text[: len(text) - end].rstrip(), text[len(text) - end :]
        rest = f" {rest.strip()}" if rest.strip() else ""
        low, high = 0, len(begin)
        while low < high:  # the longest beginning that fits
            middle = (low + high + 1) // 2
            if self.length(f"{begin[:middle].rstrip()}…{rest}") <= width:
                low = middle
            else:
                high = middle - 1
        return f"{begin[:low].rstrip()}…{rest}"


@cache
def font(file: str, points: float) -> ImageFont.FreeTypeFont:
    """Return a font of Pillow."""
    from PIL import ImageFont

    return ImageFont.truetype(file, points)


def runs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a line, each with the file of the font that has its characters."""
    if text.isascii():
        if text:
            yield text, _base()
        return
    part, file = "", _base()
    for char in text:
        # Marks and spaces go with what stands before them.
        found = file if part and (char.isspace() or not _drawn(char)) else font_of(char)
        if found != file and part:
            yield part, file
            part = ""
        part, file = part + char, found
    if part:
        yield part, file


def _drawn(char: str) -> bool:
    """Tell whether a character has a shape of its own."""
    import unicodedata

    return not unicodedata.combining(char) and unicodedata.category(char) not in ("Cf", "Mn", "Me")


@cache
def _base() -> str:
    from matplotlib import get_data_path

    return str(Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def font_of(char: str) -> str:
    """Return the file of a font that has a character; DejaVu Sans, which draws a box, if none."""
    if char.isspace() or _has(_base(), char):
        return _base()
    return next((file for file, _ in _system_fonts() if _has(file, char)), _base())


@cache
def _system_fonts() -> list[tuple[str, str]]:
    """Return files and family names of the fonts of the system, the preferred ones first."""
    from matplotlib.font_manager import fontManager

    def rank(entry: Any) -> tuple[int, bool, str]:
        name = entry.name.lower()
        place = next((i for i, known in enumerate(PREFERRED) if name.startswith(known)), 99)
        return place, entry.style != "normal" or entry.weight not in (400, "normal"), entry.fname

    found: dict[str, str] = {}
    for entry in sorted(fontManager.ttflist, key=rank):
        # Fonts of coloured pictures have one size only, Pillow's text another.
        # "Last Resort" has a box for every character there is.
        if not entry.name.startswith("Last Resort") and "emoji" not in entry.name.lower():
            found.setdefault(entry.fname, entry.name)
    return list(found.items())[:MOST_FONTS]


@cache
def _face(file: str) -> Any:
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(file)
        return face if face.scalable else None
    except Exception:  # a broken file among the fonts of the system
        return None


@cache
def _has(file: str, char: str) -> bool:
    face = _face(file)
    return face is not None and bool(face.get_char_index(ord(char)))


def warn_missing(texts: Iterable[str]) -> None:
    """Warn once of characters that no font here has."""
    chars = dict.fromkeys(char for text in texts if not text.isascii() for char in text)
    missing = [
        char
        for char in chars
        if char not in _told and _drawn(char) and not char.isspace()
        if char.isprintable() and not _has(font_of(char), char)
    ]
    if not missing:
        return
    _told.update(missing)
    shown = "".join(missing[:12]) + ("…" if len(missing) > 12 else "")
    warnings.warn(
        f"no font here has {shown} ({encodable(shown[:3], 'ascii')}): boxes stand for them in "
        "pictures and figures; install a font that has them, such as Noto Sans CJK (on Debian "
        "`apt install fonts-noto-cjk`)",
        stacklevel=2,
    )


def set_fonts(figure: Figure) -> None:
    """Let the text of a figure take other fonts for characters that DejaVu Sans lacks."""
    from matplotlib.text import Text

    # The labels of ticks are made when the figure is drawn: asking for them makes them.
    texts = [item for item in figure.findobj(Text) if isinstance(item, Text)]
    for ax in figure.axes:
        texts += [*ax.get_xticklabels(), *ax.get_yticklabels()]
    foreign = [item for item in texts if not item.get_text().isascii()]
    warn_missing(item.get_text() for item in foreign)
    families = dict(_system_fonts()) if foreign else {}
    for item in foreign:
        files = dict.fromkeys(map(font_of, item.get_text()))
        others = [families[file] for file in files if file != _base()]
        if others:
            item.set_fontfamily([FAMILY, *others])


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Keep matplotlib from telling for each letter what `warn_missing` says once."""
    log = logging.getLogger("matplotlib.font_manager")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            yield
    finally:
        log.setLevel(level)
