"""Benchmarks: what the server costs, measured from outside on the real processes."""
