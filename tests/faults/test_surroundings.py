"""The small disk is full, and the stepped clock steps, for other programs too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from errno import ENOSPC
from pathlib import Path

import pytest

from tests.faults.suite.surroundings import NotHere, fill, small_disk, stepped_clock


def test_a_small_disk_that_was_filled_takes_no_byte_until_there_is_room(tmp_path: Path) -> None:
    try:
        with small_disk(tmp_path / "disk", 2) as disk:
            file = disk / "file"
            file.touch()
            ballast = fill(disk)
            with pytest.raises(OSError, match="No space") as caught:
                file.write_bytes(b"x")
            assert caught.value.errno == ENOSPC
            ballast.unlink()
            file.write_bytes(b"x")
    except NotHere as missing:
        pytest.skip(str(missing))


def test_a_program_with_a_stepped_clock_sees_each_step_and_no_other_clock_moves(
    tmp_path: Path,
) -> None:
    try:
        clock = stepped_clock(tmp_path)
    except NotHere as missing:
        pytest.skip(str(missing))
    ask = "import time; print(time.time(), time.monotonic(), flush=True)"
    program = f"import sys\nfor _ in sys.stdin: {ask}"
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **clock.environment},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for step in (0.0, 3600.0, -86400.0, 0.0):
            clock.step(step)
            process.stdin.write("\n")
            process.stdin.flush()
            wall, other = map(float, process.stdout.readline().split())
            assert abs(wall - time.time() - step) < 5.0
            assert abs(other - time.monotonic()) < 5.0
        process.stdin.close()
