//! The program as people type it: the real binary, its output, its exit codes.

mod alone;
mod live;
mod world;
