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
