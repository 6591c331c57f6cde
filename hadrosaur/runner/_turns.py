"""Flights of collections that may not run all at once: they wait outside of the executor for their turn."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from .. import limits

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from .dispatcher import Flight


class Turns:
    """Hands out flights, so many of a collection at a time. Whoever calls holds the dispatcher's lock.

    Args:
        workers: How many runs the executor has at a time.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._held: dict[str, deque[Flight]] = {}
        self._out: Counter[str] = Counter()

    def hold(self, flights: list[Flight]) -> None:
        """Take flights of one collection that wait for their turn."""
        self._held.setdefault(flights[0].collection.name, deque()).extend(flights)

    def __iter__(self) -> Iterator[Flight]:
        return (flight for held in self._held.values() for flight in held)

    def next(self) -> Flight | None:
        """One whose turn it is."""
        for name, held in self._held.items():
            if held and self._out[name] < (held[0].collection.task.at_once or self._workers):
                return self._sent(held.popleft())
        return None

    def _sent(self, flight: Flight) -> Flight:
        if not flight.has_turn:
            flight.has_turn = True
            self._out[flight.collection.name] += 1
        return flight

    def put_off(self, flight: Flight, later: float) -> float:
        """Others have all places, or it is too soon; returns the seconds until it is to try again."""
        self._sent(flight)  # a retry has come by itself
        flight.put_off += 1
        return limits.pause(later, flight.put_off)

    def free(self, flight: Flight) -> None:
        """It has run, or will not."""
        flight.put_off = 0
        if flight.has_turn:
            flight.has_turn = False
            self._out[flight.collection.name] -= 1

    def drop(self, runs: Container[str]) -> list[Flight]:
        """Take back those of them that have not had their turn."""
        dropped = [flight for flight in self if flight.order.run in runs]
        for name, held in self._held.items():
            self._held[name] = deque(flight for flight in held if flight.order.run not in runs)
        return dropped
