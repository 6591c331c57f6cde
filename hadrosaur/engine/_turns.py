"""Back-pressure for collections with limits: their jobs wait for their turn outside of the executor."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from .. import limits

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from .dispatcher import Submission


class Turns:
    """Hands out submissions, a limited number of a collection at a time.

    The caller holds the dispatcher's lock.

    Args:
        workers: Number of concurrent runs of the executor.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._held: dict[str, deque[Submission]] = {}
        self._out: Counter[str] = Counter()

    def hold(self, submissions: list[Submission]) -> None:
        """Add submissions of one collection that wait for their turn."""
        self._held.setdefault(submissions[0].collection.name, deque()).extend(submissions)

    def __iter__(self) -> Iterator[Submission]:
        return (submission for held in self._held.values() for submission in held)

    def next(self) -> Submission | None:
        """Return a submission whose turn it is."""
        for name, held in self._held.items():
            if held and self._out[name] < (held[0].collection.spec.at_once or self._workers):
                return self._sent(held.popleft())
        return None

    def _sent(self, submission: Submission) -> Submission:
        if not submission.has_turn:
            submission.has_turn = True
            self._out[submission.collection.name] += 1
        return submission

    def put_off(self, submission: Submission, later: float) -> float:
        """Note that it may not start yet; returns the seconds until the next try."""
        self._sent(submission)  # a retry has come by itself
        submission.put_off += 1
        return limits.pause(later, submission.put_off)

    def free(self, submission: Submission) -> None:
        """Note that it has run, or will not."""
        submission.put_off = 0
        if submission.has_turn:
            submission.has_turn = False
            self._out[submission.collection.name] -= 1

    def drop(self, runs: Container[str]) -> list[Submission]:
        """Remove those that have not had their turn."""
        dropped = [submission for submission in self if submission.job.run in runs]
        for name, held in self._held.items():
            self._held[name] = deque(submission for submission in held if submission.job.run not in runs)
        return dropped
