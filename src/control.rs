//! The local control socket: one snapshot for every view.
