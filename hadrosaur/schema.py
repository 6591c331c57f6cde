"""The index as a table: what it is called, what it holds, and the revision this release speaks.

Only text can carry comments: SQLite keeps the words of a CREATE TABLE and shows them to whoever types
``.schema``, while ``Column(comment=…)`` is dropped. The same as a SQLAlchemy table, from which queries are
compiled and which Alembic compares, stands in tables.py, so that a program which only computes need not
load SQLAlchemy, a quarter of a second. A test compares the two, column by column, check by check, index by
index.

Every index costs at each write, so only one holds every row; the others are partial, and a resource that
succeeds enters and leaves one of them. Measured on two cores, SQLite 3.40, 4 KiB pages, one resource
queued and finished in two transactions: 51 µs without any index, and some 15 µs more for each that holds
every row. The one by time alone holds what is finished: entered once, at its end, for 3 µs. Counting
needs no index of its own (see index/_summary.py): one by status would cost 18 µs.

The table keeps its rowid. WITHOUT ROWID, 500 000 rows in random job and groups of 64, costs 87 µs
instead of 51 and 284 MB instead of 226, because whole rows then stand in the tree that is searched; it
gains nothing on reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .columns import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable

REVISIONS = ('0001_resources', '0002_fewer_indexes', '0003_results_and_bases', '0004_order', '0005_history',
             '0006_provenance', '0007_uses')  # fmt: skip
"""Every revision there ever was, oldest first; a stored one that is not here is from a newer release."""

HEAD = REVISIONS[-1]
"""The revision whose table stands below."""

APPLICATION_ID = 0x68647273
"""Marks the file as ours (PRAGMA application_id): the letters 'hdrs' as a big-endian 32-bit number,
below 2**31 because SQLite keeps it signed, and not in SQLite's list of assigned ids (magic.txt)."""

_COLUMNS = '\n'.join(
    f'    {column.name:13} {column.type + " NOT NULL" * column.is_required + ",":15} -- {column.meaning}'
    for column in COLUMNS
)

TABLE = f"""\
CREATE TABLE resources (
    -- One row for each resource. The directories are the truth: all of this can be made anew from them
    -- with `hadrosaur reindex`. Times are ISO-8601 in UTC; SQLite's date functions take them.
{_COLUMNS}
    CONSTRAINT resources_key PRIMARY KEY (collection, ident),
    CONSTRAINT resources_status_is_known CHECK (status IN ('pending', 'completed', 'error')),
    CONSTRAINT resources_phase_is_of_pending
        CHECK (phase IS NULL OR (status = 'pending' AND phase IN ('queued', 'running')))
)"""

USES = """\
CREATE TABLE uses (
    -- One row for each resource that the function of another fetched. Triggers fill it from resources.uses.
    collection      TEXT NOT NULL,  -- the resource
    ident           TEXT NOT NULL,
    used_collection TEXT NOT NULL,  -- and what its function fetched
    used_ident      TEXT NOT NULL,
    run             TEXT NOT NULL,  -- id of the run that it was given
    CONSTRAINT uses_key PRIMARY KEY (collection, ident, used_collection, used_ident, run)
) WITHOUT ROWID"""

_FILL = """\
    INSERT OR IGNORE INTO uses
    SELECT NEW.collection, NEW.ident, json_extract(value, '$[0]'), json_extract(value, '$[1]'),
           json_extract(value, '$[2]')
    FROM json_each(NEW.uses) WHERE instr(value, '\\u0000') = 0;"""  # SQLite's JSON ends a text at a NUL

TRIGGERS = {
    'uses_of_new': f"""\
CREATE TRIGGER uses_of_new AFTER INSERT ON resources WHEN NEW.uses IS NOT NULL
BEGIN
{_FILL}
END""",
    'uses_of_changed': f"""\
CREATE TRIGGER uses_of_changed AFTER UPDATE OF uses ON resources WHEN OLD.uses IS NOT NEW.uses
BEGIN
    DELETE FROM uses WHERE collection = OLD.collection AND ident = OLD.ident;
{_FILL}
END""",
    'uses_of_removed': """\
CREATE TRIGGER uses_of_removed AFTER DELETE ON resources WHEN OLD.uses IS NOT NULL
BEGIN
    DELETE FROM uses WHERE collection = OLD.collection AND ident = OLD.ident;
END""",
}
"""So whoever writes a row writes what it used in the same transaction."""

INDEXES = (
    # The last ones of a collection, in the order of a query read backwards; the status, for those who ask
    # for one, without a look at the rows.
    'CREATE INDEX resources_of_collection ON resources (collection, finished_at, ident DESC, status)',
    # The last ones of everything, in the same order.
    'CREATE INDEX resources_by_finish ON resources (finished_at, collection DESC, ident DESC, status)'
    ' WHERE finished_at IS NOT NULL',
    # How many are pending, and what dead sessions left. SQLite prefers an index to a larger one only if
    # it holds every column in question, the status too, though it is the same in all its rows.
    "CREATE INDEX resources_pending ON resources (collection, session, status) WHERE status = 'pending'",
    # The last failures, how many there are, and those of a collection.
    "CREATE INDEX resources_failed ON resources (finished_at) WHERE status = 'error'",
    'CREATE INDEX resources_failed_of_collection ON resources (collection, finished_at, ident DESC, status)'
    " WHERE status = 'error'",
    # `IS NOT NULL` follows from `error_type = ?`, so that SQLite uses these with bound values too.
    'CREATE INDEX resources_by_error_type ON resources (error_type, finished_at)'
    ' WHERE error_type IS NOT NULL',
    'CREATE INDEX resources_by_error_group ON resources (error_group, finished_at)'
    ' WHERE error_group IS NOT NULL',
    # What was computed from files.
    'CREATE INDEX resources_with_inputs ON resources (collection) WHERE inputs IS NOT NULL',
    # What fetched a resource.
    'CREATE INDEX uses_by_used ON uses (used_collection, used_ident)',
)

VIEWS = {
    'errors': """\
CREATE VIEW errors AS
    -- Failures, newest first.
    SELECT collection, ident, error_type, error, error_group, attempt, finished_at, path
    FROM resources
    WHERE status = 'error'
    ORDER BY finished_at DESC""",
    'error_groups': """\
CREATE VIEW error_groups AS
    -- Failures that share a cause, most frequent first; `example` is the message of one of them.
    SELECT coalesce(error_group, error_type) AS error_group,
           count(*) AS count,
           error_type,
           error AS example,
           collection,
           min(finished_at) AS first,
           max(finished_at) AS last
    FROM resources
    WHERE status = 'error'
    GROUP BY collection, coalesce(error_group, error_type)
    ORDER BY count(*) DESC""",
    'status_counts': """\
CREATE VIEW status_counts AS
    WITH counted AS (
        SELECT collection,
               count(CASE WHEN status = 'completed' THEN 1 END) AS completed,
               count(CASE WHEN status = 'error' THEN 1 END) AS error,
               count(CASE WHEN status = 'pending' THEN 1 END) AS pending
        FROM resources
        GROUP BY collection
    )
    SELECT collection, 'completed' AS status, completed AS count FROM counted WHERE completed > 0
    UNION ALL
    SELECT collection, 'error', error FROM counted WHERE error > 0
    UNION ALL
    SELECT collection, 'pending', pending FROM counted WHERE pending > 0""",
    'attempts': """\
CREATE VIEW attempts AS
    -- Each run that a resource had, as far as its record tells: the present one, and up to 20 before it.
    SELECT collection, ident,
           json_extract(line.value, '$.attempt') AS attempt,
           json_extract(line.value, '$.status') AS status,
           json_extract(line.value, '$.started_at') AS started_at,
           json_extract(line.value, '$.finished_at') AS finished_at,
           json_extract(line.value, '$.error_type') AS error_type,
           json_extract(line.value, '$.error') AS error,
           json_extract(line.value, '$.error_group') AS error_group,
           json_extract(line.value, '$.args_hash') AS args_hash,
           json_extract(line.value, '$.version') AS version,
           json_extract(line.value, '$.host') AS host
    FROM resources, json_each(resources.history) AS line
    UNION ALL
    SELECT collection, ident, attempt, status, started_at, finished_at, error_type, error, error_group,
           args_hash, version, host
    FROM resources
    WHERE started_at IS NOT NULL""",
    'dependencies': """\
CREATE VIEW dependencies AS
    -- What each resource fetched, and whether the run that it was given is still the present one.
    SELECT u.collection, u.ident, u.used_collection, u.used_ident, u.run, r.run AS present_run,
           CASE WHEN r.ident IS NULL THEN 'gone'
                WHEN r.status = 'pending' THEN 'pending'
                WHEN coalesce(r.run, '') <> u.run THEN 'changed'
                ELSE 'current' END AS state
    FROM uses AS u
    LEFT JOIN resources AS r ON r.collection = u.used_collection AND r.ident = u.used_ident""",
    'running': """\
CREATE VIEW running AS
    -- What is being computed, longest first.
    SELECT collection, ident, started_at,
           round((julianday('now') - julianday(started_at)) * 86400, 1) AS seconds,
           attempt, host, pid, session, path
    FROM resources
    WHERE status = 'pending' AND phase = 'running'
    ORDER BY started_at""",
    'slowest': """\
CREATE VIEW slowest AS
    SELECT collection, ident, duration, cpu_seconds, max_rss, status, finished_at, path
    FROM resources
    WHERE duration IS NOT NULL
    ORDER BY duration DESC""",
}

VERSION_TABLE = """\
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
)"""


def create(execute: Callable[[str], object]) -> None:
    """Make everything in an empty database and stamp it with `HEAD`.

    The caller opens and commits the transaction.
    """
    execute(f'PRAGMA application_id = {APPLICATION_ID}')
    for statement in (TABLE, USES, *INDEXES, *TRIGGERS.values(), *VIEWS.values(), VERSION_TABLE):
        execute(statement)
    execute(f"INSERT INTO alembic_version VALUES ('{HEAD}')")
