"""Recordings as files for research: Parquet, and what backtests read."""
