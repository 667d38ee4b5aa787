"""The harness does what the other tests rely on: each test here runs a test run of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Run a file of tests with this project's fixtures, in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'src'}:{ROOT}")
    for name in ("CI", "TBUS_REQUIRE_BROKERS", "TBUS_TEST_NATS_BINARY"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini(
        """
        [pytest]
        addopts = --strict-markers -p tests.conftest
        trio_mode = true
        filterwarnings = error
        markers =
            asyncio_too
            broker
        """
    )

    def run_file(text: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)

    return run_file


def test_whatever_a_test_leaves_behind_is_listed_and_fails_it(run):
    result = run(
        """
        import asyncio, os, socket, subprocess, threading, time
        import pytest, trio

        kept = []

        def test_thread():
            thread = threading.Thread(target=time.sleep, args=(60,), daemon=True, name="stray")
            thread.start()

        def test_process():
            subprocess.Popen(["sleep", "61"]).returncode = 0  # so that nobody warns

        def test_zombie():
            if (pid := os.fork()) == 0:
                os._exit(0)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

        def test_grandchild():
            child = subprocess.Popen(["sh", "-c", "sleep 62 & wait"], stdout=subprocess.PIPE)
            while not open(f"/proc/{child.pid}/task/{child.pid}/children").read():
                time.sleep(0.001)
            child.stdout.close()
            child.returncode = 0

        def test_file():
            kept.append(open(__file__))

        def test_file_that_is_replaced_by_another():
            kept.pop().close()
            kept.append(socket.socket())

        async def test_system_task():
            trio.lowlevel.spawn_system_task(trio.sleep_forever, name="stray task")

        async def test_nursery_that_is_not_left():
            kept.append(trio.open_nursery())
            nursery = await kept[-1].__aenter__()
            nursery.start_soon(trio.sleep_forever)

        @pytest.mark.asyncio_too
        async def test_asyncio_task(backend):
            if backend == "asyncio":
                kept.append(asyncio.create_task(asyncio.sleep(60), name="stray future"))

        @pytest.fixture
        def careless():
            yield
            kept.append(open(__file__))

        def test_fixture(careless):
            pass
        """,
        # Warnings as errors would fail the next test for what this one left.
        "--tb=short",
        "-W",
        "ignore::pytest.PytestUnraisableExceptionWarning",
        "-W",
        "ignore::ResourceWarning",
    )
    output = result.stdout.str()
    for name in (
        "ERROR at teardown of test_thread",
        "ERROR at teardown of test_process",
        "ERROR at teardown of test_zombie",
        "ERROR at teardown of test_grandchild",
        "ERROR at teardown of test_file",
        "ERROR at teardown of test_file_that_is_replaced_by_another",
        "ERROR at teardown of test_fixture",
        "thread 'stray'",
        "sleep 61",
        "sleep 62",
        "(state Z: ended, and never waited for)",
        "socket:[",
        "task stray task",
        "Nursery stack corrupted",  # Trio's own words, in place of the list of tasks
        "task stray future",
    ):
        assert name in output
    result.assert_outcomes(passed=8, errors=7, failed=3)


def test_whatever_ends_with_the_test_is_no_leak(run):
    result = run(
        """
        import subprocess, sys, threading
        import hypothesis, pytest, trio
        from hypothesis import strategies
        from trio.testing import wait_all_tasks_blocked

        def test_all_at_once(tmp_path, capfd):
            thread = threading.Thread(target=print)
            thread.start()
            thread.join()
            subprocess.run([sys.executable, "-c", ""], check=True)
            (tmp_path / "file").write_text("text")

        async def test_worker_thread_that_waits_for_its_next_job():
            await trio.to_thread.run_sync(print)

        async def test_task_in_the_nursery_of_a_fixture(nursery):
            nursery.start_soon(trio.sleep_forever)
            await wait_all_tasks_blocked()

        async def test_virtual_time(autojump_clock):
            await trio.sleep(1000)

        @hypothesis.given(strategies.integers())
        async def test_property(number):
            await trio.lowlevel.checkpoint()

        @pytest.mark.asyncio_too
        async def test_backend(backend):
            import sniffio
            assert sniffio.current_async_library() == backend

        async def test_proxy(open_tcp_proxy):
            proxy = await open_tcp_proxy(1)
            async with await trio.open_tcp_stream("127.0.0.1", proxy.port):
                pass
        """
    )
    result.assert_outcomes(passed=8)


def test_a_job_in_a_worker_thread_of_trio_is_no_idle_thread(run):
    result = run(
        """
        import time
        import trio

        async def test_busy():
            with trio.move_on_after(0.01):
                await trio.to_thread.run_sync(time.sleep, 5, abandon_on_cancel=True)
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    assert 'thread "sleep from <test' in result.stdout.str()


def test_a_leak_is_charged_to_one_test_only(run):
    result = run(
        """
        import subprocess
        from pathlib import Path

        def test_leaks():
            subprocess.Popen(["sleep", "63"]).returncode = 0

        def test_comes_after_it():
            assert not Path("/proc/thread-self/children").read_text()
        """
    )
    result.assert_outcomes(passed=2, errors=1)


BROKERS = """
    def test_alone(nats_server): pass
    def test_shared(shared_nats_server): pass
"""
NO_BINARY = "/nonexistent/nats-server"


def test_without_a_broker_tests_are_skipped_and_the_summary_says_so(run, monkeypatch):
    monkeypatch.setenv("TBUS_TEST_NATS_BINARY", NO_BINARY)
    result = run(BROKERS)
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines([f"NOT TESTED with a real broker: 2 (*{NO_BINARY}*)"])


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TBUS_REQUIRE_BROKERS", "1")])
def test_where_a_broker_must_be_a_missing_one_fails(run, monkeypatch, name, value):
    monkeypatch.setenv("TBUS_TEST_NATS_BINARY", NO_BINARY)
    monkeypatch.setenv(name, value)
    result = run(BROKERS)
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["a broker that must be here is missing: *"])


def test_the_tests_of_a_broker_can_be_chosen_by_their_marker(run):
    result = run(BROKERS + "    def test_other(): pass\n", "-m", "not broker")
    result.assert_outcomes(passed=1, deselected=2)
