//! Who goes where and why not, then random markets.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::wire::challenge::ProofState;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn id<T: From<uuid::Uuid>>(n: u8) -> T {
    uuid::Uuid::from_bytes([n; 16]).into()
}

fn usd(text: &str) -> HourlyRate {
    text.parse().unwrap()
}

fn node(n: u8, price: &str) -> Node {
    let offer = Offer {
        cpu_millis: 4000,
        memory_bytes: 8 << 30,
        disk_bytes: 64 << 30,
        gpus: 1,
        price_min: usd(price),
        internet: false,
        domains: None,
        isolation: Vec::new(),
    };
    let used = Resources { cpu_millis: 0, memory_bytes: 0, disk_bytes: 0, gpus: 0 };
    let (node_id, architecture) = (id(n), "amd64".to_owned());
    Node {
        node_id,
        architecture,
        score: Some(100),
        offer,
        used,
        proof: ProofState::Unproven,
        takes_leases: true,
        leased_at: None,
    }
}

fn job(n: u8) -> Job {
    Job {
        job_id: id(n),
        resources: Resources { cpu_millis: 1000, memory_bytes: 1 << 30, disk_bytes: 1 << 30, gpus: 0 },
        requirements: Requirements::default(),
        network: NetworkSpec::default(),
        price_max: usd("1"),
        failed_on: Vec::new(),
        lease_count: 0,
        last_failure: None,
    }
}

fn chosen(nodes: Vec<Node>, job: Job) -> Result<NodeId, String> {
    let matching = run(nodes, &[job], at(0));
    match (matching.placed.first(), matching.waiting.first()) {
        (Some(placed), None) => Ok(placed.node_id),
        (None, Some(waiting)) => Err(waiting.why.clone()),
        _ => panic!("placed or waiting, not both or neither: {matching:?}"),
    }
}

#[test]
fn the_cheapest_node_gets_the_job_and_its_largest_share_is_the_price() {
    let matching = run(vec![node(1, "0.40"), node(2, "0.20")], &[job(9)], at(0));
    // A quarter of the cores, an eighth of the memory: a quarter of the price.
    assert_eq!(matching.placed, [Placement { job_id: id(9), node_id: id(2), rate: usd("0.05") }]);
}

#[test]
fn among_equal_prices_the_node_that_waited_longest_gets_it() {
    let mut used = node(1, "0.20");
    used.leased_at = Some(at(-5));
    let mut longer_ago = node(2, "0.20");
    longer_ago.leased_at = Some(at(-50));
    assert_eq!(chosen(vec![used.clone(), longer_ago.clone()], job(9)), Ok(id(2)));
    assert_eq!(chosen(vec![used, longer_ago, node(3, "0.20")], job(9)), Ok(id(3)));
}

#[test]
fn a_job_larger_than_what_is_free_waits_and_does_not_hold_up_a_smaller_one() {
    let mut busy = node(1, "0.20");
    busy.used.cpu_millis = 2500;
    let mut large = job(8);
    large.resources.cpu_millis = 2000;
    let matching = run(vec![busy], &[large, job(9)], at(0));
    assert_eq!(matching.waiting[0].why, "the only node that fits is busy with other jobs");
    assert_eq!(matching.placed[0].job_id, id(9));
}

#[test]
fn every_reason_to_wait_is_told_in_one_sentence() {
    let told = |change: fn(&mut Node), ask: fn(&mut Job)| {
        let (mut n, mut j) = (node(1, "1.20"), job(9));
        change(&mut n);
        ask(&mut j);
        chosen(vec![n], j).unwrap_err()
    };
    assert_eq!(chosen(vec![], job(9)).unwrap_err(), "no node is online and takes jobs");
    assert_eq!(told(|n| n.takes_leases = false, |_| {}), "no node is online and takes jobs");
    assert_eq!(
        told(|_| {}, |j| j.price_max = usd("0.10")),
        "the cheapest fitting node asks $0.30/h, the job pays at most $0.10/h"
    );
    assert_eq!(
        told(|_| {}, |j| j.requirements.architecture = Some("arm64".into())),
        "no node online has the processor architecture arm64"
    );
    assert_eq!(
        told(|_| {}, |j| j.requirements.score_min = Some(500)),
        "no node online has a hardware score of 500; the best has 100"
    );
    assert_eq!(
        told(|_| {}, |j| j.resources.cpu_millis = 4500),
        "it asks for 4.5 CPU cores and no node online lends more than 4"
    );
    assert_eq!(
        told(|_| {}, |j| j.resources.memory_bytes = 64 << 30),
        "it asks for 65536 MiB of memory and no node online lends more than 8192 MiB"
    );
    assert_eq!(told(|_| {}, |j| j.requirements.proven = true), "no node online has proven its hardware lately");
    assert_eq!(told(|n| n.proof = ProofState::Suspended, |_| {}), "no node online passes its challenges");
    let mut proven = node(1, "1.20");
    proven.proof = ProofState::Proven;
    let mut wish = job(9);
    wish.requirements.proven = true;
    assert_eq!(chosen(vec![node(2, "0.10"), proven], wish), Ok(id(1)), "not the cheaper one that is not proven");
    assert_eq!(told(|_| {}, |j| j.resources.gpus = 2), "it asks for 2 GPUs and no node online lends more than 1");
    assert!(told(|_| {}, |j| j.requirements.node_id = Some(id(7))).starts_with("the node it asks for"));
    let failed = |j: &mut Job| {
        (j.failed_on, j.lease_count) = (vec![(id(1), at(0))], 2);
        j.last_failure = Some("node 'x' could not run it (no such host)".into());
    };
    assert_eq!(
        told(|_| {}, failed),
        "queued again: node 'x' could not run it (no such host); the next try comes within 10 s"
    );
    assert_eq!(
        told(|n| n.takes_leases = false, failed),
        "queued again: node 'x' could not run it (no such host); no node is online and takes jobs"
    );
}

#[test]
fn a_job_that_asks_for_an_isolation_goes_only_where_it_is_given_or_bettered() {
    let offering = |n: u8, kinds: &[Isolation]| {
        let mut node = node(n, "0.20");
        node.offer.isolation = kinds.to_vec();
        node
    };
    let asking = |wanted| {
        let mut j = job(9);
        j.requirements.isolation = Some(wanted);
        j
    };
    let plain = offering(1, &[Isolation::Container]);
    let strong = offering(2, &[Isolation::Container, Isolation::Gvisor]);
    let both = || vec![plain.clone(), strong.clone()];
    assert_eq!(chosen(both(), asking(Isolation::Gvisor)), Ok(id(2)));
    assert_eq!(chosen(both(), asking(Isolation::UserNamespace)), Ok(id(2)));
    assert_eq!(chosen(both(), asking(Isolation::Kata)).unwrap_err(), "no node online gives Kata isolation");
    assert_eq!(
        chosen(vec![plain.clone()], asking(Isolation::Gvisor)).unwrap_err(),
        "no node online gives gVisor isolation"
    );
    assert_eq!(
        chosen(both(), asking(Isolation::Unknown)).unwrap_err(),
        "no node online gives the isolation it asks for"
    );
    // An agent that does not say runs plain containers.
    assert_eq!(chosen(vec![offering(3, &[])], asking(Isolation::Container)), Ok(id(3)));
    assert!(chosen(vec![offering(3, &[])], asking(Isolation::UserNamespace)).is_err());
    // A kind that this coordinator does not know promises nothing.
    assert!(chosen(vec![offering(4, &[Isolation::Unknown])], asking(Isolation::Container)).is_err());
}

#[test]
fn a_job_that_asks_for_the_internet_goes_only_where_that_was_shown_to_be_safe() {
    let mut online = job(9);
    online.network.reach = Reach::Internet;
    let mut open = node(2, "0.90");
    open.offer.internet = true;
    assert_eq!(chosen(vec![node(1, "0.10"), open], online.clone()), Ok(id(2)));
    assert_eq!(chosen(vec![node(1, "0.10")], online).unwrap_err(), "no node online lets jobs reach the internet");
}

#[test]
fn a_job_that_names_domains_goes_only_where_it_can_be_kept_to_them() {
    let offering = |n: u8, domains: Option<&[&str]>| {
        let mut node = node(n, "0.10");
        node.offer.internet = true;
        node.offer.domains = domains.map(|list| list.iter().map(|&domain| domain.to_owned()).collect());
        node
    };
    let mut asking = job(9);
    asking.network.reach = Reach::Internet;
    assert_eq!(chosen(vec![offering(1, None)], asking.clone()), Ok(id(1)), "who names none goes anywhere");
    asking.network.domains = vec!["a.example.com".to_owned(), "*.pypi.org".to_owned()];
    let why = |nodes| chosen(nodes, asking.clone()).unwrap_err();
    assert_eq!(why(vec![offering(1, None)]), "no node online can keep a job to some domains");
    let narrow = || offering(2, Some(&["*.example.com"]));
    assert_eq!(why(vec![narrow()]), "no node online lends all the domains that it names");
    // What this coordinator cannot read covers nothing.
    assert!(chosen(vec![offering(2, Some(&["future:any"]))], asking.clone()).is_err());
    let wide = offering(3, Some(&["*.example.com", "*.org"]));
    assert_eq!(chosen(vec![offering(1, None), narrow(), wide], asking.clone()), Ok(id(3)));
    assert_eq!(chosen(vec![offering(4, Some(&[]))], asking), Ok(id(4)), "an empty list is every domain");
}

#[test]
fn an_offer_that_changed_after_the_choice_is_seen() {
    let mut offer = node(1, "0.10").offer;
    (offer.internet, offer.isolation) = (true, vec![Isolation::Gvisor]);
    let wanted = Requirements { isolation: Some(Isolation::Gvisor), ..Requirements::default() };
    let none = NetworkSpec::default();
    let online = NetworkSpec { reach: Reach::Internet, ..none.clone() };
    let kept = NetworkSpec { domains: vec!["example.com".to_owned()], ..online.clone() };
    assert!(still_shuts_in(&offer, &wanted, &online));
    assert!(!still_shuts_in(&offer, &wanted, &kept));
    assert!(still_shuts_in(&Offer { domains: Some(Vec::new()), ..offer.clone() }, &wanted, &kept));
    assert!(!still_shuts_in(&Offer { internet: false, ..offer.clone() }, &wanted, &online));
    assert!(!still_shuts_in(&Offer { isolation: vec![Isolation::Container], ..offer }, &wanted, &none));
}

#[test]
fn a_node_the_job_failed_on_is_passed_over_while_another_fits_and_tried_again_after_a_rest() {
    let mut tried = job(9);
    tried.failed_on = vec![(id(1), at(0))];
    tried.lease_count = 1;
    assert_eq!(chosen(vec![node(1, "0.10"), node(2, "0.90")], tried.clone()), Ok(id(2)));
    let later = run(vec![node(1, "0.10")], &[tried], at(RETRY_SECONDS));
    assert_eq!(later.placed.len(), 1);
}

#[test]
fn the_price_is_never_below_one_micro_usd_and_never_for_more_than_is_lent() {
    let tiny = Resources { cpu_millis: 10, memory_bytes: 1, disk_bytes: 0, gpus: 0 };
    assert_eq!(rate(&node(1, "0.000001").offer, &tiny), Some(HourlyRate::MIN));
    let whole = Resources { cpu_millis: 4000, ..tiny.clone() };
    assert_eq!(rate(&node(1, "0.20").offer, &whole), Some(usd("0.20")));
    assert_eq!(rate(&node(1, "0.20").offer, &Resources { cpu_millis: 4001, ..tiny }), None);
}

fn any_node() -> impl Strategy<Value = Node> {
    (0u32..8000, 0u64..16, 0u32..3, 1i64..2_000_000, any::<bool>(), prop::option::of(-100i64..0)).prop_map(
        |(cpu, gib, gpus, price, takes, leased)| {
            let mut n = node(0, "1");
            n.offer.cpu_millis = cpu;
            n.offer.memory_bytes = gib << 30;
            n.offer.gpus = gpus;
            n.offer.price_min = HourlyRate::try_from(price).unwrap();
            n.takes_leases = takes;
            n.leased_at = leased.map(at);
            n
        },
    )
}

fn any_job() -> impl Strategy<Value = Job> {
    (10u32..6000, 1u64..12, 0u32..2, 1i64..2_000_000, prop::collection::vec(0u8..12, 0..3)).prop_map(
        |(cpu, gib, gpus, price, failed)| {
            let mut j = job(0);
            j.resources = Resources { cpu_millis: cpu, memory_bytes: gib << 30, disk_bytes: 1 << 30, gpus };
            j.price_max = HourlyRate::try_from(price).unwrap();
            j.lease_count = u32::try_from(failed.len()).unwrap();
            j.failed_on = failed.into_iter().map(|n| (id(n), at(-1))).collect();
            j
        },
    )
}

proptest! {
    #[test]
    fn no_market_promises_more_than_is_lent_or_charges_more_than_is_offered(
        mut nodes in prop::collection::vec(any_node(), 0..12), mut jobs in prop::collection::vec(any_job(), 0..20),
    ) {
        for (n, node) in nodes.iter_mut().enumerate() { node.node_id = id(u8::try_from(n).unwrap()); }
        for (n, job) in jobs.iter_mut().enumerate() { job.job_id = id(100 + u8::try_from(n).unwrap()); }
        let matching = run(nodes.clone(), &jobs, at(0));
        prop_assert_eq!(matching.placed.len() + matching.waiting.len(), jobs.len());
        let by_id: HashMap<_, _> = nodes.iter().map(|n| (n.node_id, n)).collect();
        let mut used: HashMap<NodeId, Resources> = HashMap::new();
        for placed in &matching.placed {
            let job = jobs.iter().find(|j| j.job_id == placed.job_id).unwrap();
            let node = by_id[&placed.node_id];
            prop_assert!(node.takes_leases);
            prop_assert!(placed.rate <= job.price_max);
            prop_assert_eq!(Some(placed.rate), rate(&node.offer, &job.resources));
            let sum = used.entry(placed.node_id).or_insert_with(|| node.used.clone());
            *sum = add(sum, &job.resources);
        }
        for (node_id, sum) in used {
            let offer = &by_id[&node_id].offer;
            prop_assert!(sum.cpu_millis <= offer.cpu_millis && sum.memory_bytes <= offer.memory_bytes);
            prop_assert!(sum.disk_bytes <= offer.disk_bytes && sum.gpus <= offer.gpus);
        }
        for waiting in &matching.waiting {
            prop_assert!(!waiting.why.is_empty());
        }
    }
}
