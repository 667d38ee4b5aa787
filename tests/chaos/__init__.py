"""Members of a group that are killed, suspended, started and stopped while events flow.

`python -m tests.chaos --help` runs it at any size; the suite runs a short form.
"""
