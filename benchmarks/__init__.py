"""What is faster than what, measured side by side on one machine: `python -m benchmarks start` and `... unpack`."""
