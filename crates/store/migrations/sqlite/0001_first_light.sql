-- Times are microseconds since 1970, UTC. Lists and objects are JSON text.

CREATE TABLE credentials (
    tenant      TEXT   NOT NULL,
    service     TEXT   NOT NULL,
    sealed      BLOB   NOT NULL,
    fingerprint TEXT   NOT NULL,
    added_at    BIGINT NOT NULL,
    updated_at  BIGINT NOT NULL,
    PRIMARY KEY (tenant, service)
);

CREATE TABLE sessions (
    id         TEXT   NOT NULL PRIMARY KEY,
    tenant     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT,
    services   TEXT   NOT NULL,
    sealed_env BLOB   NOT NULL
);
CREATE INDEX sessions_by_tenant ON sessions (tenant, created_at);

CREATE TABLE tokens (
    hash       BLOB   NOT NULL PRIMARY KEY,
    session    TEXT   NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    -- Whose key is used: the session's tenant, or `dev` for an admin who fell back on it.
    key_tenant TEXT   NOT NULL,
    service    TEXT   NOT NULL,
    -- Null is no restriction; a list is never empty.
    scopes     TEXT
);
CREATE INDEX tokens_by_session ON tokens (session);

CREATE TABLE jails (
    id                   INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant               TEXT   NOT NULL,
    kind                 TEXT   NOT NULL,
    started_at           BIGINT NOT NULL,
    ended_at             BIGINT,
    status               TEXT   NOT NULL,
    session              TEXT,
    label                TEXT   NOT NULL,
    parent               BIGINT,
    config               TEXT   NOT NULL,
    exit_code            BIGINT,
    duration_ms          BIGINT,
    timed_out            BIGINT,
    oom_killed           BIGINT,
    memory_peak_bytes    BIGINT,
    memory_current_bytes BIGINT,
    cpu_usage_usec       BIGINT,
    io_read_bytes        BIGINT,
    io_write_bytes       BIGINT,
    pids_current         BIGINT,
    stdout               TEXT,
    stderr               TEXT,
    error                TEXT,
    enforced             TEXT
);
CREATE INDEX jails_by_tenant ON jails (tenant, id);
CREATE INDEX jails_running ON jails (status) WHERE status = 'running';

CREATE TABLE audit (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    at            BIGINT NOT NULL,
    -- Null for a request that named no known token.
    tenant        TEXT,
    session       TEXT   NOT NULL,
    service       TEXT   NOT NULL,
    method        TEXT   NOT NULL,
    path          TEXT   NOT NULL,
    status        BIGINT NOT NULL,
    reject_reason TEXT,
    upstream_ms   BIGINT,
    -- Hash of this row and of the chain value before it.
    chain         BLOB   NOT NULL
);
CREATE INDEX audit_by_tenant ON audit (tenant, id);

-- What a forwarded exchange carried, known only when its stream has ended.
CREATE TABLE audit_transfers (
    audit          BIGINT NOT NULL PRIMARY KEY REFERENCES audit (id) ON DELETE CASCADE,
    request_bytes  BIGINT NOT NULL,
    response_bytes BIGINT NOT NULL,
    ended_at       BIGINT NOT NULL
);
