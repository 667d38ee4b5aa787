"""How much of what Kafka's client writes goes through."""

from __future__ import annotations

import logging
import re
import threading

import aiokafka.admin.client  # noqa: F401 - its logger
import pytest

from tbus.transports.kafka import _log_limit
from tbus.transports.kafka._log_limit import INTERVAL, KINDS, LOGGERS, LogLimit, limit_logs

THREAD = "the loop"


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(_log_limit, "time", clock)
    return clock


@pytest.fixture
def lines():
    """What goes through; whoever asks for it first is inside `limit_logs`."""
    written = []

    class Keep(logging.Handler):
        def emit(self, record):
            written.append(record.getMessage())

    keep = Keep()
    logger = logging.getLogger("aiokafka")
    logger.addHandler(keep)
    yield written
    logger.removeHandler(keep)


def in_thread(function, name=THREAD):
    thread = threading.Thread(target=function, name=name)
    thread.start()
    thread.join()


def test_one_line_of_a_kind_goes_through_in_each_interval_and_tells_how_many_did_not(clock, lines):
    log = logging.getLogger("aiokafka.conn")

    def write():
        for number in range(50):
            log.error("node %s is dead", number)
        clock.now += INTERVAL
        log.error("node %s is dead", 50)
        log.error("another kind")
        clock.now += INTERVAL
        log.error("node %s is dead", 51)

    with limit_logs(THREAD):
        in_thread(write)
    assert lines == [
        "node 0 is dead",
        "node 50 is dead (and 49 more like it in 5 s)",
        "another kind",
        "node 51 is dead",
    ]


def test_every_logger_of_the_client_is_limited(clock, lines):
    def write():
        for name in LOGGERS:
            for _ in range(3):
                logging.getLogger(name).error("dead")

    with limit_logs(THREAD):
        in_thread(write)
    assert len(lines) == len(LOGGERS)


def test_no_logger_of_the_client_is_forgotten():
    used = {
        name
        for name, logger in logging.Logger.manager.loggerDict.items()
        if name.startswith("aiokafka") and isinstance(logger, logging.Logger)
    }
    # Those of the assignors and of SASL's helpers write nothing while a broker is away.
    assert {name for name in used if not re.search("assignors|helpers", name)} <= set(LOGGERS)


def test_other_threads_keep_all_of_their_lines(clock, lines):
    def write():
        for _ in range(3):
            logging.getLogger("aiokafka.conn").error("dead")

    with limit_logs(THREAD):
        in_thread(write)
        in_thread(write, "somebody else's")
    assert len(lines) == 1 + 3


def test_a_rebalance_is_no_news(clock, lines):
    def write():
        logging.getLogger("aiokafka.consumer.group_coordinator").warning(
            "Heartbeat failed for group %s because it is rebalancing", "g"
        )

    with limit_logs(THREAD):
        in_thread(write)
    assert not lines


def test_nothing_is_limited_after_the_block(clock, lines):
    def write():
        for _ in range(3):
            logging.getLogger("aiokafka.conn").error("dead")

    with limit_logs(THREAD):
        pass
    in_thread(write)
    assert len(lines) == 3
    assert not any(logging.getLogger(name).filters for name in LOGGERS)


def test_two_buses_at_once_let_through_no_more_than_one(clock, lines):
    def write():
        for _ in range(3):
            logging.getLogger("aiokafka.conn").error("dead")

    with limit_logs(THREAD), limit_logs(THREAD):
        in_thread(write)
    assert lines == ["dead"]


def test_kinds_without_end_cost_bounded_memory(clock):
    limit = LogLimit(THREAD)

    def write():
        for number in range(3 * KINDS):
            limit.filter(logging.makeLogRecord({"name": "aiokafka", "msg": f"dead {number}"}))

    in_thread(write)
    assert len(limit._seen) <= KINDS
