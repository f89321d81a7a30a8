"""A dataset as a folder of Parquet shards: written once, at its arrival, and read by everything behind it."""
