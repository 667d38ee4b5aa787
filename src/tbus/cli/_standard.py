"""The three files that every program begins with, which some begin without (`tbus ... >&-`)."""

from __future__ import annotations

import os
import sys


def fill_in() -> None:
    """Put the null device where a standard file is closed. Python has None there, which nothing
    can be asked; and the next file or socket to be opened would get the number of it."""
    for name, flags in (("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            mode = "r" if flags == os.O_RDONLY else "w"
            # For as long as the program runs.
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, encoding="utf-8"))
