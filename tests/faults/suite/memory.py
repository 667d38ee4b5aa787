"""How much memory this process takes, and took at its peak. Source: Linux, proc(5)."""

from __future__ import annotations

from pathlib import Path


def memory_now() -> float:
    """MiB of this process in memory."""
    return _status("VmRSS")


def memory_peak() -> float:
    """MiB at the peak since `forget_memory_peak`."""
    return _status("VmHWM")


def forget_memory_peak() -> None:
    """Let the peak begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> float:
    for text in Path("/proc/self/status").read_text().splitlines():
        if text.startswith(name):
            return int(text.split()[1]) / 1024
    raise AssertionError(f"no {name} in /proc/self/status")
