-- Jobs, their leases, what nodes report about them, and the ledger.

CREATE TABLE jobs (
    job_id              TEXT    NOT NULL PRIMARY KEY, -- UUIDv7: sorts by submission
    account_id          TEXT    NOT NULL REFERENCES accounts, -- the renter
    spec                TEXT    NOT NULL, -- wire::job::JobSpec; its environment is secret
    -- copied from the spec, for matching
    cpu_millis          INTEGER NOT NULL,
    memory_bytes        INTEGER NOT NULL,
    disk_bytes          INTEGER NOT NULL,
    gpus                INTEGER NOT NULL,
    state               TEXT    NOT NULL,
    why                 TEXT    NOT NULL,
    ending              TEXT    CHECK (ending IN ('renter', 'start_deadline')),
    submitted_at        INTEGER NOT NULL,
    start_deadline_at   INTEGER,
    duration_seconds_max INTEGER NOT NULL,
    stop_grace_seconds  INTEGER NOT NULL,
    started_at          INTEGER,
    ended_at            INTEGER,
    lease_count         INTEGER NOT NULL DEFAULT 0,
    outcome             TEXT,   -- wire::lease::LeaseEnd
    cost                INTEGER NOT NULL DEFAULT 0,
    log_bytes           INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX jobs_by_account ON jobs (account_id, job_id);
CREATE INDEX jobs_open ON jobs (state, job_id) WHERE ended_at IS NULL;

-- A renter's Idempotency-Key and what it made.
CREATE TABLE submissions (
    account_id          TEXT    NOT NULL REFERENCES accounts,
    idempotency_key     TEXT    NOT NULL,
    spec_sha256         BLOB    NOT NULL,
    job_id              TEXT    NOT NULL REFERENCES jobs,
    PRIMARY KEY (account_id, idempotency_key)
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    lease_id            TEXT    NOT NULL PRIMARY KEY,
    job_id              TEXT    NOT NULL REFERENCES jobs,
    node_id             TEXT    NOT NULL REFERENCES nodes,
    owner_id            TEXT    NOT NULL REFERENCES accounts, -- who is paid
    number              INTEGER NOT NULL, -- the job's first lease is 1
    rate                INTEGER NOT NULL,
    generation          INTEGER NOT NULL, -- of the node, when this lease's desired state last changed
    phase               TEXT    NOT NULL,
    pull_per_mille      INTEGER,
    made_at             INTEGER NOT NULL,
    running_at          INTEGER,
    frozen_since        INTEGER,
    frozen_millis       INTEGER NOT NULL DEFAULT 0,
    stop_asked_at       INTEGER,
    events_through      INTEGER NOT NULL DEFAULT 0,
    log_base            INTEGER NOT NULL, -- where this lease's log begins in the job's
    log_bytes           INTEGER NOT NULL DEFAULT 0,
    log_complete        INTEGER NOT NULL DEFAULT 0,
    ended_at            INTEGER,
    ended_by_node       INTEGER NOT NULL DEFAULT 0, -- by its own word, not by the coordinator's
    end                 TEXT,   -- wire::lease::LeaseEnd
    net                 INTEGER,
    UNIQUE (job_id, number)
) STRICT;

-- The law of this table: a job has at most one live lease.
CREATE UNIQUE INDEX leases_one_live_per_job ON leases (job_id) WHERE ended_at IS NULL;
CREATE INDEX leases_live_by_node ON leases (node_id) WHERE ended_at IS NULL;

CREATE TABLE lease_events (
    lease_id            TEXT    NOT NULL REFERENCES leases,
    sequence            INTEGER NOT NULL,
    at                  INTEGER NOT NULL, -- by the node's word
    received_at         INTEGER NOT NULL,
    what                TEXT    NOT NULL, -- wire::lease::LeaseChange
    PRIMARY KEY (lease_id, sequence)
) STRICT, WITHOUT ROWID;

-- A job's log: framed bytes without gaps, by their offset in the whole log.
CREATE TABLE log_chunks (
    job_id              TEXT    NOT NULL REFERENCES jobs,
    start               INTEGER NOT NULL,
    bytes               BLOB    NOT NULL,
    PRIMARY KEY (job_id, start)
) STRICT;

CREATE TABLE outputs (
    lease_id            TEXT    NOT NULL PRIMARY KEY REFERENCES leases,
    job_id              TEXT    NOT NULL REFERENCES jobs,
    object              TEXT    NOT NULL, -- path in the object store
    bytes               INTEGER NOT NULL,
    sha256              TEXT    NOT NULL,
    stored_at           INTEGER NOT NULL
) STRICT;

CREATE INDEX outputs_by_job ON outputs (job_id, lease_id);

CREATE TABLE ledger_transactions (
    transaction_id      INTEGER PRIMARY KEY,
    idempotency_key     TEXT    NOT NULL UNIQUE,
    posted_at           INTEGER NOT NULL
) STRICT;

CREATE TABLE ledger_entries (
    transaction_id      INTEGER NOT NULL REFERENCES ledger_transactions,
    account             TEXT    NOT NULL,
    amount              INTEGER NOT NULL CHECK (amount <> 0),
    PRIMARY KEY (transaction_id, account)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger_balances (
    account             TEXT    NOT NULL PRIMARY KEY,
    balance             INTEGER NOT NULL,
    CHECK (balance >= 0 OR account = 'deposits')
) STRICT, WITHOUT ROWID;

-- Each node's chain of receipts.
CREATE TABLE receipts (
    node_id             TEXT    NOT NULL REFERENCES nodes,
    sequence            INTEGER NOT NULL,
    lease_id            TEXT    NOT NULL UNIQUE REFERENCES leases,
    ended_at            INTEGER NOT NULL,
    net                 INTEGER NOT NULL,
    sha256              TEXT    NOT NULL,
    receipt             TEXT    NOT NULL, -- wire::account::Receipt
    PRIMARY KEY (node_id, sequence)
) STRICT, WITHOUT ROWID;

CREATE INDEX receipts_by_time ON receipts (node_id, ended_at);
