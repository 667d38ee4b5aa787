"""How fast tbus is beside its peers, how fair, and how little it holds.

`python -m benchmarks --help` says how to run it. The rooms: `plans` says what is compared and
which figure is to be reached; `publishing`, `consuming`, `arrival`, `loaded`, `in_memory`,
`fairness` and `holdings` are the contestants, each of which runs in a process of its own; `rounds`
runs them in turn, and `processes` reads the command lines of such processes. The rooms that begin
with `kafka_` are the same for Kafka. Of what they say, `tables` and `page` make something readable,
`drawing` plots and `evidence` the files in docs/evidence; `result_file` keeps it, and `noise`,
`series` and `comparing` hold one such file against another.

What presses has a command line of its own, `stress`: `pressure`, `leaks`, `scale` and `soak`, each
with a room for its data (`..._plans`), for its runs (`..._runs`) and for its part of the
page (`..._page`); `curves` draws what `scale` measured, `brokers` starts what they need,
`footprint` says what a process takes, and `slopes` whether that rises.
"""
