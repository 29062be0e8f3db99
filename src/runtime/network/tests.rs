use proptest::prelude::*;

use super::*;

fn net(text: &str) -> Subnet {
    text.parse().unwrap()
}

#[test]
fn bridge_names_fit_an_interface_and_differ_between_leases_of_one_moment() {
    let now = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    let names: std::collections::BTreeSet<String> = (0..1000).map(|_| bridge_name(LeaseId::generate(now))).collect();
    assert_eq!(names.len(), 1000);
    assert!(names.iter().all(|name| name.len() == 14 && name.starts_with("fz-")), "{names:?}");
}

#[test]
fn networks_are_written_as_usual_and_mistakes_are_told() {
    assert_eq!(net("10.219.0.0/16").to_string(), "10.219.0.0/16");
    for wrong in ["10.219.0.0", "10.219.0.0/33", "10.219.0.1/16", "x/8", ""] {
        assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
    }
    assert!("10.219.0.1/16".parse::<Subnet>().unwrap_err().contains("10.219.0.0/16"));
}

#[test]
fn a_lease_gets_addresses_that_nobody_has() {
    let first = free_subnet(None, &[], 0).unwrap();
    assert_eq!(first, net("10.219.0.0/28"));
    assert_eq!(free_subnet(None, &[first], 0).unwrap(), net("10.219.0.16/28"));
    // A private network at work that is routed through a tunnel covers the first pool.
    assert_eq!(free_subnet(None, &[net("10.0.0.0/8")], 0).unwrap(), net("172.29.0.0/28"));
    let pool = net("192.168.7.0/28");
    assert_eq!(free_subnet(Some(pool), &[], 99).unwrap(), pool);
    assert_eq!(free_subnet(Some(pool), &[net("192.168.7.3/32")], 0), None);
    assert_eq!(free_subnet(Some(net("192.168.7.0/30")), &[], 0), None, "too small for a lease");
}

proptest! {
    #[test]
    fn what_is_free_overlaps_nothing_that_is_taken(
        taken in proptest::collection::vec((any::<u32>(), 8_u8..=32), 0..40),
        near in proptest::collection::vec((0_u32..65536, 20_u8..=30), 0..40),
        start in any::<u32>(),
    ) {
        let near = near.into_iter().map(|(low, prefix)| (0x0adb_0000 | low, prefix));
        let taken: Vec<Subnet> = taken.into_iter().chain(near).map(|(a, p)| Subnet::new(a.into(), p)).collect();
        if let Some(free) = free_subnet(None, &taken, start) {
            let last = u32::from(free.address()) + 15;
            for other in &taken {
                for address in u32::from(free.address())..=last {
                    prop_assert!(!other.contains(address.into()), "{free} and {other}");
                }
            }
        }
    }
}

#[test]
fn a_job_that_names_more_than_the_owner_lends_is_refused_in_words() {
    let now = jiff::Timestamp::from_second(1_700_000_000).unwrap();
    let spec = |domains: &[&str]| LeaseNetworkSpec {
        node_id: NodeId::generate(now),
        lease_id: LeaseId::generate(now),
        generation: 1,
        reach: Reach::Internet,
        domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
    };
    let lent: Vec<DomainPattern> = vec!["*.example.com".parse().unwrap(), "pypi.org".parse().unwrap()];
    assert_eq!(spec(&[]).kept_to(&lent).unwrap(), lent);
    assert_eq!(in_words(&spec(&["A.example.com"]).kept_to(&lent).unwrap()), "a.example.com");
    assert_eq!(LeaseNetworkSpec { reach: Reach::None, ..spec(&[]) }.kept_to(&lent).unwrap(), []);
    let refused = spec(&["pypi.org", "evil.org"]).kept_to(&lent).unwrap_err().to_string();
    assert!(
        refused.contains("the job asks for evil.org, and this node's owner lends *.example.com, pypi.org only"),
        "{refused}"
    );
    assert!(matches!(spec(&["a b"]).kept_to(&[]), Err(RuntimeError::InvalidSpec { .. })));
}
