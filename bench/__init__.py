"""Benchmarks and endurance runs; ``python -m bench`` lists them."""
