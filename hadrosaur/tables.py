"""The index as a SQLAlchemy Core table: what queries are compiled from, and what Alembic compares.

The same as the text in schema.py, which makes it; a test compares the two.
"""

from __future__ import annotations

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

from .schema import INDEXES

metadata = MetaData()

resources = Table(
    'resources',
    metadata,
    Column('collection', Text, nullable=False),
    Column('ident', Text, nullable=False),
    Column('status', Text, nullable=False),
    Column('phase', Text),
    Column('args', Text),
    Column('args_hash', Text),
    Column('result', Text),
    Column('attempt', Integer),
    Column('queued_at', Text),
    Column('started_at', Text),
    Column('finished_at', Text),
    Column('duration', Float),
    Column('error_type', Text),
    Column('error_bases', Text),
    Column('error', Text),
    Column('error_group', Text),
    Column('host', Text),
    Column('pid', Integer),
    Column('cpu_seconds', Float),
    Column('max_rss', Integer),
    Column('version', Text),
    Column('history', Text),
    Column('provenance', Text),
    Column('run', Text),
    Column('uses', Text),
    Column('inputs', Text),
    Column('path', Text),
    Column('session', Text),
    Column('changed', Text, nullable=False),
    Column('seen_mtime_ns', Integer),
    PrimaryKeyConstraint('collection', 'ident', name='resources_key'),
    CheckConstraint("status IN ('pending', 'completed', 'error')", name='resources_status_is_known'),
    CheckConstraint(
        "phase IS NULL OR (status = 'pending' AND phase IN ('queued', 'running'))",
        name='resources_phase_is_of_pending',
    ),
    Index('resources_of_collection', 'collection', 'finished_at', text('ident DESC'), 'status'),
    Index(
        'resources_by_finish',
        'finished_at',
        text('collection DESC'),
        text('ident DESC'),
        'status',
        sqlite_where=text('finished_at IS NOT NULL'),
    ),
    Index('resources_pending', 'collection', 'session', 'status', sqlite_where=text("status = 'pending'")),
    Index('resources_failed', 'finished_at', sqlite_where=text("status = 'error'")),
    Index(
        'resources_failed_of_collection',
        'collection',
        'finished_at',
        text('ident DESC'),
        'status',
        sqlite_where=text("status = 'error'"),
    ),
    Index(
        'resources_by_error_type',
        'error_type',
        'finished_at',
        sqlite_where=text('error_type IS NOT NULL'),
    ),
    Index(
        'resources_by_error_group',
        'error_group',
        'finished_at',
        sqlite_where=text('error_group IS NOT NULL'),
    ),
    Index('resources_with_inputs', 'collection', sqlite_where=text('inputs IS NOT NULL')),
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
    Index('uses_by_used', 'used_collection', 'used_ident'),
    sqlite_with_rowid=False,
)


def is_compared(_item: object, name: str | None, kind: str, *_more: object) -> bool:
    """For Alembic's ``include_object``: SQLite does not tell it which columns of an index go downwards."""
    return kind != 'index' or not any(f' {name} ' in index and ' DESC' in index for index in INDEXES)
