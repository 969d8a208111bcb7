"""The comparison of full copies with layers: `python -m benchmarks all`."""
