//! The life of a lease on its node.
