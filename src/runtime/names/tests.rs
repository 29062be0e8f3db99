use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use super::book::{Book, Given, OPEN_MAX, Ruling};
use super::message::{
    ANSWER_BYTES_MAX, NO_ERROR, NO_SUCH_NAME, NoQuestion, Question, Reply, TYPE_A, read_question, read_reply,
};
use crate::clock::Clock;
use crate::runtime::firewall::rules::is_out;
use crate::runtime::firewall::surroundings::{Surroundings, Upstream};

fn wire_name(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes
}

fn asked(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    message.extend(wire_name(name));
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message
}

fn question(name: &str) -> Question {
    read_question(&asked(name, TYPE_A)).unwrap()
}

/// A record of a name server, its name written out.
fn record(name: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = wire_name(name);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(ttl.to_be_bytes());
    bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn replied(name: &str, records: &[Vec<u8>]) -> Vec<u8> {
    let mut message = question(name).to_ask(7);
    message[2] |= 0x80;
    message[7] = u8::try_from(records.len()).unwrap();
    message.extend(records.concat());
    message
}

#[test]
fn a_question_is_read_and_answered_under_the_name_that_was_asked() {
    let question = question("WWW.Example.com");
    assert_eq!((question.name.text().as_deref(), question.kind), (Some("www.example.com"), TYPE_A));
    let addresses = [Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8)];
    let answer = question.answer(NO_ERROR, &addresses, 60);
    assert_eq!(&answer[..12], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 2, 0, 0, 0, 0]);
    assert_eq!(&answer[12..33], b"\x03WWW\x07Example\x03com\0\0\x01\0\x01", "as it was written");
    assert_eq!(&answer[33..49], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 1, 2, 3, 4]);
    let longest = format!("{}.com", ["a".repeat(62), "b".repeat(62), "c".repeat(62), "d".repeat(58)].join("."));
    let many: Vec<Ipv4Addr> = (0..200).map(|n| Ipv4Addr::new(9, 9, 9, n)).collect();
    assert!(self::question(&longest).answer(NO_ERROR, &many, 1).len() <= ANSWER_BYTES_MAX);
}

#[test]
fn aliases_are_followed_and_addresses_of_other_names_are_not_believed() {
    let name = question("a.example").name;
    let reply = replied(
        "a.example",
        &[
            record("evil.example", 1, 60, &[6, 6, 6, 6]),
            record("c.cdn.example", 1, 20, &[1, 2, 3, 4]),
            record("A.example", 5, 300, &wire_name("b.cdn.example")),
            record("b.cdn.example", 5, 40, &wire_name("c.cdn.example")),
            record("a.example", 28, 60, &[0; 16]),
        ],
    );
    let read = read_reply(&reply, 7, &name).unwrap();
    assert_eq!((read.addresses, read.ttl_seconds), (vec![Ipv4Addr::new(1, 2, 3, 4)], 20));
    assert!(read_reply(&reply, 8, &name).is_none(), "another question's");
    assert!(read_reply(&reply, 7, &question("b.example").name).is_none(), "another name's");
    assert!(read_reply(&asked("a.example", TYPE_A), 7, &name).is_none(), "no answer at all");
    let circle = replied("a.example", &[record("a.example", 5, 60, &wire_name("a.example"))]);
    assert_eq!(read_reply(&circle, 7, &name).unwrap().addresses, [] as [Ipv4Addr; 0]);
}

#[test]
fn what_is_no_question_is_refused_or_left() {
    let good = asked("a.example", TYPE_A);
    for silent in [&[][..], &good[..11], &replied("a.example", &[])] {
        assert_eq!(read_question(silent), Err(NoQuestion::Silent));
    }
    let mut two = good.clone();
    two[5] = 2;
    let mut update = good.clone();
    update[2] = 0x28;
    let mut chaos = good.clone();
    *chaos.last_mut().unwrap() = 3;
    // A name that points to itself, and one that points onward.
    let itself = [&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let onward = [&good[..12], &[1, b'a', 0xc0, 40, 0, 1, 0, 1]].concat();
    for refused in [two, update, chaos, itself, onward, good[..good.len() - 1].to_vec()] {
        assert!(matches!(read_question(&refused), Err(NoQuestion::Answer(answer)) if answer.len() == 12));
    }
    // A dot inside a label makes no other name of it.
    let dotted = [&good[..12], b"\x0da.example.com\0\0\x01\0\x01"].concat();
    assert_eq!(read_question(&dotted).unwrap().name.text(), None);
}

proptest! {
    #[test]
    fn no_message_ends_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..600), at in 0_usize..80, set in any::<u8>()) {
        let _ = read_question(&bytes);
        let name = question("a.example").name;
        let _ = read_reply(&bytes, 7, &name);
        // And such as are nearly right.
        for mut near in [
            asked("a.example", TYPE_A),
            replied("a.example", &[record("a.example", 5, 9, &wire_name("b.example")), record("b.example", 1, 9, &[1, 2, 3, 4])]),
        ] {
            let index = at % near.len();
            near[index] = set;
            if let Ok(question) = read_question(&near) {
                prop_assert!(question.answer(NO_ERROR, &[Ipv4Addr::LOCALHOST; 20], 1).len() <= ANSWER_BYTES_MAX);
            }
            let _ = read_reply(&near, 7, &name);
            let _ = read_reply(&[&near[..index], &bytes].concat(), 7, &name);
        }
    }
}

fn book(domains: &[&str], clock: &Clock) -> Book {
    Book::new(domains.iter().map(|domain| domain.parse().unwrap()).collect(), clock.steady())
}

fn clock() -> Clock {
    Clock::manual(jiff::Timestamp::from_second(1_700_000_000).unwrap())
}

fn reply(addresses: &[[u8; 4]], ttl_seconds: u32) -> Reply {
    let addresses = addresses.iter().map(|&address| address.into()).collect();
    Reply { code: NO_ERROR, truncated: false, addresses, ttl_seconds }
}

#[test]
fn only_allowed_names_are_asked_for_and_the_owner_hears_of_others_a_few_times() {
    let clock = clock();
    let mut book = book(&["a.example", "*.b.example"], &clock);
    for name in ["a.example", "x.b.example"] {
        assert_eq!(book.rule(&question(name).name, TYPE_A, clock.steady()), Ruling::Ask, "{name}");
    }
    assert_eq!(book.rule(&question("b.example").name, TYPE_A, clock.steady()), Ruling::NotAllowed { tell: true });
    assert_eq!(book.rule(&question("b.example").name, TYPE_A, clock.steady()), Ruling::NotAllowed { tell: false });
    let told = (0..1000).filter(|n| {
        book.rule(&question(&format!("n{n}.secret.example")).name, TYPE_A, clock.steady())
            == Ruling::NotAllowed { tell: true }
    });
    assert_eq!(told.count(), 15);
    assert_eq!(book.rule(&question("a.example").name, 28, clock.steady()), Ruling::Nothing, "no IPv6");
}

#[test]
fn names_are_asked_for_at_a_bounded_rate_and_answers_are_kept_while_they_are_good() {
    let clock = clock();
    let mut book = book(&["*.b.example"], &clock);
    let name = |n: u32| question(&format!("n{n}.b.example")).name;
    let asked = (0..200).filter(|&n| book.rule(&name(n), TYPE_A, clock.steady()) == Ruling::Ask).count();
    assert_eq!(asked, 50);
    clock.advance(Duration::from_millis(250));
    let asked = (0..200).filter(|&n| book.rule(&name(n), TYPE_A, clock.steady()) == Ruling::Ask).count();
    assert_eq!(asked, 2);
    let given = Book::judge(&reply(&[[1, 2, 3, 4]], 60), |_| true);
    book.opened(name(0), &given, clock.steady());
    clock.advance(Duration::from_secs(20));
    assert!(matches!(book.rule(&name(0), TYPE_A, clock.steady()), Ruling::Known(Given { ttl_seconds: 40, .. })));
    clock.advance(Duration::from_secs(40));
    assert_eq!(book.rule(&name(0), TYPE_A, clock.steady()), Ruling::Ask);
}

#[test]
fn addresses_of_the_home_are_taken_out_and_times_are_bounded() {
    let around = Surroundings {
        addresses: vec![[93, 184, 216, 2].into()],
        on_link: vec!["93.184.216.0/24".parse().unwrap()],
        upstreams: vec![Upstream { interface: "eth0".to_owned(), gateway: Some([5, 9, 0, 1].into()) }],
    };
    let given = Book::judge(
        &reply(
            &[[192, 168, 1, 1], [1, 2, 3, 4], [93, 184, 216, 9], [5, 9, 0, 1], [127, 0, 0, 1], [169, 254, 169, 254]],
            0,
        ),
        |address| is_out(address, &around),
    );
    assert_eq!(given, Given { code: NO_ERROR, addresses: vec![[1, 2, 3, 4].into()], ttl_seconds: 10 });
    assert_eq!(Book::judge(&reply(&[[1, 2, 3, 4]], 1 << 20), |_| true).ttl_seconds, 300);
    let none = Reply { code: NO_SUCH_NAME, ..reply(&[[1, 2, 3, 4]], 60) };
    assert_eq!(Book::judge(&none, |_| true).addresses, [] as [Ipv4Addr; 0]);
    assert!(Book::open_seconds(&given) > given.ttl_seconds);
}

#[test]
fn a_lease_has_a_bounded_number_of_addresses_open() {
    let clock = clock();
    let mut book = book(&["*.b.example"], &clock);
    for n in 0..u32::try_from(OPEN_MAX).unwrap() {
        let given = Book::judge(&reply(&[(0x0100_0000 | n).to_be_bytes()], 60), |_| true);
        assert!(book.has_room(&given, clock.steady()));
        book.opened(question("x.b.example").name, &given, clock.steady());
    }
    let one_more = Book::judge(&reply(&[[2, 2, 2, 2]], 60), |_| true);
    assert!(!book.has_room(&one_more, clock.steady()));
    assert_eq!(book.in_use(clock.steady()).len(), OPEN_MAX);
    clock.advance(Duration::from_secs(3600));
    assert!(book.has_room(&one_more, clock.steady()), "those that nobody used are gone");
}
