use super::proof::{Answer, Evidence, Listeners, forbidden_targets, judge, own_targets, read_answers};
use super::surroundings::{KernelTables, Surroundings, Upstream};
use super::*;

/// A home: a router at 192.168.1.1, a wire with public addresses, Docker's own bridge, and a job's.
fn home() -> Surroundings {
    Surroundings::parse(&KernelTables {
        route: "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
                eth1\t00D8B85D\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
                fz-0123456789a\t0000DB0A\t00000000\t0001\t0\t0\t0\tF0FFFFFF\t0\t0\t0\n"
            .to_owned(),
        fib_trie: "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n\
                   \x20    |-- 192.168.1.0\n        /24 link UNICAST\n     |-- 192.168.1.7\n        /32 host LOCAL\n\
                   \x20    |-- 192.168.1.255\n        /32 link BROADCAST\n     |-- 172.17.0.1\n        /32 host LOCAL\n\
                   \x20    |-- 10.219.0.1\n        /32 host LOCAL\n"
            .to_owned(),
        if_inet6: "00000000000000000000000000000001 01 80 10 80       lo\n\
                   20010db8000000000000000000000007 02 40 00 80     eth0\n\
                   fe800000000000000000000000000007 02 40 20 80     eth0\n\
                   fd000000000000000000000000000001 09 40 00 80 fz-0123456789a\n"
            .to_owned(),
    })
}

const PORTS: Listeners = Listeners { tcp: 1000, udp: 2000, tcp6: Some(3000) };

#[cfg(target_endian = "little")]
#[test]
fn the_kernels_tables_are_read_and_what_is_ours_is_left_out() {
    let around = home();
    let addresses: Vec<String> = around.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["172.17.0.1", "192.168.1.7", "2001:db8::7"]);
    let wires: Vec<String> = around.on_link.iter().map(ToString::to_string).collect();
    assert_eq!(wires, ["93.184.216.0/24", "172.17.0.0/16", "192.168.1.0/24"]);
    let gateway = Some(Ipv4Addr::new(192, 168, 1, 1));
    assert_eq!(around.upstreams, [Upstream { interface: "eth0".to_owned(), gateway }]);
}

#[test]
fn the_rules_of_an_ordinary_home() {
    insta::assert_snapshot!(rules::script(&NetworkPolicy::default(), &home()));
}

#[test]
fn the_rules_with_caps_a_resolver_at_home_and_a_line_without_a_gateway() {
    let policy = NetworkPolicy {
        resolvers: vec![Ipv4Addr::new(192, 168, 1, 53)],
        download_per_second: Some(10_000_000),
        upload_per_second: Some(1_000_000),
        ..NetworkPolicy::default()
    };
    let upstreams = vec![Upstream { interface: "ppp0".to_owned(), gateway: None }];
    insta::assert_snapshot!(rules::script(&policy, &Surroundings { upstreams, ..Surroundings::default() }));
}

#[test]
fn what_may_leave_is_named_last_and_everything_else_is_dropped() {
    let script = rules::script(&NetworkPolicy::default(), &home());
    for chain in ["host", "leaving"] {
        let body = script.split(&format!("chain {chain} {{")).nth(1).unwrap().split("\t}").next().unwrap();
        assert_eq!(body.trim().lines().last().unwrap().trim(), "drop", "{chain}");
    }
    // Nothing speaks of an interface that is not ours, but as a way out.
    assert!(script.lines().filter(|l| l.contains("iifname")).all(|l| l.contains("iifname \"fz-*\"")), "{script}");
}

fn evidence(answer: Answer) -> Evidence {
    let targets = forbidden_targets(&home(), PORTS, Some(Ipv4Addr::new(10, 219, 0, 1)), None);
    Evidence {
        found: targets.into_iter().map(|target| (target, answer)).collect(),
        heard: false,
        control_reached_host: true,
        control_reached_neighbour: true,
        rules: Ok(()),
    }
}

#[test]
fn only_silence_against_a_control_that_spoke_is_isolation() {
    assert_eq!(judge(&evidence(Answer::Silent)), Verdict::Isolated);
    assert_eq!(judge(&evidence(Answer::Error(101))), Verdict::Isolated);
    let mute = Evidence { control_reached_host: false, control_reached_neighbour: false, ..evidence(Answer::Silent) };
    assert!(matches!(judge(&mute), Verdict::NotShown { .. }), "a probe that reaches nothing anywhere is broken");
    // The owner's own firewall keeps even the control away; the rules are in place and the probe works.
    let walled = Evidence { control_reached_neighbour: true, ..mute.clone() };
    assert_eq!(judge(&walled), Verdict::Isolated);
    let unruled = Evidence { rules: Err(NftError::Missing), ..walled };
    assert!(matches!(judge(&unruled), Verdict::NotShown { why } if why.contains("apt-get install nftables")));
}

#[test]
fn a_list_of_domains_keeps_only_where_it_keeps_from_what_a_control_reaches() {
    use Answer::{Open, Refused, Silent};
    let judged =
        |control, kept, server| proof::judge_domains(Verdict::Isolated, &[Silent, control], &[kept, Silent], server);
    assert_eq!(judged(Open, Silent, Open), Verdict::Isolated);
    assert_eq!(judged(Refused, Silent, Open), Verdict::Isolated);
    assert!(matches!(judged(Open, Refused, Open), Verdict::Reaches { .. }));
    assert!(matches!(judged(Silent, Silent, Open), Verdict::NotShown { .. }), "a line that is down shows nothing");
    assert!(
        matches!(judged(Open, Silent, Refused), Verdict::NotShown { .. }),
        "without names there is nothing to reach"
    );
    let open = Verdict::Reaches { what: vec!["x".to_owned()] };
    assert_eq!(proof::judge_domains(open.clone(), &[Open], &[Silent], Open), open);
}

#[test]
fn the_table_of_a_lease_that_is_kept_to_some_domains() {
    let gate = gate::Gate { bridge: "fz-0123456789a".to_owned(), address: [10, 219, 0, 1].into(), port: 40053 };
    let open = [Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8)];
    insta::assert_snapshot!(format!("{}{}{}", gate.script(&open), gate.opening(&open, 40), gate.door()));
}

#[test]
fn one_answer_is_enough_to_refuse() {
    for answer in [Answer::Open, Answer::Refused] {
        let mut found = evidence(Answer::Silent);
        found.found.last_mut().unwrap().1 = answer;
        assert!(
            matches!(judge(&found), Verdict::Reaches { what } if what == ["the metadata service at 169.254.169.254"])
        );
    }
    let heard = Evidence { heard: true, ..evidence(Answer::Silent) };
    assert!(matches!(judge(&heard), Verdict::Reaches { .. }), "packets that arrive need no answer to have arrived");
    let unruled = Evidence { rules: Err(NftError::NotPermitted), ..evidence(Answer::Open) };
    assert!(matches!(judge(&unruled), Verdict::NotShown { why } if why.contains("setcap")), "what mends it is said");
}

#[test]
fn every_address_of_this_machine_is_tried_over_tcp_and_udp() {
    let arguments: Vec<String> = own_targets(&home(), PORTS).iter().map(proof::Target::argument).collect();
    assert_eq!(
        arguments,
        [
            "t4:ac110001:1000",
            "u4:ac110001:2000",
            "t4:c0a80107:1000",
            "u4:c0a80107:2000",
            "t6:20010db8000000000000000000000007:3000"
        ]
    );
    let forbidden =
        forbidden_targets(&home(), PORTS, Some(Ipv4Addr::new(10, 219, 0, 1)), Some(Ipv4Addr::new(10, 219, 0, 34)));
    let arguments: Vec<String> = forbidden.iter().map(proof::Target::argument).collect();
    for wanted in ["t4:0adb0001:1000", "u4:c0a80101:53", "t4:c0a80101:80", "t4:a9fea9fe:80", "t4:0adb0022:4242"] {
        assert!(arguments.iter().any(|argument| argument == wanted), "{wanted} in {arguments:?}");
    }
}

#[test]
fn a_torn_answer_is_no_answer() {
    assert_eq!(read_answers("open\nsilent\nerror 113\nrefused\n", 4).unwrap()[2], Answer::Error(113));
    for (torn, count) in [("open\nsil", 2), ("open\n", 2), ("", 1), ("open\nsilent\n", 1)] {
        assert_eq!(read_answers(torn, count), None, "{torn:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs nftables"]
fn nft_understands_the_rules() {
    use std::io::Write as _;
    use std::process::{Command, Stdio};
    let capped =
        NetworkPolicy { download_per_second: Some(1 << 20), upload_per_second: Some(5), ..NetworkPolicy::default() };
    let none = NetworkPolicy { resolvers: Vec::new(), ..NetworkPolicy::default() };
    for (policy, around) in [(NetworkPolicy::default(), home()), (capped, home()), (none, Surroundings::default())] {
        let gate = gate::Gate { bridge: "fz-0123456789a".to_owned(), address: [10, 219, 0, 1].into(), port: 40053 };
        let open = [Ipv4Addr::new(1, 2, 3, 4)];
        let gated = format!("{}{}", gate.script(&open), gate.opening(&open, 40));
        let with_door = format!("{}{}", rules::script(&policy, &around), gate.door());
        for script in [with_door, gated, gate::Gate::removal(&gate.bridge), rules::removal()] {
            // In a network of its own, where everybody is its root: nothing here is touched.
            let mut nft = Command::new("unshare");
            let mut nft = nft.args(["-rn", "nft", "-c", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
            nft.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            assert!(nft.wait().unwrap().success(), "{script}");
        }
    }
}
