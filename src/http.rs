//! HTTPS to a coordinator: trust, calls, and errors for people.
