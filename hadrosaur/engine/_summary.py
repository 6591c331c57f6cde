"""How a batch stands, in one line: for whoever interrupts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..records import Counts


def in_words(counts: Counts, interrupted: int, length: int | None) -> str:
    """What is completed, failed, interrupted and not begun.

    Args:
        counts: The counts; what was interrupted is among the errors.
        interrupted: How many were.
        length: How many were asked for; None: nobody knows.
    """
    words = [f'{counts.completed} completed']
    if counts.reused:
        words[0] += f' ({counts.reused} of them before)'
    words.append(f'{counts.error - interrupted} failed')
    if interrupted:
        words.append(f'{interrupted} interrupted')
    left = None if length is None else max(0, length - counts.completed - counts.error)
    words.append(f'{left} not begun' if left is not None else 'the rest not begun')
    return ', '.join(words)
