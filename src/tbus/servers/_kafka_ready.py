"""Waiting until a Kafka broker answers, on whichever event loop there is."""

from __future__ import annotations

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream

from ._child import OwnedChild
from ._kafka_wire import Metadata, NotKafka, answer_length, metadata_request, parse_metadata
from ._ports import HOST

_TICK = 0.01


class EndedEarly(Exception):
    """The child ended before it was ready."""


async def wait_ready(child: OwnedChild, port: int, cluster: str) -> None:
    """Wait until the broker of this cluster answers at this port, while the child runs.

    A broker that is starting keeps the question and answers it when it can, so there is
    little to poll for: only until it listens. Whatever else may answer there is no answer.

    Raises:
        EndedEarly: the child has ended.
    """
    ready = False
    async with anyio.create_task_group() as asking:
        asking.start_soon(_give_up_at_its_end, child, asking.cancel_scope)
        while not ready:
            ready = await _is_ready(port, cluster)
            if not ready:
                await anyio.sleep(_TICK)
        asking.cancel_scope.cancel()
    if not ready:
        raise EndedEarly


async def _give_up_at_its_end(child: OwnedChild, scope: anyio.CancelScope) -> None:
    await child.wait_exit()
    scope.cancel()


async def _is_ready(port: int, cluster: str) -> bool:
    try:
        return (await _ask(port)).cluster == cluster
    except (
        OSError,
        NotKafka,
        anyio.EndOfStream,
        anyio.IncompleteRead,
        anyio.BrokenResourceError,
    ):
        return False


async def _ask(port: int) -> Metadata:
    async with await anyio.connect_tcp(HOST, port) as stream:
        await stream.send(metadata_request())
        answer = BufferedByteReceiveStream(stream)
        length = answer_length(await answer.receive_exactly(4))
        return parse_metadata(await answer.receive_exactly(length))
