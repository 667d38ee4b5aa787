"""The contestants drive nats-py and aiokafka themselves: without them there is nothing to test."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("nats") and find_spec("aiokafka") else ["test_*.py"]
