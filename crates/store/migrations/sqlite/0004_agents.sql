-- A sandbox agent that lives in a workspace, whether or not it runs at the moment.
CREATE TABLE agents (
    workspace    TEXT   NOT NULL PRIMARY KEY REFERENCES workspaces (id),
    tenant       TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    -- A keyed hash of the token that opens it.
    token_hash   BLOB   NOT NULL UNIQUE,
    session      TEXT,
    -- Whether the session was made for it, and goes with it.
    owns_session BIGINT NOT NULL,
    -- How it is started (JSON).
    settings     TEXT   NOT NULL,
    -- How it last ended by itself (JSON).
    ended        TEXT
);
