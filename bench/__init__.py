"""Benchmarks: `python -m bench NAME [--quick] [--full] [--json]`. See bench/README.md for how to measure."""
