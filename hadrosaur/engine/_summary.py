"""The state of a batch in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..records import Counts


def in_words(counts: Counts, interrupted: int, length: int | None) -> str:
    """Describe what is completed, failed, interrupted and not started.

    Args:
        counts: The counts; interrupted resources are among the errors.
        interrupted: Number of interrupted ones.
        length: Number of resources requested; None if unknown.
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
