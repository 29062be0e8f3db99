//! Outputs in a folder, and in a bucket of a server that speaks S3.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use futures_util::{TryStreamExt as _, stream};
use jiff::Timestamp;

fn outputs(dir: &tempfile::TempDir) -> Outputs {
    Outputs::open(&CoordinatorConfig { data_dir: dir.path().to_owned(), ..CoordinatorConfig::default() }).unwrap()
}

fn files(dir: &tempfile::TempDir) -> usize {
    fn count(path: &std::path::Path) -> usize {
        let entries = std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path());
        entries.map(|p| if p.is_dir() { count(&p) } else { 1 }).sum()
    }
    count(&dir.path().join("outputs"))
}

fn body(pieces: usize) -> Vec<Result<Bytes, String>> {
    (0..pieces).map(|n| Ok(Bytes::from(vec![u8::try_from(n % 251).unwrap(); 1 << 20]))).collect()
}

fn sha256(pieces: &[Result<Bytes, String>]) -> String {
    let mut sum = Sha256::new();
    pieces.iter().flatten().for_each(|p| sum.update(p));
    hex::encode(sum.finalize())
}

fn expected(sha256: &str, limit_bytes: u64) -> Expected<'_> {
    let now = Timestamp::from_second(1).unwrap();
    Expected { job_id: JobId::generate(now), lease_id: LeaseId::generate(now), sha256, limit_bytes }
}

#[tokio::test]
async fn an_output_comes_back_as_it_was_sent() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = outputs(&dir);
    let pieces = body(12);
    let sum = sha256(&pieces);
    let stored = outputs.put(expected(&sum, 12 << 20), stream::iter(pieces.clone())).await.unwrap();
    assert_eq!(stored.bytes, 12 << 20);
    let back: Vec<Bytes> = outputs.get(&stored).await.unwrap().try_collect().await.unwrap();
    assert_eq!(sha256(&back.into_iter().map(Ok).collect::<Vec<_>>()), sum);
}

#[tokio::test]
async fn an_empty_output_is_an_output_too() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = outputs(&dir);
    let sum = sha256(&[]);
    let stored = outputs.put(expected(&sum, 0), stream::iter(body(0))).await.unwrap();
    let back: Vec<Bytes> = outputs.get(&stored).await.unwrap().try_collect().await.unwrap();
    assert_eq!(back.concat().len(), 0);
}

#[tokio::test]
async fn wrong_sum_too_large_and_broken_off_outputs_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = outputs(&dir);
    let pieces = body(12);
    let sum = sha256(&pieces);
    let wrong = outputs.put(expected(&"0".repeat(64), 1 << 30), stream::iter(pieces.clone())).await;
    assert!(matches!(wrong, Err(OutputError::WrongSum { .. })), "{wrong:?}");
    let large = outputs.put(expected(&sum, (12 << 20) - 1), stream::iter(pieces.clone())).await;
    assert!(matches!(large, Err(OutputError::TooLarge { .. })), "{large:?}");
    let broken = pieces.into_iter().chain([Err("reset".to_owned())]);
    let broken = outputs.put(expected(&sum, 1 << 30), stream::iter(broken)).await;
    assert!(matches!(broken, Err(OutputError::Broken(_))), "{broken:?}");
    assert_eq!(files(&dir), 0);
}

/// Sends an output in parts of a megabyte.
async fn upload(outputs: &Outputs, expected: Expected<'_>, pieces: &[Result<Bytes, String>]) -> u64 {
    let mut at = 0;
    for piece in pieces.iter().flatten() {
        at = outputs.put_part(expected, at, piece.clone()).await.unwrap();
    }
    at
}

async fn parts_become_one(outputs: &Outputs) {
    let pieces = body(9);
    let sum = sha256(&pieces);
    let expected = expected(&sum, 9 << 20);
    assert_eq!(outputs.next_offset(expected).await.unwrap(), 0);
    assert_eq!(upload(outputs, expected, &pieces[..6]).await, 6 << 20);
    let gap = outputs.put_part(expected, 8 << 20, Bytes::from_static(b"x")).await;
    assert!(matches!(gap, Err(OutputError::Gap { next_offset: 6_291_456 })), "{gap:?}");
    // A part that begins before the end and goes past it.
    let both: Bytes = [pieces[5].clone().unwrap(), pieces[6].clone().unwrap()].concat().into();
    assert_eq!(outputs.put_part(expected, 5 << 20, both).await.unwrap(), 7 << 20);
    let early = outputs.assemble(expected, 9 << 20).await;
    assert!(matches!(early, Err(OutputError::Gap { next_offset: 7_340_032 })), "{early:?}");
    for (number, piece) in pieces.iter().enumerate().skip(7) {
        outputs.put_part(expected, (number as u64) << 20, piece.clone().unwrap()).await.unwrap();
    }
    let large = outputs.put_part(expected, 9 << 20, Bytes::from_static(b"x")).await;
    assert!(matches!(large, Err(OutputError::TooLarge { .. })), "{large:?}");
    let stored = outputs.assemble(expected, 9 << 20).await.unwrap();
    assert_eq!((stored.bytes, &stored.sha256), (9 << 20, &sum));
    assert_eq!(outputs.leases_with_parts().await.unwrap().into_iter().collect::<Vec<_>>(), [expected.lease_id]);
    outputs.drop_parts(expected.lease_id, None).await;
    assert!(outputs.leases_with_parts().await.unwrap().is_empty());
    let back: Vec<Bytes> = outputs.get(&stored).await.unwrap().try_collect().await.unwrap();
    assert_eq!(sha256(&back.into_iter().map(Ok).collect::<Vec<_>>()), sum);
    outputs.remove(&stored.object).await;

    // Other bytes than announced leave nothing.
    let wrong = Expected { sha256: &"0".repeat(64), ..expected };
    upload(outputs, wrong, &pieces[..2]).await;
    assert!(matches!(outputs.assemble(wrong, 2 << 20).await, Err(OutputError::WrongSum { .. })));
    assert_eq!(outputs.next_offset(wrong).await.unwrap(), 0);
}

#[tokio::test]
async fn parts_become_one_output_in_a_folder_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    parts_become_one(&outputs(&dir)).await;
    assert_eq!(files(&dir), 0);
}

#[tokio::test]
async fn an_upload_that_begins_anew_drops_the_parts_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = outputs(&dir);
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    let first = expected(&one, 1 << 30);
    upload(&outputs, first, &body(3)).await;
    let second = Expected { sha256: &two, ..first };
    upload(&outputs, second, &body(1)).await;
    assert_eq!((outputs.next_offset(first).await.unwrap(), files(&dir)), (0, 1));
}

#[test]
fn an_address_that_is_no_store_is_refused_with_an_example() {
    for url in ["", "outputs", "ftp://host/x", "file://host/x"] {
        let error = at_url(url).unwrap_err().to_string();
        assert!(error.contains("s3://bucket/prefix"), "{error}");
    }
}

/// What a server keeps that speaks as much of S3 as an upload in parts, a read and a removal need.
#[derive(Debug, Default)]
struct Bucket {
    parts: BTreeMap<u32, Bytes>,
    objects: BTreeMap<String, Bytes>,
    unsigned: u32,
}

type Shared = Arc<Mutex<Bucket>>;

async fn s3(State(bucket): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    let (path, query) = (head.uri.path().to_owned(), head.uri.query().unwrap_or_default());
    let mut bucket = bucket.lock().unwrap();
    let signed = head.headers.get("authorization").is_some_and(|a| a.as_bytes().starts_with(b"AWS4-HMAC-SHA256"));
    bucket.unsigned += u32::from(!signed);
    let part = query.split('&').find_map(|pair| pair.strip_prefix("partNumber=")).map(|n| n.parse().unwrap());
    match (head.method.as_str(), part) {
        ("POST", _) if query.starts_with("uploads") => {
            "<InitiateMultipartUploadResult><UploadId>7</UploadId></InitiateMultipartUploadResult>".into_response()
        }
        ("POST", _) if query.starts_with("delete") => {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let key = text.split("<Key>").nth(1).and_then(|rest| rest.split("</Key>").next()).unwrap().to_owned();
            bucket.objects.remove(&format!("{path}/{key}"));
            format!("<DeleteResult><Deleted><Key>{key}</Key></Deleted></DeleteResult>").into_response()
        }
        ("PUT", Some(part)) => {
            bucket.parts.insert(part, body);
            ([("etag", format!("\"{part}\""))], "").into_response()
        }
        ("PUT", None) => {
            bucket.objects.insert(path, body);
            ([("etag", "\"1\"")], "").into_response()
        }
        ("GET", _) if query.contains("list-type=2") => list(&bucket, &path, query),
        ("POST", _) => {
            let whole = std::mem::take(&mut bucket.parts).into_values().collect::<Vec<_>>().concat();
            bucket.objects.insert(path, whole.into());
            "<CompleteMultipartUploadResult><ETag>\"1\"</ETag></CompleteMultipartUploadResult>".into_response()
        }
        ("DELETE", _) if query.starts_with("uploadId") => {
            bucket.parts.clear();
            StatusCode::NO_CONTENT.into_response()
        }
        ("GET", _) => match bucket.objects.get(&path) {
            Some(bytes) => {
                let head = [("etag", "\"1\""), ("last-modified", "Sun, 22 Nov 2026 08:00:00 GMT")];
                (head, bytes.clone()).into_response()
            }
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

/// What a bucket answers who asks for the names in it.
fn list(bucket: &Bucket, path: &str, query: &str) -> Response {
    let asked: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let prefix = asked.get("prefix").cloned().unwrap_or_default();
    let root = format!("{}/", path.trim_end_matches('/'));
    let (mut contents, mut folders) = (String::new(), std::collections::BTreeSet::new());
    for (name, bytes) in &bucket.objects {
        let Some(key) = name.strip_prefix(&root).filter(|key| key.starts_with(&prefix)) else { continue };
        match key[prefix.len()..].split_once('/').filter(|_| asked.contains_key("delimiter")) {
            Some((folder, _)) => drop(folders.insert(format!("{prefix}{folder}/"))),
            None => contents.push_str(&format!(
                "<Contents><Key>{key}</Key><LastModified>2026-11-22T08:00:00.000Z</LastModified><ETag>1</ETag><Size>{}</Size></Contents>",
                bytes.len()
            )),
        }
    }
    let folders: String =
        folders.iter().map(|f| format!("<CommonPrefixes><Prefix>{f}</Prefix></CommonPrefixes>")).collect();
    format!("<ListBucketResult><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}{folders}</ListBucketResult>")
        .into_response()
}

#[tokio::test]
async fn outputs_go_to_an_s3_bucket_and_come_back_and_a_refused_one_leaves_nothing() {
    crate::http::install_crypto_provider();
    let bucket_there = Shared::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(s3).with_state(Arc::clone(&bucket_there));
    let server = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async { axum::serve(listener, app).await }));
    let options = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "here"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let url = Url::parse("s3://results/some/folder").unwrap();
    let options = options.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let outputs = Outputs { store: bucket(&url, options).unwrap() };

    let pieces = body(12);
    let sum = sha256(&pieces);
    let wrong = outputs.put(expected(&"0".repeat(64), 1 << 30), stream::iter(pieces.clone())).await;
    assert!(matches!(wrong, Err(OutputError::WrongSum { .. })), "{wrong:?}");
    assert!(bucket_there.lock().unwrap().objects.is_empty() && bucket_there.lock().unwrap().parts.is_empty());
    let stored = outputs.put(expected(&sum, 12 << 20), stream::iter(pieces)).await.unwrap();
    let path = bucket_there.lock().unwrap().objects.keys().next().cloned().unwrap();
    assert_eq!(path, format!("/results/some/folder/{}", stored.object));
    let back: Vec<Bytes> = outputs.get(&stored).await.unwrap().try_collect().await.unwrap();
    assert_eq!(sha256(&back.into_iter().map(Ok).collect::<Vec<_>>()), sum);
    outputs.remove(&stored.object).await;
    assert!(bucket_there.lock().unwrap().objects.is_empty());
    parts_become_one(&outputs).await;
    assert!(bucket_there.lock().unwrap().objects.is_empty(), "no part is left");
    assert_eq!(bucket_there.lock().unwrap().unsigned, 0, "every call is signed");
    drop(server);
}

#[test]
fn an_address_is_told_without_its_credentials() {
    let url = Url::parse("ftp://user:hunter2@host/x").unwrap();
    let error = bucket(&url, std::iter::empty()).unwrap_err().to_string();
    assert!(!error.contains("hunter2") && error.contains("ftp://host/x"), "{error}");
}

#[tokio::test]
async fn halves_that_a_killed_coordinator_left_are_gone_after_its_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = body(1);
    let sum = sha256(&pieces);
    let stored = outputs(&dir).put(expected(&sum, 1 << 20), stream::iter(pieces)).await.unwrap();
    std::fs::write(dir.path().join("outputs").join(format!("{}#1", stored.object)), "half").unwrap();
    assert_eq!(files(&dir), 2);
    let again = outputs(&dir);
    assert_eq!(files(&dir), 1);
    let back: Vec<Bytes> = again.get(&stored).await.unwrap().try_collect().await.unwrap();
    assert_eq!(back.concat().len(), 1 << 20, "whole outputs stay");
}
