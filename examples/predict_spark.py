"""Find objects in the images of a folder with Apache Spark: one model in each Python worker.

    python examples/predict_spark.py runs/train/train photos/ finds.parquet

Needs `pip install "maskwright[cluster]" pyspark` and Java.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyspark.sql import SparkSession

import maskwright as mw


def main(model: str, folder: str, out: str) -> None:
    # Small when it is pickled; the model is loaded in each process, at the first batch.
    find = mw.distribute.BatchPredictor(model, conf=0.5)

    def look(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield from find(batch).to_batches()

    spark = SparkSession.builder.getOrCreate()
    paths = [(str(path),) for path in sorted(Path(folder).absolute().iterdir())]
    images = spark.createDataFrame(paths, "path string")
    finds = images.mapInArrow(look, find.sql_schema)
    finds.write.mode("overwrite").parquet(out)
    finds = spark.read.parquet(out)
    finds.where("error is not null").select("image", "error").show(5, truncate=False)
    finds.where("find is not null").groupBy("name").count().show()


if __name__ == "__main__":
    main(*sys.argv[1:])
