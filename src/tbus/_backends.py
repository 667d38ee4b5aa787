"""From a configuration to an open transport, and to the server under it.

Optional parts are imported here, when they are asked for; where one is missing, the error
names the extra to install.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs

from ._config import BusConfig
from ._errors import BusError, ConfigurationError
from ._transport import Emit, Holding, Transport

if TYPE_CHECKING:
    from .servers import KafkaServer, NatsServer

logger = logging.getLogger("tbus")


@attrs.frozen
class Backend:
    """An open transport, and the server that was started for it, if one was."""

    transport: Transport
    server: NatsServer | KafkaServer | None = None

    def holdings(self) -> list[Holding]:
        """Everything that the transport and the server hold now."""
        server = [] if self.server is None else self.server.holdings()
        return [*self.transport.holdings(), *server]

    async def wait_server_died(self) -> None:
        """Wait until the server that the bus started has ended by itself, and raise."""
        assert self.server is not None
        status = await self.server.wait_exit()
        lines = "\n".join(self.server.last_lines)
        raise BusError(
            f"the embedded {self.server.name} ended by itself (status {status})\n{lines}".strip()
        )


@asynccontextmanager
async def open_backend(config: BusConfig, emit: Emit) -> AsyncIterator[Backend]:
    """Open what the configuration names.

    Raises:
        ConfigurationError: a part is not installed, or does not know a value.
        TransportLost: the broker could not be reached within its connect timeout.
    """
    if config.backend == "memory":
        from .transports.memory import open_memory  # noqa: PLC0415 - optional, see above

        async with open_memory(config, emit) as memory:
            yield Backend(memory)
    elif config.backend == "nats":
        try:
            from .transports.nats import open_nats  # noqa: PLC0415 - optional, see above
        except ModuleNotFoundError as error:
            raise _missing(error, config) from error
        if config.embedded:
            from .servers import open_nats_server  # noqa: PLC0415 - optional, see above

            async with (
                open_nats_server(
                    store=config.nats.store, binary=config.nats.server_binary
                ) as server,
                open_nats(_pointed_at(config, server), emit) as transport,
            ):
                yield Backend(transport, server)
        else:
            async with open_nats(config, emit) as transport:
                yield Backend(transport)
    else:
        try:
            from .transports.kafka import open_kafka  # noqa: PLC0415 - optional, see above
        except ModuleNotFoundError as error:
            raise _missing(error, config) from error
        if config.embedded:
            from .servers import open_kafka_server  # noqa: PLC0415 - optional, see above

            async with open_kafka_server(store=config.kafka.store, tell=logger.info) as broker:
                here = attrs.evolve(config.kafka, servers=(broker.address,))
                is_kafka = broker.kind == "kafka"
                async with open_kafka(
                    attrs.evolve(config, kafka=here),
                    emit,
                    idempotent=is_kafka,
                    knows_ends=is_kafka,
                ) as transport:
                    yield Backend(transport, broker)
        else:
            async with open_kafka(config, emit) as transport:
                yield Backend(transport)


def _pointed_at(config: BusConfig, server: NatsServer) -> BusConfig:
    return attrs.evolve(
        config,
        nats=attrs.evolve(
            config.nats,
            servers=(f"{server.host}:{server.port}",),
            user=server.user,
            password=server.password,
        ),
    )


def _missing(error: ModuleNotFoundError, config: BusConfig) -> Exception:
    if error.name is not None and error.name.startswith("tbus"):
        return error
    extra = "embedded" if config.embedded else config.backend  # which has all that it needs
    return ConfigurationError(
        f"{error.name} is not installed: pip install 'tbus[{extra}]'",
        field="where",
        value=f"{config.backend}{'+embedded' if config.embedded else ''}://",
    )
