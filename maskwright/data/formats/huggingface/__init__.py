"""Hugging Face's data sets: Parquet and Arrow tables, and metadata.jsonl beside images."""
