"""What a bus is opened with: frozen options, checked when they are built.

Where they come from - a URL, a file, keyword arguments - is `_config_sources`' business.
Secrets have `repr=False`, and no error shows their value.
"""

from __future__ import annotations

import ipaddress
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import attrs

from ._config_sources import load
from ._errors import ConfigurationError
from ._pace import Rate, as_rate
from ._retry import Backoff
from ._rules import SECRET, flag, kind, number, one_of, refuse, text, whole, without_secrets
from ._topic import check_topic

BackendName = Literal["memory", "nats", "kafka"]
Storage = Literal["file", "memory"]
Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_SERVER = re.compile(r"(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?")


class PlaintextCredentials(UserWarning):
    """A password or token would cross a network without TLS."""


def server_address(server: object, port: int) -> str:
    """`host:port` of a server given as `host`, `host:port` or with an IPv6 `[host]`.

    Raises:
        ConfigurationError: it is none; shown only where it can hold no secret.
    """
    match = _SERVER.fullmatch(server) if isinstance(server, str) else None
    if match is not None and match["host"].startswith("["):
        try:
            ipaddress.IPv6Address(match["host"][1:-1])
        except ValueError:
            match = None
    if match is None or not 0 < int(match["port"] or port) < 65536:
        raise ConfigurationError(
            "a server is host, host:port or [IPv6]:port, with a port of 1 to 65535; user and"
            " password are options of their own",
            field="servers",
            value=without_secrets(server),
        )
    return f"{match['host']}:{int(match['port'] or port)}"


def _nats_servers(given: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(server_address(server, 4222) for server in _parts("servers", given))


def _kafka_servers(given: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(server_address(server, 9092) for server in _parts("servers", given))


def _topics(given: str | Iterable[str]) -> tuple[str, ...]:
    return tuple(map(check_topic, _parts("topics", given)))


def _parts(name: str, given: object) -> Iterable[Any]:
    if isinstance(given, str):
        return [part.strip() for part in given.split(",")]
    if not isinstance(given, list | tuple):
        raise ConfigurationError(
            "give a list of strings", field=name, value=f"<{type(given).__name__}>"
        )
    return given


def _path(given: Path | str | None) -> Path | None:
    return Path(given) if isinstance(given, str) else given


def _not_empty(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
    if not value:
        raise refuse(attribute, value, "give at least one")


_is_path = kind(Path, "a path", optional=True)


def _secret_field() -> Any:
    return attrs.field(default=None, repr=False, metadata=SECRET, validator=text(optional=True))


def _word_field() -> Any:
    return attrs.field(default=None, validator=text(optional=True))


def _check_tls_files(cert: Path | None, key: Path | None) -> None:
    if (cert is None) != (key is None):
        raise ConfigurationError(
            "cert and key go together: give both files, or neither",
            field="cert" if key is None else "key",
            value=str(cert or key),
        )


@attrs.frozen
class MemoryOptions:
    """The broker in this process.

    Attributes:
        name: buses that give the same one share a broker; None is a bus's own.
        max_bytes: that a topic stores unless its options say otherwise, or None.
        max_messages: the same in messages.
    """

    name: str | None = _word_field()
    max_bytes: int | None = attrs.field(default=None, validator=whole(1, optional=True))
    max_messages: int | None = attrs.field(default=None, validator=whole(1, optional=True))


@attrs.frozen
class NatsOptions:
    """A NATS server with JetStream, or several of one cluster.

    One way to prove who you are: user and password, token, credentials or nkey.

    Attributes:
        servers: each host:port; the port is 4222 unless given.
        tls: speak TLS, and refuse a server that does not.
        user: with `password`.
        password: never shown.
        token: never shown.
        credentials: a `.creds` file.
        nkey: a file with a seed.
        ca: a file with the authorities to trust instead of the system's.
        cert: this client's certificate, with `key`.
        key: its private key.
        insecure: do not verify the server's certificate.
        connect_timeout: seconds for one attempt.
        ack_wait: seconds after which the server delivers again what it hears nothing of.
        storage: of the streams that tbus makes, "file" or "memory".
        replicas: of these.
        duplicate_window: of these, in seconds.
        reconnect: the delays between attempts.
        reconnect_attempts: how many in a row, or None for ever.
        stream: an existing stream to use.
        subject: an existing subject to use.
        store: the embedded server's directory; None is a temporary one.
        server_binary: the nats-server to embed, if not the one that is found.
    """

    servers: tuple[str, ...] = attrs.field(
        default=("127.0.0.1:4222",), converter=_nats_servers, validator=_not_empty
    )
    tls: bool = attrs.field(default=False, validator=flag())
    user: str | None = _word_field()
    password: str | None = _secret_field()
    token: str | None = _secret_field()
    credentials: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    nkey: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    ca: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    cert: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    key: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    insecure: bool = attrs.field(default=False, validator=flag())
    connect_timeout: float = attrs.field(default=5.0, validator=number(above=0))
    ack_wait: float = attrs.field(default=30.0, validator=number(above=0))
    storage: Storage = attrs.field(default="file", validator=one_of("file", "memory"))
    replicas: int = attrs.field(default=1, validator=whole(1))
    duplicate_window: float = attrs.field(default=120.0, validator=number(above=0))
    reconnect: Backoff = attrs.field(
        default=Backoff(initial=0.1, factor=2.0, maximum=5.0, jitter=0.2),
        validator=kind(Backoff, "a Backoff"),
    )
    reconnect_attempts: int | None = attrs.field(default=None, validator=whole(1, optional=True))
    stream: str | None = _word_field()
    subject: str | None = _word_field()
    store: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    server_binary: str | None = _word_field()

    def __attrs_post_init__(self) -> None:
        _check_tls_files(self.cert, self.key)
        if self.password is not None and self.user is None:
            raise ConfigurationError("goes with a user: give both", field="password", value="***")
        ways = ["user", "token", "credentials", "nkey"]
        given = [way for way in ways if getattr(self, way) is not None]
        if len(given) > 1:
            raise ConfigurationError(
                f"{' and '.join(given)} are different ways to prove who you are: give one",
                field=given[1],
                value="***",
            )


INITIAL_DELAY = 3.0
"""Seconds that a Kafka broker waits for more members of a new group, by default
(group.initial.rebalance.delay.ms)."""


@attrs.frozen
class KafkaOptions:
    """A Kafka cluster.

    Attributes:
        servers: each host:port; the port is 9092 unless given.
        tls: speak TLS.
        user: for SASL, with `password`.
        password: never shown.
        mechanism: of SASL; None is PLAIN where there is a user.
        ca: a file with the authorities to trust instead of the system's.
        cert: this client's certificate, with `key`.
        key: its private key.
        insecure: do not verify the server's certificate.
        connect_timeout: seconds for one attempt.
        partitioner: how a key finds its partition. "murmur2" is what Java clients do,
            "fnv1a" what the Go client Sarama does.
        compression: of what is published.
        partitions: of the topics that tbus makes because they are used and do not exist; None:
            the broker's default (num.partitions).
        replicas: of these; None: the broker's default (default.replication.factor).
        request_timeout: seconds for one request. It must be longer than `rebalance_timeout`, for
            joining a group takes that long, and than the broker's initial delay of 3 s.
        session_timeout: seconds after which the group gives up a member that is silent.
        rebalance_timeout: seconds that the members have for joining again at a change.
        drain: seconds that running handlers have to end when partitions are given up; less
            than `rebalance_timeout`.
        commit_interval: seconds between commits, at most.
        commit_count: settled messages after which a commit does not wait for that.
        fetch_wait: seconds for which the broker holds a question when there is nothing new; twice
            as long, but 0.5 s at most, after eight that brought nothing of any partition.
        assignor: who gets which partition: "sticky" moves few of them.
        instance: a name of this process that stays through restarts: the group then waits for
            it, up to `session_timeout`, and nothing moves (static membership).
        reconnect: the delays between attempts.
        reconnect_attempts: how many in a row, or None for ever.
        store: the embedded broker's directory; None is a temporary one.
    """

    servers: tuple[str, ...] = attrs.field(
        default=("127.0.0.1:9092",), converter=_kafka_servers, validator=_not_empty
    )
    tls: bool = attrs.field(default=False, validator=flag())
    user: str | None = _word_field()
    password: str | None = _secret_field()
    mechanism: Mechanism | None = attrs.field(
        default=None, validator=one_of(None, *get_args(Mechanism))
    )
    ca: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    cert: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    key: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)
    insecure: bool = attrs.field(default=False, validator=flag())
    connect_timeout: float = attrs.field(default=5.0, validator=number(above=0))
    partitioner: Literal["murmur2", "fnv1a"] = attrs.field(
        default="murmur2", validator=one_of("murmur2", "fnv1a")
    )
    compression: Compression = attrs.field(default="none", validator=one_of(*get_args(Compression)))
    partitions: int | None = attrs.field(default=None, validator=whole(1, optional=True))
    replicas: int | None = attrs.field(default=None, validator=whole(1, optional=True))
    request_timeout: float = attrs.field(default=15.0, validator=number(above=0))
    session_timeout: float = attrs.field(default=10.0, validator=number(above=0))
    rebalance_timeout: float = attrs.field(default=10.0, validator=number(above=0))
    drain: float = attrs.field(default=4.0, validator=number(least=0))
    commit_interval: float = attrs.field(default=0.25, validator=number(above=0))
    commit_count: int = attrs.field(default=2000, validator=whole(1))
    fetch_wait: float = attrs.field(default=0.25, validator=number(above=0))
    assignor: Literal["sticky", "range", "roundrobin"] = attrs.field(
        default="sticky", validator=one_of("sticky", "range", "roundrobin")
    )
    instance: str | None = _word_field()
    reconnect: Backoff = attrs.field(
        default=Backoff(initial=0.1, factor=2.0, maximum=5.0, jitter=0.2),
        validator=kind(Backoff, "a Backoff"),
    )
    reconnect_attempts: int | None = attrs.field(default=None, validator=whole(1, optional=True))
    store: Path | None = attrs.field(default=None, converter=_path, validator=_is_path)

    def __attrs_post_init__(self) -> None:
        _check_tls_files(self.cert, self.key)
        if (self.password is None) != (self.user is None):
            raise ConfigurationError(
                "user and password go together: give both, or neither",
                field="password" if self.user is None else "user",
                value="***" if self.user is None else self.user,
            )
        if self.request_timeout <= max(self.rebalance_timeout, INITIAL_DELAY):
            raise ConfigurationError(
                "joining a group takes up to rebalance_timeout"
                f" ({self.rebalance_timeout} s), and up to the broker's initial delay"
                f" ({INITIAL_DELAY} s): a shorter request would never join. Make it longer",
                field="request_timeout",
                value=self.request_timeout,
            )
        if self.drain >= self.rebalance_timeout:
            raise ConfigurationError(
                f"handlers must have ended before rebalance_timeout ({self.rebalance_timeout} s)"
                " is over: make it shorter",
                field="drain",
                value=self.drain,
            )


@attrs.frozen
class BusConfig:
    """What a bus is opened with.

    Attributes:
        backend: "memory", "nats" or "kafka".
        embedded: the bus starts its broker itself, and stops it.
        concurrency: handlers running at once, for the whole bus; on Trio fewer while so many
            wait to be woken that the event loop is behind.
        max_in_flight: messages of one subscription that are not settled.
        max_in_flight_bytes: the same in bytes.
        topics: declared up front.
        grace: seconds for a graceful end.
        publish_timeout: seconds until a publish must have its outcome.
        publish_rate: how fast callers of `publish` and `send` are let in: events per second, a
            `Rate` or an `AdaptiveRate`; None: as fast as they come.
        source: this service's name, seen in health messages and metrics.
        dead_letter_traceback: characters of a traceback that a dead letter keeps; 0: none.
        memory: options of that backend.
        nats: options of that backend.
        kafka: options of that backend.

    Raises:
        ConfigurationError: it names the field, its value and what to give instead.
    """

    backend: BackendName = attrs.field(default="memory", validator=one_of(*get_args(BackendName)))
    embedded: bool = attrs.field(default=False, validator=flag())
    concurrency: int = attrs.field(default=256, validator=whole(1))
    max_in_flight: int = attrs.field(default=1000, validator=whole(1))
    max_in_flight_bytes: int = attrs.field(default=64 * 1024 * 1024, validator=whole(1))
    topics: tuple[str, ...] = attrs.field(default=(), converter=_topics)
    grace: float = attrs.field(default=10.0, validator=number(least=0))
    publish_timeout: float = attrs.field(default=10.0, validator=number(above=0))
    publish_rate: Rate | None = attrs.field(
        default=None,
        converter=as_rate,
        validator=kind(Rate, "events per second, or a Rate", optional=True),
    )
    source: str = attrs.field(default="", validator=text())
    dead_letter_traceback: int = attrs.field(default=4000, validator=whole(0))
    memory: MemoryOptions = attrs.field(
        default=MemoryOptions(), validator=kind(MemoryOptions, "MemoryOptions")
    )
    nats: NatsOptions = attrs.field(
        default=NatsOptions(), validator=kind(NatsOptions, "NatsOptions")
    )
    kafka: KafkaOptions = attrs.field(
        default=KafkaOptions(), validator=kind(KafkaOptions, "KafkaOptions")
    )

    def __attrs_post_init__(self) -> None:
        if self.embedded and self.backend == "memory":
            raise ConfigurationError(
                "the memory backend is always in this process: leave embedded out",
                field="embedded",
                value=True,
            )

    @classmethod
    def load(cls, where: str | Path | BusConfig = "memory://", /, **overrides: Any) -> BusConfig:
        """A configuration from a URL, a file or another configuration.

        Args:
            where: `memory://[name]`, `nats://host[:port][,...]`, `tls://...` (NATS over TLS),
                `nats+embedded://`, `kafka://...`, `kafka+embedded://`, where `?name=value`
                sets options of that backend; or a path to a `.toml`, `.yaml` or `.yml` file
                with the fields of a `BusConfig`, and `url`.
            overrides: fields of a `BusConfig`. They win over the file's, which win over the
                URL's. A section is a dict, or an instance: then those of its fields
                count that are not at their defaults.

        Raises:
            ConfigurationError: it names the field, or the unknown key and the nearest known
                one. No secret is in it.

        Warns:
            PlaintextCredentials: a password or token would cross a network without TLS.
        """
        config = load(cls(), where, overrides)
        if unprotected := config._crossing_in_plain():
            warnings.warn(
                f"{unprotected} would be sent to {config.address} without TLS: use tls=True",
                PlaintextCredentials,
                stacklevel=2,
            )
        return config

    @property
    def address(self) -> str:
        """Where the broker is, for people: without user and secrets."""
        if self.backend == "memory":
            return f"memory://{self.memory.name or ''}"
        if self.embedded:
            return f"{self.backend}+embedded://"
        section = self.nats if self.backend == "nats" else self.kafka
        scheme = "tls" if self.backend == "nats" and section.tls else self.backend
        return f"{scheme}://{','.join(section.servers)}"

    def _crossing_in_plain(self) -> str | None:
        """Which secret a network would see, if one would."""
        if self.backend == "memory" or self.embedded:
            return None
        section = self.nats if self.backend == "nats" else self.kafka
        if section.tls or all(map(_is_loopback, section.servers)):
            return None
        if section.password is not None:
            return f"{self.backend}.password"
        return "nats.token" if self.backend == "nats" and self.nats.token is not None else None


def _is_loopback(server: str) -> bool:
    host = server.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
