//! The settings file and environment, checked before anything starts.
