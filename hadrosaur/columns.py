"""The columns of the index: the one list that table, `Entry`, data frames and reindex follow.

To add a column, add a line here, a revision below migrations/versions/, and the dump of that revision.
"""

from __future__ import annotations

from typing import NamedTuple

_TYPES = {'integer': 'INTEGER', 'float': 'FLOAT'}  # of SQLite; all else is TEXT


class Column(NamedTuple):
    """One column of the table ``resources``."""

    name: str
    kind: str  # text, time (ISO-8601 in UTC), JSON (as text), integer or float
    meaning: str  # the comment in the table's CREATE statement
    is_required: bool = False

    @property
    def type(self) -> str:
        """Its type in SQLite."""
        return _TYPES.get(self.kind, 'TEXT')


PUBLIC = (
    Column('collection', 'text', 'name of the collection', is_required=True),
    Column('ident', 'text', 'name of the resource in its collection', is_required=True),
    Column('status', 'text', 'pending, completed or error', is_required=True),
    Column('phase', 'text', 'of a pending one: queued or running'),
    Column('args', 'JSON', 'what the function was given, as a JSON object'),
    Column('args_hash', 'text', 'fingerprint of args'),
    Column('result', 'JSON', 'what the function returned, as JSON, where that is short'),
    Column('attempt', 'integer', 'runs so far, recomputes included'),
    Column('queued_at', 'time', 'when it was asked for'),
    Column('started_at', 'time', 'when the function was called'),
    Column('finished_at', 'time', 'when it was done, whatever came of it'),
    Column('duration', 'float', 'seconds from started_at to finished_at'),
    Column('error_type', 'text', 'class of the exception'),
    Column('error_bases', 'JSON', 'the classes above it, as a JSON list'),
    Column('error', 'text', 'its message, in one line; the traceback is in error.log'),
    Column('error_group', 'text', 'fingerprint of the cause: failures that share it look alike'),
    Column('host', 'text', 'where it ran'),
    Column('pid', 'integer', 'in which process'),
    Column('cpu_seconds', 'float', 'processor time, user and system'),
    Column('max_rss', 'integer', 'most memory in use, in bytes'),
    Column('version', 'text', 'version of the function, where the collection names one'),
    Column('history', 'JSON', 'earlier attempts, as a JSON list; the view attempts lists them'),
    Column('provenance', 'text', 'the note on its program, .hadrosaur/provenance/<this>.json'),
    Column('run', 'text', 'id of the run; empty where its record tells none'),
    Column('uses', 'JSON', 'what its function fetched, as a JSON list; the table uses lists it'),
    Column('inputs', 'JSON', 'files that it was computed from, as a JSON list'),
    Column('path', 'text', "the resource's directory, relative to the base directory"),
)
"""What users see of a row."""

BOOKKEEPING = (
    Column('session', 'text', 'of a pending one: the process that asked, as in .hadrosaur/sessions'),
    Column('changed', 'text', 'when this row was last written', is_required=True),
    Column('seen_mtime_ns', 'integer', 'when status.json was last seen to be written'),
)
"""What the index keeps for itself."""

COLUMNS = (*PUBLIC, *BOOKKEEPING)


def of_kind(kind: str) -> tuple[str, ...]:
    """Return the names of the public columns of a kind."""
    return tuple(column.name for column in PUBLIC if column.kind == kind)
