//! Proof of compute: nodes show that their hardware does what their reports say, without being trusted.
//!
//! # The protocol
//!
//! 1. A node that is idle says so in its poll for assignments (`prove=true`). When it is due, the poll brings a challenge: which
//!    devices, which size ([`sizing`]). Nothing in it helps to answer it.
//! 2. The node opens drivers, compiles, takes memory, and says that it is ready. That call is held until every free node of the
//!    same owner is ready too ([`schedule`]); then all are told their nonces at the same moment.
//! 3. From the nonce, its own key and the challenge's id the node derives the matrices, multiplies them, and commits to the rows
//!    of the products. The coordinator's clock, which does not jump, measures from the release of the nonce to the commitment.
//! 4. Only then the coordinator draws a random vector and the rows to open. The node answers, and [`exam`] checks.
//! 5. A pass restores trust, a miss lowers it, three misses in a row suspend the node until it passes ([`trust`]). The owner sees
//!    which and why in `fizz status`, and asks for another challenge with `fizz prove`.
//!
//! # What it proves, and what not
//!
//! It proves that at that moment the node had, at its disposal and reachable within the time limit, devices that together
//! multiply as fast as the report's figures promise, within a factor of two for most of them (see below), each with memory for
//! its matrix. It does not prove a brand or a name. It does not prove that the devices are in the node's own case: work that is relayed to
//! somebody else's machine is bounded only by time. It does not prove that they will be there tomorrow; that is why challenges
//! come at random times.
//!
//! # Threats
//!
//! Everything a node says may be a lie, its program may be another one, and it may work together with other nodes.
//!
//! | cheat | what stands in the way |
//! |---|---|
//! | wrong result | C·r is compared exactly, over a field of 2⁶¹ − 1; nothing is "close enough" |
//! | only some rows computed | opened rows are drawn after the commitment; who left out a share f passes with (1 − f)²⁴ |
//! | result computed after the vector is known | the commitment comes first, and opened rows must lead to it |
//! | replay of an older answer, or another node's | the seed holds nonce, node key and challenge id; each challenge takes one commitment and one answer |
//! | answer computed beforehand | the nonce is 128 random bits, told at the release |
//! | shortcut through structure | every row has a key of its own from SHA-256: neither Hankel nor Toeplitz nor of low rank; integers leave no faster exact way but general fast multiplication (Strassen), which gains little at these sizes |
//! | one card for two | all devices of a node, and all free nodes of an owner, compute at the same moment; not to show up while a sibling does counts as a miss. Owners who appear as strangers to each other are not found |
//! | a slow card claiming fast | the time limit comes from the claim: 1.4 times the expected time and 1 s for the network. Between 2 billion and 40 trillion operations a second, a claim of twice the truth is late. The fastest cards finish the largest matrix sooner and have more room: one of 80 trillion, 2.6 times; processors claim nothing and are only shown to be there |
//! | claiming less to get an easier challenge | whoever scores by a matrix rate claims at least a quarter of it here |
//! | a late answer | the coordinator's steady clock decides; the node's clock is never asked |
//! | malformed sizes and lengths | compared before anything is computed; checking takes memory in proportion to n |
//! | exhausting the coordinator | checks run on few blocking threads, one answer per challenge; bodies are bounded |
//! | dodging | a node that does not prove stays unproven, and jobs may ask for proven nodes |
//!
//! Left open so far: claimed video memory is proven only as far as the matrix fills it, not to its end, and host memory in its
//! place is told only by its speed.
//!
//! The state of a challenge that runs is in memory ([`rounds`]): a coordinator that restarts gives up those that run, to nobody's
//! harm. Every outcome is in the database.

pub(crate) mod drive;
pub mod exam;
pub(crate) mod rounds;
pub mod schedule;
pub mod sizing;
pub mod trust;

#[cfg(test)]
mod tests;
