"""The command line: `tbus`, and `python -m tbus`."""

from __future__ import annotations

import sys
from typing import NoReturn

from .. import _early

__all__ = ["main"]

_WANTED = ("click", "rich")


def main() -> NoReturn:
    """Run the command that the program's arguments name, and exit: 0 if it did its work, 1
    if it failed, 2 if it was called wrongly, 128 + n if signal n ended it."""
    _early.begin()
    try:
        from ._app import run  # noqa: PLC0415 - the part that may not be installed
    except ModuleNotFoundError as error:
        # Whatever else is missing is a fault of this package, and not for the user to mend.
        if (error.name or "").partition(".")[0] not in _WANTED:
            raise
        sys.exit(f"tbus: {error.name} is not installed: pip install 'tbus[cli]'")
    finally:
        _early.end()
    sys.exit(run(sys.argv[1:]))
