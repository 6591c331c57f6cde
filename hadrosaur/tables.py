"""The index as a SQLAlchemy Core table: what queries are compiled from, and what Alembic compares.

The same as the text in schema.py, which makes it; a test compares the two.
"""

from __future__ import annotations

import re

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)

from .columns import COLUMNS
from .schema import INDEXES

metadata = MetaData()

_TYPES = {'TEXT': Text, 'INTEGER': Integer, 'FLOAT': Float}


def _indexes(table: str) -> list[Index]:
    """The indexes of a table, from their text."""
    found = (
        re.fullmatch(rf'CREATE INDEX (\w+) ON {table} \((.+?)\)(?: WHERE (.+))?', each) for each in INDEXES
    )
    return [
        Index(
            match[1],
            *(text(column) if ' ' in column else column for column in match[2].split(', ')),
            sqlite_where=text(match[3]) if match[3] else None,
        )
        for match in found
        if match
    ]


resources = Table(
    'resources',
    metadata,
    *(Column(column.name, _TYPES[column.type], nullable=not column.is_required) for column in COLUMNS),
    PrimaryKeyConstraint('collection', 'ident', name='resources_key'),
    CheckConstraint("status IN ('pending', 'completed', 'error')", name='resources_status_is_known'),
    CheckConstraint(
        "phase IS NULL OR (status = 'pending' AND phase IN ('queued', 'running'))",
        name='resources_phase_is_of_pending',
    ),
    *_indexes('resources'),
)


uses = Table(
    'uses',
    metadata,
    Column('collection', Text, nullable=False),
    Column('ident', Text, nullable=False),
    Column('used_collection', Text, nullable=False),
    Column('used_ident', Text, nullable=False),
    Column('run', Text, nullable=False),
    PrimaryKeyConstraint('collection', 'ident', 'used_collection', 'used_ident', 'run', name='uses_key'),
    *_indexes('uses'),
    sqlite_with_rowid=False,
)


def is_compared(_item: object, name: str | None, kind: str, *_more: object) -> bool:
    """For Alembic's ``include_object``: SQLite does not tell it which columns of an index go downwards."""
    return kind != 'index' or not any(f' {name} ' in index and ' DESC' in index for index in INDEXES)
