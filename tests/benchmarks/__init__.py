"""How fast the parts are: `make bench`, or `python -m tests.benchmarks`; one table, medians."""
