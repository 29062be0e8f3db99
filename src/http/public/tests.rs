use super::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Answers every connection with `answer`; says what was asked.
async fn server(answers: Vec<String>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            asked.push(String::from_utf8(head).unwrap());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        asked
    });
    (address, task)
}

fn client(reach: Reach) -> PublicHttp {
    crate::http::install_crypto_provider();
    PublicHttp::new(reach).unwrap()
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

fn moved(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

const HELLO: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";

#[tokio::test]
async fn addresses_at_home_are_refused_however_they_are_written() {
    let client = client(Reach::Public);
    for bad in [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://localhost:1/",
        "http://[::1]/",
        "http://[::ffff:192.168.1.1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://192.168.0.1:8123/",
    ] {
        let error = client.follow(Method::GET, &url(bad), HeaderMap::new()).await.unwrap_err();
        assert!(matches!(error, PublicError::NotPublic { .. }), "{bad}: {error}");
    }
    let error = client.once(Method::GET, &url("file:///etc/passwd"), HeaderMap::new()).await.unwrap_err();
    assert!(matches!(error, PublicError::BadUrl { .. }), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_and_a_credential_stays_with_its_origin() {
    let (second, asked_second) = server(vec![HELLO.to_owned()]).await;
    let (first, asked_first) = server(vec![moved("/again"), moved(&format!("http://{second}/there"))]).await;
    let headers = HeaderMap::from_iter([(AUTHORIZATION, secret_header("Bearer sesame").unwrap())]);
    let answer = client(Reach::Anywhere).follow(Method::GET, &url(&format!("http://{first}/")), headers).await.unwrap();
    assert_eq!(answer.whole(5).await.unwrap(), &b"hello"[..]);
    let asked = asked_first.await.unwrap();
    assert!(asked.iter().all(|head| head.contains("Bearer sesame")) && asked[1].starts_with("GET /again"));
    assert!(!asked_second.await.unwrap()[0].contains("sesame"));
}

#[tokio::test]
async fn an_endless_redirect_ends_and_an_endless_answer_is_cut() {
    let (address, _) = server(vec![moved("/"); 6]).await;
    let error =
        client(Reach::Anywhere).follow(Method::GET, &url(&format!("http://{address}/")), HeaderMap::new()).await;
    assert!(matches!(error.unwrap_err(), PublicError::TooManyRedirects { .. }));
    let (address, _) = server(vec![HELLO.to_owned()]).await;
    let answer = client(Reach::Anywhere).once(Method::GET, &url(&format!("http://{address}/")), HeaderMap::new()).await;
    assert!(matches!(answer.unwrap().whole(4).await.unwrap_err(), PublicError::TooLarge { .. }));
}

#[tokio::test]
async fn a_redirect_into_the_home_is_refused() {
    for (to, why) in [("http://127.0.0.2/", "127.0.0.2"), ("http://10.0.0.1/", "10.0.0.1"), ("ftp://127.0.0.1/", "ftp")]
    {
        let (address, _) = server(vec![moved(to)]).await;
        let client = client(Reach::Only(address.ip()));
        let error =
            client.follow(Method::GET, &url(&format!("http://{address}/")), HeaderMap::new()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{to}: {error}");
    }
}
