"""Ctrl-C while Python still reads the program."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from tbus._early import is_command_line

from .kit import environment


@pytest.mark.parametrize("read", ["anyio", "trio", "tbus._envelope", "click"])
@pytest.mark.parametrize("how", ["-m", "script"])
def test_an_interrupt_while_the_program_is_read_is_quiet(tmp_path, read, how):
    script = tmp_path / "tbus"
    script.write_text("import sys\nfrom tbus.cli import main\nsys.exit(main())\n")
    program = ["-m", "tbus"] if how == "-m" else [str(script)]
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", *program, "sub", "t", "--url", "memory://"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        stdin=subprocess.DEVNULL,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:  # one for each module that was read
            if line.split("|")[-1].strip() == read:
                break
        process.send_signal(signal.SIGINT)
        deaf = threading.Timer(30, process.kill)
        deaf.start()
        rest = [line for line in process.stderr if not line.startswith("import time:")]
        deaf.cancel()
    assert (process.returncode, rest) == (130, [])


def test_a_program_that_imports_tbus_gets_its_interrupt(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(
        "import signal, sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'tbus._envelope':\n"
        "            signal.raise_signal(signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "try:\n"
        "    import tbus\n"
        "except KeyboardInterrupt:\n"
        "    print('mine')\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env=environment(), timeout=30,
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("mine\n", "")


def test_the_usual_handler_is_back_once_the_program_is_read():
    code = "import signal, tbus; assert signal.getsignal(2) is signal.default_int_handler"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.argv[0] = 'tbus'; {code}"],
        capture_output=True, text=True, env=environment(), timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        (["-m"], ["python", "-m", "tbus", "sub"], True),
        (["-m"], ["python", "-X", "dev", "-mtbus"], True),
        (["-m"], ["python", "-m", "shop"], False),
        ([os.path.join("bin", "tbus"), "sub"], ["python", "bin/tbus", "sub"], True),
        (["shop.py"], ["python", "shop.py"], False),
        (["-c"], ["python", "-c", "import tbus"], False),
        ([], [], False),
    ],
)
def test_only_the_command_line_is_quiet(argv, orig_argv, expected):
    assert is_command_line(argv, orig_argv) is expected
