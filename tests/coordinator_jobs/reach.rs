//! A renter reaches into a running job: who may, what both ends hear, and what is left when one goes away.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use fizz::http::{ApiClient, HttpError};
use fizz::wire::account::{AccountCreated, NewAccount};
use fizz::wire::job::JobSpec;
use fizz::wire::lease::LeaseChange;
use fizz::wire::reach::{
    NewReach, PendingReach, ReachFrame, ReachKind, ReachOpened, ReachWish, decode, encode, encode_frame,
};
use fizz::wire::{ErrorCode, JobId, LeaseId, REACH_MEDIA_TYPE, ReachId, Secret};
use futures_util::stream;
use tokio::sync::mpsc;

use crate::world::{Node, World, code, exited, job};

fn interactive() -> JobSpec {
    JobSpec { interactive: true, ..job() }
}

fn exec(command: &[&str]) -> NewReach {
    let command = command.iter().map(|&word| word.to_owned()).collect();
    NewReach { service: None, what: ReachWish::Exec { command, tty: None, env: Default::default(), workdir: None } }
}

async fn open(client: &ApiClient, key: &Secret, job: JobId, new: &NewReach) -> Result<ReachId, HttpError> {
    let call = client.post(&format!("/v1/jobs/{job}/sessions")).bearer(key).json(new);
    call.receive::<ReachOpened>().await.map(|opened| opened.session_id)
}

/// A running interactive job on a node.
async fn running(world: &World) -> (Node, JobId, LeaseId) {
    let mut node = world.node(1, "0.10").await;
    let job_id = world.submit(&interactive()).await.unwrap().job_id;
    let lease = node.assigned().await.lease_id;
    node.report(lease, 1, &[LeaseChange::Running]).await.unwrap();
    (node, job_id, lease)
}

/// The session the node is told of, and by a call that was held.
async fn told(node: &mut Node) -> PendingReach {
    let found = node.assignments(&format!("after={}&wait=20", node.acted)).await;
    found.sessions.into_iter().next().expect("the call was answered because of a session")
}

/// The four ways of a session, each over a connection of its own.
struct Ends {
    client: ApiClient,
    key: Secret,
    token: Secret,
    job: JobId,
    id: ReachId,
}

impl Ends {
    async fn new(world: &World, node: &mut Node, job: JobId, new: &NewReach) -> Self {
        let id = open(&world.client(), &world.renter.api_key, job, new).await.unwrap();
        assert_eq!(told(node).await.session_id, id);
        let client = world.client().apart().unwrap();
        Self { client, key: world.renter.api_key.clone(), token: node.token.clone(), job, id }
    }

    fn renter(&self, way: &str) -> String {
        format!("/v1/jobs/{}/sessions/{}/{way}", self.job, self.id)
    }

    fn node(&self, way: &str) -> String {
        format!("/v1/node/sessions/{}/{way}", self.id)
    }

    async fn read(&self, path: &str, token: &Secret) -> Frames {
        Frames { answer: self.client.get(path).bearer(token).open().await.unwrap(), buffer: BytesMut::new() }
    }

    /// Writes frames for as long as the sender lives.
    fn write(
        &self,
        path: String,
        token: &Secret,
    ) -> (mpsc::Sender<Bytes>, tokio::task::JoinHandle<Result<(), HttpError>>) {
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let body = stream::unfold(receiver, |mut receiver| async move {
            let piece = receiver.recv().await?;
            Some((Ok::<_, std::io::Error>(piece), receiver))
        });
        let call = self.client.post(&path).bearer(token).timeout(Duration::from_secs(60));
        let call = call.body(REACH_MEDIA_TYPE, reqwest::Body::wrap_stream(body));
        (sender, tokio::spawn(call.done()))
    }
}

struct Frames {
    answer: reqwest::Response,
    buffer: BytesMut,
}

impl Frames {
    /// The next frame; `None` at the end, however it came.
    async fn next(&mut self) -> Option<ReachFrame> {
        loop {
            if let Some(frame) = decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.answer.chunk()).await.expect("in time");
            self.buffer.extend_from_slice(&chunk.ok().flatten()?);
        }
    }

    async fn sentence(&mut self) -> String {
        loop {
            match self.next().await {
                Some(ReachFrame::Error(sentence)) => return sentence,
                Some(_) => {}
                None => panic!("it ended without a sentence"),
            }
        }
    }
}

fn framed(frame: &ReachFrame) -> Bytes {
    let mut out = BytesMut::new();
    encode_frame(frame, &mut out);
    out.freeze()
}

#[tokio::test]
async fn only_the_renter_of_an_interactive_running_job_gets_in() {
    let world = World::new().await;
    let client = world.client();
    let key = &world.renter.api_key;
    let (mut node, job_id, lease) = running(&world).await;
    let new = exec(&["true"]);

    let call = client.post("/v1/admin/accounts").bearer(world.running.admin_token());
    let stranger: AccountCreated = call.json(&NewAccount { name: "stranger".into() }).receive().await.unwrap();
    assert_eq!(code(open(&client, &stranger.api_key, job_id, &new).await), ErrorCode::NotFound);
    assert_eq!(code(open(&client, &world.owner.api_key, job_id, &new).await), ErrorCode::NotFound);
    assert_eq!(code(open(&client, &node.token, job_id, &new).await), ErrorCode::Unauthorized);

    let closed = world.submit(&job()).await.unwrap().job_id;
    assert_eq!(code(open(&client, key, closed, &new).await), ErrorCode::NotInteractive);
    let waiting = world.submit(&interactive()).await.unwrap().job_id;
    assert_eq!(code(open(&client, key, waiting, &new).await), ErrorCode::NotRunning);

    let other = NewReach { service: Some("db".into()), ..new.clone() };
    let relative = NewReach { service: None, what: ReachWish::CopyOut { path: "work".into() } };
    for wrong in [exec(&[]), exec(&["a\0b"]), exec(&[&"x".repeat(70_000)]), other, relative] {
        assert_eq!(code(open(&client, key, job_id, &wrong).await), ErrorCode::InvalidRequest);
    }

    let id = open(&client, key, job_id, &new).await.unwrap();
    let elsewhere = world.node(2, "0.20").await;
    let path = format!("/v1/node/sessions/{id}/input");
    assert_eq!(code(client.get(&path).bearer(&elsewhere.token).done().await), ErrorCode::SessionOver);
    let path = format!("/v1/jobs/{job_id}/sessions/{id}/output");
    assert_eq!(code(client.get(&path).bearer(&stranger.api_key).done().await), ErrorCode::SessionOver);
    assert_eq!(told(&mut node).await.lease_id, lease);

    let whats = [LeaseChange::Collecting];
    node.report(lease, 2, &whats).await.unwrap();
    assert_eq!(code(open(&client, key, job_id, &new).await), ErrorCode::NotRunning);
    node.log(lease, "offset=0&complete=true", Bytes::new()).await.unwrap();
    node.report(lease, 3, &[exited(0, 1)]).await.unwrap();
    assert_eq!(code(open(&client, key, job_id, &new).await), ErrorCode::NotRunning);
}

#[tokio::test]
async fn both_ends_hear_each_other_at_once_and_the_session_ends_with_the_exit_code() {
    let world = World::new().await;
    let (mut node, job_id, lease) = running(&world).await;
    let ends = Ends::new(&world, &mut node, job_id, &exec(&["cat"])).await;
    let mut heard = ends.read(&ends.node("input"), &ends.token).await;
    let mut answers = ends.read(&ends.renter("output"), &ends.key).await;
    let (say, said) = ends.write(ends.renter("input"), &ends.key);
    let (answer, answered) = ends.write(ends.node("output"), &ends.token);
    for word in ["one", "two"] {
        say.send(framed(&ReachFrame::Input(word.into()))).await.unwrap();
        assert_eq!(heard.next().await, Some(ReachFrame::Input(word.into())));
        answer.send(framed(&ReachFrame::Stdout(word.into()))).await.unwrap();
        assert_eq!(answers.next().await, Some(ReachFrame::Stdout(word.into())));
    }
    say.send(framed(&ReachFrame::InputEnd)).await.unwrap();
    drop(say);
    assert_eq!(heard.next().await, Some(ReachFrame::InputEnd));
    said.await.unwrap().unwrap();
    answer.send(framed(&ReachFrame::Exit(3))).await.unwrap();
    drop(answer);
    assert_eq!(answers.next().await, Some(ReachFrame::Exit(3)));
    assert_eq!(answers.next().await, None);
    answered.await.unwrap().unwrap();
    assert_eq!(heard.next().await, None);
    let quiet = node.assignments("wait=0").await;
    assert_eq!((quiet.sessions, quiet.leases[0].lease_id), (Vec::new(), lease));
}

#[tokio::test]
async fn when_one_end_goes_away_the_other_gets_a_sentence() {
    let world = World::new().await;
    let (mut node, job_id, lease) = running(&world).await;

    // The renter's Ctrl-C.
    let ends = Ends::new(&world, &mut node, job_id, &exec(&["cat"])).await;
    let mut heard = ends.read(&ends.node("input"), &ends.token).await;
    let answers = ends.read(&ends.renter("output"), &ends.key).await;
    let (_say, said) = ends.write(ends.renter("input"), &ends.key);
    let (_answer, answered) = ends.write(ends.node("output"), &ends.token);
    said.abort();
    drop(answers);
    assert_eq!(heard.sentence().await, "the renter went away");
    assert_eq!(code(answered.await.unwrap()), ErrorCode::SessionOver);

    // The node is killed.
    let ends = Ends::new(&world, &mut node, job_id, &exec(&["cat"])).await;
    let heard = ends.read(&ends.node("input"), &ends.token).await;
    let mut answers = ends.read(&ends.renter("output"), &ends.key).await;
    let (_say, _said) = ends.write(ends.renter("input"), &ends.key);
    let (answer, answered) = ends.write(ends.node("output"), &ends.token);
    answer.send(framed(&ReachFrame::Stdout("half".into()))).await.unwrap();
    assert_eq!(answers.next().await, Some(ReachFrame::Stdout("half".into())));
    answered.abort();
    drop(heard);
    assert!(answers.sentence().await.contains("the node went away"));

    // The job ends.
    let ends = Ends::new(&world, &mut node, job_id, &exec(&["cat"])).await;
    let mut heard = ends.read(&ends.node("input"), &ends.token).await;
    let mut answers = ends.read(&ends.renter("output"), &ends.key).await;
    let (_say, _said) = ends.write(ends.renter("input"), &ends.key);
    let (_answer, _answered) = ends.write(ends.node("output"), &ends.token);
    node.report(lease, 2, &[LeaseChange::Collecting]).await.unwrap();
    assert!(answers.sentence().await.contains("has ended"));
    assert!(heard.sentence().await.contains("has ended"));
}

#[tokio::test]
async fn a_coordinator_that_stops_tells_both_ends() {
    let world = World::new().await;
    let (mut node, job_id, _) = running(&world).await;
    let ends = Ends::new(&world, &mut node, job_id, &exec(&["cat"])).await;
    let mut heard = ends.read(&ends.node("input"), &ends.token).await;
    let mut answers = ends.read(&ends.renter("output"), &ends.key).await;
    let (_say, _said) = ends.write(ends.renter("input"), &ends.key);
    let (_answer, _answered) = ends.write(ends.node("output"), &ends.token);
    world.running.app().stopping.cancel();
    assert!(answers.sentence().await.contains("restarting"));
    assert!(heard.sentence().await.contains("restarting"));
}

/// Resident memory of this process in bytes.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[tokio::test]
async fn a_renter_that_does_not_read_holds_the_node_and_grows_nothing() {
    let world = World::new().await;
    let (mut node, job_id, _) = running(&world).await;
    let ends = Ends::new(&world, &mut node, job_id, &exec(&["yes"])).await;
    let _heard = ends.read(&ends.node("input"), &ends.token).await;
    let mut answers = ends.read(&ends.renter("output"), &ends.key).await;
    let (_say, _said) = ends.write(ends.renter("input"), &ends.key);
    let (answer, _answered) = ends.write(ends.node("output"), &ends.token);
    let mut piece = BytesMut::new();
    encode(ReachKind::Stdout, &[b'y'; 32 << 10], &mut piece);
    let piece = piece.freeze();
    let before = resident_bytes();
    let mut sent = 0_u64;
    // Sockets hold some megabytes each; then nothing moves.
    while tokio::time::timeout(Duration::from_secs(1), answer.send(piece.clone())).await.is_ok() {
        sent += piece.len() as u64;
        assert!(sent < 64 << 20, "{sent} bytes were taken although nobody reads");
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more are resident; {sent} were sent");
    // Once it reads, everything is there.
    drop(answer);
    let mut read = 0_u64;
    while let Some(frame) = answers.next().await {
        let ReachFrame::Stdout(bytes) = frame else { panic!("{frame:?}") };
        read += bytes.len() as u64 + 5;
    }
    assert_eq!(read, sent);
}
