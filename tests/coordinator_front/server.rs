//! Starting, TLS, stopping.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use fizz::clock::Clock;
use fizz::coordinator::{CoordinatorError, start};
use fizz::http::{ApiClient, HttpError, Trust, install_crypto_provider};
use fizz::wire::ErrorCode;
use fizz::wire::lease::Assignments;

use crate::harness::{World, client_of, code, config};

#[tokio::test]
async fn a_taken_port_is_named_with_what_to_type() {
    install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut config = config(&folder);
    config.listen = holder.local_addr().unwrap();
    let error = start(config.clone(), Clock::system()).await.err().unwrap();
    let words = error.to_string();
    assert!(matches!(error, CoordinatorError::PortTaken { .. }), "{words}");
    let port = config.listen.port();
    assert!(
        words.contains(&format!("port {port}")) && words.contains("ss -ltnp") && words.contains("--listen"),
        "{words}"
    );
}

#[tokio::test]
async fn an_address_of_another_machine_cannot_be_listened_on() {
    install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&folder);
    config.listen = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 0));
    let error = start(config, Clock::system()).await.err().unwrap();
    assert!(matches!(error, CoordinatorError::Listen { .. }), "{error}");
}

#[tokio::test]
async fn http_2_is_negotiated_and_http_1_still_served() {
    let world = World::new().await;
    let answer = world.client.get("/healthz").open().await.unwrap();
    assert_eq!(answer.version(), http::Version::HTTP_2);
    let authority = reqwest::Certificate::from_pem(world.running.ca_pem().unwrap().as_bytes()).unwrap();
    let old = reqwest::Client::builder().tls_certs_only([authority]).http1_only().build().unwrap();
    let answer = old.get(world.running.url().join("/healthz").unwrap()).send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (http::Version::HTTP_11, 200));
}

#[tokio::test]
async fn another_authority_is_not_believed() {
    let (world, other) = (World::new().await, World::new().await);
    let pem = other.running.ca_pem().unwrap().as_bytes().to_vec();
    for trust in [Trust::Pinned { pem }, Trust::System] {
        let client = ApiClient::new(world.running.url().as_str(), &trust).unwrap();
        let error = client.get("/healthz").done().await.unwrap_err();
        assert!(matches!(error, HttpError::BadCertificate { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_restart_keeps_authority_token_and_data() {
    let world = World::new().await;
    let (ca, token) = (world.running.ca_pem().unwrap().to_owned(), world.running.admin_token().clone());
    world.running.shutdown(Duration::from_secs(5)).await;
    let again = start(config(&world.folder), Clock::system()).await.unwrap();
    assert_eq!((again.ca_pem(), again.admin_token()), (Some(ca.as_str()), &token));
    let wish = serde_json::json!({ "expires_seconds": 600 });
    let call = client_of(&again).post("/v1/account/join-tokens").bearer(&world.account.api_key).json(&wish);
    call.done().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn secrets_on_disk_are_for_their_owner_only_and_loose_ones_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let world = World::new().await;
    let data = config(&world.folder).data_dir;
    for file in ["ca.key", "admin.token", "receipts.key"] {
        let mode = std::fs::metadata(data.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    world.running.shutdown(Duration::from_secs(5)).await;
    std::fs::set_permissions(data.join("ca.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = start(config(&world.folder), Clock::system()).await.err().unwrap();
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[tokio::test]
async fn a_certificate_from_files_is_served_and_half_a_pair_is_refused() {
    install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert_file, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert_file, cert.pem()).unwrap();
    std::fs::write(&key_file, signing_key.serialize_pem()).unwrap();
    let mut config = config(&folder);
    config.cert_file = Some(cert_file.clone());
    let error = start(config.clone(), Clock::system()).await.err().unwrap();
    assert!(error.to_string().contains("--key"), "{error}");
    config.key_file = Some(key_file);
    let running = start(config.clone(), Clock::system()).await.unwrap();
    assert_eq!(running.ca_pem(), None);
    let trust = Trust::Pinned { pem: cert.pem().into_bytes() };
    ApiClient::new(running.url().as_str(), &trust).unwrap().get("/healthz").done().await.unwrap();
    drop(running);
    std::fs::write(&cert_file, "garbage").unwrap();
    let error = start(config, Clock::system()).await.err().unwrap();
    assert!(error.to_string().contains("holds no certificate"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_by_the_client_with_a_word_about_clocks() {
    install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let year = Duration::from_secs(365 * 24 * 3600);
    let long_ago = Clock::manual(Clock::system().now().checked_sub(year).unwrap());
    let running = start(config(&folder), long_ago).await.unwrap();
    let error = client_of(&running).get("/healthz").done().await.unwrap_err();
    assert!(matches!(&error, HttpError::BadCertificate { why, .. } if why.contains("expired")), "{error}");
}

#[tokio::test]
async fn a_damaged_a_newer_and_a_locked_database_are_told_apart() {
    install_crypto_provider();
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    std::fs::create_dir_all(&config.data_dir).unwrap();
    let path = config.data_dir.join("coordinator.sqlite");
    std::fs::write(&path, vec![7; 8192]).unwrap();
    let error = start(config.clone(), Clock::system()).await.err().unwrap();
    assert!(error.to_string().contains("damaged") && error.to_string().contains("mv "), "{error}");
    std::fs::remove_file(&path).unwrap();
    start(config.clone(), Clock::system()).await.unwrap().shutdown(Duration::from_secs(5)).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut db = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (9999, 'later', 1, x'00', 0)";
    sqlx::query(newer).execute(&mut db).await.unwrap();
    let error = start(config.clone(), Clock::system()).await.err().unwrap();
    assert!(error.to_string().contains("newer fizz") && error.to_string().contains("9999"), "{error}");
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 9999").execute(&mut db).await.unwrap();
    sqlx::query("PRAGMA locking_mode = EXCLUSIVE").execute(&mut db).await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut db).await.unwrap();
    let error = start(config, Clock::system()).await.err().unwrap();
    assert!(error.to_string().contains("locked by another process"), "{error}");
}

#[tokio::test]
async fn stopping_lets_an_open_request_finish_says_not_ready_and_then_closes() {
    let world = World::new().await;
    let (client, admin) = (world.client.clone(), world.running.admin_token().clone());
    client.get("/readyz").done().await.unwrap();
    // A request whose body comes slowly is open until we end it.
    let (send, receive) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let body = futures_util::stream::unfold(receive, |mut rx| async move { rx.recv().await.map(|item| (item, rx)) });
    let call = client.post("/v1/admin/accounts").bearer(&admin);
    let slow = call.body("application/json", reqwest::Body::wrap_stream(body));
    let slow = tokio::spawn(slow.receive::<fizz::wire::account::AccountCreated>());
    send.send(Ok(b"{\"name\":".to_vec())).await.unwrap();
    // The second piece is only taken once the first is on its way.
    send.send(Ok(b"\"late".to_vec())).await.unwrap();
    let app = world.running.app().clone();
    let url = world.running.url().clone();
    let stopping = tokio::spawn(world.running.shutdown(Duration::from_secs(20)));
    app.stopping.cancelled().await;
    tokio::task::yield_now().await;
    assert!(!stopping.is_finished());
    send.send(Ok(b"\"}".to_vec())).await.unwrap();
    drop(send);
    let made = tokio::time::timeout(Duration::from_secs(10), slow).await.unwrap().unwrap();
    assert!(made.is_ok(), "{made:?}");
    tokio::time::timeout(Duration::from_secs(10), stopping).await.unwrap().unwrap();
    let error = client.get("/healthz").done().await.unwrap_err();
    assert!(matches!(error, HttpError::Unreachable { .. }), "{url}: {error}");
}

#[tokio::test]
async fn stopping_releases_a_long_poll_with_what_there_is() {
    let world = World::new().await;
    let (machine, node_id) = world.node(1).await;
    let session = machine.session(&world.client, node_id).await;
    let client = world.client.clone();
    let generation = client.get("/v1/node/assignments").bearer(&session).receive::<Assignments>().await.unwrap();
    let path = format!("/v1/node/assignments?after={}&wait=60", generation.generation);
    let mut waiting = tokio::spawn(client.get(&path).timeout(Duration::from_secs(70)).bearer(&session).receive());
    // It is held: nothing changes, and it does not answer by itself.
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut waiting).await.is_err());
    let stopping = world.running.shutdown(Duration::from_secs(30));
    let (answer, ()) = tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(waiting, stopping) })
        .await
        .expect("nobody waits for the deadline");
    let assignments: Assignments = answer.unwrap().unwrap();
    assert_eq!(assignments, generation);
}

#[tokio::test]
async fn a_second_coordinator_on_the_same_folder_is_refused_with_the_first_ones_process() {
    let world = World::new().await;
    let error = start(config(&world.folder), Clock::system()).await.err().unwrap();
    let words = error.to_string();
    assert!(words.contains(&std::process::id().to_string()) && words.contains("--data-dir"), "{words}");
    world.running.shutdown(Duration::from_secs(5)).await;
    start(config(&world.folder), Clock::system()).await.unwrap().shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_stopping_coordinator_is_not_ready() {
    let world = World::new().await;
    world.running.app().stopping.cancel();
    assert_eq!(code(world.client.get("/readyz").done().await), ErrorCode::Unavailable);
    world.client.get("/healthz").done().await.unwrap();
}

#[tokio::test]
async fn an_open_request_that_outlasts_the_deadline_is_cut_off() {
    let world = World::new().await;
    let call = world.client.post("/v1/admin/accounts").bearer(world.running.admin_token());
    let endless = futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let hanging = tokio::spawn(call.body("application/json", reqwest::Body::wrap_stream(endless)).done());
    world.client.get("/readyz").done().await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(10), world.running.shutdown(Duration::from_millis(200)));
    stopped.await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(10), hanging).await.unwrap().unwrap().unwrap_err();
    assert!(matches!(error, HttpError::Unreachable { .. }), "{error}");
}
