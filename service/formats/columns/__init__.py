"""The columns of Parquet files, one module per kind of value."""
