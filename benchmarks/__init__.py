"""How fast tbus is beside its peers, and how little it holds: `python -m benchmarks --help`."""
