-- Proof of compute: what nodes were asked to prove, and how far their hardware is believed.

ALTER TABLE nodes ADD COLUMN fingerprint TEXT;          -- of the newest benchmark report
ALTER TABLE nodes ADD COLUMN proof_fingerprint TEXT;    -- of the hardware that passed last
ALTER TABLE nodes ADD COLUMN proof_passed_at INTEGER;
ALTER TABLE nodes ADD COLUMN proof_doubt INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN proof_missed INTEGER NOT NULL DEFAULT 0;   -- in a row
ALTER TABLE nodes ADD COLUMN proof_why TEXT;
ALTER TABLE nodes ADD COLUMN proof_due_at INTEGER NOT NULL DEFAULT 0;   -- secret: nobody knows when it is challenged next

CREATE TABLE challenges (
    challenge_id    TEXT    NOT NULL PRIMARY KEY,
    node_id         TEXT    NOT NULL REFERENCES nodes,
    made_at         INTEGER NOT NULL,
    parts           TEXT    NOT NULL, -- wire::challenge::Part
    ended_at        INTEGER,
    outcome         TEXT    CHECK (outcome IN ('passed', 'missed', 'unheard', 'void')),
    why             TEXT,
    work_millis     INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE INDEX challenges_by_node ON challenges (node_id, made_at);
CREATE INDEX challenges_open ON challenges (challenge_id) WHERE ended_at IS NULL;
