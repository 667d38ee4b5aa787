"""One connection to a server, from its beginning to its end. Lives in the clients' loop.

nats-py reconnects by itself: a fixed number of times, after a fixed wait, with a buffer of
its own and an order of its own. Here each client has one connection and then is done;
what follows is decided by the `Link` above.

Some of the client's private parts are used, and looked for when a connection is made:

- `Client._transport`, to write a batch of commands at once. Its public `publish` costs
  more than twice as much per message, and leaves the writing to a further task. What that
  task has not written yet (`Client._pending`: a SUB, a PONG) goes first: a pull that
  overtakes the subscription to its inbox is a pull that the server forgets.
- `Client._ps`, its parser, in whose place there is one of ours (`_parser`): it goes straight to
  whoever subscribed. The public way parses headers into a dict that loses repeats, and needs
  a queue and a task per subscription. So its `subscribe` is not used either: what it keeps
  of each one, 5 KiB of queues that nobody reads, was a quarter of what an idle topic took.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from typing import Any

import anyio
import attrs
import nats.aio.client
import nats.errors
from nats.protocol.parser import Parser

from ..._config import NatsOptions
from ..._errors import ConfigurationError, TransportLost
from .._tls import tls_context
from ._errors import ApiError, NoAnswer, NoResponders, SessionLost
from ._headers import decode_status
from ._names import API
from ._parser import MessageParser, Receiver

logger = logging.getLogger("tbus.nats")

CLOSE_WAIT = 0.2
"""Seconds that the client gets for closing, before its socket is closed under it."""


@attrs.frozen
class Subscription:
    """One of a connection's.

    Attributes:
        subject: of which messages come.
        number: by which the server names it.
    """

    subject: str
    number: int


class _Client(nats.aio.client.Client):
    """nats-py's, with a parser of our own."""

    def __init__(self) -> None:
        super().__init__()
        self.is_known = isinstance(getattr(self, "_ps", None), Parser)
        self.parser = self._ps = MessageParser(self)
        self.wants_tls = False

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """Take what the server says of itself, before anything is sent to it. The client itself
        speaks TLS only where the server asks for it, and its credentials in clear where not."""
        if initial_connection and self.wants_tls and not info.get("tls_required"):
            if not info.get("tls_available"):
                raise _ConnectFailed(
                    "it does not speak TLS, and was told nothing: give it a certificate, or write"
                    " nats:// where nobody can listen"
                )
            info["tls_required"] = True  # it takes both; the client looks here
        await super()._process_info(info, initial_connection)

    def take_pending(self) -> list[bytes]:
        """The commands that its own writer has not written yet; it will not write them."""
        pending, self._pending = self._pending, []
        self._pending_data_size = 0
        return pending


class Session:
    """A connection. `lost` is set when it has ended, and `reason` says why.

    Attributes:
        address: of the server, without secrets.
        lost: set once nothing more can be sent or will be received.
        reason: why.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.lost = asyncio.Event()
        self.reason = "closed"
        self._client = _Client()
        self._connected = False
        self._out: list[bytes] = []
        self._requests: dict[bytes, asyncio.Future[tuple[bytes, bytes | None]]] = {}
        self._pings: set[asyncio.Future[bool]] = set()
        self._request_count = 0
        self._subscription_count = 0
        self._inbox: Subscription
        self._prefix = ""

    # From connecting to closing

    @classmethod
    async def connect(cls, options: NatsOptions, server: str, name: str) -> Session:
        """Connect to one server.

        Raises:
            TransportLost: it is not there, does not answer, or does not let us in.
        """
        session = cls(server)
        connected = False
        try:
            async with asyncio.timeout(options.connect_timeout):
                await session._connect(options, server, name)
            connected = True
        except TimeoutError as error:
            problem = f"no answer within {options.connect_timeout} s"
            raise TransportLost(f"cannot connect to nats-server at {server}: {problem}") from error
        except (OSError, nats.errors.Error, _ConnectFailed) as error:
            problem = _problem(str(error) or type(error).__name__)
            raise TransportLost(f"cannot connect to nats-server at {server}: {problem}") from error
        finally:
            if not connected:
                with anyio.move_on_after(CLOSE_WAIT * 2, shield=True):
                    await session.close()
        return session

    async def _connect(self, options: NatsOptions, server: str, name: str) -> None:
        client = self._client
        host, _, port = server.rpartition(":")
        client.wants_tls = options.tls
        await client.connect(
            servers=[f"{'tls' if options.tls else 'nats'}://{host}:{port}"],
            name=name or "tbus",
            allow_reconnect=False,
            connect_timeout=max(1, round(options.connect_timeout)),
            ping_interval=3600,  # the link has a liveness check of its own
            error_cb=self._on_error,
            closed_cb=self._on_closed,
            user=options.user,
            password=options.password,
            token=options.token,
            user_credentials=None if options.credentials is None else str(options.credentials),
            nkeys_seed=None if options.nkey is None else str(options.nkey),
            tls=tls_context(options) if options.tls else None,
            skip_subject_validation=True,  # names are checked before they come here
        )
        if not hasattr(client, "_transport") or not client.is_known:
            raise ConfigurationError("this version of nats-py is not supported", field="nats-py")
        self._connected = True
        self._prefix = client.new_inbox() + "."
        self._inbox = await self.subscribe(self._prefix + "*", self._on_answer)

    async def close(self) -> None:
        """Close the connection, within `CLOSE_WAIT`, whatever state it is in."""
        self.end("closed")
        client = self._client
        transport = getattr(client, "_transport", None)
        try:
            async with asyncio.timeout(CLOSE_WAIT):
                await client.close()
        except (TimeoutError, OSError, nats.errors.Error, AttributeError, RuntimeError) as error:
            logger.debug("closing a connection: %r", error)
        # A client that could not flush, or never got as far as connecting, has not closed
        # its socket.
        writer = getattr(transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def end(self, reason: str) -> None:
        """The connection is not to be used any more."""
        if not self.lost.is_set():
            self.reason = reason
            self.lost.set()
            for request in self._requests.values():
                if not request.done():
                    request.set_exception(SessionLost(reason))
            for ping in self._pings:
                if not ping.done():
                    ping.set_exception(SessionLost(reason))

    async def _on_error(self, error: Exception) -> None:
        if not self._connected and not self.lost.is_set():
            # Raised out of the client's connect, which would otherwise try for ever.
            raise _ConnectFailed(str(error) or type(error).__name__) from error
        if isinstance(error, nats.errors.SlowConsumerError):
            self.end("the client dropped a message")  # cannot happen: its limits are off
        logger.debug("%s: %r", self.address, error)
        self.reason = str(error) or type(error).__name__

    async def _on_closed(self) -> None:
        error = self._client.last_error
        self.end(f"the server closed the connection{f': {error}' if error else ''}")

    # Sending

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor version of the server."""
        version = self._client.connected_server_version
        return (version.major, version.minor)

    @property
    def max_payload(self) -> int:
        """Largest message that the server takes: headers and body, in bytes."""
        return self._client.max_payload

    @property
    def activity(self) -> int:
        """Grows with everything that is received."""
        return self._client.parser.received

    def write(self, command: bytes) -> None:
        """Send a command, together with all others of this pass of the loop."""
        if not self._out:
            asyncio.get_running_loop().call_soon(self.flush)
        self._out.append(command)

    def flush(self) -> None:
        """Send what was written, now."""
        if self._out and not self.lost.is_set():
            data = b"".join((*self._client.take_pending(), *self._out))
            self._out.clear()
            transport = self._client._transport
            assert transport is not None
            transport.write(data)

    async def subscribe(self, subject: str, receiver: Receiver) -> Subscription:
        """Have `receiver` called for every message of a subject.

        Raises:
            SessionLost: the connection is gone.
        """
        if self.lost.is_set():
            raise SessionLost(self.reason)
        self._subscription_count += 1
        subscription = Subscription(subject, self._subscription_count)
        self._client.parser.receivers[b"%d" % subscription.number] = receiver
        self.write(f"SUB {subject} {subscription.number}\r\n".encode())
        return subscription

    async def drain(self, subscription: Subscription, timeout: float) -> None:
        """Stop that, and wait until everything that was on its way has been received.

        Raises:
            SessionLost, NoAnswer: some of it may not have been.
        """
        self.write(f"UNSUB {subscription.number}\r\n".encode())
        try:
            await self.ping(timeout)
        finally:
            self._client.parser.receivers.pop(b"%d" % subscription.number, None)

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Stop that at once. Without an effect if the connection is gone."""
        self._client.parser.receivers.pop(b"%d" % subscription.number, None)
        self.write(f"UNSUB {subscription.number}\r\n".encode())

    def new_inbox(self) -> str:
        """A subject of our own."""
        return str(self._client.new_inbox())

    # Asking

    async def ping(self, timeout: float) -> None:
        """Wait until the server has read everything that was sent before.

        Raises:
            SessionLost: the connection is gone.
            NoAnswer: nothing came in time.
        """
        self.flush()
        if self.lost.is_set():
            raise SessionLost(self.reason)
        # The client's own `flush` must not be cancelled: the answer to its ping, when it
        # comes after all, would then end the client's reader.
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._pings.add(answer)
        try:
            await self._client._send_ping(answer)
            await asyncio.wait((answer,), timeout=timeout)
        except OSError as error:
            raise SessionLost(str(error)) from error
        finally:
            self._pings.discard(answer)
        if not answer.done():
            raise NoAnswer(f"{self.address} did not answer a ping within {timeout} s")
        answer.result()

    async def api(self, call: str, body: object = None, timeout: float = 5.0) -> dict[str, Any]:
        """Ask JetStream's API.

        Raises:
            ApiError: the answer is an error.
            NoResponders: JetStream is not there.
            NoAnswer: nothing came within `timeout` seconds.
            SessionLost: the connection ended meanwhile.
        """
        payload = b"" if body is None else json.dumps(body).encode()
        data, headers = await self.request(f"{API}.{call}", payload, timeout)
        if not data and headers is not None and decode_status(headers)[0] == "503":
            raise NoResponders(f"JetStream does not answer on {self.address}")
        answer: dict[str, Any] = json.loads(data)
        if "error" in answer:
            raise ApiError(answer["error"])
        return answer

    async def request(
        self, subject: str, payload: bytes, timeout: float = 5.0
    ) -> tuple[bytes, bytes | None]:
        """Ask whoever listens on a subject; returns body and header block of the answer.

        Raises:
            NoAnswer: nothing came within `timeout` seconds.
            SessionLost: the connection ended meanwhile.
        """
        if self.lost.is_set():
            raise SessionLost(self.reason)
        self._request_count += 1
        inbox = f"{self._prefix}{self._request_count}"
        token = inbox.encode()
        future: asyncio.Future[tuple[bytes, bytes | None]]
        future = asyncio.get_running_loop().create_future()
        self._requests[token] = future
        try:
            self.write(publish_command(subject, payload, reply=inbox))
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise NoAnswer(f"{self.address} did not answer within {timeout} s") from None
        finally:
            del self._requests[token]

    def _on_answer(self, subject: bytes, _: bytes, data: bytes, headers: bytes | None) -> None:
        future = self._requests.get(subject)
        if future is not None and not future.done():
            future.set_result((data, headers))


class _ConnectFailed(Exception):
    """Raised through the client's connect."""


def _problem(text: str) -> str:
    """Why there is no connection, and what to do, from what the client says."""
    if f"[Errno {errno.ECONNREFUSED}]" in text:
        return "nothing listens there. Start it, or let nats+embedded:// do so"
    if "authorization" in text.lower():
        return f"it does not let us in ({text}): check user and password, token or credentials"
    return text


def publish_command(
    subject: str, payload: bytes, *, reply: str = "", headers: bytes = b""
) -> bytes:
    """The wire form of a publish. Source: the NATS client protocol, PUB and HPUB."""
    to = f"{subject} {reply}" if reply else subject
    size = len(payload)
    if headers:
        start = f"HPUB {to} {len(headers)} {len(headers) + size}\r\n"
        return b"%b%b%b\r\n" % (start.encode(), headers, payload)
    return b"%b%b\r\n" % (f"PUB {to} {size}\r\n".encode(), payload)
