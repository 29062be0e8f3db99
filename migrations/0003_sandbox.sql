-- What a node's sandbox can give: copied from its offer, for matching.

ALTER TABLE nodes ADD COLUMN offer_internet INTEGER NOT NULL DEFAULT 0;
ALTER TABLE nodes ADD COLUMN offer_isolation TEXT NOT NULL DEFAULT '[]'; -- wire::job::Isolation, JSON
