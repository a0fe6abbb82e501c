"""Make the picture of the README: nuclei of the validation split, photo and overlay side by side.

    python scripts/make_readme_picture.py [MODEL]

Every image shown is CC0 and was not used in training.
"""

import sys
from pathlib import Path

from PIL import Image

import maskwright as mw

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "images" / "nuclei.jpg"
CELL = 320


def main(model: str) -> None:
    folder = ROOT / "examples" / "nuclei_mini" / "images" / "val"
    predictor = mw.load(model, device="cpu")
    results = [predictor(path, conf=0.5, max_det=300) for path in sorted(folder.glob("*.png"))]
    # The busiest images of each kind: colour and fluorescence.
    results.sort(key=len, reverse=True)
    chosen = results[:4]
    sheet = Image.new("RGB", (CELL * len(chosen), CELL * 2), "white")
    for column, result in enumerate(chosen):
        photo = Image.fromarray(result.image)
        for row, picture in enumerate((photo, result.plot())):
            side = min(picture.size)
            square = picture.crop((0, 0, side, side)).resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(square, (column * CELL, row * CELL))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(OUT, quality=90)
    print(OUT)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "nuclei")
