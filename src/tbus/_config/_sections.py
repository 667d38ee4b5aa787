"""The options of each backend."""

# ruff: noqa: RUF009 - these calls make attrs fields, not values

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import attrs

from .._errors import ConfigurationError
from .._retry import Backoff
from . import _fields as fields
from ._address import KAFKA_PORT, NATS_PORT, full_address, is_loopback


@attrs.frozen
class MemoryOptions:
    """The broker in this process.

    Attributes:
        name: buses that give the same name share one broker; None is the bus's own.
        max_bytes: of a topic; what is more is refused. None sets no limit.
        max_messages: in a topic, likewise.
    """

    name: str | None = fields.text()
    max_bytes: int | None = fields.size(None, optional=True)
    max_messages: int | None = fields.count(None, optional=True)


@attrs.frozen
class NatsOptions:
    """NATS JetStream.

    Attributes:
        servers: `host:port` of each server to try; 4222 if the port is left out.
        tls: encrypt, and verify the server's certificate.
        user: with `password`; not with a token.
        password: in no repr and no error.
        token: in no repr and no error.
        credentials: file with a JWT and its seed.
        nkey: file with a seed.
        ca: file with the certificates to trust, instead of the system's.
        cert: file with the client's certificate.
        key: file with its key.
        insecure: with TLS, do not verify the server. For experiments.
        connect_timeout: seconds for the first connection.
        ack_wait: seconds after which the server gives an unsettled message to another;
            what waits longer is announced in time.
        storage: `file` or `memory`, for topics made without options.
        replicas: likewise.
        duplicate_window: seconds for which a repeated event id is discarded, likewise.
        reconnect: the delays between attempts to reconnect.
        reconnect_attempts: after so many the bus fails; None tries for ever.
        stream: bind this existing stream, for interoperation.
        subject: bind this subject of it.
        store: directory of an embedded server; None is one that is removed afterwards.
        server_binary: of an embedded server; None finds the one that is installed.

    Raises:
        ConfigurationError: a value is wrong, or two do not go together.
    """

    servers: tuple[str, ...] = fields.words(
        ("127.0.0.1:4222",), partial(full_address, default_port=NATS_PORT)
    )
    tls: bool = fields.flag()
    user: str | None = fields.text()
    password: str | None = fields.secret()
    token: str | None = fields.secret()
    credentials: Path | None = fields.path()
    nkey: Path | None = fields.path()
    ca: Path | None = fields.path()
    cert: Path | None = fields.path()
    key: Path | None = fields.path()
    insecure: bool = fields.flag()
    connect_timeout: float = fields.seconds(5.0)
    ack_wait: float = fields.seconds(30.0)
    storage: Literal["file", "memory"] = fields.choice("file", "file", "memory")
    replicas: int = fields.count(1)
    duplicate_window: float = fields.seconds(120.0, zero=True)
    reconnect: Backoff = fields.backoff(Backoff(0.1, 2.0, 5.0, 0.2))
    reconnect_attempts: int | None = fields.count(None, optional=True)
    stream: str | None = fields.text()
    subject: str | None = fields.text()
    store: Path | None = fields.path()
    server_binary: str | None = fields.text()

    def __attrs_post_init__(self) -> None:
        _check_servers(self.servers)
        _check_login(self.user, self.password)
        _check_tls(self.tls, self.ca, self.cert, self.key, self.insecure)
        ways = {
            "user": self.user,
            "token": self.token,
            "credentials": self.credentials,
            "nkey": self.nkey,
        }
        used = [name for name, value in ways.items() if value is not None]
        if len(used) > 1:
            raise ConfigurationError(
                f"{' and '.join(used)} are two ways to log in: keep one", field="nats"
            )

    @property
    def exposes_secrets(self) -> bool:
        """Whether a password or token goes unencrypted over a network."""
        given = self.password is not None or self.token is not None
        return given and not self.tls and not all(map(is_loopback, self.servers))


@attrs.frozen
class KafkaOptions:
    """Kafka.

    Attributes:
        servers: `host:port` of brokers to begin with; 9092 if the port is left out.
        tls: encrypt, and verify the brokers' certificates.
        user: with `password`, for SASL.
        password: in no repr and no error.
        mechanism: of SASL.
        ca: file with the certificates to trust, instead of the system's.
        cert: file with the client's certificate.
        key: file with its key.
        insecure: with TLS, do not verify the brokers. For experiments.
        connect_timeout: seconds for the first connection.
        partitioner: from key to partition: `murmur2` as Java's clients, `fnv1a` as
            sarama's. It must be the one of all who publish to the topic.
        compression: of what is published.
        store: directory of an embedded broker; None is one that is removed afterwards.

    Raises:
        ConfigurationError: a value is wrong, or two do not go together.
    """

    servers: tuple[str, ...] = fields.words(
        ("127.0.0.1:9092",), partial(full_address, default_port=KAFKA_PORT)
    )
    tls: bool = fields.flag()
    user: str | None = fields.text()
    password: str | None = fields.secret()
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = fields.choice(
        "PLAIN", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"
    )
    ca: Path | None = fields.path()
    cert: Path | None = fields.path()
    key: Path | None = fields.path()
    insecure: bool = fields.flag()
    connect_timeout: float = fields.seconds(10.0)
    partitioner: Literal["murmur2", "fnv1a"] = fields.choice("murmur2", "murmur2", "fnv1a")
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = fields.choice(
        "none", "none", "gzip", "snappy", "lz4", "zstd"
    )
    store: Path | None = fields.path()

    def __attrs_post_init__(self) -> None:
        _check_servers(self.servers)
        _check_login(self.user, self.password)
        _check_tls(self.tls, self.ca, self.cert, self.key, self.insecure)

    @property
    def exposes_secrets(self) -> bool:
        """Whether a password goes unencrypted over a network; SCRAM sends none."""
        given = self.password is not None and self.mechanism == "PLAIN"
        return given and not self.tls and not all(map(is_loopback, self.servers))


def _check_servers(servers: tuple[str, ...]) -> None:
    if not servers:
        raise ConfigurationError("name at least one host:port", field="servers", value=servers)


def _check_login(user: str | None, password: str | None) -> None:
    if (user is None) != (password is None):
        given, missing = ("user", "password") if password is None else ("password", "user")
        raise ConfigurationError(f"{given} is given and {missing} is not: give both")


def _check_tls(
    tls: bool, ca: Path | None, cert: Path | None, key: Path | None, insecure: bool
) -> None:
    if not tls:
        # An option that asks for TLS and gets none would be a silent loss of safety.
        given = {"ca": ca, "cert": cert, "key": key, "insecure": insecure or None}
        for name, value in given.items():
            if value is not None:
                raise ConfigurationError(f"{name} is given without TLS: set tls=True")
    if key is not None and cert is None:
        raise ConfigurationError("key is given and cert is not: give the certificate too")
    if ca is not None and insecure:
        raise ConfigurationError("ca says whom to trust and insecure trusts anybody: keep one")
