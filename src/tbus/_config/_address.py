"""Hosts, and the URLs that hold them.

A URL may hold secrets, anywhere: in its user part, in its query, and, where it is
mistyped, in what then looks like a host or port. So an error about a URL shows its scheme
and whatever was understood, and never the URL.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from .._errors import ConfigurationError
from ._fields import check_known

NATS_PORT: Final = 4222
KAFKA_PORT: Final = 9092

_SCHEMES: Final = {
    # scheme: (backend, embedded, TLS)
    "memory": ("memory", False, False),
    "nats": ("nats", False, False),
    "tls": ("nats", False, True),
    "nats+embedded": ("nats", True, False),
    "kafka": ("kafka", False, False),
    "kafka+embedded": ("kafka", True, False),
}
_split_host = re.compile(r"(\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_.-]+)(?::([0-9]{1,5}))?").fullmatch


def split_address(address: str) -> tuple[str, int | None]:
    """Host, without brackets, and port, if there is one, of `host`, `host:port`,
    `[IPv6]` or `[IPv6]:port`.

    Raises:
        ValueError: it is none of these. The text says why and does not quote it.
    """
    found = _split_host(address)
    if found is None:
        raise ValueError("it is not host or host:port (an IPv6 host goes into brackets)")
    host, digits = found.groups()
    if host.startswith("["):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("what stands in the brackets is no IPv6 address") from None
    if digits is None:
        return host, None
    port = int(digits)
    if not 1 <= port <= 65535:
        raise ValueError("the port must be from 1 to 65535")
    return host, port


def full_address(address: str, name: str, default_port: int) -> str:
    """The address with its port, and an IPv6 host in brackets.

    Raises:
        ConfigurationError: it is none. What may be a password is not shown.
    """
    try:
        host, port = split_address(address)
    except ValueError as error:
        hint = "; credentials go into options of their own" if "@" in address else ""
        raise ConfigurationError(f"{name}: {error}{hint}") from None
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{default_port if port is None else port}"


def is_loopback(address: str) -> bool:
    """Whether the address is one of this machine's own, as far as its text tells."""
    host, _ = split_address(address)
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parse_url(url: str, known: dict[str, list[str]]) -> dict[str, Any]:
    """What the URL says, as fields of the configuration: the backend, and its section.

    Args:
        url: `scheme://[user[:password]@][host[:port],...][?option=value&...]`; credentials
            percent-encoded.
        known: the names of the options of each section.

    Raises:
        ConfigurationError: it is no such URL.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in _SCHEMES:
        raise ConfigurationError(
            "where a bus is, is a URL that begins with one of"
            f" {', '.join(name + '://' for name in _SCHEMES)}, the path of a .toml, .yaml or .yml"
            " file, or a BusConfig" + (f"; this is {scheme[:20]}://" if _is_scheme(url) else "")
        )
    backend, embedded, tls = _SCHEMES[scheme]
    if re.search(r"[\s\x00-\x1f\x7f]", rest):
        raise _bad(scheme, "it has white space or control characters: percent-encode them")
    if "#" in rest:
        raise _bad(scheme, "it has a #: percent-encode it as %23")
    rest, _, query = rest.partition("?")
    if "@" in query and "@" not in rest:
        # A password with a bare ? in it looks like this; an @ in an option does as well.
        raise _bad(scheme, "an @ after a ? is ambiguous: percent-encode ? as %3F and @ as %40")
    credentials, at, place = rest.rpartition("@")
    if "@" in credentials or "/" in credentials:
        raise _bad(scheme, "in credentials percent-encode / as %2F and @ as %40")
    place = place.removesuffix("/")
    if "/" in place:
        raise _bad(scheme, "it has a path, and there is nothing that a path could mean")
    section = _query(scheme, query, known[backend])
    if at:
        section |= _credentials(scheme, backend, embedded, credentials)
    section |= _place(scheme, backend, embedded, place, section)
    if tls:
        section["tls"] = True
    return {"backend": backend, "embedded": embedded, backend: section}


def _query(scheme: str, query: str, known: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise _bad(scheme, "its query is not option=value&... in percent-encoded UTF-8") from None
    for name, value in pairs:
        check_known(name, known)
        if name in found:
            raise _bad(scheme, f"it gives {name} twice")
        found[name] = value
    return found


def _credentials(scheme: str, backend: str, embedded: bool, text: str) -> dict[str, Any]:
    if backend == "memory" or embedded:
        raise _bad(scheme, "it has credentials, and there is nobody to take them")
    try:
        user, colon, password = (
            part if part == ":" else unquote(part, errors="strict") for part in text.partition(":")
        )
    except ValueError:
        raise _bad(scheme, "its credentials are not percent-encoded UTF-8") from None
    if colon:
        if not user or not password:
            raise _bad(scheme, "of user and password one is empty")
        return {"user": user, "password": password}
    if backend == "nats" and user:
        return {"token": user}
    raise _bad(scheme, "it has a user and no password")


def _place(
    scheme: str, backend: str, embedded: bool, place: str, section: dict[str, Any]
) -> dict[str, Any]:
    if not place:
        if backend == "memory" or embedded or "servers" in section:
            return {}
        raise _bad(scheme, f"it names no host: {scheme}://127.0.0.1 is one on this machine")
    if embedded:
        raise _bad(scheme, "the bus starts that server itself: leave out the host")
    if backend == "memory":
        if "name" in section:
            raise _bad(scheme, "it gives name twice")
        return {"name": unquote(place)}
    if "servers" in section:
        raise _bad(scheme, "it gives servers twice")
    port = NATS_PORT if backend == "nats" else KAFKA_PORT
    return {"servers": tuple(full_address(one, f"{scheme}://", port) for one in place.split(","))}


def _is_scheme(url: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]{0,20}://", url) is not None


def _bad(scheme: str, problem: str) -> ConfigurationError:
    return ConfigurationError(f"the URL {scheme}://... cannot be used: {problem}")
