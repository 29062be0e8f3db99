-- Accounts, how nodes join, and everything the coordinator knows about nodes.
-- Instants are milliseconds since 1970 (UTC); identifiers are UUIDs as text; money is micro-USD; secrets are SHA-256 only.

CREATE TABLE accounts (
    account_id      TEXT    NOT NULL PRIMARY KEY,
    name            TEXT    NOT NULL,
    api_key_sha256  BLOB    NOT NULL UNIQUE,
    created_at      INTEGER NOT NULL
) STRICT;

CREATE TABLE join_tokens (
    token_sha256    BLOB    NOT NULL PRIMARY KEY,
    account_id      TEXT    NOT NULL REFERENCES accounts,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    used_by         BLOB,   -- public key of the node it enrolled
    used_at         INTEGER
) STRICT;

CREATE TABLE nodes (
    node_id                 TEXT    NOT NULL PRIMARY KEY,
    account_id              TEXT    NOT NULL REFERENCES accounts, -- the owner
    public_key              BLOB    NOT NULL UNIQUE,
    name                    TEXT    NOT NULL,
    agent_version           TEXT    NOT NULL,
    enrolled_at             INTEGER NOT NULL,
    -- version of what the node should run; counts up in the transaction that changes it
    assignment_generation   INTEGER NOT NULL DEFAULT 0,
    inventory               TEXT,   -- wire::node::Inventory as signed
    inventory_at            INTEGER,
    architecture            TEXT,   -- of the inventory, for matching
    offer_cpu_millis        INTEGER,
    offer_memory_bytes      INTEGER,
    offer_disk_bytes        INTEGER,
    offer_gpus              INTEGER,
    offer_price_min         INTEGER,
    benchmark               TEXT,   -- wire::bench::BenchmarkReport as signed
    benchmarked_at          INTEGER,
    score                   INTEGER,
    -- the newest heartbeat, flushed in batches
    state                   TEXT    NOT NULL DEFAULT 'enrolling',
    state_reason            TEXT,
    boot_id                 TEXT,
    heartbeat_sequence      INTEGER NOT NULL DEFAULT 0,
    seen_at                 INTEGER,
    leased_at               INTEGER -- when it last got a lease, for "least recently used"
) STRICT;

CREATE INDEX nodes_by_account ON nodes (account_id);

-- Device-code enrolments. A join token needs none: it approves itself.
CREATE TABLE enrollments (
    enrollment_id   TEXT    NOT NULL PRIMARY KEY,
    public_key      BLOB    NOT NULL,
    name            TEXT    NOT NULL,
    agent_version   TEXT    NOT NULL,
    user_code       TEXT    NOT NULL UNIQUE, -- eight letters, no dash
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    status          TEXT    NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'approved', 'denied')),
    account_id      TEXT    REFERENCES accounts,
    node_id         TEXT    REFERENCES nodes,
    decided_at      INTEGER
) STRICT;

CREATE INDEX enrollments_by_key ON enrollments (public_key, created_at);
CREATE INDEX enrollments_by_expiry ON enrollments (expires_at);

CREATE TABLE sessions (
    token_sha256    BLOB    NOT NULL PRIMARY KEY,
    node_id         TEXT    NOT NULL REFERENCES nodes,
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL
) STRICT;

CREATE INDEX sessions_by_node ON sessions (node_id);
CREATE INDEX sessions_by_expiry ON sessions (expires_at);

-- Nonces given out for sessions; a row is deleted when it is accepted, so none is accepted twice.
CREATE TABLE session_nonces (
    nonce           BLOB    NOT NULL PRIMARY KEY,
    node_id         TEXT    NOT NULL REFERENCES nodes,
    expires_at      INTEGER NOT NULL
) STRICT;

CREATE INDEX session_nonces_by_expiry ON session_nonces (expires_at);
CREATE INDEX session_nonces_by_node ON session_nonces (node_id);

-- Nonces of signed reports that were accepted; kept for longer than a report's time may be off.
CREATE TABLE report_nonces (
    node_id         TEXT    NOT NULL REFERENCES nodes,
    nonce           BLOB    NOT NULL,
    expires_at      INTEGER NOT NULL,
    PRIMARY KEY (node_id, nonce)
) STRICT;

CREATE INDEX report_nonces_by_expiry ON report_nonces (expires_at);
