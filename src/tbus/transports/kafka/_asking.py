"""Questions to a cluster of which some broker may be away, or not ready yet.

aiokafka's administration client asks one broker, by chance, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka import errors as kafka

from ..._errors import TbusError
from ._errors import LOST, translated

T = TypeVar("T")

ASK_AGAIN = 0.1
"""Seconds before a question that nobody answered is asked again."""


async def ask(question: Callable[[], Awaitable[T]]) -> T:
    """Ask until some broker answers; the caller bounds the time.

    Raises:
        TbusError: the answer is that it cannot be had.
    """
    while True:
        try:
            return await question()
        except LOST:
            pass
        except kafka.KafkaError as error:
            if not error.retriable:
                raise translated("ask the broker", error) from error
        except TbusError as error:
            cause = error.__cause__
            if not isinstance(cause, LOST) and not getattr(cause, "retriable", False):
                raise
        await asyncio.sleep(ASK_AGAIN)
