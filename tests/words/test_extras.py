"""What is said where an optional package is not installed."""

import subprocess
import sys

import pytest

OPEN = """
import sys, trio, tbus
sys.modules[{package!r}] = None

async def main():
    async with tbus.open_bus({url!r}):
        pass

try:
    trio.run(main)
except tbus.ConfigurationError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("url", "package", "extra", "told"),
    [
        ("nats://127.0.0.1:4222", "nats", "nats", "nats://"),
        ("nats+embedded://", "nats", "embedded", "nats+embedded://"),
        ("kafka://127.0.0.1:9092", "aiokafka", "kafka", "kafka://"),
        ("kafka+embedded://", "aiokafka", "embedded", "kafka+embedded://"),
    ],
)
def test_who_lacks_a_package_is_told_once_what_brings_all_that_the_url_needs(
    url, package, extra, told
):
    done = subprocess.run(
        [sys.executable, "-c", OPEN.format(package=package, url=url)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"where='{told}': {package}" in done.stdout
    assert f"is not installed: pip install 'tbus[{extra}]'" in done.stdout
