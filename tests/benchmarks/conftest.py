"""The contestants drive nats-py themselves: without it there is nothing to test here."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("nats") else ["test_*.py"]
