"""The program under test: publishes and handles events, whatever happens to its broker.

`python -m tests.faults.suite.program JOB`; lines on its standard input tell it what to do, and
each line that it writes is an answer. It does what any service would: a publish that was not
acknowledged is repeated with the same id, and a bus that has ended is opened again.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from typing import Any

import attrs
import trio

from tbus import Bus, BusError, Message, TransportLost, open_bus
from tbus.testing import take_census
from tests.chaos.book import line

from .job import Facts, Job
from .log_tally import LogTally
from .memory import forget_memory_peak, memory_now, memory_peak
from .publishing import AGAIN, Publishing


class Program:
    """Publishes and handles, through as many buses as it takes."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.facts = Facts()
        self._publishing = Publishing(job, self.facts)
        self._book = os.open(job.book, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._leaving = trio.Event()
        self._bus: Bus | None = None
        self._is_ready = False
        self._base = 0.0

    # What it is told

    async def obey(self, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC114
        """Do what standard input says."""
        task_status.started()
        data = b""
        async with trio.lowlevel.FdStream(os.dup(0)) as stdin:
            while chunk := await stdin.receive_some():
                data += chunk
                *lines, data = data.split(b"\n")
                for text in lines:
                    await self._do(*json.loads(text))
        os._exit(3)  # whoever started this process has ended, however that was

    async def _do(self, what: str, *arguments: Any) -> None:
        if what == "go":
            self._publishing.go()
        elif what == "pause":
            await self._publishing.pause()
        elif what == "wait_ends":
            while len(self.facts.ends) < arguments[0]:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.01)
        elif what == "leave":
            self._leaving.set()
            return  # the facts are the answer
        else:
            await self._do_to_bus(what, *arguments)
        answer(what)

    async def _do_to_bus(self, what: str, *arguments: Any) -> None:
        assert self._bus is not None, f"there is no bus to {what}"
        if what == "remove_topic":
            await self._bus.remove_topic(self.job.topic)
        else:  # what only a broker of this process can suffer
            getattr(self._bus.transport.faults, what)(*arguments)  # type: ignore[attr-defined]

    # What it does

    async def run(self) -> None:
        """Until it is told to leave."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.obey)
            if self.job.url.startswith("memory"):
                await nursery.start(self._keep)
            while not self._leaving.is_set():
                before = take_census()
                try:
                    await self._live()
                except BusError as error:
                    self.facts.ends += [type(cause).__name__ for cause in error.causes]
                    traceback.print_exception(error)  # to the log, for people
                except TransportLost:
                    await trio.sleep(AGAIN)  # nobody there yet, or not any more
                self.facts.left += take_census().beyond(before)
            nursery.cancel_scope.cancel()

    async def _keep(self, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC114
        """A broker of this process lives as long as somebody has a bus."""
        async with open_bus(self.job.url):
            task_status.started()
            await trio.sleep_forever()

    async def _live(self) -> None:
        leaving_at = None
        try:
            async with open_bus(self.job.url, **self.job.settings) as bus:
                await bus.subscribe(self.job.topic, self._handle, group=self.job.group)
                self._bus = bus
                self._say_ready()
                async with trio.open_nursery() as nursery:
                    if self.job.publishes:
                        nursery.start_soon(self._publishing.run, bus)
                    await self._leaving.wait()
                    nursery.cancel_scope.cancel()
                leaving_at = trio.current_time()
        finally:
            self._bus = None
            if leaving_at is not None:
                self.facts.exits.append(round(trio.current_time() - leaving_at, 3))

    def _say_ready(self) -> None:
        if not self._is_ready:
            self._is_ready = True
            self._base = memory_now()
            forget_memory_peak()
            answer("ready")

    async def _handle(self, message: Message) -> None:
        await trio.sleep(self.job.work)
        assert message.key is not None
        event = (message.topic, message.key, int(message.body))
        partition = message.position.partition
        now = trio.current_time()
        os.write(self._book, line(event, os.getpid(), partition, message.epoch, now))

    def conclude(self, tally: LogTally) -> Facts:
        """What there is to say at the end."""
        self._publishing.close()
        os.close(self._book)
        facts, lines = self.facts, tally.lines()
        facts.lines, facts.most, facts.loudest = lines.total, lines.most, lines.what
        facts.memory = round(memory_peak() - self._base, 1)
        return facts


def answer(what: str, value: object = None) -> None:
    """Write a line to whoever started this process."""
    sys.stdout.write(json.dumps([what, value]) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Be a process."""
    tally = LogTally()
    logging.basicConfig(level=logging.INFO, handlers=[tally, logging.StreamHandler(sys.stderr)])
    logging.captureWarnings(True)
    program = Program(Job(**json.loads(sys.argv[1])))
    trio.run(program.run)
    answer("facts", attrs.asdict(program.conclude(tally)))


if __name__ == "__main__":
    main()
