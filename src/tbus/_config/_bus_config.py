"""The whole configuration of a bus, and where it comes from."""

# ruff: noqa: RUF009 - these calls make attrs fields, not values

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from .._errors import ConfigurationError, InvalidTopic
from .._topic import check_topic
from . import _fields as fields
from ._address import parse_url
from ._file import read_file
from ._sections import KafkaOptions, MemoryOptions, NatsOptions


class PlaintextCredentials(UserWarning):
    """A password or token will go unencrypted over a network."""


def _topic(name: str, field: str) -> str:
    try:
        return check_topic(name)
    except InvalidTopic as error:
        raise InvalidTopic(f"{field}: {error}") from None


def _section(kind: type) -> Any:
    def check(_owner: object, attribute: attrs.Attribute[Any], value: object) -> None:
        if not isinstance(value, kind):
            raise fields.refused(attribute.name, value, f"a {kind.__name__}")

    return attrs.field(factory=kind, validator=check)


@attrs.frozen
class BusConfig:
    """How a bus is to be.

    Attributes:
        backend: `memory`, `nats` or `kafka`.
        embedded: the bus starts the server itself, and stops it.
        concurrency: handlers running at once, for the whole bus.
        max_in_flight: messages that a subscription holds at most.
        max_in_flight_bytes: likewise, in bytes.
        topics: declared up front: a Kafka group joins once.
        grace: seconds that running handlers have when the bus ends.
        publish_timeout: seconds until a publish gives up waiting.
        source: this service's name, seen in health messages and metrics.
        memory: options of the broker in this process.
        nats: options of NATS.
        kafka: options of Kafka.

    Raises:
        ConfigurationError: a value is wrong, or two do not go together.
    """

    backend: Literal["memory", "nats", "kafka"] = fields.choice("memory", "memory", "nats", "kafka")
    embedded: bool = fields.flag()
    concurrency: int = fields.count(256)
    max_in_flight: int = fields.count(1000)
    max_in_flight_bytes: int = fields.size(64 * 1024 * 1024)
    topics: tuple[str, ...] = fields.words((), _topic)
    grace: float = fields.seconds(10.0, zero=True)
    publish_timeout: float = fields.seconds(10.0)
    source: str = fields.text("", optional=False)
    memory: MemoryOptions = _section(MemoryOptions)
    nats: NatsOptions = _section(NatsOptions)
    kafka: KafkaOptions = _section(KafkaOptions)

    def __attrs_post_init__(self) -> None:
        if self.embedded and self.backend == "memory":
            raise ConfigurationError(
                "the memory backend has no server to embed", field="embedded", value=True
            )
        if self.embedded or self.backend == "memory":
            return
        section = self.nats if self.backend == "nats" else self.kafka
        if section.exposes_secrets:
            warnings.warn(
                f"credentials for {self.address} go unencrypted over the network: set"
                f" tls=True in the section {self.backend}",
                PlaintextCredentials,
                stacklevel=3,
            )

    @property
    def address(self) -> str:
        """Where the bus is, for people to read: a URL without secrets and options."""
        if self.backend == "memory":
            return f"memory://{self.memory.name or ''}"
        if self.embedded:
            return f"{self.backend}+embedded://"
        if self.backend == "nats":
            return f"{'tls' if self.nats.tls else 'nats'}://{','.join(self.nats.servers)}"
        return f"kafka://{','.join(self.kafka.servers)}"

    @classmethod
    def load(
        cls, where: str | os.PathLike[str] | BusConfig = "memory://", /, **overrides: Any
    ) -> BusConfig:
        """The configuration that a URL, a file or another one describes, with overrides.

        Args:
            where: a URL; the path of a `.toml`, `.yaml` or `.yml` file with the fields of
                `BusConfig`, a table for each section, and `url` if wanted (what stands
                beside it goes before it); or a `BusConfig`.
            overrides: fields of `BusConfig`, before what `where` says. A section may be
                its options as a dict, and the others stay, or a whole one.

        Raises:
            ConfigurationError: something in it is wrong, or a file cannot be read, or
                reading YAML needs the extra `tbus[yaml]`.

        Warns:
            PlaintextCredentials: a password or token will go unencrypted to a host that
                is not this one.
        """
        if isinstance(where, BusConfig):
            if not overrides:
                return where
            layers: list[Mapping[str, Any]] = [attrs.asdict(where, recurse=False), overrides]
        elif isinstance(where, os.PathLike) or (
            isinstance(where, str) and "://" not in where and where.endswith(_FILES)
        ):
            found = read_file(Path(where))
            url = found.pop("url", None)
            layers = [found, overrides]
            if url is not None:
                if not isinstance(url, str):
                    raise ConfigurationError("url: it must be text")
                layers.insert(0, parse_url(url, _OPTIONS))
        elif isinstance(where, str):
            layers = [parse_url(where, _OPTIONS), overrides]
        else:
            raise fields.refused("where", where, "a URL, a path or a BusConfig")
        values: dict[str, Any] = {}
        for layer in layers:
            _lay(values, layer)
        for name, kind in _SECTIONS.items():
            if isinstance(values.get(name), dict):
                values[name] = kind(**values[name])
        return cls(**values)


_FILES: Final = (".toml", ".yaml", ".yml")
_SECTIONS: Final[dict[str, Any]] = {
    "memory": MemoryOptions,
    "nats": NatsOptions,
    "kafka": KafkaOptions,
}
_OPTIONS: Final = {
    name: [attribute.name for attribute in attrs.fields(kind)] for name, kind in _SECTIONS.items()
}
_KNOWN: Final = [attribute.name for attribute in attrs.fields(BusConfig)]


def _lay(values: dict[str, Any], layer: Mapping[str, Any]) -> None:
    """Put one layer over what the earlier ones said; a table of options over a section
    changes those options alone."""
    for name, value in layer.items():
        fields.check_known(name, _KNOWN)
        if name not in _SECTIONS or not isinstance(value, Mapping):
            values[name] = value
            continue
        for option in value:
            fields.check_known(option, _OPTIONS[name], f"{name}.")
        below = values.get(name, {})
        if not isinstance(below, dict):  # a whole section; a wrong one is refused later
            below = attrs.asdict(below, recurse=False) if attrs.has(type(below)) else {}
        values[name] = {**below, **value}
