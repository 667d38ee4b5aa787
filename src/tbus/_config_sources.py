"""From a URL, a file and keyword arguments to one configuration.

Every source becomes a nested dict; later ones win; the whole is converted to the types
of the fields and checked once. No error shows a secret: of a URL only the scheme and the hosts
are quoted, and no line of a file.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl, unquote

import attrs

from ._errors import ConfigurationError
from ._rules import shown, without_secrets

Config = TypeVar("Config", bound=attrs.AttrsInstance)
Values = dict[str, Any]

_URL = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.DOTALL,
)
_SCHEMES: dict[str, Values] = {
    "memory": {"backend": "memory"},
    "nats": {"backend": "nats"},
    "tls": {"backend": "nats", "nats": {"tls": True}},
    "nats+embedded": {"backend": "nats", "embedded": True},
    "kafka": {"backend": "kafka"},
    "kafka+embedded": {"backend": "kafka", "embedded": True},
}
_FILES = (".toml", ".yaml", ".yml")


def load(base: Config, where: object, overrides: Values) -> Config:
    """See `BusConfig.load`; `base` holds what nothing else gives."""
    if isinstance(where, type(base)):
        base, values = where, {}
    elif isinstance(where, Path):
        values = _from_file(where)
    elif isinstance(where, str) and "://" in where:
        values = from_url(where)
    elif isinstance(where, str) and where.lower().endswith(_FILES):
        values = _from_file(Path(where))
    else:
        raise _bad_where(where)
    given = {name: _changes(getattr(base, name, None), value) for name, value in overrides.items()}
    config: Config = _filled(base, _merged(values, given), "")
    return config


def _bad_where(where: object) -> ConfigurationError:
    known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
    return ConfigurationError(
        f"give a URL ({known}), a path to a {', '.join(_FILES)} file, or a BusConfig",
        field="where",
        value=without_secrets(where),
    )


def from_url(url: str) -> Values:
    """The values that a URL stands for.

    Raises:
        ConfigurationError: it is not one of ours. Whatever is wrong with it, a password may be
            anywhere in it: only what is certainly none is shown.
    """
    match = _URL.fullmatch(url.strip())
    if match is None:
        raise _bad_where(url)
    scheme, authority = match["scheme"].lower(), match["authority"]
    if scheme not in _SCHEMES:
        raise _bad_url(f"its scheme is none of {', '.join(_SCHEMES)}", url)
    if "@" in url[url.index("://") + 3 + len(authority) :] or authority.count("@") > 1:
        raise _bad_url(
            "an @ comes too late or too often: user and password stand once, before the first"
            " host, and in them (and in a query) @ is %40, / is %2F, ? is %3F, # is %23",
            url,
        )
    if match["path"] not in ("", "/") or match["fragment"]:
        raise _bad_url("it has a path or a fragment: options follow as ?name=value", url)
    chosen = _SCHEMES[scheme]
    backend = chosen["backend"]
    section: Values = dict(chosen.get(backend, {}))
    if chosen.get("embedded"):
        if authority:
            raise _bad_url(f"{scheme}:// starts its own broker and takes no host", url)
    elif backend == "memory":
        if authority:
            section["name"] = unquote(authority)
    else:
        userinfo, _, hosts = authority.rpartition("@")
        section.update(_identity(backend, userinfo))
        if hosts:
            section["servers"] = hosts.split(",")
    section.update(_query(match["query"] or "", url))
    return {**chosen, backend: section}


def _identity(backend: str, userinfo: str) -> Values:
    user, colon, password = userinfo.partition(":")
    if not userinfo:
        return {}
    if colon:
        return {"user": unquote(user), "password": unquote(password)}
    # NATS' own clients read a lone name before the @ as a token.
    return {"token" if backend == "nats" else "user": unquote(user)}


def _query(query: str, url: str) -> Values:
    values: Values = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in values:
            raise _bad_url("an option comes twice in its query", url)
        values[name] = value
    return values


def _bad_url(problem: str, url: object) -> ConfigurationError:
    return ConfigurationError(problem, field="url", value=without_secrets(url))


def _from_file(path: Path) -> Values:
    suffix = path.suffix.lower()
    if suffix not in _FILES:
        raise ConfigurationError(
            f"the file's name must end in one of {', '.join(_FILES)}",
            field="where",
            value=str(path),
        )
    try:
        content = path.read_bytes().decode()
    except UnicodeDecodeError:
        raise ConfigurationError("is not UTF-8", field="where", value=str(path)) from None
    except (OSError, ValueError) as error:  # no file can have a name with a NUL in it
        told = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"cannot be read: {told}", field="where", value=str(path)
        ) from error
    values = _toml(path, content) if suffix == ".toml" else _yaml(path, content)
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigurationError(
            "must hold the names of options and their values", field="where", value=str(path)
        )
    url = values.pop("url", None)
    if url is None:
        return values
    if not isinstance(url, str):
        raise _bad_url("must be a string", url)
    return _merged(from_url(url), values)


def _toml(path: Path, content: str) -> Any:
    try:
        return tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = re.search(r"\(at [^()]*\)\Z", str(error))
        told = f"is not TOML {place[0] if place else ''}".rstrip()
    raise ConfigurationError(told, field="where", value=str(path))


def _yaml(path: Path, content: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra; loaded when it is needed
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "PyYAML is not installed: pip install 'tbus[yaml]', or use a .toml file",
            field="where",
            value=str(path),
        ) from error
    try:
        return yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # PyYAML quotes the line, and a password may stand in it.
        mark = getattr(error, "problem_mark", None)
        told = "is not YAML"
        if mark is not None:
            told += f" (at line {mark.line + 1}, column {mark.column + 1})"
    raise ConfigurationError(told, field="where", value=str(path))


def _merged(first: Values, second: Mapping[str, Any]) -> Values:
    """Both, where the second wins; sections option by option."""
    merged = dict(first)
    for name, value in second.items():
        before = merged.get(name)
        if isinstance(before, dict) and isinstance(value, Mapping):
            value = _merged(before, value)
        merged[name] = value
    return merged


def _changes(section: object, given: object) -> object:
    """An instance of a section as a dict of what is not at its default in it, so that it
    does not undo what the URL says. Anything else as it is."""
    kind: Any = type(section)
    if not attrs.has(kind) or type(given) is not kind:
        return given
    plain = kind()
    return {
        field.name: own
        for field in attrs.fields(kind)
        if (own := getattr(given, field.name)) != getattr(plain, field.name)
    }


def _filled(base: Any, values: Mapping[str, Any], prefix: str) -> Any:
    """`base` with these values, each converted to its field's type."""
    hints = get_type_hints(type(base))
    fields = {field.name: field for field in attrs.fields(type(base))}
    changes = {}
    for name, value in values.items():
        if name not in fields:
            raise _unknown(name, prefix, list(fields))
        own = getattr(base, name)
        if attrs.has(type(own)):
            if isinstance(value, type(own)):
                changes[name] = value
            elif isinstance(value, Mapping):
                changes[name] = _filled(own, value, f"{prefix}{name}.")
            else:
                # A string may be a token that was meant for a field of the section.
                raise ConfigurationError(
                    f"give a dict or {type(own).__name__}, not {type(value).__name__}",
                    field=prefix + name,
                    value="***" if isinstance(value, str) else without_secrets(value),
                )
        elif isinstance(value, str):
            secret = bool(fields[name].metadata.get("secret"))
            changes[name] = _converted(hints[name], value, prefix + name, secret)
        else:
            changes[name] = value
    return attrs.evolve(base, **changes)


def _unknown(name: object, prefix: str, known: list[str]) -> ConfigurationError:
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0)
    error = ConfigurationError(
        f"there is no option {prefix}{shown(str(name))}; the nearest is {prefix}{near[0]}"
    )
    error.field = f"{prefix}{name}"
    return error


def _converted(hint: Any, value: str, name: str, secret: bool) -> Any:
    """A string from a URL, a file or an environment as the field's own type."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if str in kinds or any(get_origin(kind) in (Literal, tuple) for kind in kinds):
        return value
    if type(None) in kinds and value.lower() in ("", "none", "null"):
        return None
    for kind, read, wanted in _READERS:
        if kind in kinds:
            try:
                return read(value)
            except (ValueError, KeyError):
                seen = "***" if secret else shown(value)
                raise ConfigurationError(f"give {wanted}", field=name, value=seen) from None
    return value


_WORDS = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip
_READERS: tuple[tuple[type, Callable[[str], object], str], ...] = (
    (bool, lambda text: _WORDS[text.lower()], "true or false"),
    (int, int, "a whole number"),
    (float, float, "a number"),
)
