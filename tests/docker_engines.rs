//! Engines in other places and other shapes: behind TLS, of another version, with a storage that keeps to quotas.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up must fail loudly")]

mod docker_support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use docker_support::own_engine::OwnEngine;
use docker_support::{TestImage, in_time, ran, shell};
use fizz::clock::Clock;
use fizz::runtime::docker::{DockerOptions, DockerRuntime, EngineTls};
use fizz::runtime::{ContainerRuntime, ContainerSpec, RuntimeError};
use fizz::wire::NodeId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn node() -> NodeId {
    NodeId::generate(Clock::system().now())
}

/// An authority with a server's and a client's certificate, as files.
fn authority(folder: &Path) {
    let key = || rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer = rcgen::CertifiedIssuer::self_signed(params, key()).unwrap();
    std::fs::write(folder.join("ca.pem"), issuer.pem()).unwrap();
    for (name, purpose) in
        [("server", rcgen::ExtendedKeyUsagePurpose::ServerAuth), ("cert", rcgen::ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![purpose];
        let own = key();
        let certificate = params.signed_by(&own, &issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}-key.pem")), own.serialize_pem()).unwrap();
    }
}

/// A port here that leads to a port on the loopback of another network namespace.
async fn relay_into(pid: u32, port: u16) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let inside = tokio::process::Command::new("nsenter")
                .args(["-n", "-t", &pid.to_string(), "busybox", "nc", "127.0.0.1", &port.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            tokio::spawn(async move {
                // Whole, so that it is killed when this ends and not before.
                let mut inside = inside;
                let mut there = tokio::io::join(inside.stdout.take().unwrap(), inside.stdin.take().unwrap());
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut there).await;
            });
        }
    });
    here
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn an_engine_behind_tls_is_believed_with_the_named_authority_only() {
    let (folder, others) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    authority(folder.path());
    authority(others.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("server.pem"), file("server-key.pem"));
    let engine = OwnEngine::start(
        folder.path(),
        &[
            "-H",
            "tcp://127.0.0.1:2376",
            "--tlsverify",
            "--tlscacert",
            &ca,
            "--tlscert",
            &cert,
            "--tlskey",
            &key,
            "--storage-driver=vfs",
        ],
    );
    let lo =
        Command::new("nsenter").args(["-n", "-t", &engine.pid().to_string(), "ip", "link", "set", "lo", "up"]).status();
    assert!(lo.unwrap().success());
    let address = format!("tcp://127.0.0.1:{}", relay_into(engine.pid(), 2376).await);
    let open = async |tls: Option<EngineTls>| {
        let options = DockerOptions { address: Some(address.clone()), tls, ..DockerOptions::default() };
        in_time(DockerRuntime::open(options)).await
    };
    let identity = Some((folder.path().join("cert.pem"), folder.path().join("cert-key.pem")));
    let tls = EngineTls { ca: folder.path().join("ca.pem"), identity: identity.clone() };

    let image = TestImage::new();
    engine.take(&image);
    let runtime = open(Some(tls.clone())).await.unwrap();
    let pinned = image.pin(&runtime).await;
    assert_eq!(ran(&runtime, &shell(node(), &pinned, "echo over tls")).await, "over tls\n");

    let wrong = open(Some(EngineTls { ca: others.path().join("ca.pem"), identity })).await.unwrap_err();
    assert!(matches!(wrong, RuntimeError::EngineTls { .. }), "{wrong:?}");
    let nobody = open(Some(EngineTls { identity: None, ..tls.clone() })).await.unwrap_err();
    assert!(matches!(nobody, RuntimeError::EngineTls { .. }), "{nobody:?}");
    let stranger = Some((others.path().join("cert.pem"), others.path().join("cert-key.pem")));
    assert!(open(Some(EngineTls { identity: stranger, ..tls })).await.is_err());
    assert!(open(None).await.is_err(), "in the clear");
}

#[tokio::test]
#[ignore = "needs a Docker engine"]
async fn a_storage_with_quotas_stops_a_job_at_its_disk_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, mount) = (folder.path().join("disk"), folder.path().join("mount"));
    std::fs::File::create(&disk).unwrap().set_len(512 << 20).unwrap();
    std::fs::create_dir(&mount).unwrap();
    let done = |program: &str, args: &[&std::ffi::OsStr]| {
        Command::new(program).args(args).stdout(Stdio::null()).status().unwrap().success()
    };
    assert!(done("mkfs.btrfs", &["-q".as_ref(), disk.as_ref()]), "this test needs btrfs-progs");
    assert!(
        done("mount", &["-o".as_ref(), "loop".as_ref(), disk.as_ref(), mount.as_ref()]),
        "a kernel with btrfs, and root"
    );
    {
        let engine = OwnEngine::start(&mount, &["--storage-driver=btrfs"]);
        let image = TestImage::new();
        engine.take(&image);
        let runtime = DockerRuntime::connect(Some(&engine.address())).await.unwrap();
        assert!(runtime.facts().disk_quota);
        let pinned = image.pin(&runtime).await;
        let line = "dd if=/dev/zero of=/work/x bs=1M count=100 2>&1; ls -l /work";
        let spec = ContainerSpec { disk_bytes: 32 << 20, ..shell(node(), &pinned, line) };
        let said = ran(&runtime, &spec).await;
        assert!(said.contains("quota exceeded") || said.contains("No space left"), "{said}");
        assert!(runtime.facts().disk_quota, "it was not refused");
    }
    assert!(done("umount", &["-l".as_ref(), mount.as_ref()]));
}

/// Says which version it has, notes what is asked, and knows nothing else.
async fn fake_engine(api_version: &str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let version = format!(r#"{{"Version":"99","ApiVersion":"{api_version}","Arch":"amd64"}}"#);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap_or(0);
            let line = String::from_utf8_lossy(&request[..read]).lines().next().unwrap_or_default().to_owned();
            let body = match line.split(' ').nth(1).unwrap_or_default() {
                path if path.ends_with("/version") => version.clone(),
                path if path.ends_with("/info") => {
                    r#"{"SecurityOptions":["name=seccomp,profile=default"],"CgroupVersion":"2"}"#.to_owned()
                }
                _ => "[]".to_owned(),
            };
            noted.lock().unwrap().push(line);
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    (address, asked)
}

#[tokio::test]
async fn the_older_version_of_both_is_spoken_with_engines_old_and_new() {
    for (theirs, spoken) in [("1.41", "/v1.41/"), ("1.47", "/v1.47/"), ("1.99", "/v1.53/")] {
        let (address, asked) = fake_engine(theirs).await;
        let runtime = in_time(DockerRuntime::connect(Some(&address))).await.unwrap();
        assert_eq!(runtime.list(node()).await.unwrap(), Vec::new());
        let asked = asked.lock().unwrap().clone();
        let list = asked.iter().find(|line| line.contains("containers/json")).unwrap();
        assert!(list.starts_with(&format!("GET {spoken}containers/json")), "{theirs}: {list}");
    }
}
