"""Find objects in a folder of images and write pictures, data and a table of counts.

python examples/predict_folder.py MODEL FOLDER OUT
"""

import csv
import sys
from pathlib import Path

import maskwright as mw

model, folder, out = sys.argv[1:4]
rows = []
for result in mw.predict(model, folder, conf=0.5, max_det=500, save=out):
    print(result)
    rows.append({"image": result.file_name, "objects": len(result), **result.counts()})

with (Path(out) / "counts.csv").open("w", newline="") as file:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = csv.DictWriter(file, columns, restval=0)
    table.writeheader()
    table.writerows(rows)
