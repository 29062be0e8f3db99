//! The part of DNS's message format (RFC 1035) that is needed here, and no more. Pure.
//!
//! Of a question: one name, its type and class. Of an answer: the addresses that a name has, by way of its aliases (CNAME). Our
//! own answers name the addresses under the name that was asked; how it came to them is not told.
//!
//! Invariants
//! - Reading never panics, never loops, and looks at no byte twice but through a pointer that leads back.
//! - What is written fits [`ANSWER_BYTES_MAX`], which every resolver takes without asking for more.

use std::net::Ipv4Addr;

/// Longest message of ours: what fits a datagram without extensions.
pub const ANSWER_BYTES_MAX: usize = 512;
/// Most addresses of one answer.
pub const ADDRESSES_MAX: usize = 14;
const HEADER: usize = 12;
/// Longest name on the wire.
const NAME_BYTES_MAX: usize = 255;
const POINTERS_MAX: usize = 32;
const RECORDS_MAX: usize = 128;
/// So many aliases of aliases are followed.
const ALIASES_MAX: usize = 16;
/// An IPv4 address.
pub const TYPE_A: u16 = 1;
const TYPE_CNAME: u16 = 5;
/// The internet.
const CLASS_IN: u16 = 1;
/// No error; also when a name has nothing of the type that was asked for.
pub const NO_ERROR: u8 = 0;
/// The question cannot be read.
pub const BAD_FORMAT: u8 = 1;
/// No answer could be had.
pub const SERVER_FAILURE: u8 = 2;
/// There is no such name.
pub const NO_SUCH_NAME: u8 = 3;
/// Something else than a question.
pub const NOT_IMPLEMENTED: u8 = 4;

/// A name as it is on the wire, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(Vec<u8>);

impl Name {
    /// The name with dots, if it has only what names of hosts and services have in them.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let mut text = String::new();
        let mut rest = self.0.as_slice();
        while let Some((&length, after)) = rest.split_first().filter(|(length, _)| **length > 0) {
            let (label, after) = after.split_at_checked(length.into())?;
            let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
            if !label.iter().all(plain) {
                return None;
            }
            if !text.is_empty() {
                text.push('.');
            }
            text.extend(label.iter().map(|&byte| char::from(byte)));
            rest = after;
        }
        Some(text)
    }
}

/// A question that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    id: u16,
    /// Whether recursion is wanted, as it was asked.
    recursion: bool,
    /// Name, type and class as they were written.
    raw: Vec<u8>,
    /// The name.
    pub name: Name,
    /// The type.
    pub kind: u16,
}

/// What a message is that is no question to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoQuestion {
    /// Nothing to answer: too short, or an answer itself.
    Silent,
    /// To be answered with this.
    Answer(Vec<u8>),
}

/// Reads a question.
///
/// # Errors
/// [`NoQuestion`].
pub fn read_question(message: &[u8]) -> Result<Question, NoQuestion> {
    let id = number(message, 0).ok_or(NoQuestion::Silent)?;
    let flags = number(message, 2).ok_or(NoQuestion::Silent)?;
    if message.len() < HEADER || flags & 0x8000 != 0 {
        return Err(NoQuestion::Silent);
    }
    let refuse = |code: u8| NoQuestion::Answer(header(id, flags & 0x0100 != 0, code, 0, 0).to_vec());
    if flags & 0x7800 != 0 {
        return Err(refuse(NOT_IMPLEMENTED));
    }
    if number(message, 4) != Some(1) || number(message, 6) != Some(0) {
        return Err(refuse(BAD_FORMAT));
    }
    let (name, end) = read_name(message, HEADER).ok_or_else(|| refuse(BAD_FORMAT))?;
    let (Some(kind), Some(class)) = (number(message, end), number(message, end + 2)) else {
        return Err(refuse(BAD_FORMAT));
    };
    if class != CLASS_IN {
        return Err(refuse(NOT_IMPLEMENTED));
    }
    // A name of a question that is not written out in full has nothing to point to.
    let raw =
        message.get(HEADER..end + 4).filter(|raw| raw.len() == name.0.len() + 4).ok_or_else(|| refuse(BAD_FORMAT))?;
    Ok(Question { id, recursion: flags & 0x0100 != 0, raw: raw.to_vec(), name, kind })
}

impl Question {
    /// Our answer: a code, and addresses with their time to live in seconds.
    #[must_use]
    pub fn answer(&self, code: u8, addresses: &[Ipv4Addr], ttl_seconds: u32) -> Vec<u8> {
        let addresses = addresses.get(..ADDRESSES_MAX).unwrap_or(addresses);
        let count = u16::try_from(addresses.len()).unwrap_or(0);
        let mut message = header(self.id, self.recursion, code, 1, count).to_vec();
        message.extend_from_slice(&self.raw);
        for address in addresses {
            // The name stands where the question has it.
            message.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
            message.extend_from_slice(&ttl_seconds.to_be_bytes());
            message.extend_from_slice(&[0, 4]);
            message.extend_from_slice(&address.octets());
        }
        message
    }

    /// The question for its addresses as we ask it of a name server.
    #[must_use]
    pub fn to_ask(&self, id: u16) -> Vec<u8> {
        let [a, b] = id.to_be_bytes();
        let mut message = vec![a, b, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend_from_slice(&self.name.0);
        message.extend_from_slice(&[0, 1, 0, 1]);
        message
    }
}

fn header(id: u16, recursion: bool, code: u8, questions: u16, answers: u16) -> [u8; HEADER] {
    let [a, b] = id.to_be_bytes();
    let [q1, q2] = questions.to_be_bytes();
    let [n1, n2] = answers.to_be_bytes();
    [a, b, 0x80 | u8::from(recursion), 0x80 | code & 0x0f, q1, q2, n1, n2, 0, 0, 0, 0]
}

/// What a name server says of the addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its code.
    pub code: u8,
    /// Whether there was more than fit.
    pub truncated: bool,
    /// The addresses.
    pub addresses: Vec<Ipv4Addr>,
    /// For how many seconds they are good.
    pub ttl_seconds: u32,
}

/// Reads the answer to a question that was asked with this id; `None` when it is another's, or broken.
#[must_use]
pub fn read_reply(message: &[u8], id: u16, name: &Name) -> Option<Reply> {
    let flags = number(message, 2)?;
    if number(message, 0)? != id || flags & 0x8000 == 0 || number(message, 4)? != 1 {
        return None;
    }
    let (asked, mut at) = read_name(message, HEADER)?;
    if asked != *name || number(message, at)? != TYPE_A || number(message, at + 2)? != CLASS_IN {
        return None;
    }
    at += 4;
    let mut records = Vec::new();
    let truncated = flags & 0x0200 != 0;
    for _ in 0..usize::from(number(message, 6)?).min(RECORDS_MAX) {
        match read_record(message, at) {
            Some((record, next)) => {
                records.extend(record);
                at = next;
            }
            // What is cut off is asked for again in full.
            None if truncated => break,
            None => return None,
        }
    }
    let (addresses, ttl_seconds) = follow(name, &records);
    Some(Reply { code: u8::try_from(flags & 0x0f).unwrap_or(SERVER_FAILURE), truncated, addresses, ttl_seconds })
}

enum Data {
    Address(Ipv4Addr),
    Alias(Name),
}

struct Record {
    name: Name,
    ttl_seconds: u32,
    data: Data,
}

/// One record and where the next begins; no record where it is of a kind that is not needed.
fn read_record(message: &[u8], at: usize) -> Option<(Option<Record>, usize)> {
    let (name, at) = read_name(message, at)?;
    let (kind, class) = (number(message, at)?, number(message, at + 2)?);
    let ttl: [u8; 4] = message.get(at + 4..at + 8)?.try_into().ok()?;
    let start = at + 10;
    let end = start + usize::from(number(message, at + 8)?);
    let bytes = message.get(start..end)?;
    let data = match kind {
        TYPE_A if class == CLASS_IN => Some(Data::Address(<[u8; 4]>::try_from(bytes).ok()?.into())),
        TYPE_CNAME if class == CLASS_IN => Some(Data::Alias(read_name(message, start)?.0)),
        _ => None,
    };
    // A time past 2^31 is none (RFC 2181).
    let ttl_seconds = i32::try_from(u32::from_be_bytes(ttl)).unwrap_or(0).unsigned_abs();
    Some((data.map(|data| Record { name, ttl_seconds, data }), end))
}

/// The addresses that `name` leads to by its aliases, and the shortest time that any step of the way is good for.
fn follow(name: &Name, records: &[Record]) -> (Vec<Ipv4Addr>, u32) {
    let (mut current, mut ttl) = (name, u32::MAX);
    for _ in 0..=ALIASES_MAX {
        let mut addresses = Vec::new();
        let mut next = None;
        for record in records.iter().filter(|record| record.name == *current) {
            match &record.data {
                Data::Address(address) if !addresses.contains(address) => addresses.push(*address),
                Data::Address(_) => {}
                Data::Alias(to) => next = Some(to),
            }
            ttl = ttl.min(record.ttl_seconds);
        }
        match next {
            Some(to) if addresses.is_empty() => current = to,
            Some(_) | None => return (addresses, ttl),
        }
    }
    (Vec::new(), 0)
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

/// A name and where what follows it begins. A pointer leads back, further back each time.
fn read_name(message: &[u8], start: usize) -> Option<(Name, usize)> {
    let (mut name, mut at, mut end, mut before) = (Vec::new(), start, None, start);
    for _ in 0..POINTERS_MAX + NAME_BYTES_MAX {
        let &length = message.get(at)?;
        match length >> 6 {
            0 => {
                let label = message.get(at..=at + usize::from(length))?;
                // With its length, which is below all letters.
                name.extend(label.iter().map(u8::to_ascii_lowercase));
                if name.len() > NAME_BYTES_MAX {
                    return None;
                }
                at += label.len();
                if length == 0 {
                    return Some((Name(name), end.unwrap_or(at)));
                }
            }
            3 => {
                let to = usize::from(number(message, at)? & 0x3fff);
                if to >= before {
                    return None;
                }
                end = end.or(Some(at + 2));
                (at, before) = (to, to);
            }
            _ => return None,
        }
    }
    None
}
