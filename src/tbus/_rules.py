"""What an option's value may be: attrs validators whose errors name the field, the value
and what to do. A field marked `secret` never shows its value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import attrs

from ._errors import ConfigurationError

Validator = Callable[[Any, "attrs.Attribute[Any]", Any], None]

SECRET = {"secret": True}
"""Metadata of a field whose value is never shown."""


def shown(value: object, limit: int = 80) -> object:
    """`value` as an error may carry it: of bounded length, whatever it is."""
    if isinstance(value, str | bytes):
        return value if len(value) <= limit else _cut(value, limit)
    if isinstance(value, int) and value.bit_length() > 256:
        return f"<an integer of {value.bit_length()} bits>"
    if value is None or isinstance(value, int | float):
        return value
    text = f"<{type(value).__name__}>"
    return text[:limit]


_HEAD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:memory|nats|tls|kafka):/?")
_PORT = (
    r"(?:0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
)
"""0 to 65535, as people write it: other digits may be a password."""

_HOSTS = re.compile(rf"(?:[\w.,~/\\+-]|\[[0-9A-Fa-f:.]+\]|:(?={_PORT}(?:[,/]|\Z)))*", re.ASCII)
"""What holds no secret: names, paths, ports. A colon before anything else may stand before a
password, and so may whatever is not here."""


def without_secrets(where: object) -> object:
    """What was given as a URL, a path or a server, as an error may carry it: the scheme, and the
    hosts or the path if it is certain that they are such. It need not be a URL that can be
    parsed, and a password in one may have an @ or a / in it."""
    if not isinstance(where, str):
        return f"<{type(where).__name__}>" if isinstance(where, bytes) else shown(where)
    match = _HEAD.match(where := where.strip())
    head = "" if match is None else match[0]
    rest = where[len(head) :]
    if "@" in rest:
        user, _, rest = rest.rpartition("@")
        head += "***"
        if not re.fullmatch(r"[^@/?#=&\s]*", user):
            return shown(head)  # where the password ends, nobody knows
        head += "@"
    more = ""
    if head:
        hosts = re.split(r"[/?#]", rest, maxsplit=1)[0]
        more = rest[len(hosts) :]
        rest, more = hosts, more[:1] + "***" if more[1:] else more
    return shown(head + (rest if _HOSTS.fullmatch(rest) else "***") + more)


def _cut(value: str | bytes, limit: int) -> str | bytes:
    return f"{value[: limit - 3]}..." if isinstance(value, str) else value[: limit - 3] + b"..."


def is_whole(value: object) -> bool:
    """Whether it is an integer; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether it is a finite number; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


def refuse(attribute: attrs.Attribute[Any], value: object, rule: str) -> ConfigurationError:
    """The error for a field's value."""
    seen = "***" if attribute.metadata.get("secret") else shown(value)
    return ConfigurationError(rule, field=attribute.name, value=seen)


def whole(least: int, *, optional: bool = False) -> Validator:
    """An integer of at least `least`."""
    rule = f"give a whole number, {least} or more" + (", or None" if optional else "")

    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None and optional:
            return
        if not is_whole(value) or value < least:
            raise refuse(attribute, value, rule)

    return check


def number(
    *, above: float | None = None, least: float | None = None, most: float | None = None,
    optional: bool = False,
) -> Validator:  # fmt: skip
    """A finite number within bounds; `above` is not itself allowed."""
    bounds = [f"above {above}"] if above is not None else []
    bounds += [f"{least} or more"] if least is not None else []
    bounds += [f"{most} or less"] if most is not None else []
    rule = ", ".join(["give a finite number", *bounds]) + (", or None" if optional else "")

    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if value is None and optional:
            return
        if (
            not is_number(value)
            or (above is not None and not value > above)
            or (least is not None and not value >= least)
            or (most is not None and not value <= most)
        ):
            raise refuse(attribute, value, rule)

    return check


def one_of(*choices: str | None) -> Validator:
    """One of a few words."""
    rule = "give one of " + ", ".join(map(repr, choices))

    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not (value is None or isinstance(value, str)) or value not in choices:
            raise refuse(attribute, value, rule)

    return check


def kind(wanted: type, called: str, *, optional: bool = False) -> Validator:
    """An instance of `wanted`, called `called` in the error."""
    rule = f"give {called}" + (", or None" if optional else "")

    def check(_: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        if not (value is None and optional) and not isinstance(value, wanted):
            raise refuse(attribute, value, rule)

    return check


def text(*, optional: bool = False) -> Validator:
    """A string."""
    return kind(str, "a string", optional=optional)


def flag() -> Validator:
    """True or False."""
    return kind(bool, "True or False")
