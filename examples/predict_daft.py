"""Find objects in the images of a folder with Daft: one model in each process that computes.

    python examples/predict_daft.py runs/train/train photos/ finds/

Needs `pip install "maskwright[cluster]" daft`.
"""

import sys

import daft
from daft import DataType, Series

import maskwright as mw


def main(model: str, folder: str, out: str) -> None:
    # Small when it is pickled; the model is loaded in each process, at the first batch.
    find = mw.distribute.BatchPredictor(model, conf=0.5, keep=["row"])
    fields = {"name": DataType.string(), "score": DataType.float32(), "mask": DataType.string()}
    fields |= {corner: DataType.float32() for corner in ("x1", "y1", "x2", "y2")}
    fields |= {"error": DataType.string()}

    @daft.func.batch(return_dtype=DataType.list(DataType.struct(fields)))
    def look(paths: Series) -> list[list[dict]]:
        # A function of Daft gives a value a row: here the list of an image's finds.
        paths = paths.to_pylist()
        made = [[] for _ in paths]
        for row in find({"path": paths, "row": range(len(paths))}).to_pylist():
            made[row["row"]].append({name: row[name] for name in fields})
        return made

    images = daft.from_glob_path(f"{folder.rstrip('/')}/*").select("path")
    finds = images.with_column("find", look(images["path"])).explode("find")
    finds = finds.select("path", *(finds["find"].get(name).alias(name) for name in fields))
    finds.write_parquet(out, write_mode="overwrite")
    finds = daft.read_parquet(f"{out}/*.parquet")
    finds.where(~finds["error"].is_null()).select("path", "error").show(5)
    finds.groupby("name").agg(finds["score"].count().alias("finds")).show()


if __name__ == "__main__":
    main(*sys.argv[1:])
