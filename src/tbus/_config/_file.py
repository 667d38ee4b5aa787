"""Reading a configuration file.

What a parser says about a file may quote it, and the file may hold secrets: only the place
of the error is passed on.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from .._errors import ConfigurationError


def read_file(path: Path) -> dict[str, Any]:
    """What the TOML or YAML file holds.

    Raises:
        ConfigurationError: it cannot be read, is not what its name says, or holds no
            table; or it is YAML and PyYAML is not installed.
    """
    kind = path.suffix.lower()
    if kind not in (".toml", ".yaml", ".yml"):
        raise _bad(path, "its name must end in .toml, .yaml or .yml")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise _bad(path, f"it cannot be read: {error.strerror or error}") from error
    except ValueError:
        raise _bad(path, "it is not UTF-8") from None
    found = _from_toml(path, text) if kind == ".toml" else _from_yaml(path, text)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _bad(path, "it must hold a table of options")
    return found


def _from_toml(path: Path, text: str) -> Any:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        place = str(error).rpartition("(")[2].rstrip(")") if "(at " in str(error) else "somewhere"
        raise _bad(path, f"it is not TOML ({place})") from None


def _from_yaml(path: Path, text: str) -> Any:
    try:
        import yaml  # noqa: PLC0415 - an extra: only who has such a file needs it
    except ModuleNotFoundError as error:
        raise _bad(path, "reading YAML needs PyYAML: pip install 'tbus[yaml]'") from error
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"at line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        raise _bad(path, f"it is not YAML ({place})") from None


def _bad(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(f"the configuration file {path} cannot be used: {problem}")
