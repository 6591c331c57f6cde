"""Run ``async def`` functions to completion, each in its own event loop."""

from __future__ import annotations

import contextvars
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Coroutine


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine and return its result; its traceback begins in the coroutine.

    It runs in the caller's context and thread, as with `asyncio.run`; in another thread if an event loop is
    already running in this one, as in a notebook.
    """
    import asyncio

    value, error = _run_in_thread(coroutine) if _is_loop_running() else asyncio.run(_ended(coroutine))
    if error is not None:
        raise error
    return value


def _is_loop_running() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _ended(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    """Return (value, error), without the frames that asyncio adds to the traceback."""
    import asyncio

    try:
        return await coroutine, None
    except asyncio.CancelledError:  # Ctrl-C, of which asyncio makes a KeyboardInterrupt
        raise
    except BaseException as error:
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next
        return None, error


def _run_in_thread(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    import asyncio

    ended: list[tuple[Any, BaseException | None]] = []
    begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any] | None]] = []

    async def tell() -> None:
        begun.append((asyncio.get_running_loop(), asyncio.current_task()))
        ended.append(await _ended(coroutine))

    def work() -> None:
        try:
            asyncio.run(tell())
        except BaseException as error:
            ended.append((None, error))

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name='hadrosaur-loop')
    thread.start()
    try:
        thread.join()
    except BaseException:  # Ctrl-C
        for loop, task in begun:
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    return ended[0]
