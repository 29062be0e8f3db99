//! The name server of a lease that may reach some domains only: it answers for those names, and what it answers is what the
//! lease's containers may then connect to.
//!
//! - [`message`] reads questions and answers and writes our own. [`book`] decides which names, how often, and for how long.
//! - [`server`] listens on the lease's bridge, asks the owner's name servers, and opens the firewall before it answers.
//!
//! Invariants
//! - An address is in the lease's set before a container hears of it; an address of this home, or of nobody, never is.
//! - Names that are not allowed are asked of nobody: they do not exist. So nothing leaves by being asked for, either.
//! - Everything a container can make grow is bounded: questions at once and per second, addresses, remembered names, notices.
//! - No message, however made, ends the task that reads it.

pub mod book;
pub mod message;
pub mod server;

#[cfg(test)]
mod tests;
