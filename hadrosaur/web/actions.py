"""What may be done from the page, where it was given the functions: retry, recompute, cancel, remove."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Any

from ..errors import HadrosaurError
from ..sanitize import printable
from .addresses import address
from .asking import NotUnderstood

if TYPE_CHECKING:
    from ..project import Project

VERBS = {
    'retry': 'Compute what failed again',
    'recompute': 'Compute it again, though it is there',
    'cancel': 'Stop it',
    'remove': 'Delete it, with its folder',
}


class Refused(HadrosaurError):
    """It may not be done."""


class Actions:
    """Does what was confirmed, through a Project that knows the functions; it computes behind the page."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._orders: queue.SimpleQueue[tuple[str, list[str], bool] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._guard = threading.Lock()
        self._is_closed = False
        self.trouble = ''  # why what was asked for last could not be begun

    def plan(self, asked: dict[str, str]) -> dict[str, Any]:
        """What would be done, for who has to confirm it. Raises ValueError, UnknownCollection."""
        verb, name = asked.get('verb', ''), asked.get('collection', '')
        if verb not in VERBS:
            raise NotUnderstood(f'there is nothing called {verb!r} to do')
        idents = self._idents(verb, asked)
        kept = {key: asked[key] for key in ('verb', 'collection', 'ident', 'group') if asked.get(key)}
        back = address('c', name, 'r', asked['ident']) if asked.get('ident') else address('c', name)
        return {'what': VERBS[verb], 'verb': verb, 'collection': name, 'idents': idents[:10],
                'number': len(idents), 'form': kept, 'back': back}  # fmt: skip

    def do(self, form: dict[str, str]) -> str:
        """Do it; the address of where that is seen."""
        plan = self.plan(form)
        verb, name, idents = plan['verb'], plan['collection'], self._idents(form['verb'], form)
        if verb == 'cancel':
            for ident in idents:
                self._project.cancel(name, ident)
        elif verb == 'remove':
            for ident in idents:
                self._project.remove(name, ident)
            return address('c', name)
        else:
            self._project._registry.get(name)  # its function is known, or that is said
            self._orders.put((name, idents, verb == 'recompute'))
            self._start()
        return str(plan['back'])

    def _idents(self, verb: str, asked: dict[str, str]) -> list[str]:
        """The resources that are meant: one, or the failures of a cause."""
        name = asked.get('collection', '')
        if ident := asked.get('ident'):
            return [self._project.get(name, ident).ident]
        if verb != 'retry':
            raise NotUnderstood('name the resource')
        return self._project.query(name, status='error', error_group=asked.get('group') or None).idents()

    # --- behind the page ---------------------------------------------------------------------------

    def _start(self) -> None:
        with self._guard:
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._work, name='hadrosaur-page', daemon=True)
                self._thread.start()

    def _work(self) -> None:
        while (job := self._orders.get()) is not None:
            try:
                self._compute(*job)
            except Exception as error:  # whatever it is: the page says it, and goes on
                self.trouble = printable(f'{job[0]} cannot be computed: {type(error).__name__}: {error}')

    def _compute(self, name: str, idents: list[str], recompute: bool) -> None:
        self.trouble = ''
        batch = self._project.fetch_many(name, idents, recompute=recompute)
        for _ in batch:
            if self._is_closed:
                batch.cancel()

    def close(self) -> None:
        """Stop what was begun from here."""
        self._is_closed = True
        self._orders.put(None)
        self._project.close(cancel=True)
        if self._thread is not None:
            self._thread.join()
