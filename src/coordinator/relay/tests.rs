use std::convert::Infallible;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream;
use jiff::Timestamp;

use super::*;
use crate::wire::reach::{ReachKind, ReachWish, decode, encode};

fn route(job: u64, node: u64) -> Route {
    let at = |seconds: u64| Timestamp::from_second(i64::try_from(seconds).unwrap()).unwrap();
    let same = |n: u64| uuid::Uuid::from_u128(u128::from(n));
    Route {
        account_id: AccountId::from(same(1)),
        job_id: JobId::from(same(job)),
        node_id: NodeId::from(same(node)),
        pending: PendingReach {
            session_id: ReachId::generate(at(job)),
            lease_id: crate::wire::LeaseId::from(same(job)),
            service: None,
            what: ReachWish::CopyOut { path: "/work".into() },
        },
    }
}

fn open(relay: &Arc<Relay>) -> Arc<Session> {
    relay.open(route(1, 1), std::future::pending()).unwrap()
}

fn framed(frames: &[ReachFrame]) -> Bytes {
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| encode_frame(frame, &mut out));
    out.freeze()
}

fn body(frames: &[ReachFrame]) -> impl Stream<Item = Result<Bytes, Infallible>> + Send + use<> {
    stream::iter([Ok(framed(frames))])
}

async fn frames(read: impl Stream<Item = Result<Bytes, Infallible>>) -> Vec<ReachFrame> {
    let mut read = pin!(read);
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    while let Some(Ok(piece)) = read.next().await {
        buffer.extend_from_slice(&piece);
        while let Some(frame) = decode(&mut buffer).unwrap() {
            frames.push(frame);
        }
    }
    frames
}

fn sentence(frames: &[ReachFrame]) -> &str {
    match frames.last() {
        Some(ReachFrame::Error(sentence)) => sentence,
        other => panic!("expected a sentence, got {other:?}"),
    }
}

#[tokio::test]
async fn what_each_end_says_reaches_the_other_and_the_session_leaves_nothing() {
    let relay = Arc::new(Relay::default());
    let session = open(&relay);
    let node = session.route.node_id;
    assert_eq!(relay.pending(node), std::slice::from_ref(&session.route.pending));
    let to_node = session.read(Way::ToNode).unwrap();
    assert_eq!(relay.pending(node), [], "taken up");
    let to_renter = session.read(Way::ToRenter).unwrap();
    let said = [ReachFrame::Input(Bytes::from_static(b"ls")), ReachFrame::InputEnd];
    let answered = [ReachFrame::Stdout(Bytes::from_static(b"a b")), ReachFrame::Exit(3)];
    let (wrote, answer, heard, got) = tokio::join!(
        session.write(Way::ToNode, body(&said)),
        session.write(Way::ToRenter, body(&answered)),
        frames(to_node),
        frames(to_renter),
    );
    wrote.unwrap();
    answer.unwrap();
    assert_eq!((heard.as_slice(), got.as_slice()), (&said[..], &answered[..]));
    let id = session.route.pending.session_id;
    while relay.of_node(node, id).is_ok() {
        tokio::task::yield_now().await;
    }
    assert_eq!(Arc::strong_count(&session), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_holds_the_writer_and_memory_stays_below_a_megabyte() {
    let relay = Arc::new(Relay::default());
    let session = open(&relay);
    let _unread = session.read(Way::ToRenter).unwrap();
    let pulled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&pulled);
    let mut chunk = BytesMut::new();
    encode(ReachKind::Stdout, &[7; 100_000], &mut chunk);
    let chunk = chunk.freeze();
    let endless = stream::repeat_with(move || {
        count.fetch_add(chunk.len(), Ordering::Relaxed);
        Ok::<_, Infallible>(chunk.clone())
    });
    let writing = session.write(Way::ToRenter, endless);
    let held = tokio::time::timeout(Duration::from_secs(20), writing).await;
    assert!(held.is_err(), "it writes on although nobody reads");
    let taken = pulled.load(Ordering::Relaxed);
    assert!((100_000..500_000).contains(&taken), "{taken} bytes of one direction are held");
}

#[tokio::test]
async fn when_an_end_goes_away_the_other_hears_why() {
    let relay = Arc::new(Relay::default());
    let session = open(&relay);
    let to_node = session.read(Way::ToNode).unwrap();
    drop(session.read(Way::ToRenter).unwrap());
    assert_eq!(sentence(&frames(to_node).await), "the renter went away");
    let refused = session.write(Way::ToRenter, body(&[ReachFrame::Exit(0)])).await.unwrap_err();
    assert_eq!(refused.problem().code, ErrorCode::SessionOver);

    let session = open(&relay);
    let to_renter = session.read(Way::ToRenter).unwrap();
    let cut = stream::iter([Ok(framed(&[ReachFrame::Stdout(Bytes::from_static(b"half"))])), Err("reset")]);
    let (broken, got) = tokio::join!(session.write(Way::ToRenter, cut), frames(to_renter));
    assert_eq!(broken.unwrap_err().problem().code, ErrorCode::InvalidRequest);
    assert_eq!(got[0], ReachFrame::Stdout(Bytes::from_static(b"half")), "what came before is not lost");
    assert!(sentence(&got).contains("the node went away"), "{got:?}");
}

#[tokio::test]
async fn a_writer_whose_request_is_dropped_breaks_the_session_off() {
    let relay = Arc::new(Relay::default());
    let session = open(&relay);
    let to_renter = session.read(Way::ToRenter).unwrap();
    let writing = Arc::clone(&session);
    let task = tokio::spawn(async move {
        let silent = stream::pending::<Result<Bytes, Infallible>>();
        writing.write(Way::ToRenter, silent).await
    });
    while lock(&session.to_renter.sender).is_some() {
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(sentence(&frames(to_renter).await).contains("the node went away"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_come_and_a_session_in_which_nothing_moves_are_given_up() {
    let relay = Arc::new(Relay::default());
    let session = open(&relay);
    assert!(sentence(&frames(session.read(Way::ToRenter).unwrap()).await).contains("did not answer in time"));

    let session = open(&relay);
    let to_node = session.read(Way::ToNode).unwrap();
    let to_renter = session.read(Way::ToRenter).unwrap();
    let silent = || stream::pending::<Result<Bytes, Infallible>>();
    let (input, output, heard, got) = tokio::join!(
        session.write(Way::ToNode, silent()),
        session.write(Way::ToRenter, silent()),
        frames(to_node),
        frames(to_renter),
    );
    assert!(input.is_err() && output.is_err());
    assert!(
        sentence(&heard).contains("nothing moved") && sentence(&got).contains("nothing moved"),
        "{heard:?} {got:?}"
    );
}

#[tokio::test]
async fn a_session_ends_with_its_job_and_there_are_only_so_many() {
    let relay = Arc::new(Relay::default());
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let gone = async move {
        let _ = ended.await;
        "the job has ended".to_owned()
    };
    let session = relay.open(route(1, 1), gone).unwrap();
    let to_renter = session.read(Way::ToRenter).unwrap();
    end.send(()).unwrap();
    assert_eq!(sentence(&frames(to_renter).await), "the job has ended");

    let made: Vec<_> = (0..100).map(|_| relay.open(route(5, 5), std::future::pending()).is_ok()).collect();
    assert_eq!(made.iter().filter(|ok| **ok).count(), PER_JOB_MAX);
    let made = (10..100).map(|job| relay.open(route(job, 5), std::future::pending()).is_ok());
    assert_eq!(made.filter(|ok| *ok).count(), PER_NODE_MAX - PER_JOB_MAX);
}

#[tokio::test]
async fn nobody_else_finds_a_session_and_each_way_is_opened_once() {
    let relay = Arc::new(Relay::default());
    let session = open(&relay);
    let Route { account_id, job_id, node_id, pending } = session.route.clone();
    let id = pending.session_id;
    let other = uuid::Uuid::from_u128(99);
    assert!(relay.of_renter(account_id, job_id, id).is_ok() && relay.of_node(node_id, id).is_ok());
    for refused in [
        relay.of_renter(AccountId::from(other), job_id, id),
        relay.of_renter(account_id, JobId::from(other), id),
        relay.of_node(NodeId::from(other), id),
    ] {
        assert_eq!(refused.unwrap_err().problem().code, ErrorCode::SessionOver);
    }
    let _first = session.read(Way::ToRenter).unwrap();
    assert_eq!(session.read(Way::ToRenter).err().unwrap().problem().code, ErrorCode::Conflict);
}

#[tokio::test]
async fn what_is_no_frame_ends_the_session() {
    let relay = Arc::new(Relay::default());
    let session = open(&relay);
    let to_node = session.read(Way::ToNode).unwrap();
    let garbage = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"GET / HTTP/1.1"))]);
    let (refused, heard) = tokio::join!(session.write(Way::ToNode, garbage), frames(to_node));
    assert_eq!(refused.unwrap_err().problem().code, ErrorCode::InvalidRequest);
    assert!(sentence(&heard).contains("something else than frames"), "{heard:?}");
}
