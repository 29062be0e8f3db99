//! The `fizz` binary.
fn main() {}
