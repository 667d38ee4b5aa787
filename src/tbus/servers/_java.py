"""Which Java runs Java servers, and whether it is new enough."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

import anyio

from ._child import OwnedChild
from ._tend import tend

OLDEST = 17
_TIMEOUT = 20.0


def find_java() -> str | None:
    """The path of `java`: that of `JAVA_HOME`, else the first on PATH."""
    home = os.environ.get("JAVA_HOME")
    if home and (found := shutil.which("java", path=str(Path(home, "bin")))) is not None:
        return found
    return shutil.which("java")


def fingerprint(java: str) -> str:
    """A name for this very Java: another after an update. It costs no start of a JVM."""
    program = Path(java).resolve()
    library = program.parent.parent / "lib" / "server" / "libjvm.so"
    facts = [str(program)]
    for file in (program, library):
        try:
            stat = file.stat()
        except OSError:
            continue
        facts.append(f"{stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode(errors="surrogateescape")).hexdigest()[:16]


async def java_version(java: str) -> int | None:
    """Its major version (8, 17, 21, ...); None if it does not tell in 20 s.

    Raises:
        OSError: it cannot be run.
    """
    child = OwnedChild([java, "-version"])
    async with tend(child, "Java"):
        with anyio.move_on_after(_TIMEOUT):
            await child.wait_exit()
    for line in child.last_lines:
        if found := re.search(r'version "(?:1\.)?(\d+)', line):
            return int(found[1])
    return None
