-- A tenant's jails, and its files, belong to the host user of this number.
CREATE TABLE host_ids (
    tenant TEXT   NOT NULL PRIMARY KEY,
    number BIGINT NOT NULL UNIQUE
);

-- A sealed tree: it is never written to again. What it changes, it changes over its parent.
CREATE TABLE layers (
    id        TEXT   NOT NULL PRIMARY KEY,
    tenant    TEXT   NOT NULL,
    -- The directory. Another one than at first when a chain was squashed into it; then no parent.
    tree      TEXT   NOT NULL UNIQUE,
    parent    TEXT   REFERENCES layers (id),
    sealed_at BIGINT NOT NULL,
    -- Of the manifest; null until it is written.
    manifest  BLOB,
    -- Of all that is seen through it, and of what is its own.
    bytes     BIGINT,
    files     BIGINT,
    own_bytes BIGINT,
    -- What is not kept (JSON): sockets and the like.
    left_out  TEXT
);
CREATE INDEX layers_by_parent ON layers (parent);
CREATE INDEX layers_by_tenant ON layers (tenant);
CREATE INDEX layers_without_manifest ON layers (id) WHERE manifest IS NULL;

CREATE TABLE workspaces (
    id            TEXT   NOT NULL PRIMARY KEY,
    tenant        TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    deleted_at    BIGINT,
    -- The tree that is written to, over its base.
    upper         TEXT   NOT NULL UNIQUE,
    base          TEXT   REFERENCES layers (id),
    -- Of the disk that is written to, as last measured: only where there is a quota.
    upper_bytes   BIGINT NOT NULL DEFAULT 0,
    config        TEXT   NOT NULL,
    git_repo      TEXT,
    git_ref       TEXT,
    label         TEXT   NOT NULL,
    domains       TEXT   NOT NULL,
    -- The end of the last command, or its start while it runs.
    last_exec_at  BIGINT,
    paused_at     BIGINT,
    auto_snapshot TEXT
);
CREATE INDEX workspaces_by_tenant ON workspaces (tenant, created_at);
CREATE INDEX workspaces_by_base ON workspaces (base);

-- One live workspace a name.
CREATE TABLE domains (
    domain    TEXT NOT NULL PRIMARY KEY,
    workspace TEXT NOT NULL REFERENCES workspaces (id) ON DELETE CASCADE,
    target    TEXT NOT NULL
);

CREATE TABLE snapshots (
    id         TEXT   NOT NULL PRIMARY KEY,
    tenant     TEXT   NOT NULL,
    workspace  TEXT,
    name       TEXT,
    created_at BIGINT NOT NULL,
    layer      TEXT   NOT NULL REFERENCES layers (id)
);
CREATE INDEX snapshots_by_tenant ON snapshots (tenant, created_at);
CREATE INDEX snapshots_by_workspace ON snapshots (workspace, created_at);
CREATE INDEX snapshots_by_layer ON snapshots (layer);

CREATE TABLE api_keys (
    id           TEXT   NOT NULL PRIMARY KEY,
    -- A keyed hash: the key itself is shown once and kept nowhere.
    hash         BLOB   NOT NULL UNIQUE,
    tenant       TEXT   NOT NULL,
    role         TEXT   NOT NULL,
    label        TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    revoked_at   BIGINT,
    last_used_at BIGINT
);
