"""Names in any script are letters in pictures and figures, not boxes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib import get_data_path
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw

from maskwright.drawing import fonts
from maskwright.drawing.draw import draw_instances, mosaic
from maskwright.drawing.figures import new_figure, save_figure, style

pytestmark = pytest.mark.figures

DEJAVU = Path(get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
NO_FONT = "\U000f1234"  # for private use: no font has it


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_told", set())


def drawn(text: str) -> np.ndarray:
    picture = Image.new("L", (200, 40))
    fonts.Letters(20).draw(ImageDraw.Draw(picture), 4, 4, text, 255)
    return np.asarray(picture)


@pytest.mark.parametrize(
    "text", ["Fußgänger", "Пешеход", "πεζός", "מכונית", "Đường", "e\u0301clair"]
)
def test_letters_of_many_scripts_are_no_boxes(text: str) -> None:
    face = FT2Font(str(DEJAVU))
    assert [file for _, file in fonts.runs(text)] == [str(DEJAVU)]
    assert all(face.get_char_index(ord(char)) for char in text if char != " ")
    box = drawn(NO_FONT)
    for char in text:
        if char != "\u0301":
            assert (drawn(char) != box).any() and drawn(char).any()


@pytest.mark.slow
def test_a_font_of_the_system_has_what_dejavu_lacks() -> None:
    """Another font that comes with matplotlib stands for one of the system."""
    base = set(FT2Font(str(DEJAVU)).get_charmap())
    stix = FT2Font(str(DEJAVU.with_name("STIXGeneral.ttf")))
    char = chr(next(code for code in stix.get_charmap() if code not in base and code > 0x370))
    found = fonts.font_of(char)
    assert found != str(DEJAVU) and FT2Font(found).get_char_index(ord(char))
    parts = list(fonts.runs(f"ab{char}ö"))
    assert parts == [("ab", str(DEJAVU)), (char, found), ("ö", str(DEJAVU))]
    assert (drawn(char) != drawn(NO_FONT)).any()
    figure = new_figure(3, 2)
    style(figure.subplots(), char)
    fonts.set_fonts(figure)
    families = [
        t.get_fontfamily() for t in figure.findobj() if getattr(t, "get_text", str)() == char
    ]
    assert families and all(len(family) == 2 and family[0] == "DejaVu Sans" for family in families)


def test_what_no_font_has_is_said_once_with_the_mend(tmp_path: Path) -> None:
    # Whichever of these the fonts of this machine lack.
    image = np.zeros((80, 120, 3), np.uint8)
    boxes = [[10, 30, 90, 70]]
    char = next(
        c for c in ("日", "\U00010330", "\U0001e900") if not fonts._has(fonts.font_of(c), c)
    )
    with pytest.warns(UserWarning, match=rf"no font here has {char} .*install a font"):
        draw_instances(image, boxes, [0], [f"{char}a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_instances(image, boxes, [0], [f"{char}a", "b"])
        mosaic([image], [f"{char}.png"], 1)
        figure = new_figure(3, 2)
        style(figure.subplots(), char)
        save_figure(figure, tmp_path / "x.png")


@pytest.mark.parametrize(
    "name",
    ["مرحبا بالعالم", "नमस्ते", "👩‍👩‍👧", "\u202eabc", "a\u0300\u0301\u0302", "\ud83d", "", " "],
)
def test_no_name_is_a_crash(name: str, tmp_path: Path) -> None:
    image = np.zeros((80, 120, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draw_instances(image, [[10, 30, 90, 70]], [0], [name, "b"], [0.5])
        mosaic([image], [name], 1)


def test_a_very_long_name_keeps_to_its_share_of_the_picture() -> None:
    letters = fonts.Letters(12)
    for text in ("x" * 500 + " 0.87", "Ж" * 300 + " 0.87"):
        short = letters.shorten(text, 100, end=5)
        assert letters.length(short) <= 100 and short.endswith("… 0.87")
    assert letters.shorten("cell 0.87", 100, end=5) == "cell 0.87"
    image = np.zeros((200, 300, 3), np.uint8)
    picture = np.asarray(draw_instances(image, [[10, 50, 90, 90]], [0], ["x" * 500, "b"], [0.5]))
    columns = np.flatnonzero(picture[:48].any((0, 2)))
    assert columns.max() - columns.min() < 200
