//! What the engine is made of, in the words of the table of known holes; and the NVIDIA toolkit beside it.

use std::path::Path;
use std::time::Duration;

use bollard::models::{SystemVersion, SystemVersionComponents};

use super::super::RuntimeError;
use super::super::vulnerable::{self, Component, Finding};
use super::{CONNECT_DEADLINE, DockerRuntime};

/// There when the NVIDIA driver is loaded.
const NVIDIA_DRIVER: &str = "/proc/driver/nvidia/gpus";
/// Each tells the toolkit's version; the first that is there.
const TOOLKIT_PROGRAMS: &[&str] = &["nvidia-ctk", "nvidia-container-cli"];
const PROGRAM_DEADLINE: Duration = Duration::from_secs(5);
const TOOLKIT: &str = "nvidia-container-toolkit";

impl DockerRuntime {
    /// The known holes of the engine, its parts, and of what would give its containers a GPU.
    pub(super) async fn look_for_holes(&self) -> Result<Vec<Finding>, RuntimeError> {
        let said = self.call("say its version", CONNECT_DEADLINE, self.docker.version()).await?;
        let mut components = components_of(&said);
        if Path::new(NVIDIA_DRIVER).exists() {
            components.extend(toolkit().await);
        }
        Ok(vulnerable::check(&components))
    }

    /// Refuses what one of the known holes forbids.
    pub(super) fn refuse_vulnerable(&self, with_gpus: bool) -> Result<(), RuntimeError> {
        let by_gpu = if with_gpus { vulnerable::refuses_gpus(&self.findings) } else { None };
        match vulnerable::refuses_jobs(&self.findings).or(by_gpu) {
            Some(finding) => Err(RuntimeError::Vulnerable { finding }),
            None => Ok(()),
        }
    }
}

fn components_of(said: &SystemVersion) -> Vec<Component> {
    let mut components: Vec<Component> = said.components.iter().flatten().map(component).collect();
    let platform = said.platform.as_ref().map_or("", |platform| platform.name.as_str());
    if let Some((_, version)) = platform.split_once("Docker Desktop ") {
        let version = version.split_whitespace().next().unwrap_or_default().to_owned();
        components.push(Component { name: "docker-desktop".to_owned(), version, package: None });
    }
    components
}

/// Debian's engine tells the package of its parts where others tell a commit; podman puts a whole answer into the version.
fn component(said: &SystemVersionComponents) -> Component {
    let inner = said.name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    let name = inner.unwrap_or(&said.name).to_ascii_lowercase();
    let version = said.version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
    let details = said.details.as_ref().and_then(|details| details.get("GitCommit"));
    let package =
        details.map(String::as_str).filter(|text| text.contains('-') && text.starts_with(|c: char| c.is_ascii_digit()));
    Component {
        name: if name == "podman engine" { "podman".to_owned() } else { name },
        version: version.unwrap_or(&said.version).to_owned(),
        package: package.map(str::to_owned),
    }
}

/// The toolkit, when it is installed. One that does not answer is judged as the oldest.
async fn toolkit() -> Option<Component> {
    for program in TOOLKIT_PROGRAMS {
        let mut command = tokio::process::Command::new(program);
        command.arg("--version").stdin(std::process::Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(PROGRAM_DEADLINE, command.output()).await {
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(Ok(output)) => return Some(toolkit_of(&String::from_utf8_lossy(&output.stdout))),
            Ok(Err(_)) | Err(_) => return Some(toolkit_of("")),
        }
    }
    None
}

fn toolkit_of(said: &str) -> Component {
    let version =
        said.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'));
    Component { name: TOOLKIT.to_owned(), version: version.unwrap_or("unknown").to_owned(), package: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(json: serde_json::Value) -> Vec<Component> {
        components_of(&serde_json::from_value(json).unwrap())
    }

    #[test]
    fn debians_engine_tells_its_packages() {
        let components = said(serde_json::json!({"Platform": {"Name": ""}, "Components": [
            {"Name": "Engine", "Version": "20.10.24+dfsg1", "Details": {"GitCommit": "5d6db84"}},
            {"Name": "runc", "Version": "1.1.5+ds1", "Details": {"GitCommit": "1.1.5+ds1-1+deb12u1"}},
        ]}));
        assert_eq!(components[0], Component { name: "engine".into(), version: "20.10.24+dfsg1".into(), package: None });
        assert_eq!(components[1].package.as_deref(), Some("1.1.5+ds1-1+deb12u1"));
        assert_eq!(vulnerable::refuses_jobs(&vulnerable::check(&components)), None);
    }

    #[test]
    fn dockers_own_packages_and_docker_desktop_are_told_by_their_numbers() {
        let components =
            said(serde_json::json!({"Platform": {"Name": "Docker Desktop 4.44.2 (200017)"}, "Components": [
                {"Name": "runc", "Version": "1.1.11", "Details": {"GitCommit": "v1.1.11-0-g4bccb38"}},
            ]}));
        assert_eq!((components[0].version.as_str(), &components[0].package), ("1.1.11", &None));
        assert_eq!((components[1].name.as_str(), components[1].version.as_str()), ("docker-desktop", "4.44.2"));
        let refused = vulnerable::check(&components);
        assert!(
            refused.iter().any(|f| f.cves == ["CVE-2025-9074"]) && refused.iter().any(|f| f.cves == ["CVE-2024-21626"])
        );
    }

    #[test]
    fn podman_puts_its_runtimes_answer_into_the_version() {
        let components = said(serde_json::json!({"Platform": {"Name": "linux/amd64/debian-12"}, "Components": [
            {"Name": "Podman Engine", "Version": "4.3.1", "Details": {}},
            {"Name": "OCI Runtime (runc)", "Version": "runc version 1.1.11\ncommit: abc", "Details": {}},
        ]}));
        assert_eq!((components[0].name.as_str(), components[0].version.as_str()), ("podman", "4.3.1"));
        assert_eq!((components[1].name.as_str(), components[1].version.as_str()), ("runc", "1.1.11"));
    }

    #[test]
    fn the_toolkits_programs_are_understood() {
        assert_eq!(toolkit_of("NVIDIA Container Toolkit CLI version 1.17.8\ncommit: f202b80\n").version, "1.17.8");
        assert_eq!(toolkit_of("cli-version: 1.16.1\nlib-version: 1.16.1\n").version, "1.16.1");
        assert!(vulnerable::refuses_gpus(&vulnerable::check(&[toolkit_of("")])).is_some());
    }
}
