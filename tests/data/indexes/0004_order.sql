-- The index of revision 0004_order, as sqlite3's .dump gives it, with the mark that .dump leaves out.
PRAGMA application_id = 1751413363;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0004_order');
CREATE TABLE resources (
    -- One row for each resource. The directories are the truth: all of this can be made anew from them
    -- with `hadrosaur reindex`. Times are ISO-8601 in UTC; SQLite's date functions take them.
    collection    TEXT NOT NULL,  -- name of the collection
    ident         TEXT NOT NULL,  -- name of the resource in its collection
    status        TEXT NOT NULL,  -- pending, completed or error
    phase         TEXT,           -- of a pending one: queued or running
    args          TEXT,           -- what the function was given, as a JSON object
    args_hash     TEXT,           -- fingerprint of args
    result        TEXT,           -- what the function returned, as JSON, where that is short
    attempt       INTEGER,        -- runs so far, recomputes included
    queued_at     TEXT,           -- when it was asked for
    started_at    TEXT,           -- when the function was called
    finished_at   TEXT,           -- when it was done, whatever came of it
    duration      FLOAT,          -- seconds from started_at to finished_at
    error_type    TEXT,           -- class of the exception
    error_bases   TEXT,           -- the classes above it, as a JSON list
    error         TEXT,           -- its message, in one line; the traceback is in error.log
    error_group   TEXT,           -- fingerprint of the cause: failures that share it look alike
    host          TEXT,           -- where it ran
    pid           INTEGER,        -- in which process
    cpu_seconds   FLOAT,          -- processor time, user and system
    max_rss       INTEGER,        -- most memory in use, in bytes
    version       TEXT,           -- version of the function, where the collection names one
    path          TEXT,           -- the resource's directory, relative to the base directory
    session       TEXT,           -- of a pending one: the process that asked, as in .hadrosaur/sessions
    changed       TEXT NOT NULL,  -- when this row was last written
    seen_mtime_ns INTEGER,        -- when status.json was last seen to be written
    CONSTRAINT resources_key PRIMARY KEY (collection, ident),
    CONSTRAINT resources_status_is_known CHECK (status IN ('pending', 'completed', 'error')),
    CONSTRAINT resources_phase_is_of_pending
        CHECK (phase IS NULL OR (status = 'pending' AND phase IN ('queued', 'running')))
);
INSERT INTO "resources" VALUES('coll','one','completed',NULL,'{"n":1}','b2:984530e49acf879ea2a3b7c3062fca65','{"ident": "one", "n": 1}',1,'2026-11-28T16:39:43.719293Z','2026-11-28T16:39:50.550367Z','2026-11-28T16:39:50.639735Z',0.041147,NULL,NULL,NULL,NULL,'host',15850,0.00409,45072384,NULL,'coll/one',NULL,'2026-11-28T16:39:50.640533Z',1795883990639098729);
INSERT INTO "resources" VALUES('coll','two','completed',NULL,'{"n":1}','b2:984530e49acf879ea2a3b7c3062fca65','{"ident": "two", "n": 1}',1,'2026-11-28T16:39:50.641545Z','2026-11-28T16:39:50.672301Z','2026-11-28T16:39:50.673296Z',0.000187,NULL,NULL,NULL,NULL,'host',15850,0.0002,NULL,NULL,'coll/two',NULL,'2026-11-28T16:39:50.711773Z',1795883990673534628);
INSERT INTO "resources" VALUES('coll','bad','error',NULL,'{"n":1}','b2:984530e49acf879ea2a3b7c3062fca65',NULL,1,'2026-11-28T16:39:50.712266Z','2026-11-28T16:39:50.712845Z','2026-11-28T16:39:50.749534Z',0.000271,'ValueError','["Exception"]','number 42 is bad','f1:14d91df2994a7a02','host',15850,0.00029,NULL,NULL,'coll/bad',NULL,'2026-11-28T16:39:50.750876Z',1795883990750615774);
CREATE INDEX resources_of_collection ON resources (collection, finished_at, ident DESC, status);
CREATE INDEX resources_by_finish ON resources (finished_at, collection DESC, ident DESC, status) WHERE finished_at IS NOT NULL;
CREATE INDEX resources_pending ON resources (collection, session, status) WHERE status = 'pending';
CREATE INDEX resources_failed ON resources (finished_at) WHERE status = 'error';
CREATE INDEX resources_failed_of_collection ON resources (collection, finished_at, ident DESC, status) WHERE status = 'error';
CREATE INDEX resources_by_error_type ON resources (error_type, finished_at) WHERE error_type IS NOT NULL;
CREATE INDEX resources_by_error_group ON resources (error_group, finished_at) WHERE error_group IS NOT NULL;
CREATE VIEW errors AS
    -- Failures, newest first.
    SELECT collection, ident, error_type, error, error_group, attempt, finished_at, path
    FROM resources
    WHERE status = 'error'
    ORDER BY finished_at DESC;
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
    ORDER BY count(*) DESC;
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
    SELECT collection, 'pending', pending FROM counted WHERE pending > 0;
CREATE VIEW running AS
    -- What is being computed, longest first.
    SELECT collection, ident, started_at,
           round((julianday('now') - julianday(started_at)) * 86400, 1) AS seconds,
           attempt, host, pid, session, path
    FROM resources
    WHERE status = 'pending' AND phase = 'running'
    ORDER BY started_at;
CREATE VIEW slowest AS
    SELECT collection, ident, duration, cpu_seconds, max_rss, status, finished_at, path
    FROM resources
    WHERE duration IS NOT NULL
    ORDER BY duration DESC;
COMMIT;
