"""How fast tbus is beside its peers, how fair, and how little it holds.

`python -m benchmarks --help` says how to run it. The rooms: `plans` says what is compared and
which figure is to be reached; `publishing`, `consuming`, `in_memory`, `fairness` and
`holdings` are the contestants, each of which runs in a process of its own; `rounds` runs them
in turn; `tables` and `page` make something readable of what they say. The rooms that begin with
`kafka_` are the same for Kafka.
"""
