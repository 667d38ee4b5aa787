"""Members of a group on NATS that are killed, suspended, cut off, started and stopped, and a
server that is killed, while events flow; judged by one observer outside.

`python -m tests.faults.chaos_nats --help` runs it at any size; the suite runs a short form. Every
member reaches the server through a proxy of its own, which is cut at random. The publisher and
the observer are this process.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import trio

from tbus import TopicOptions, open_bus
from tests.brokers.nats import NatsServer
from tests.brokers.proxy import TcpProxy, start_proxy
from tests.chaos.book import Book, Event

ROOT = Path(__file__).parents[2]
WATCH_EVERY = 0.02
TOPIC = "chaos"


@attrs.define(eq=False)
class Member:
    """A process, and the way by which it reaches the server."""

    process: trio.Process
    proxy: TcpProxy


@attrs.define(eq=False)
class Fault:
    """Something that took partitions from a member.

    Attributes:
        owned: the partitions that it was the last to handle something of.
        regained: seconds until somebody else did, for each.
    """

    kind: str
    pid: int
    when: float
    owned: set[int]
    regained: dict[int, float] = attrs.Factory(dict)


class Observer:
    """Reads the book: who handled what, and how long a partition stood still after a fault."""

    def __init__(self, path: Path) -> None:
        self.book = Book(path)
        self.faults: list[Fault] = []
        self.owners: dict[int, int] = {}
        self.epochs: dict[int, int] = {}
        self.zombies = 0
        """Completions under an epoch that was not the latest any more."""
        self._path = path
        self._offset = 0

    def fault(self, kind: str, pid: int) -> Fault:
        """A member was just killed or suspended."""
        self.look()
        owned = {partition for partition, owner in self.owners.items() if owner == pid}
        fault = Fault(kind, pid, time.monotonic(), owned)
        self.faults.append(fault)
        return fault

    def look(self) -> None:
        """Read on."""
        self.book.read_on()
        now = time.monotonic()
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].decode().splitlines():
            pid, partition, epoch = map(int, line.split(" ")[3:6])
            if epoch < self.epochs.get(partition, 0):
                self.zombies += 1
                continue
            self.epochs[partition] = epoch
            if self.owners.get(partition) != pid:
                self.owners[partition] = pid
                for fault in self.faults:
                    if partition in fault.owned and partition not in fault.regained:
                        fault.regained[partition] = now - fault.when

    async def run(self) -> None:
        """Read on for ever."""
        while True:
            self.look()
            await trio.sleep(WATCH_EVERY)


class Chaos:
    """One run: the members, what is done to them, and the events."""

    def __init__(
        self, options: argparse.Namespace, server: NatsServer, directory: Path, nursery: Any
    ) -> None:
        self.options = options
        self.server = server
        self.nursery = nursery
        self.observer = Observer(directory / "book")
        self.stored: set[Event] = set()
        self.unresolved = 0
        self.members: list[Member] = []
        self.done: Counter[str] = Counter()
        self.unclean: list[int] = []

    # Events

    async def publish(self) -> None:
        """Publish at a steady rate, those of each key in order; note what is acknowledged."""
        options = self.options
        numbers = dict.fromkeys(range(options.keys), 0)
        async with open_bus(self.server.url, publish_timeout=60.0) as bus:  # noqa: SIM117
            async with (
                bus.open_publisher(max_in_flight=2000) as publisher,
                trio.open_nursery() as n,
            ):

                async def note() -> None:
                    async for outcome in publisher.outcomes:
                        if outcome.success:
                            key, number = outcome.event_id.split("/")
                            self.stored.add((TOPIC, f"key-{key}", int(number)))
                        else:
                            self.unresolved += 1

                n.start_soon(note)
                begun = trio.current_time()
                for sent in range(options.events):
                    key = random.randrange(options.keys)
                    numbers[key] += 1
                    body = str(numbers[key]).encode()
                    name = f"{key}/{numbers[key]}"
                    await publisher.send(TOPIC, body, key=f"key-{key}", id=name)
                    if sent % 50 == 0:
                        await trio.sleep_until(begun + sent / options.rate)
                while publisher.statistics().in_flight:  # noqa: ASYNC110
                    await trio.sleep(0.1)
                n.cancel_scope.cancel()

    # Members

    async def start_member(self) -> None:
        """One member more; returns when it has subscribed."""
        proxy = await start_proxy(self.nursery, self.server.port)
        argv = [
            sys.executable, "-m", "tests.faults.chaos_nats_member", proxy.url, TOPIC, "crowd",
            str(self.observer.book.path), json.dumps({"pause": self.options.work}),
        ]  # fmt: skip

        async def run(  # noqa: ASYNC114, ASYNC128
            task_status: trio.TaskStatus[trio.Process],
        ) -> None:
            await trio.run_process(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, capture_stdout=False,
                check=False, cwd=ROOT, task_status=task_status,
            )  # fmt: skip

        process: trio.Process = await self.nursery.start(run)
        self.members.append(Member(process, proxy))
        assert process.stdout is not None
        with trio.fail_after(60):
            await process.stdout.receive_some()
        self.done["started"] += 1

    def pick(self) -> Member:
        """Any member."""
        return random.choice(self.members)

    # Deeds

    async def kill(self) -> None:
        """SIGKILL, and another one in its place."""
        member = self.pick()
        self.members.remove(member)
        member.process.kill()
        self.observer.fault("kill", member.process.pid)
        await member.process.wait()
        await trio.sleep(random.random() * 4)
        await self.start_member()

    async def stop(self) -> None:
        """SIGTERM, and another one in its place."""
        member = self.pick()
        self.members.remove(member)
        member.process.terminate()
        code = await member.process.wait()
        if code:
            self.unclean.append(code)
        await self.start_member()

    async def suspend(self) -> None:
        """SIGSTOP for a while."""
        member = self.pick()
        pid = member.process.pid
        member.process.send_signal(signal.SIGSTOP)
        self.observer.fault("suspend", pid)
        await trio.sleep(random.uniform(0.5, self.options.longest))
        member.process.send_signal(signal.SIGCONT)

    async def cut(self) -> None:
        """All connections of one member."""
        self.pick().proxy.cut()

    async def server_kill(self) -> None:
        """SIGKILL to the server, which starts again soon."""
        self.server.kill()
        await trio.sleep(random.random() * 0.5)
        await trio.to_thread.run_sync(self.server.start)

    async def end(self) -> None:
        """SIGTERM to all."""
        for member in self.members:
            member.process.terminate()
        for member in self.members:
            if code := await member.process.wait():
                self.unclean.append(code)
        self.members.clear()

    async def do(self) -> None:
        """Everything that is to be done, in any order."""
        options = self.options
        deeds = (
            ["kill"] * options.kills + ["stop"] * options.stops + ["suspend"] * options.suspends
            + ["cut"] * options.cuts + ["server_kill"] * options.server_kills
        )  # fmt: skip
        random.shuffle(deeds)
        for number, deed in enumerate(deeds):
            await trio.sleep(random.random() * options.gap)
            await getattr(self, deed)()
            self.done[deed] += 1
            if number % 10 == 0 and not options.quiet:
                handled = len(self.observer.book.completions)
                sys.stderr.write(
                    f"{number} of {len(deeds)}  stored {len(self.stored)}  handled {handled}\n"
                )


async def run(options: argparse.Namespace, server: NatsServer, directory: Path) -> dict[str, Any]:
    """Publish, do things, and judge."""
    begun = time.monotonic()
    async with trio.open_nursery() as nursery:
        async with open_bus(server.url) as bus:
            await bus.configure_topic(TOPIC, TopicOptions(partitions=options.partitions))
        chaos = Chaos(options, server, directory, nursery)
        for _ in range(options.members):
            await chaos.start_member()
        nursery.start_soon(chaos.observer.run)
        async with trio.open_nursery() as work:
            work.start_soon(chaos.publish)
            await trio.sleep(1)
            work.start_soon(chaos.do)
        book = chaos.observer.book
        last, since = 0, trio.current_time()
        while chaos.stored - book.completions.keys():
            handled = book.completions.total()
            if handled != last:
                last, since = handled, trio.current_time()
            elif trio.current_time() - since > options.patience:
                break
            await trio.sleep(0.2)
        await chaos.end()
        nursery.cancel_scope.cancel()
    verdict = book.judge(chaos.stored)
    faults = sum(chaos.done[kind] for kind in ("kill", "suspend", "cut", "server_kill"))
    return {
        "events": options.events,
        "keys": options.keys,
        "partitions": options.partitions,
        "members": options.members,
        "seconds": round(time.monotonic() - begun, 1),
        "deeds": dict(chaos.done),
        "unclean ends": chaos.unclean,
        "not acknowledged": chaos.unresolved,
        "stored": verdict.stored,
        "handled": verdict.handled,
        "lost": verdict.lost,
        "inversions": verdict.inversions,
        "repeated": verdict.repeated,
        "repeated per fault": round(verdict.repeated / faults, 1) if faults else verdict.repeated,
        "completed under an old epoch": chaos.observer.zombies,
        "regained after": {
            kind: _spread([f for f in chaos.observer.faults if f.kind == kind])
            for kind in ("kill", "suspend")
        },
    }


def _spread(faults: list[Fault]) -> list[float]:
    """The longest that a partition of each fault stood still, ascending."""
    return sorted(round(max(f.regained.values()), 2) for f in faults if f.regained)


def parser() -> argparse.ArgumentParser:
    """Its options."""
    result = argparse.ArgumentParser(prog="python -m tests.faults.chaos_nats", description=__doc__)
    result.add_argument("--events", type=int, default=20_000)
    result.add_argument("--rate", type=float, default=1_000.0, help="events published a second")
    result.add_argument("--keys", type=int, default=2_000)
    result.add_argument("--partitions", type=int, default=12)
    result.add_argument("--members", type=int, default=3)
    result.add_argument("--kills", type=int, default=5)
    result.add_argument("--stops", type=int, default=5)
    result.add_argument("--suspends", type=int, default=5)
    result.add_argument("--longest", type=float, default=8.0, help="seconds of a suspension")
    result.add_argument("--cuts", type=int, default=5)
    result.add_argument("--server-kills", type=int, default=0)
    result.add_argument("--gap", type=float, default=1.0, help="seconds between deeds, at most")
    result.add_argument("--work", type=float, default=0.002, help="seconds of a handler, at most")
    result.add_argument("--patience", type=float, default=20.0)
    result.add_argument("--quiet", action="store_true")
    return result


def main() -> int:
    options = parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos") as name:
        directory = Path(name)
        with NatsServer(directory / "nats") as server:
            result = trio.run(run, options, server, directory)
    print(json.dumps(result, indent=2))  # noqa: T201
    return 1 if result["lost"] or result["inversions"] or result["unclean ends"] else 0


if __name__ == "__main__":
    sys.exit(main())
