"""Fields that convert and check what they are given, and name it when it is wrong.

Each function makes one attrs field. The conversion is part of the field and not of the
reader of URLs or files, so a value means the same wherever it comes from.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import attrs

from .._errors import ConfigurationError
from .._retry import Backoff

_SECONDS: Final = {
    "": 1.0,
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_BYTES: Final = {
    "": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3,
    "kib": 1024, "mib": 1024**2, "gib": 1024**3,
}  # fmt: skip
_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")
_split_unit = re.compile(r"\s*([+-]?[0-9_.]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*").fullmatch

Convert = Callable[[Any, "attrs.Attribute[Any]"], Any]


def _field(convert: Convert, default: Any, *, optional: bool = False, secret: bool = False) -> Any:
    def converted(value: Any, attribute: attrs.Attribute[Any]) -> Any:
        return None if optional and value is None else convert(value, attribute)

    return attrs.field(
        default=default,
        converter=attrs.Converter(converted, takes_field=True),
        repr=not secret,
    )


def refused(name: str, value: object, rule: str) -> ConfigurationError:
    """The error for a value that a field does not take, shown bounded."""
    if isinstance(value, str) and len(value) > 200:
        value = value[:200] + "..."
    elif isinstance(value, int) and value.bit_length() > 128:
        value = f"<int of {value.bit_length()} bits>"
    elif not isinstance(value, str | int | float | Path | None):
        value = f"<{type(value).__name__}>"
    return ConfigurationError(f"it must be {rule}", field=name, value=value)


def count(default: int | None, *, least: int = 1, optional: bool = False) -> Any:
    """A whole number of at least `least`."""
    rule = f"a whole number of at least {least}" + (" or None" if optional else "")

    def convert(value: Any, attribute: attrs.Attribute[Any]) -> int:
        number = value
        if isinstance(value, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", value):
            number = int(value)
        if type(number) is not int or number < least:
            raise refused(attribute.name, value, rule)
        return number

    return _field(convert, default, optional=optional)


def size(default: int | None, *, optional: bool = False) -> Any:
    """A number of bytes of at least 1; text may have a unit."""
    rule = "a number of bytes of at least 1 (64MiB is one, too)" + (" or None" if optional else "")

    def convert(value: Any, attribute: attrs.Attribute[Any]) -> int:
        number = _with_unit(value, _BYTES) if isinstance(value, str) else value
        if isinstance(value, str) and number is not None and number == int(number):
            number = int(number)
        if type(number) is not int or number < 1:
            raise refused(attribute.name, value, rule)
        return number

    return _field(convert, default, optional=optional)


def seconds(default: float, *, zero: bool = False) -> Any:
    """A finite number of seconds, above 0 unless `zero` is allowed; text may have a unit."""
    rule = f"a number of seconds{', 0 or more' if zero else ' above 0'} (5s and 200ms are, too)"

    def convert(value: Any, attribute: attrs.Attribute[Any]) -> float:
        number = _with_unit(value, _SECONDS) if isinstance(value, str) else value
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise refused(attribute.name, value, rule)
        if not (0 <= number <= 1e9) or (number == 0 and not zero):
            raise refused(attribute.name, value, rule)
        return float(number)

    return _field(convert, default)


def _with_unit(text: str, units: Mapping[str, float]) -> float | None:
    found = _split_unit(text)
    unit = units.get(found[2].lower()) if found else None
    if found is None or unit is None:
        return None
    try:
        number = float(found[1]) * unit
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def flag(default: bool = False) -> Any:
    """True or false."""

    def convert(value: Any, attribute: attrs.Attribute[Any]) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in _TRUE:
            return True
        if isinstance(value, str) and value.strip().lower() in _FALSE:
            return False
        raise refused(attribute.name, value, "true or false")

    return _field(convert, default)


def text(default: str | None = None, *, optional: bool = True) -> Any:
    """Any text."""

    def convert(value: Any, attribute: attrs.Attribute[Any]) -> str:
        if not isinstance(value, str):
            raise refused(attribute.name, value, "text")
        return value

    return _field(convert, default, optional=optional)


def secret() -> Any:
    """Text that no repr and no error shows, not even when it is wrong."""

    def convert(value: Any, attribute: attrs.Attribute[Any]) -> str:
        if not isinstance(value, str) or not value:
            raise ConfigurationError(
                "it must be text that is not empty", field=attribute.name, value="***"
            )
        return value

    return _field(convert, None, optional=True, secret=True)


def path() -> Any:
    """A file or directory; `~` is the user's home."""

    def convert(value: Any, attribute: attrs.Attribute[Any]) -> Path:
        if isinstance(value, Path) or (isinstance(value, str) and value and "\0" not in value):
            try:
                return Path(value).expanduser()
            except RuntimeError:  # there is no such user
                pass
        raise refused(attribute.name, value, "a path")

    return _field(convert, None, optional=True)


def choice(default: str, *allowed: str) -> Any:
    """One of some words."""

    def convert(value: Any, attribute: attrs.Attribute[Any]) -> str:
        if isinstance(value, str) and value in allowed:
            return value
        raise refused(attribute.name, value, f"one of {', '.join(allowed)}")

    return _field(convert, default)


def words(default: tuple[str, ...], check: Callable[[str, str], str]) -> Any:
    """Several texts, each checked by `check(text, field name)`; one text may hold several,
    with commas between."""

    def convert(value: Any, attribute: attrs.Attribute[Any]) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif not isinstance(value, list | tuple | set | frozenset):
            raise refused(attribute.name, value, "a list of texts")
        found = []
        for one in value:
            if not isinstance(one, str):
                raise refused(attribute.name, one, "a list of texts")
            found.append(check(one, attribute.name))
        return tuple(dict.fromkeys(found))

    return _field(convert, default)


def backoff(default: Backoff) -> Any:
    """A `Backoff`, or its fields by name."""
    known = [attribute.name for attribute in attrs.fields(Backoff)]

    def convert(value: Any, attribute: attrs.Attribute[Any]) -> Backoff:
        if isinstance(value, Backoff):
            return value
        if isinstance(value, Mapping):
            for name in value:
                check_known(name, known, f"{attribute.name}.")
            return attrs.evolve(default, **value)
        raise refused(attribute.name, value, f"a Backoff, or a table of {', '.join(known)}")

    return _field(convert, default)


def check_known(name: object, known: list[str], where: str = "") -> None:
    """Refuse a name that is not known, and tell the nearest one that is.

    The value that came with it is not looked at: it may be a misspelt secret's.
    """
    if name in known:
        return
    shown = str(name)[:80]
    near = get_close_matches(shown.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {where}{near[0]}?" if near else f"known are {', '.join(known)}"
    raise ConfigurationError(f"there is no option {where}{shown}: {hint}")
