"""How aiokafka's clients are made, and how they are got rid of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import anyio
from aiokafka import AIOKafkaConsumer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.group import LeaveGroupRequest

from ..._config import KafkaOptions
from ..._owned_loop import aborted_unless_done
from .._tls import tls_context
from ._errors import LOST, describe

logger = logging.getLogger("tbus.kafka")

METADATA_AGE = 30.0
"""Seconds after which a client asks again which topics and leaders there are: new partitions
are seen this late at most."""

RETRY_BACKOFF = 0.1
"""Seconds between a client's own repeats."""


LEAVE_WAIT = 0.5
"""Seconds for telling a group that a member has left."""


class Client(Protocol):
    """The part of aiokafka's client that is used here."""

    async def close(self) -> None: ...


def client_options(options: KafkaOptions, name: str) -> dict[str, Any]:
    """What producer, consumers and administration are all made with."""
    protocol = "SASL_" if options.user is not None else ""
    found: dict[str, Any] = {
        "bootstrap_servers": list(options.servers),
        "client_id": name or "tbus",
        "request_timeout_ms": round(options.request_timeout * 1000),
        "retry_backoff_ms": round(RETRY_BACKOFF * 1000),
        "metadata_max_age_ms": round(METADATA_AGE * 1000),
        "security_protocol": protocol + ("SSL" if options.tls else "PLAINTEXT"),
    }
    if options.tls:
        found["ssl_context"] = tls_context(options)
    if options.user is not None:
        found |= {
            "sasl_mechanism": options.mechanism or "PLAIN",
            "sasl_plain_username": options.user,
            "sasl_plain_password": options.password,
        }
    return found


async def start_client(start: Callable[[], Awaitable[None]]) -> None:
    """Start a producer, a consumer or another client. A start that fails, or is cancelled, has
    forgotten the connection that it began with, which is closed here; the rest is `close_client`'s.
    """
    try:
        with aborted_unless_done():
            await start()
    except BaseException:
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(0)  # a connection is closed in the next pass
        raise


async def close_client(
    what: str, stop: Callable[[], Awaitable[None]], client: Client, wait: float
) -> None:
    """Stop a producer or a consumer within `wait` seconds, then close what it stood on.

    A stop raises a cancellation that nobody asked for where the broker is dead, or waits for
    ever; after it a second one does nothing, and connections and a task are left. So the client
    below is closed in any case. What is left even then ends with the loop.
    """
    task = asyncio.current_task()
    assert task is not None
    asked = task.cancelling()  # before: maybe because this close is all that is left to do
    for part in (stop, client.close):
        with anyio.move_on_after(wait, shield=True):
            try:
                await part()
            except asyncio.CancelledError:  # noqa: ASYNC103 - of the client's, or at the deadline
                logger.debug("closing %s: cancelled", what)
            except Exception as error:  # noqa: BLE001 - it is being thrown away; logged
                logger.debug("closing %s: %r", what, error)
    if task.cancelling() > asked:
        raise asyncio.CancelledError  # the loop ends


async def leave_group(admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer, group: str) -> None:
    """Take a consumer that is being stopped out of its group, by another connection than its own.
    On that one a broker reads nothing while it waits for the other members to join: one that
    leaves then would be kept, with its partitions, until its session has ended.

    A static member stays: its partitions wait for it.
    """
    coordinator: Any = consumer._coordinator
    if coordinator is None or coordinator._group_instance_id is not None:
        return
    node, member = coordinator.coordinator_id, coordinator.member_id
    if node is None or not member:
        return
    with anyio.move_on_after(LEAVE_WAIT, shield=True):
        try:
            await admin._client.send(node, LeaveGroupRequest(group, member))
        except (kafka.KafkaError, *LOST) as error:
            logger.debug("leaving group %s: %s", group, describe(error))
