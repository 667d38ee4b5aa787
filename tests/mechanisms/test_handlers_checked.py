"""What cannot handle a message is refused when it subscribes, not told by the first dead letter."""

from __future__ import annotations

import re
from functools import partial, wraps
from typing import Any
from unittest.mock import AsyncMock

import pytest

from tbus import Batch, ConfigurationError, open_bus
from tbus._requests import check_handler

LISTS = Batch(2, 0.1)


async def nothing() -> None:
    pass


async def one(message: object) -> None:
    pass


async def two(event: object, message: object) -> None:
    pass


async def one_and_more(message: object, times: int = 3, **more: object) -> None:
    pass


async def named(message: object, *, database: object) -> None:
    pass


class Called:
    async def __call__(self, message: object) -> None:
        pass

    async def bound(self, event: object, message: object) -> None:
        pass


def given_a_session(handler: Any) -> Any:
    """As a program gives its handlers what they need."""

    @wraps(handler)
    async def wrapper(*arguments: object) -> None:
        await handler(*arguments, "a session")

    return wrapper


@given_a_session
async def with_session(message: object, session: object) -> None:
    pass


class Silent:
    """Says nothing of what it takes: its annotations, for one, cannot be resolved."""

    @property
    def __signature__(self) -> object:
        raise NameError("Order")

    async def __call__(self, message: object) -> None:
        pass


@pytest.mark.parametrize(
    ("handler", "options", "told"),
    [
        (nothing, {}, r"without decode= it is called as handler(message), and it takes ()"),
        (two, {}, r"without decode= it is called as handler(message)"),
        (one, {"decode": dict}, r"with decode= it is called as handler(event, message)"),
        (named, {}, r"missing a required argument: 'database'"),
        (two, {"batch": LISTS}, r"without decode= and batch= it is called as handler(messages)"),
        (two, {"decode": dict, "batch": LISTS}, r"it is called as handler(pairs)"),
        (Called().bound, {}, r"missing a required argument: 'message'"),
        (lambda message: None, {}, r"must be an async function: async def handler(message)"),
        (3, {"decode": dict}, r"must be an async function: async def handler(event, message)"),
    ],
)
async def test_a_handler_that_cannot_be_called_so_is_refused(
    handler: Any, options: dict[str, Any], told: str
) -> None:
    async with open_bus() as bus:
        with pytest.raises(ConfigurationError, match=re.escape(told)) as raised:
            await bus.subscribe("t", handler, **options)
        assert raised.value.field == "handler"
        assert await bus.list_topics() == []


@pytest.mark.parametrize(
    "handler",
    [one, one_and_more, partial(named, database=None), partial(two, "event"), Called(), Silent(),
     AsyncMock(), with_session],
)  # fmt: skip
def test_whatever_can_be_called_so_may_handle(handler: Any) -> None:
    check_handler(handler)


@pytest.mark.parametrize("decode", ["x", 5, object()])
async def test_what_is_no_type_cannot_be_decoded_into(decode: Any) -> None:
    async with open_bus() as bus:
        with pytest.raises(ConfigurationError, match="a type that payloads can be decoded into"):
            await bus.subscribe("t", two, decode=decode)


@pytest.mark.parametrize("decode", [dict, dict[str, int], int | None, Any, Called])
def test_a_type_can(decode: Any) -> None:
    check_handler(two, decode)


def test_a_refusal_shows_no_value_that_a_handler_was_given() -> None:
    async def handle(*, message: object, url: str = "swordfish") -> None:
        pass

    for handler in (handle, partial(handle, url="swordfish")):
        with pytest.raises(ConfigurationError, match="it takes") as raised:
            check_handler(handler)
        assert "fish" not in str(raised.value)
