"""Show a resource's logs on the terminal, or in a notebook cell, while they are written."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
import threading
from typing import TYPE_CHECKING

from . import capture
from .locks import start_without_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_INTERVAL = 0.05  # seconds between looks


@contextlib.contextmanager
def following(directory: str, names: tuple[str, str]) -> Iterator[None]:
    """Within it, what is appended to the two logs is also written to this process's stdout and stderr.

    The following thread writes to copies of the present streams, so that a capture of descriptors does not
    feed the logs with their own text.
    """
    sinks = [_sink(stream) for stream in _standing()]
    done = threading.Event()
    followers = [
        _Follower(f'{directory}/{name}', write) for name, (write, _) in zip(names, sinks, strict=True)
    ]

    def follow() -> None:
        while not done.wait(_INTERVAL):
            for follower in followers:
                follower.pass_on()

    thread = threading.Thread(target=follow, name='hadrosaur-echo', daemon=True)
    start_without_signals(thread)
    try:
        yield
    finally:
        done.set()
        thread.join()
        for follower in followers:
            follower.pass_on()
        for _, close in sinks:
            close()


def needs_streams() -> bool:
    """Whether the echo goes through a stream of the program that may end in descriptor 1 or 2."""
    return not all(map(_is_file, _standing()))


def _standing() -> list[object]:
    """What stands in sys.stdout and sys.stderr for the caller."""
    return [capture.beneath(stream) for stream in (sys.stdout, sys.stderr)]


def _is_file(stream: object) -> bool:
    """Whether a stream is a file; a notebook's stream has a descriptor too: that of the server's terminal."""
    try:
        return isinstance(stream, io.TextIOWrapper) and stream.fileno() >= 0
    except (OSError, ValueError):  # in memory, closed, or detached
        return False


class _Follower:
    def __init__(self, path: str, write: Callable[[bytes], None]) -> None:
        self._path = path
        self._write = write
        self._offset = self._size()

    def _size(self) -> int:
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0

    def pass_on(self) -> None:
        if self._size() < self._offset:
            self._offset = 0  # emptied: a new run has begun
        with contextlib.suppress(OSError), open(self._path, 'rb') as log:
            log.seek(self._offset)
            while data := log.read(1 << 16):
                self._offset += len(data)
                self._write(data)


def _sink(stream: object) -> tuple[Callable[[bytes], None], Callable[[], None]]:
    if _is_file(stream):
        fd = os.dup(stream.fileno())  # type: ignore[attr-defined]
        return (lambda data: _write_all(fd, data), lambda: os.close(fd))
    decoder = codecs.getincrementaldecoder('utf-8')('replace')
    return (lambda data: _write_text(stream, decoder.decode(data)), lambda: None)


def _write_text(stream: object, text: str) -> None:
    with contextlib.suppress(Exception):  # anything may stand there; the log has it all the same
        stream.write(text)  # type: ignore[attr-defined]
        stream.flush()  # type: ignore[attr-defined]


def _write_all(fd: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]
