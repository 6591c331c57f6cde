-- The index of revision 0006_provenance, as sqlite3's .dump gives it, with the mark that .dump leaves out.
PRAGMA application_id = 1751413363;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0006_provenance');
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
    history       TEXT,           -- earlier attempts, as a JSON list; the view attempts lists them
    provenance    TEXT,           -- the note on its program, .hadrosaur/provenance/<this>.json
    path          TEXT,           -- the resource's directory, relative to the base directory
    session       TEXT,           -- of a pending one: the process that asked, as in .hadrosaur/sessions
    changed       TEXT NOT NULL,  -- when this row was last written
    seen_mtime_ns INTEGER,        -- when status.json was last seen to be written
    CONSTRAINT resources_key PRIMARY KEY (collection, ident),
    CONSTRAINT resources_status_is_known CHECK (status IN ('pending', 'completed', 'error')),
    CONSTRAINT resources_phase_is_of_pending
        CHECK (phase IS NULL OR (status = 'pending' AND phase IN ('queued', 'running')))
);
INSERT INTO "resources" VALUES('coll','one','completed',NULL,'{"n":1}','b2:984530e49acf879ea2a3b7c3062fca65','{"ident": "one", "n": 1}',1,'2026-11-28T19:02:20.498795Z','2026-11-28T19:02:20.581549Z','2026-11-28T19:02:20.584439Z',0.002578,NULL,NULL,NULL,NULL,'host',27459,0.002597,25329664,NULL,NULL,'e6c582d0d63ccbda','coll/one',NULL,'2026-11-28T19:02:20.584725Z',1795892540584569773);
INSERT INTO "resources" VALUES('coll','two','completed',NULL,'{"n":1}','b2:984530e49acf879ea2a3b7c3062fca65','{"ident": "two", "n": 1}',2,'2026-11-28T19:02:20.604925Z','2026-11-28T19:02:20.610667Z','2026-11-28T19:02:20.624811Z',0.000204,NULL,NULL,NULL,NULL,'host',27459,0.000218,NULL,NULL,'[{"attempt": 1, "status": "completed", "started_at": "2026-11-28T19:02:20.594028Z", "finished_at": "2026-11-28T19:02:20.594451Z", "error_type": null, "error": null, "error_group": null, "args_hash": "b2:984530e49acf879ea2a3b7c3062fca65", "version": null, "host": "host"}]','e6c582d0d63ccbda','coll/two',NULL,'2026-11-28T19:02:20.628339Z',1795892540624923238);
INSERT INTO "resources" VALUES('coll','bad','error',NULL,'{"n":1}','b2:984530e49acf879ea2a3b7c3062fca65',NULL,1,'2026-11-28T19:02:20.594961Z','2026-11-28T19:02:20.595229Z','2026-11-28T19:02:20.595499Z',0.000102,'ValueError','["Exception"]','number 42 is bad','f1:e6ada06d75a5baba','host',27459,0.00011,NULL,NULL,NULL,'e6c582d0d63ccbda','coll/bad',NULL,'2026-11-28T19:02:20.604514Z',1795892540603088649);
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
    WHERE started_at IS NOT NULL;
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
