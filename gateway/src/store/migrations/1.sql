CREATE TABLE meta (
    key TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Columns are what is searched for; everything is in the record.
CREATE TABLE sandboxes (
    id TEXT NOT NULL PRIMARY KEY,
    -- NULL: none, or free again.
    name TEXT,
    state TEXT NOT NULL,
    token BLOB NOT NULL,
    token_next BLOB,
    record TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX sandboxes_name ON sandboxes (name) WHERE name IS NOT NULL;

CREATE TABLE executions (
    id TEXT NOT NULL PRIMARY KEY,
    sandbox_id TEXT NOT NULL,
    owner_uid INTEGER NOT NULL,
    state TEXT NOT NULL,
    -- NULL: it has not ended.
    end_time_unix_ms INTEGER,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX executions_sandbox ON executions (sandbox_id, id);
CREATE INDEX executions_unfinished ON executions (id) WHERE end_time_unix_ms IS NULL;
CREATE INDEX executions_end ON executions (end_time_unix_ms) WHERE end_time_unix_ms IS NOT NULL;

CREATE TABLE idempotency_keys (
    caller_uid INTEGER NOT NULL,
    key TEXT NOT NULL,
    digest BLOB NOT NULL,
    object_id TEXT NOT NULL,
    create_time_unix_ms INTEGER NOT NULL,
    PRIMARY KEY (caller_uid, key)
) STRICT, WITHOUT ROWID;

-- Only what is under way; a finished one is in the log.
CREATE TABLE operations (
    id TEXT NOT NULL PRIMARY KEY,
    sandbox_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    start_time_unix_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
