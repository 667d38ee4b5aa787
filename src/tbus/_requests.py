"""What a subscription asks for, checked before the broker is asked."""

from __future__ import annotations

import inspect
from datetime import datetime
from functools import partial
from typing import Any, get_args

import msgspec

from ._at_most_once import OnceIntake
from ._batches import BatchIntake
from ._config import BusConfig
from ._errors import ConfigurationError
from ._gathering import Batch
from ._intake import Intake, IntakeOptions
from ._message import Position
from ._pace import Rate, as_rate
from ._quarantine import Action, Quarantine, as_quarantine
from ._retry import Retry
from ._topic import TopicOptions, check_group, check_topic
from ._transport import FeedRequest, Guarantee, Order, Start


def check_subscription(
    config: BusConfig,
    topic: str,
    group: str | None,
    concurrency: int | None,
    max_in_flight: int | None,
    order: Order,
    timeout: float,
    retry: Retry | None,
    dead_letter: str | None,
    start: Start | None,
    rate: Rate | float | None = None,
    quarantine: Quarantine | Action | None = None,
    max_deliveries: int | None = 20,
    delivery: Guarantee = "at_least_once",
    batch: Batch | None = None,
) -> tuple[IntakeOptions, FeedRequest]:
    """The arguments of `Bus.subscribe`, with their defaults, for the intake and the broker.

    Raises:
        ConfigurationError, InvalidTopic: one of them cannot be used.
    """
    check_topic(topic)
    if group is not None:
        check_group(group)
    if order not in get_args(Order):
        raise ConfigurationError("one of 'key', 'partition', 'none'", field="order", value=order)
    if retry is not None and not isinstance(retry, Retry):
        raise ConfigurationError("it is a Retry(...), or None", field="retry", value=retry)
    _check_guarantee(delivery, retry, quarantine)
    options = IntakeOptions(
        concurrency=_count_or("concurrency", concurrency, config.concurrency),
        max_in_flight=_count_or("max_in_flight", max_in_flight, config.max_in_flight),
        order=order,
        retry=Retry() if retry is None else retry,
        dead_letter=_check_dead_letter(dead_letter, topic),
        timeout=check_seconds("timeout", timeout),
        rate=_check_rate(rate),
        quarantine=_check_quarantine(quarantine, order, dead_letter),
        max_deliveries=_check_deliveries(max_deliveries, delivery),
        delivery=delivery,
        batch=batch,
    )
    _check_batch(options)
    wanted = FeedRequest(
        topic=topic,
        group=group,
        order=order,
        start=_check_start(start, group),
        max_in_flight=options.max_in_flight,
        max_in_flight_bytes=config.max_in_flight_bytes,
        ack_wait=config.nats.ack_wait,
        max_deliveries=options.max_deliveries,
    )
    return options, wanted


def intake_type(options: IntakeOptions) -> type[Intake]:
    """Who keeps what they ask for."""
    if options.batch is not None:
        return BatchIntake
    return OnceIntake if options.delivery == "at_most_once" else Intake


def check_dead_letters(topic: str, group: str | None, dead_letter: Any, start: Any) -> str:
    """The arguments of `Bus.open_dead_letters`; returns the topic that holds the letters.

    Raises:
        ConfigurationError, InvalidTopic: one of them cannot be used.
    """
    check_topic(topic)
    if group is not None:
        check_group(group)
    target = _check_dead_letter(dead_letter, topic)
    if target is None:
        raise ConfigurationError("give a topic", field="dead_letter", value=None)
    if start is not None and not isinstance(start, Position):
        raise ConfigurationError("a Position, or None", field="start", value=start)
    return target


def check_handler(handler: object, decode: Any = None, *, takes_lists: bool = False) -> None:
    """A handler is an async function, or an object that is called like one, and takes what it will
    be called with. What it decodes into is a type that msgspec knows."""
    message = "messages" if takes_lists else "message"
    if decode is not None:
        message = "pairs" if takes_lists else "event, message"
    is_plain = inspect.isfunction(handler) and not inspect.iscoroutinefunction(handler)
    if not callable(handler) or isinstance(handler, type) or is_plain:
        raise ConfigurationError(
            f"it must be an async function: async def handler({message})",
            field="handler",
            value=handler,
        )
    _check_decode(decode)
    try:
        # Of what is called itself: a decorator may give more to what it wraps, or less.
        signature = inspect.signature(handler, follow_wrapped=False)
    except Exception:  # noqa: BLE001 - whatever keeps it from saying what it takes is no reason
        return
    try:
        signature.bind(*message.split(", "))
    except TypeError as error:
        given = "with" if decode is not None else "without"
        lists = " and batch=" if takes_lists else ""
        # Names alone: what stands for a default, or in a partial, may be a secret.
        takes = ", ".join(signature.parameters)
        raise ConfigurationError(
            f"{given} decode={lists} it is called as handler({message}), and it takes"
            f" ({takes}): {error}",
            field="handler",
            value=handler.func if isinstance(handler, partial) else handler,
        ) from None


def _check_decode(decode: Any) -> None:
    if decode is None:
        return
    try:
        msgspec.json.Decoder(decode)
    except TypeError as error:
        raise ConfigurationError(
            f"a type that payloads can be decoded into, or None: {error}",
            field="decode",
            value=decode,
        ) from None
    except NameError:
        return  # it names what is bound later: the first message will tell


def check_options(options: Any) -> TopicOptions:
    """Options of a topic, or the defaults."""
    if options is None:
        return TopicOptions()
    if not isinstance(options, TopicOptions):
        raise ConfigurationError("it is a TopicOptions(...)", field="options", value=options)
    return options


def check_count(field: str, value: Any) -> int:
    """A whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError("a whole number of at least 1", field=field, value=value)
    return value


def check_seconds(field: str, value: Any) -> float:
    """A number of seconds, more than 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ConfigurationError("a number of seconds, more than 0", field=field, value=value)
    return value


def _count_or(field: str, value: int | None, default: int) -> int:
    return default if value is None else check_count(field, value)


def _check_start(start: Any, group: str | None) -> Start:
    if start is None:
        return "latest" if group is None else "earliest"
    if start in ("earliest", "latest"):
        return start  # type: ignore[no-any-return]  # one of the two words
    if isinstance(start, Position):
        return start
    if isinstance(start, datetime):
        if start.tzinfo is None:
            raise ConfigurationError(
                "a time needs its zone: datetime.now(UTC), say", field="start", value=start
            )
        return start
    raise ConfigurationError(
        "one of 'earliest', 'latest', a datetime, a Position", field="start", value=start
    )


def _check_rate(rate: Any) -> Rate | None:
    found = as_rate(rate)
    if found is not None and not isinstance(found, Rate):
        raise ConfigurationError(
            "messages per second, a Rate(...), or None", field="rate", value=rate
        )
    return found


def _check_guarantee(delivery: Any, retry: Retry | None, quarantine: Any) -> None:
    if delivery not in get_args(Guarantee):
        raise ConfigurationError(
            "one of 'at_least_once', 'at_most_once'", field="delivery", value=delivery
        )
    if delivery == "at_most_once":
        for field, value in (("retry", retry), ("quarantine", quarantine)):
            if value is not None:
                raise ConfigurationError(
                    "with delivery='at_most_once' nothing is tried again: leave it out",
                    field=field,
                    value=value,
                )


def _check_batch(options: IntakeOptions) -> None:
    batch: object = options.batch
    if batch is None:
        return
    if not isinstance(batch, Batch):
        raise ConfigurationError("it is a Batch(size, within), or None", field="batch", value=batch)
    if batch.size > options.max_in_flight:
        raise ConfigurationError(
            f"a list of {batch.size} is never full while max_in_flight is"
            f" {options.max_in_flight}: raise that, or take shorter lists",
            field="batch",
            value=batch,
        )
    if options.delivery != "at_least_once":
        raise ConfigurationError(
            f"lists are handled at least once, and delivery is {options.delivery!r}",
            field="batch",
            value=batch,
        )
    if options.retry.attempts == 1:
        raise ConfigurationError(
            "the last attempt runs message by message, so with Retry(attempts=1) there is no list:"
            " give it at least 2",
            field="batch",
            value=batch,
        )


def _check_deliveries(value: Any, delivery: Guarantee) -> int | None:
    if value is None or delivery == "at_most_once":
        return None  # what was settled before it ran is not delivered again
    return check_count("max_deliveries", value)


def _check_quarantine(value: Any, order: Order, dead_letter: str | None) -> Quarantine | None:
    quarantine = as_quarantine(value)
    if quarantine is None:
        return None
    if order != "key":
        raise ConfigurationError(
            f"a key can be parked with order='key' only, and this is {order!r}",
            field="quarantine",
            value=value,
        )
    if quarantine.action == "dead_letter" and dead_letter is None:
        raise ConfigurationError(
            "'dead_letter' needs a dead-letter topic; without one, 'park' is possible",
            field="quarantine",
            value=value,
        )
    return quarantine


def _check_dead_letter(dead_letter: Any, topic: str) -> str | None:
    if dead_letter is None:
        return None
    if not isinstance(dead_letter, str):
        raise ConfigurationError("a topic, or None", field="dead_letter", value=dead_letter)
    target = check_topic(dead_letter.replace("<topic>", topic))
    if target == topic:
        raise ConfigurationError(
            "a topic cannot be its own dead-letter topic", field="dead_letter", value=topic
        )
    return target
