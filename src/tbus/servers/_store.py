"""Directories of a server: one that is gone afterwards, and one that the user keeps.

A second server on one store would start without complaint and spoil it. So a store is
locked, by `flock` on a file in it. The server inherits the locked file: if the program is
killed, the store is free only once the server, too, is gone.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from .._errors import BusError, ConfigurationError

if sys.platform != "win32":
    import fcntl

_LOCK = "tbus.lock"
_logger = logging.getLogger(__name__)


@attrs.frozen
class Store:
    """A directory that is ours while it is open.

    Attributes:
        path: absolute.
        lock: descriptor of the locked file, for the server to inherit; None for a
            temporary directory, which nobody else knows.
    """

    path: Path
    lock: int | None = None


@contextmanager
def open_store(path: Path | None, name: str) -> Iterator[Store]:
    """Hold a user's directory, which is kept, or a temporary one, which is removed.

    Args:
        path: the user's; None: a temporary one.
        name: of the server, for the temporary one's name.

    Raises:
        ConfigurationError: the directory cannot be made or written, or is in use.
        BusError: there is no room for a temporary one.
    """
    if path is None:
        with temporary_directory(name) as temporary:
            yield Store(temporary)
        return
    path = path.absolute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error
    try:
        _take(path, lock)
        try:
            yield Store(path, lock)
        finally:
            # Not left to `close`: a process forked meanwhile may hold a copy of it.
            fcntl.flock(lock, fcntl.LOCK_UN)
    finally:
        os.close(lock)


@contextmanager
def temporary_directory(name: str) -> Iterator[Path]:
    """A private directory (0700) that is removed at the end.

    Raises:
        BusError: it cannot be made.
    """
    try:
        path = Path(tempfile.mkdtemp(prefix=f"tbus-{name}-"))
    except OSError as error:
        raise BusError(
            f"no temporary directory could be made: {error}; make room, or set TMPDIR", [error]
        ) from error
    try:
        yield path
    finally:
        remove_directory(path)


def remove_directory(path: Path) -> None:
    """Remove a directory and all in it; one that is gone already is no failure, and one
    that cannot be removed is told to the log, as an error here could hide a weightier one."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        _logger.warning("the temporary directory %s could not be removed: %s", path, error)


def _take(path: Path, lock: int) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip()
        raise ConfigurationError(
            f"this directory is in use by {f'process {holder}' if holder else 'another process'}:"
            " one server at a time may work on a store; stop that one, or name another directory",
            field="store",
            value=str(path),
        ) from None
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> ConfigurationError:
    reason = getattr(error, "strerror", None) or str(error)
    return ConfigurationError(
        f"this directory cannot be used as a store ({reason}): name one that this user may"
        " make and write, on a disk with room",
        field="store",
        value=str(path),
    )
