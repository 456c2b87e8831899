"""What `bench_exact.py` times: a table of rows for each part of the exact mathematics."""
