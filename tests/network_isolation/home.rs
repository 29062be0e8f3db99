//! A home to attack: this machine (the namespace the test runs in), and a second namespace that plays everything outside it.
//!
//! ```text
//! containers ── fz-… ── this machine ── lan0 ═══ out0 ── router 192.168.77.1, neighbour 192.168.77.50,
//!                       192.168.77.2               a public address on the same wire 93.184.216.50,
//!                       93.184.216.2               metadata 169.254.169.254, carrier 100.64.0.9,
//!                                                  and, by the router, the internet: 151.101.1.1, resolver 151.101.1.53
//!                       fd77::2, 2a01:77::2        neighbour fd77::50 and 2a01:77::50, internet 2a04:4e42::1
//! ```

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output};
use std::time::Duration;

use super::docker_support::own_engine::OwnEngine;
use super::docker_support::wait_for;

/// Set for the inner run of a test.
const INNER: &str = "FIZZ_TEST_ALONE";
/// Where everything outside listens.
pub(crate) const PORT: u16 = 8000;
/// Where this machine listens, on all its addresses.
pub(crate) const HOST_PORT: u16 = 9000;
/// Where a server outside sends as fast as it can, and one that takes what comes.
pub(crate) const SOURCE_PORT: u16 = 8001;
pub(crate) const SINK_PORT: u16 = 8002;
/// Where everything listens that has an IPv6 address, this machine included.
pub(crate) const SIX_PORT: u16 = 8006;
pub(crate) const INTERNET: Ipv4Addr = Ipv4Addr::new(151, 101, 1, 1);
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(151, 101, 1, 53);
/// What the resolver says of every name but those of [`rebound`] and [`SECOND_NAME`].
pub(crate) const ANSWER: Ipv4Addr = Ipv4Addr::new(151, 101, 1, 1);
/// A name with another address in the internet.
pub(crate) const SECOND_NAME: &str = "second.example.com";
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(151, 101, 1, 2);
/// A name that is another name for `elsewhere.example.org`, and has the address of that.
pub(crate) const ALIAS: &str = "alias.example.com";
const OUTSIDE: &[&str] = &[
    "192.168.77.1/24",
    "192.168.77.50/32",
    "93.184.216.50/24",
    "169.254.169.254/32",
    "100.64.0.9/32",
    "151.101.1.1/32",
    "151.101.1.53/32",
    "151.101.1.2/32",
];

const OUTSIDE_SIX: &[&str] = &["fd77::50/64", "2a01:77::50/64", "2a04:4e42::1/128"];

/// A name that leads to this address, whosever address it is.
pub(crate) fn rebound(address: Ipv4Addr) -> String {
    format!("{}.rebound.example", address.to_string().replace('.', "-"))
}

/// Runs the test called `name` again, in a network namespace of its own. `false` in that inner run: go on with the body.
pub(crate) fn alone(name: &str) -> bool {
    if std::env::var_os(INNER).is_some() {
        std::fs::write(folder().join("begun"), "").unwrap();
        return false;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = format!("unix://{}", folder.path().join("docker.sock").display());
    let status = Command::new("unshare")
        .arg("-n")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--include-ignored", "--nocapture", "--test-threads=1"])
        .env(INNER, folder.path())
        .env("DOCKER_HOST", socket)
        .status()
        .unwrap();
    assert!(status.success(), "{name} failed in its own namespace; see above");
    assert!(folder.path().join("begun").exists(), "no test is called {name}");
    true
}

fn folder() -> std::path::PathBuf {
    std::env::var_os(INNER).unwrap().into()
}

/// Runs a command of this machine, whatever comes of it.
pub(crate) fn command(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).output().unwrap()
}

/// Runs a shell line of this machine, which must succeed.
pub(crate) fn sh(line: &str) {
    let output = command("sh", &["-ec", line]);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The home, with its engine; gone when dropped.
pub(crate) struct Home {
    outside: Child,
    engine: OwnEngine,
}

impl Home {
    pub(crate) fn new() -> Self {
        let outside = Command::new("unshare").args(["-n", "sleep", "1000"]).spawn().unwrap();
        let pid = outside.id();
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        wait_for("the outside", || std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs != own));
        sh(&format!(
            "ip link set lo up; ip link add lan0 type veth peer name out0; ip link set out0 netns {pid}
             ip addr add 192.168.77.2/24 dev lan0; ip addr add 93.184.216.2/24 dev lan0; ip link set lan0 up
             ip route add default via 192.168.77.1"
        ));
        // The metadata service and the carrier's network answer through the router, as in a real home.
        let addresses: String = OUTSIDE.iter().map(|it| format!("ip addr add {it} dev out0; ")).collect();
        sh(&format!(
            "nsenter --net=/proc/{pid}/ns/net sh -ec 'ip link set lo up; {addresses} ip link set out0 up; \
             ip route add 10.0.0.0/8 via 192.168.77.2; ip route add 172.16.0.0/12 via 192.168.77.2'"
        ));
        let addresses: String = OUTSIDE_SIX.iter().map(|it| format!("ip addr add {it} dev out0 nodad; ")).collect();
        sh(&format!(
            "ip addr add fd77::2/64 dev lan0 nodad; ip addr add 2a01:77::2/64 dev lan0 nodad
             ip route add 2a04:4e42::/32 via fd77::50
             nsenter --net=/proc/{pid}/ns/net sh -ec '{addresses} ip route add fd88::/16 via fd77::2'"
        ));
        Self::serve(pid);
        std::thread::spawn(|| greet(TcpListener::bind(("::", SIX_PORT)).unwrap()));
        std::thread::spawn(|| greet(TcpListener::bind(("0.0.0.0", HOST_PORT)).unwrap()));
        Self { outside, engine: OwnEngine::start_in_this_network(&folder()) }
    }

    /// Everything that listens outside: a thread in that namespace opens the sockets.
    fn serve(pid: u32) {
        std::thread::spawn(move || {
            let there = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&there), network).unwrap();
            let bind = |port| TcpListener::bind(("0.0.0.0", port)).unwrap();
            let greeters = [PORT, 25, 53, 465, 587, 853, 2525].map(bind);
            let (source, sink) = (bind(SOURCE_PORT), bind(SINK_PORT));
            let six = TcpListener::bind(("::", SIX_PORT)).unwrap();
            std::thread::spawn(move || greet(six));
            let names = UdpSocket::bind((RESOLVER, 53)).unwrap();
            let other_names = UdpSocket::bind((INTERNET, 53)).unwrap();
            for listener in greeters {
                std::thread::spawn(move || greet(listener));
            }
            std::thread::spawn(move || pour(&source));
            std::thread::spawn(move || drain(&sink));
            std::thread::spawn(move || answer_names(&names));
            answer_names(&other_names);
        });
    }

    /// Runs a command in the namespace outside.
    pub(crate) fn call_from_outside(&self, args: &[&str]) -> Output {
        let namespace = format!("--net=/proc/{}/ns/net", self.outside.id());
        Command::new("nsenter").arg(namespace).args(args).output().unwrap()
    }

    /// Stops the engine and starts it again.
    pub(crate) fn restart_engine(&mut self) {
        self.engine.down("-TERM");
        self.engine.up();
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Whatever uses its engine is gone by now.
        let _ = self.outside.kill();
        let _ = self.outside.wait();
    }
}

fn greet(listener: TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        // Whoever hangs up first has heard enough.
        let _ = stream.write_all(b"hello\n");
    }
}

fn pour(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        std::thread::spawn(move || while stream.write_all(&[b'x'; 16384]).is_ok() {});
    }
}

fn drain(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream: TcpStream = stream.unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
            let _ = stream.write_all(b"done\n");
        });
    }
}

/// What a query's first label says if it is one of [`rebound`].
fn of_rebound(query: &[u8]) -> Option<Ipv4Addr> {
    let (&length, name) = query.get(12..)?.split_first()?;
    let (label, rest) = name.split_at_checked(length.into())?;
    rest.starts_with(b"\x07rebound").then_some(())?;
    std::str::from_utf8(label).ok()?.replace('-', ".").parse().ok()
}

/// Answers every question of one name for an IPv4 address, and every other with nothing.
fn answer_names(socket: &UdpSocket) {
    let mut query = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut query).unwrap();
        let question_end = query[12..length].iter().position(|&byte| byte == 0).unwrap() + 12 + 5;
        let is_a = query[question_end - 3] == 1;
        let mut answer = query[..question_end].to_vec();
        answer[2..4].copy_from_slice(&[0x81, 0x80]);
        let is_alias = query[12..].starts_with(b"\x05alias\x07example\x03com\0");
        answer[6..12].copy_from_slice(&[0, u8::from(is_a) + u8::from(is_a && is_alias), 0, 0, 0, 0]);
        if is_a {
            let mut name = vec![0xc0, 12];
            if is_alias {
                let elsewhere = b"\x09elsewhere\x07example\x03org\0";
                answer.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 23]);
                answer.extend(elsewhere);
                name = elsewhere.to_vec();
            }
            answer.extend(name);
            let second = query[12..].starts_with(b"\x06second\x07example\x03com\0").then_some(SECOND);
            let ttl = if second.is_some() { 1 } else { 60 };
            answer.extend([0, 1, 0, 1, 0, 0, 0, ttl, 0, 4]);
            answer.extend(second.or_else(|| of_rebound(&query[..length])).unwrap_or(ANSWER).octets());
        }
        let _ = socket.send_to(&answer, from);
    }
}

/// Whether this machine reaches a TCP port.
pub(crate) fn reaches(address: Ipv4Addr, port: u16) -> bool {
    TcpStream::connect_timeout(&(address, port).into(), Duration::from_secs(2)).is_ok()
}
