-- The domains that jobs may name on a node: copied from its offer, for matching.

ALTER TABLE nodes ADD COLUMN offer_domains TEXT; -- JSON list of patterns; NULL where jobs cannot be kept to domains
