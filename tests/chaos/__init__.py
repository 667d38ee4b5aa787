"""Members of a group that are killed, suspended, started and stopped while events flow.

Over NATS, Kafka and memory alike: `writer` publishes, each of a `crowd` of members appends what it
completed to one file, the `book`, and an `observer` outside reads it. `run` puts them together; how
members, and what may be done to them and to their broker, come about is in `brokers`.

`python -m tests.chaos --help` runs it at any size; the suite runs short forms.
"""
