//! A registry on loopback, open or with a login.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use sha2::{Digest as _, Sha256};

use super::{TestImage, docker, free_port, wait_for};

/// A registry on loopback; stopped when dropped.
pub(crate) struct Registry {
    child: Child,
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    /// Holds what it stores, and a configuration of the docker command line that may push to it.
    folder: tempfile::TempDir,
}

/// Whom [`Registry::with_login`] lets in.
pub(crate) const REGISTRY_LOGIN: (&str, &str) = ("renter", "sesame-of-the-test");
/// The same as `htpasswd -B` writes it.
const REGISTRY_HTPASSWD: &str = "renter:$2b$04$HNQ4lwj.ANWUsEd/HJFi2.0zzpqgjJbsotAuuEF45n43mLU6u9tf2\n";

impl Registry {
    pub(crate) fn start() -> Self {
        Self::serve(false)
    }

    /// One that asks for [`REGISTRY_LOGIN`].
    pub(crate) fn with_login() -> Self {
        Self::serve(true)
    }

    fn serve(login: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
            folder.path().display()
        );
        let passwords = folder.path().join("htpasswd");
        std::fs::write(&passwords, REGISTRY_HTPASSWD).unwrap();
        let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", passwords.display());
        let config = if login { config + &auth } else { config };
        let pair =
            base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", REGISTRY_LOGIN.0, REGISTRY_LOGIN.1));
        let client = serde_json::json!({"auths": {address.as_str(): {"auth": pair}}});
        std::fs::write(folder.path().join("config.json"), client.to_string()).unwrap();
        let path = folder.path().join("config.yml");
        std::fs::write(&path, config).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the tests need a registry: apt-get install docker-registry");
        let registry = Self { child, address, folder };
        wait_for("the registry", || std::net::TcpStream::connect(&registry.address).is_ok());
        registry
    }

    /// Pushes a local image, lets go of it here, and answers the name it has in the registry.
    pub(crate) fn push(&self, image: &TestImage, name: &str) -> String {
        let full = format!("{}/{name}", self.address);
        docker(&["tag", &image.name, &full]);
        docker(&["--config", self.folder.path().to_str().unwrap(), "push", "-q", &full]);
        docker(&["rmi", &full]);
        full
    }

    /// Stores some bytes and answers their digest.
    pub(crate) fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
        let opened = self.http("POST", &format!("/v2/{repository}/blobs/uploads/"), "text/plain", b"");
        let location =
            opened.lines().find_map(|line| line.to_lowercase().starts_with("location: ").then(|| &line[10..]));
        let location = location.unwrap().split_once(&self.address).unwrap().1.to_owned();
        let to = format!("{location}&digest={digest}");
        assert!(self.http("PUT", &to, "application/octet-stream", bytes).contains(" 201 "), "a blob is taken");
        digest
    }

    /// Stores a manifest under a tag.
    pub(crate) fn push_manifest(&self, repository: &str, tag: &str, manifest: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{tag}");
        let answer = self.http("PUT", &path, "application/vnd.oci.image.manifest.v1+json", manifest);
        assert!(answer.contains(" 201 "), "{answer}");
    }

    fn http(&self, method: &str, path: &str, media_type: &str, body: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: {media_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
