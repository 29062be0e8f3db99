use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::http::public::{PublicHttp, Reach};

/// What a server does with one connection.
#[derive(Clone)]
enum Serve {
    /// Sends what is asked for.
    All,
    /// Announces everything, sends so many bytes, hangs up.
    Break(usize),
    /// Knows nothing of ranges.
    Whole,
    /// A status and nothing else.
    Status(u16),
    /// Sends without end.
    Endless,
}

struct Server {
    address: SocketAddr,
    /// First byte asked for, per connection.
    asked: Arc<std::sync::Mutex<Vec<usize>>>,
}

impl Server {
    async fn start(content: Vec<u8>, script: Vec<Serve>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
        let seen = asked.clone();
        tokio::spawn(async move {
            for serve in script {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                let from = head.split("range: bytes=").nth(1).and_then(|rest| rest.split('-').next());
                let from: usize = from.map_or(0, |from| from.parse().unwrap());
                seen.lock().unwrap().push(from);
                // A client that has heard enough hangs up.
                let _ = answer(&mut stream, &content, from, serve).await;
            }
        });
        Self { address, asked }
    }

    fn input(&self, content: &[u8]) -> InputSpec {
        InputSpec {
            url: format!("http://{}/data/model.bin?token=sesame", self.address),
            sha256: hex::encode(Sha256::digest(content)),
            path: "/work/data/model.bin".to_owned(),
            bytes_max: None,
            executable: false,
        }
    }
}

async fn answer(stream: &mut tokio::net::TcpStream, content: &[u8], from: usize, serve: Serve) -> std::io::Result<()> {
    let ranged = from > 0 && !matches!(serve, Serve::Whole);
    let body = if ranged { &content[from..] } else { content };
    let status = if ranged {
        format!("206 Partial Content\r\ncontent-range: bytes {from}-{}/{}", content.len() - 1, content.len())
    } else {
        "200 OK".to_owned()
    };
    let head = |length: usize| format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    match serve {
        Serve::All | Serve::Whole => {
            stream.write_all(head(body.len()).as_bytes()).await?;
            stream.write_all(body).await
        }
        Serve::Break(bytes) => {
            stream.write_all(head(body.len()).as_bytes()).await?;
            stream.write_all(&body[..bytes.min(body.len())]).await
        }
        Serve::Status(status) => {
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await
        }
        Serve::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
            loop {
                stream.write_all(&[7; 4096]).await?;
            }
        }
    }
}

fn http() -> PublicHttp {
    PublicHttp::new(Reach::Only("127.0.0.1".parse().unwrap())).unwrap()
}

fn content() -> Vec<u8> {
    (0..100_000_u32).flat_map(u32::to_le_bytes).collect()
}

#[tokio::test]
async fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    let content = content();
    let server = Server::start(
        content.clone(),
        vec![Serve::Break(100_000), Serve::Status(503), Serve::Break(50_000), Serve::All],
    )
    .await;
    let bytes = fetch::one(&http(), &server.input(&content), &file, 1 << 20).await.unwrap();
    assert_eq!((bytes, std::fs::read(&file).unwrap() == content), (400_000, true));
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!((asked[0], asked.len()), (0, 4));
    assert!(asked[1] > 0 && asked[1] == asked[2] && asked[3] > asked[2], "{asked:?}");
    // It is there: nobody is asked again.
    assert_eq!(fetch::one(&http(), &server.input(&content), &file, 1 << 20).await.unwrap(), 400_000);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_server_that_cannot_go_on_is_heard_from_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    let content = content();
    let server = Server::start(content.clone(), vec![Serve::Break(1000), Serve::Whole]).await;
    fetch::one(&http(), &server.input(&content), &file, 1 << 20).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), content);
}

#[tokio::test]
async fn wrong_content_is_a_mismatch_and_nothing_of_it_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    let server = Server::start(content(), vec![Serve::All]).await;
    let failure = fetch::one(&http(), &server.input(b"something else"), &file, 1 << 20).await.unwrap_err();
    assert_eq!(failure.why, FailureKind::InputMismatch);
    assert!(failure.detail.contains("has the SHA-256") && !failure.detail.contains("sesame"), "{}", failure.detail);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn more_than_there_is_room_for_is_cut_off_whether_it_is_announced_or_not() {
    let folder = tempfile::tempdir().unwrap();
    for (name, serve) in [("a", Serve::All), ("b", Serve::Endless)] {
        let server = Server::start(content(), vec![serve]).await;
        let file = folder.path().join(name);
        let failure = fetch::one(&http(), &server.input(&content()), &file, 300_000).await.unwrap_err();
        assert!(failure.why == FailureKind::InputMismatch && failure.detail.contains("300000 bytes"), "{failure:?}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_not_there_or_at_home_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    let gone = Server::start(content(), vec![Serve::Status(404)]).await;
    let mut input = gone.input(&content());
    let failure = fetch::one(&http(), &input, &file, 1 << 20).await.unwrap_err();
    assert!(failure.why == FailureKind::InputUnavailable && failure.detail.contains("404"), "{failure:?}");
    let nobody = Server::start(content(), vec![Serve::Status(503); 9]).await;
    let failure = fetch::one(&http(), &nobody.input(&content()), &file, 1 << 20).await.unwrap_err();
    assert!(failure.why == FailureKind::InputUnavailable && failure.detail.contains("503"), "{failure:?}");
    for (address, why) in [
        ("ftp://8.8.8.8/x", FailureKind::InputUnavailable),
        ("http://8.8.8.8/x", FailureKind::InputUnavailable),
        // Tried anywhere else it would be no better.
        ("http://127.0.0.2/x", FailureKind::InvalidSpec),
        ("http://192.168.1.1/x", FailureKind::InvalidSpec),
        ("http://169.254.169.254/latest", FailureKind::InvalidSpec),
    ] {
        input.url = address.to_owned();
        let failure = fetch::one(&http(), &input, &file, 1 << 20).await.unwrap_err();
        assert_eq!(failure.why, why, "{address}");
    }
}

#[test]
fn an_input_goes_to_a_plain_path_that_a_job_can_see() {
    for good in ["/work/a", "/data/deep/a.bin", "/tmpfile", "/a..b"] {
        assert_eq!(check_path(good), Ok(()), "{good}");
    }
    for bad in
        ["", "a", "/", "/a/", "/a/../b", "/..", "/a//b", "/./a", "/tmp/a", "/run/a", "/dev/a", "/proc/1/mem", "/a\0"]
    {
        assert_eq!(check_path(bad).unwrap_err().why, FailureKind::InvalidSpec, "{bad:?}");
    }
}

#[tokio::test]
async fn the_tar_holds_the_file_with_its_owner_and_its_folders_below_the_work_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a");
    let content = content();
    std::fs::write(&file, &content).unwrap();
    let long = format!("/work/{}/{}/model", "a".repeat(90), "b".repeat(90));
    for (path, entries) in [(long.as_str(), 3), ("/elsewhere/deep/model", 1), ("/work/model", 1)] {
        let input = InputSpec {
            path: path.to_owned(),
            executable: true,
            ..Server::start(Vec::new(), Vec::new()).await.input(&[])
        };
        let pieces: Vec<bytes::Bytes> =
            place::tar(&file, &input, (65_532, 7)).await.unwrap().try_collect().await.unwrap();
        let bytes = pieces.concat();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (65_532, 7));
            assert_eq!(entry.header().mode().unwrap(), 0o755);
            let mut read = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut read).unwrap();
            seen.push((format!("/{}", entry.path().unwrap().display()), read));
        }
        assert_eq!(seen.len(), entries, "{path}");
        assert_eq!(seen.last().unwrap(), &(path.to_owned(), content.clone()));
    }
}
