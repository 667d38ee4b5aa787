"""Publishes in flight to Kafka, with producers that the tests hold in their hands."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import defaultdict
from string import ascii_letters
from typing import Any

import pytest
from aiokafka import errors as kafka

from tbus._errors import OutcomeUnknown, PublishRefused, TransportLost
from tbus._message import Position, Receipt
from tbus.transports.kafka._outbox import LARGEST
from tbus.transports.kafka._partitioners import partitioner
from tests.mechanisms.kafka_kit import Desk, run


def test_what_waits_for_an_answer_goes_together_when_it_has_come():
    async def main() -> None:
        desk = Desk()
        desk.put("a")
        await desk.settle()
        desk.put("bcd")
        await desk.settle()
        assert desk.sent == [["a"]]
        desk.producer.answer()
        await desk.settle()
        assert desk.sent == [["a"], ["b", "c", "d"]]
        desk.producer.answer()
        await desk.settle()
        assert [desk.outcomes[id] for id in "abcd"] == [
            Receipt("t", Position(0, offset)) for offset in range(4)
        ]
        await desk.outbox.wait_empty()

    run(main)


def test_partitions_do_not_wait_for_each_other():
    async def main() -> None:
        desk = Desk(partitions=2)
        desk.put("a", "one")  # murmur2 puts these two in different ones
        desk.put("b", "four")
        await desk.settle()
        assert desk.sent == [["a"], ["b"]]
        assert len(set(desk.producer.partitions)) == 2
        desk.producer.answer(1)
        await desk.settle()
        assert list(desk.outcomes) == ["b"]

    run(main)


@pytest.mark.parametrize("partitions", [5, 1])
def test_what_waits_when_the_partitions_are_others_goes_where_its_key_belongs(partitions):
    pick = partitioner("murmur2")
    ids = ascii_letters[:40]
    key_of = {one: "abcdefgh"[number % 8] for number, one in enumerate(ids)}  # five of each
    sent, waiting, later = ids[:16], ids[16:32], ids[32:]

    async def main():
        desk = Desk(partitions=2)
        for part in (sent, waiting):
            for one in part:
                desk.put(one, key_of[one])
            await desk.settle()
        desk.outbox.resize("t", partitions)
        for one in later:
            desk.put(one, key_of[one])
        while len(desk.outcomes) < len(ids):
            await desk.settle()
            for number, answer in enumerate(desk.producer.answers):
                if not answer.done():
                    desk.producer.answer(number)
        return desk

    desk = run(main)
    assert sorted(one for batch in desk.sent[:2] for one in batch) == sorted(sent)
    placed: dict[str, str] = defaultdict(str)
    for batch, partition in zip(desk.sent[2:], desk.producer.partitions[2:], strict=True):
        for one in batch:
            key = key_of[one]
            assert partition == pick(key.encode(), range(partitions), range(partitions))
            placed[key] += one
    assert placed == {
        key: "".join(one for one in waiting + later if key_of[one] == key) for key in "abcdefgh"
    }


def test_what_the_client_has_is_unknown_and_what_waits_was_not_sent():
    async def main() -> None:
        desk = Desk()
        desk.put("a", timeout=2.0)
        await desk.settle()
        desk.put("b", timeout=1.0)
        await asyncio.sleep(3.0)
        unknown, lost = desk.outcomes["a"], desk.outcomes["b"]
        assert isinstance(unknown, OutcomeUnknown)
        assert unknown.event_id == "a"
        assert "'t'" in str(unknown)
        assert isinstance(lost, TransportLost)
        assert "'t'" in str(lost)
        assert 1.0 <= desk.times["b"] <= 1.06
        assert 2.0 <= desk.times["a"] <= 2.06
        await desk.outbox.wait_empty()

    run(main)


def test_what_was_not_sent_in_time_is_never_sent_and_what_comes_later_keeps_its_place():
    async def main() -> None:
        desk = Desk()
        desk.put("a", timeout=5.0)
        await desk.settle()
        desk.put("b", timeout=1.0)
        desk.put("c", timeout=5.0)
        await asyncio.sleep(2.0)
        desk.producer.answer()
        await desk.settle()
        assert desk.sent == [["a"], ["c"]]

    run(main)


def test_an_answer_after_the_deadline_changes_nothing_and_lets_the_next_ones_go():
    async def main() -> None:
        desk = Desk()
        desk.put("a", timeout=1.0)
        await desk.settle()
        desk.put("b", timeout=60.0)
        await asyncio.sleep(2.0)
        assert desk.sent == [["a"]]
        desk.producer.answer()
        await desk.settle()
        assert isinstance(desk.outcomes["a"], OutcomeUnknown)
        assert desk.sent == [["a"], ["b"]]

    run(main)


@pytest.mark.parametrize("away", ["answer", "producer", "topic"])
def test_a_broker_that_stays_away_costs_no_more_memory_than_what_is_in_flight(away):
    async def main() -> None:
        desk = Desk()
        if away == "answer":
            desk.put("a", timeout=1e9)
            await desk.settle()
        elif away == "producer":
            desk.producers.replaced = False
            desk.producers.retire(desk.producer)
        else:
            desk.topics.error = TransportLost("nobody is there")
        held: list[weakref.ref[Any]] = []
        for number in range(200):
            [event] = desk.put(f"{chr(1000 + number)}", timeout=1.0)
            held.append(weakref.ref(event.on_outcome))
            del event
            await asyncio.sleep(0.5)
        await asyncio.sleep(2.0)
        gc.collect()
        left = sum(one() is not None for one in held)
        assert left == 0, f"{left} of 200 events that have their outcome are kept"
        assert len(desk.outcomes) == 200

    run(main)


def test_what_was_withdrawn_is_not_sent():
    async def main() -> None:
        desk = Desk()
        desk.put("a")
        await desk.settle()
        b, _ = desk.put("bc")
        b.withdrawn = True
        desk.producer.answer()
        await desk.settle()
        assert desk.sent == [["a"], ["c"]]
        assert isinstance(desk.outcomes["b"], TransportLost)

    run(main)


def test_a_batch_that_one_event_spoils_costs_that_one_only():
    async def main() -> None:
        desk = Desk()
        desk.put("a")
        await desk.settle()
        desk.put("bcdXefgh")
        desk.producer.answer()
        await desk.settle()
        for _ in range(20):
            producer = desk.producer
            if producer.answers and not producer.answers[-1].done():
                if "X" in producer.batches[-1]:
                    producer.refuse(kafka.MessageSizeTooLargeError())
                else:
                    producer.answer()
            await desk.settle()
        assert isinstance(desk.outcomes.pop("X"), PublishRefused)
        assert all(isinstance(one, Receipt) for one in desk.outcomes.values())
        assert "".join(id for id in desk.order if id != "X") == "abcdefgh"
        assert all(made.retired and not made.in_flight for made in desk.producers.made[:-1])

    run(main)


def test_a_batch_that_was_refused_as_a_whole_is_not_sent_again():
    async def main() -> None:
        desk = Desk()
        desk.put("ab")
        await desk.settle()
        desk.producer.refuse(kafka.TopicAuthorizationFailedError())
        await desk.settle()
        assert desk.sent == [["a", "b"]]
        for id in "ab":
            error = desk.outcomes[id]
            assert isinstance(error, PublishRefused)
            assert "WRITE" in str(error)

    run(main)


def test_a_batch_that_a_closed_producer_did_not_take_goes_by_the_next_one():
    async def main() -> None:
        desk = Desk()
        desk.put("ab")
        await desk.settle()
        desk.producer.refuse(kafka.ProducerClosed())
        await desk.settle()
        assert [made.batches for made in desk.producers.made] == [[["a", "b"]], [["a", "b"]]]
        desk.producer.answer()
        await desk.settle()
        assert desk.order == ["a", "b"]

    run(main)


def test_a_producer_that_failed_gets_nothing_more_and_ends_when_all_is_answered():
    async def main() -> None:
        desk = Desk(partitions=2)
        first = desk.producer
        desk.put("a", "one")
        desk.put("b", "four")
        await desk.settle()
        first.refuse(kafka.OutOfOrderSequenceNumber(), 0)
        await desk.settle()
        assert isinstance(desk.outcomes["a"], OutcomeUnknown)
        assert not desk.producers.ended
        desk.put("c", "one")
        await desk.settle()
        assert desk.producer is not first
        assert desk.producer.batches == [["c"]]
        first.answer(1)
        await desk.settle()
        assert desk.producers.ended == [first]

    run(main)


def test_without_a_producer_events_wait_in_their_order():
    async def main() -> None:
        desk = Desk()
        desk.put("a")
        await desk.settle()
        desk.producers.replaced = False
        desk.producer.refuse(kafka.OutOfOrderSequenceNumber())
        await desk.settle()
        desk.put("bc")
        await asyncio.sleep(1.0)
        desk.put("d")
        desk.producers.replace()
        await desk.settle()
        assert desk.producer.batches == [["b", "c", "d"]]

    run(main)


def test_an_event_larger_than_any_batch_is_refused_by_itself():
    async def main() -> None:
        desk = Desk()
        desk.put("a")
        desk.put("X", size=LARGEST)
        desk.put("b")
        await desk.settle()
        assert desk.sent == [["a", "b"]]
        error = desk.outcomes["X"]
        assert isinstance(error, PublishRefused)
        assert str(LARGEST) in str(error)

    run(main)


def test_only_events_too_large_for_a_batch_leave_no_lane_busy():
    async def main() -> None:
        desk = Desk()
        desk.put("X", size=LARGEST)
        await desk.settle()
        desk.put("a")
        await desk.settle()
        assert desk.sent == [["a"]]

    run(main)


def test_the_answer_without_an_offset_is_a_receipt_that_says_so():
    async def main() -> None:
        desk = Desk()
        desk.put("ab")
        await desk.settle()
        desk.producer.stored = -1
        desk.producer.answer()
        await desk.settle()
        assert desk.outcomes["a"] == desk.outcomes["b"] == Receipt("t", Position(0, -1))

    run(main)


def test_abandoned_events_have_the_outcome_that_is_true():
    async def main() -> None:
        desk = Desk()
        desk.put("a")
        await desk.settle()
        desk.put("b")
        desk.outbox.abandon()
        assert isinstance(desk.outcomes["a"], OutcomeUnknown)
        assert isinstance(desk.outcomes["b"], TransportLost)
        await desk.outbox.wait_empty()
        desk.producer.answer()
        await desk.settle()
        assert desk.sent == [["a"]]

    run(main)


def test_an_event_that_could_not_be_taken_to_its_end_has_its_outcome_in_time():
    def start(*_: object) -> None:
        raise ValueError("a bug")

    async def main() -> None:
        desk = Desk()
        desk.outbox._start = start
        with pytest.raises(ValueError, match="a bug"):
            desk.put("a", timeout=2.0)
        await desk.outbox.wait_empty()
        assert isinstance(desk.outcomes["a"], TransportLost)
        assert desk.times["a"] == pytest.approx(2.0, abs=0.1)

    run(main)


def test_a_topic_that_nobody_can_look_up_is_looked_for_until_the_deadline():
    async def main() -> None:
        desk = Desk()
        desk.topics.error = TransportLost("nobody is there")
        desk.put("ab", timeout=1.0)
        await asyncio.sleep(0.5)
        desk.put("c", timeout=1.0)
        await asyncio.sleep(2.0)
        assert all(isinstance(desk.outcomes[id], TransportLost) for id in "abc")
        assert 1.0 <= desk.times["a"] <= 1.06
        assert 1.5 <= desk.times["c"] <= 1.56
        looked = desk.topics.looked
        await asyncio.sleep(10.0)
        assert desk.topics.looked == looked, "nobody waits for it any more"
        desk.topics.error = None
        desk.put("d")
        await desk.settle()
        assert desk.sent == [["d"]]

    run(main)


def test_a_topic_that_cannot_be_had_refuses_everything_that_waited_for_it():
    async def main() -> None:
        desk = Desk()
        desk.topics.error = PublishRefused("not for you")
        desk.put("ab")
        await desk.settle()
        assert all(isinstance(desk.outcomes[id], PublishRefused) for id in "ab")

    run(main)


def test_a_topic_that_is_gone_is_looked_for_again_with_the_next_event():
    async def main() -> None:
        desk = Desk()
        desk.put("a")
        await desk.settle()
        desk.producer.refuse(kafka.UnknownTopicOrPartitionError())
        await desk.settle()
        assert isinstance(desk.outcomes["a"], PublishRefused)
        assert desk.topics.forgotten == ["t"]
        desk.put("b")
        await desk.settle()
        assert desk.topics.looked == 2
        assert desk.producer.batches == [["b"]]

    run(main)
