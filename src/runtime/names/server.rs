//! Listens on a lease's bridge and asks the owner's name servers. Driver of [`super::book`] and [`super::message`].
//!
//! Invariants
//! - It listens on the bridge's own end and answers only addresses of the lease's network.
//! - It ends with its handle; then names are not found, and what the kernel holds of the lease's rules stays.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, JoinSet};

use super::book::{Book, Given, Ruling};
use super::message::{
    self, ANSWER_BYTES_MAX, NO_ERROR, NO_SUCH_NAME, NoQuestion, Question, Reply, SERVER_FAILURE, read_question,
    read_reply,
};
use crate::clock::Clock;
use crate::runtime::firewall::gate::Gate;
use crate::runtime::firewall::nft;
use crate::runtime::firewall::rules::is_out;
use crate::runtime::firewall::surroundings::Surroundings;
use crate::runtime::network::Subnet;
use crate::wire::domain::DomainPattern;

/// Longest question: with extensions it still fits.
const QUESTION_BYTES_MAX: usize = 1232;
/// Longest reply of a name server.
const REPLY_BYTES_MAX: usize = 8 << 10;
/// Questions over UDP, and connections over TCP, at once.
const QUESTIONS_MAX: usize = 32;
const CONNECTIONS_MAX: usize = 8;
/// Questions of one connection.
const PER_CONNECTION_MAX: usize = 64;
const CONNECTION_IDLE: Duration = Duration::from_secs(5);
/// What a name server gets to answer in, and how many are asked.
const REPLY_DEADLINE: Duration = Duration::from_secs(2);
const RESOLVERS_MAX: usize = 3;
/// After an error of the socket.
const BREATH: Duration = Duration::from_millis(50);
/// One port is wanted for both ways.
const BIND_ATTEMPTS: usize = 16;

/// What a lease's name server is made of.
#[derive(Debug, Clone)]
pub struct NameServerSpec {
    /// The lease's bridge.
    pub bridge: String,
    /// Its own end, which is an address of this machine.
    pub address: Ipv4Addr,
    /// The lease's network.
    pub subnet: Subnet,
    /// The names that are answered for; none when empty.
    pub domains: Vec<DomainPattern>,
    /// Who is asked for them.
    pub resolvers: Vec<Ipv4Addr>,
}

/// A name server that runs until this is dropped.
#[derive(Debug)]
pub struct NameServer {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    gate: Gate,
    subnet: Subnet,
    resolvers: Vec<Ipv4Addr>,
    book: Mutex<Book>,
    clock: Clock,
}

impl NameServer {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the address is none of this machine's, or no port is free.
    pub async fn open(spec: NameServerSpec) -> io::Result<Self> {
        let (udp, tcp, port) = bind(spec.address).await?;
        let clock = Clock::system();
        let shared = Arc::new(Shared {
            gate: Gate { bridge: spec.bridge, address: spec.address, port },
            subnet: spec.subnet,
            resolvers: spec.resolvers,
            book: Mutex::new(Book::new(spec.domains, clock.steady())),
            clock,
        });
        let task = tokio::spawn(serve(Arc::clone(&shared), Arc::new(udp), tcp)).abort_handle();
        Ok(Self { shared, task })
    }

    /// Where it listens, and for which bridge.
    #[must_use]
    pub fn gate(&self) -> &Gate {
        &self.shared.gate
    }

    /// Addresses it has given out that may be in use.
    #[must_use]
    pub fn in_use(&self) -> Vec<Ipv4Addr> {
        self.shared.book().in_use(self.shared.clock.steady())
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ours(&self, from: SocketAddr) -> bool {
        match from {
            SocketAddr::V4(from) => self.subnet.contains(*from.ip()),
            SocketAddr::V6(_) => false,
        }
    }
}

async fn bind(address: Ipv4Addr) -> io::Result<(UdpSocket, TcpListener, u16)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let udp = UdpSocket::bind((address, 0)).await?;
        let port = udp.local_addr()?.port();
        match TcpListener::bind((address, port)).await {
            Ok(tcp) => return Ok((udp, tcp, port)),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse || attempt >= BIND_ATTEMPTS => return Err(error),
            Err(_) => {}
        }
    }
}

async fn serve(shared: Arc<Shared>, udp: Arc<UdpSocket>, tcp: TcpListener) {
    let (mut questions, mut connections) = (JoinSet::new(), JoinSet::new());
    let mut buffer = [0; QUESTION_BYTES_MAX];
    loop {
        tokio::select! {
            received = udp.recv_from(&mut buffer) => match received {
                Ok((length, from)) if shared.is_ours(from) && questions.len() < QUESTIONS_MAX => {
                    let asked = buffer.get(..length).unwrap_or_default().to_vec();
                    let (shared, udp) = (Arc::clone(&shared), Arc::clone(&udp));
                    questions.spawn(async move {
                        if let Some(answer) = respond(&shared, &asked).await {
                            // Who does not get it asks again.
                            let _ = udp.send_to(&answer, from).await;
                        }
                    });
                }
                // A stranger, or too many at once: they ask again.
                Ok(_) => {}
                Err(_) => tokio::time::sleep(BREATH).await,
            },
            accepted = tcp.accept() => match accepted {
                Ok((stream, from)) if shared.is_ours(from) && connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(converse(Arc::clone(&shared), stream));
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(BREATH).await,
            },
            Some(_) = questions.join_next() => {}
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Answers the questions of a connection until it is idle, or says something else.
async fn converse(shared: Arc<Shared>, mut stream: TcpStream) {
    for _ in 0..PER_CONNECTION_MAX {
        let asked = tokio::time::timeout(CONNECTION_IDLE, read_framed(&mut stream, QUESTION_BYTES_MAX)).await;
        let Ok(Ok(asked)) = asked else { return };
        let Some(answer) = respond(&shared, &asked).await else { return };
        let sent = tokio::time::timeout(CONNECTION_IDLE, stream.write_all(&framed(&answer))).await;
        if !matches!(sent, Ok(Ok(()))) {
            return;
        }
    }
}

async fn read_framed(stream: &mut TcpStream, bytes_max: usize) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if length > bytes_max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(0);
    [&length.to_be_bytes(), message].concat()
}

/// The answer to a message; none for what is no question.
async fn respond(shared: &Shared, asked: &[u8]) -> Option<Vec<u8>> {
    let question = match read_question(asked) {
        Ok(question) => question,
        Err(NoQuestion::Silent) => return None,
        Err(NoQuestion::Answer(refusal)) => return Some(refusal),
    };
    let ruling = shared.book().rule(&question.name, question.kind, shared.clock.steady());
    let given = match ruling {
        Ruling::NotAllowed { tell } => {
            if tell {
                let name = question.name.text();
                tracing::info!(bridge = shared.gate.bridge, name, "a job asked for a name that it may not reach");
            }
            return Some(question.answer(NO_SUCH_NAME, &[], 0));
        }
        Ruling::Nothing => return Some(question.answer(NO_ERROR, &[], 0)),
        Ruling::Known(given) => given,
        Ruling::TooMany => return Some(question.answer(SERVER_FAILURE, &[], 0)),
        Ruling::Ask => match learn(shared, &question).await {
            Some(given) => given,
            None => return Some(question.answer(SERVER_FAILURE, &[], 0)),
        },
    };
    let answer = question.answer(given.code, &given.addresses, given.ttl_seconds);
    debug_assert!(answer.len() <= ANSWER_BYTES_MAX, "see ADDRESSES_MAX");
    Some(answer)
}

/// Asks for a name's addresses and opens the way to them; nothing when either fails.
async fn learn(shared: &Shared, question: &Question) -> Option<Given> {
    let reply = ask(&shared.resolvers, question).await?;
    let around = Surroundings::read();
    let given = Book::judge(&reply, |address| is_out(address, &around));
    if given.addresses.len() < reply.addresses.len().min(message::ADDRESSES_MAX) {
        let name = question.name.text().unwrap_or_default();
        if shared.book().is_news(&name) {
            tracing::info!(bridge = shared.gate.bridge, name, "a name that a job asked for leads to no public address");
        }
    }
    if !given.addresses.is_empty() {
        if !shared.book().has_room(&given, shared.clock.steady()) {
            return None;
        }
        if let Err(error) = nft::apply(&shared.gate.opening(&given.addresses, Book::open_seconds(&given))).await {
            tracing::warn!(%error, bridge = shared.gate.bridge, "an address could not be opened for a job");
            return None;
        }
    }
    shared.book().opened(question.name.clone(), &given, shared.clock.steady());
    Some(given)
}

/// What the first name server says that answers.
async fn ask(resolvers: &[Ipv4Addr], question: &Question) -> Option<Reply> {
    for &resolver in resolvers.iter().take(RESOLVERS_MAX) {
        let asked = async {
            let reply = ask_datagram(resolver, question).await?;
            if reply.truncated { ask_stream(resolver, question).await } else { Ok(reply) }
        };
        match tokio::time::timeout(REPLY_DEADLINE, asked).await {
            Ok(Ok(reply)) if matches!(reply.code, NO_ERROR | NO_SUCH_NAME) => return Some(reply),
            Ok(Ok(_) | Err(_)) | Err(_) => {}
        }
    }
    None
}

/// A socket of its own for each question: who wants to answer in another's place must guess its port besides the id.
async fn ask_datagram(resolver: Ipv4Addr, question: &Question) -> io::Result<Reply> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect((resolver, 53)).await?;
    let id = new_id();
    socket.send(&question.to_ask(id)).await?;
    let mut buffer = [0; QUESTION_BYTES_MAX];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(reply) = read_reply(buffer.get(..length).unwrap_or_default(), id, &question.name) {
            return Ok(reply);
        }
    }
}

async fn ask_stream(resolver: Ipv4Addr, question: &Question) -> io::Result<Reply> {
    let mut stream = TcpStream::connect((resolver, 53)).await?;
    let id = new_id();
    stream.write_all(&framed(&question.to_ask(id))).await?;
    let message = read_framed(&mut stream, REPLY_BYTES_MAX).await?;
    read_reply(&message, id, &question.name).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn new_id() -> u16 {
    let [a, b, ..] = *uuid::Uuid::new_v4().as_bytes();
    u16::from_be_bytes([a, b])
}
