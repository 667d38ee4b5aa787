"""`tbus doctor`: whether everything is there that a bus needs, and what to do if not."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess

import attrs
import click

from .._config import BusConfig
from .._errors import ConfigurationError, TbusError
from .._open import open_bus
from ..servers._binary import find_nats_server
from ..servers._java import OLDEST, find_java, java_version
from ..servers._tansu import PACKAGE, find_tansu
from ._address import json_option, url_option
from ._escape import escaped
from ._stop import Stop, run_command

_BINARY_WAIT = 5.0

SYNC_HINT = (
    "what a nats-server with file storage has acknowledged survives its process being killed;"
    " a power failure can take what came since the last sync, every 2 minutes by default: set"
    " jetstream.sync_interval (`always` for every message) where that matters"
)


@attrs.frozen
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        good: None: it may be missing.
        text: what was found, or what to do.
    """

    name: str
    good: bool | None
    text: str


@click.command()
@json_option
@url_option
def doctor(as_json: bool, config: BusConfig) -> int:
    """Check versions, the programs that the broker's kind needs, and the broker. Ends with 1 if
    one fails."""
    findings = [
        Finding("python", True, f"{platform.python_version()} ({platform.platform()})"),
        *(_package(name) for name in ("trio", "anyio", "msgspec")),
    ]

    async def command(_: Stop) -> int:
        if config.backend == "nats":
            findings.extend([_package("nats-py", "[nats]"), _nats_server(config)])
        elif config.backend == "kafka":
            findings.extend(_package(name, "[kafka]") for name in ("aiokafka", "cramjam"))
            findings.extend(await _kafka_programs(config))
        findings.extend(await _broker(config))
        return 0

    code = run_command(command)
    # Stopped, it has not seen the broker.
    good = code == 0 and all(finding.good is not False for finding in findings)
    hint = SYNC_HINT if good and config.backend == "nats" else None
    if as_json:
        click.echo(
            json.dumps(
                {
                    "healthy": good,
                    "findings": [attrs.asdict(finding) for finding in findings],
                    "hint": hint,
                },
                indent=2,
            )
        )
    else:
        for finding in findings:
            mark = {True: "ok", False: "FAIL", None: "-"}[finding.good]
            click.echo(f"{mark:<5} {finding.name:<12} {escaped(finding.text)}")
        if hint is not None:
            click.echo(f"\nnote  {hint}")
    return code or (0 if good else 1)


def _package(name: str, extra: str = "") -> Finding:
    try:
        return Finding(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, f"not installed: pip install 'tbus{extra}'")


def _nats_server(config: BusConfig) -> Finding:
    """The nats-server to embed; only a bus that embeds one needs it."""
    bad = False if config.embedded else None
    try:
        path = find_nats_server(config.nats.server_binary)
        answer = subprocess.run(  # noqa: S603 - the program that an embedded bus would start
            [path, "--version"], capture_output=True, text=True, timeout=_BINARY_WAIT, check=True
        )
    except ConfigurationError as error:
        return Finding("nats-server", bad, str(error))
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("nats-server", bad, f"cannot be run: {error}")
    return Finding("nats-server", True, f"{answer.stdout.strip().rpartition(' ')[2]} ({path})")


async def _kafka_programs(config: BusConfig) -> list[Finding]:
    """What a Kafka broker can be embedded with; only a bus that embeds one needs one of them."""
    tansu = find_tansu()
    # One of them is enough.
    bad = False if config.embedded and tansu is None else None
    return [
        await _java(bad),
        Finding("tansu", bad, f"not found: pip install {PACKAGE}")
        if tansu is None
        else Finding("tansu", True, tansu),
    ]


async def _java(bad: bool | None) -> Finding:
    java = find_java()
    if java is None:
        where = "neither in JAVA_HOME nor on PATH"
        return Finding("java", bad, f"{where}: Apache Kafka needs {OLDEST} or newer")
    try:
        version = await java_version(java)
    except OSError as error:
        return Finding("java", bad, f"{java} cannot be run: {error}")
    if version is None or version < OLDEST:
        found = f"{version or 'of an unknown version'} ({java})"
        return Finding("java", bad, f"{found}: Apache Kafka needs {OLDEST} or newer")
    return Finding("java", True, f"{version} ({java})")


async def _broker(config: BusConfig) -> list[Finding]:
    found: list[Finding] = []
    try:
        async with open_bus(config) as bus:
            milliseconds = await bus.ping() * 1000
            found.append(
                Finding("broker", True, f"{config.address}, round trip {milliseconds:.1f} ms")
            )
            topics = await bus.list_topics()
            if config.backend == "nats":
                told = f"enabled, {len(topics)} topics of tbus"
                found.append(Finding("jetstream", True, told))
            else:
                found.append(Finding("topics", True, str(len(topics))))
    except TbusError as error:
        name = "jetstream" if found and config.backend == "nats" else "broker"
        found.append(Finding(name, False, f"{config.address}: {error}"))
    return found
