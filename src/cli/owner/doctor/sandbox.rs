//! What `fizz doctor` says of the walls around a job: known holes, limits, root, separations, and where images come from. Pure but
//! for the owner's key files.

use super::{Check, Outcome};
use crate::config::{Config, ImagesConfig, RootRule, SandboxConfig};
use crate::job::images::ImagePolicy;
use crate::runtime::sandbox::EngineFacts;
use crate::runtime::vulnerable::{Effect, Finding};
use crate::wire::job::Isolation;

/// Everything about an engine that could be opened.
pub(super) fn checks(config: &Config, facts: &EngineFacts, findings: &[Finding], offered: &[Isolation]) -> Vec<Check> {
    let mut checks = holes(findings);
    checks.push(walls(facts));
    checks.push(root(&config.sandbox, facts));
    checks.push(separation(&config.sandbox, offered));
    checks
}

/// One for each hole, the gravest first.
fn holes(findings: &[Finding]) -> Vec<Check> {
    const NAME: &str = "known holes";
    if findings.is_empty() {
        return vec![Check::new(NAME, Outcome::Good, "none is known of the engine and its parts in these versions")];
    }
    let check = |finding: &Finding| {
        let (outcome, follows) = match finding.effect {
            Effect::Warn => (Outcome::Warning, ""),
            Effect::RefuseGpus => (Outcome::Bad, "; until then no job gets a GPU"),
            Effect::RefuseJobs => (Outcome::Bad, "; until then no job is run"),
        };
        let check = Check::new(NAME, outcome, format!("{}{follows}", finding.sentence()));
        match finding.sources.first() {
            Some(source) => check.fix(format!("read about it: {source}")),
            None => check,
        }
    };
    findings.iter().map(check).collect()
}

fn walls(facts: &EngineFacts) -> Check {
    const NAME: &str = "walls of containers";
    if let Some(why) = facts.unusable() {
        return Check::new(NAME, Outcome::Bad, format!("no job is run on this engine: {why}"));
    }
    let more: String = [(facts.apparmor, ", AppArmor confines them"), (facts.selinux, ", SELinux confines them")]
        .into_iter()
        .filter_map(|(there, words)| there.then_some(words))
        .collect();
    let found = format!("limits on memory, processor and processes hold, system calls are filtered{more}");
    Check::new(NAME, Outcome::Good, found)
}

fn root(config: &SandboxConfig, facts: &EngineFacts) -> Check {
    const NAME: &str = "root in containers";
    let good = |found: &str| Check::new(NAME, Outcome::Good, found);
    if facts.root_is_nobody_outside() {
        return good("root of a container is nobody outside of it");
    }
    match config.root {
        RootRule::No => good("no job runs as root: [sandbox] root = \"no\""),
        RootRule::Remapped => {
            good("jobs that ask for root are refused, because the engine maps no users: [sandbox] root = \"remapped\"")
        }
        RootRule::Yes => Check::new(NAME, Outcome::Warning, facts.notices(true).join("; ")),
    }
}

fn separation(config: &SandboxConfig, offered: &[Isolation]) -> Check {
    const NAME: &str = "separation of jobs";
    if offered.is_empty() {
        let found =
            format!("the engine does not give {}, which [sandbox] isolation wants at least", word(config.isolation));
        return Check::new(NAME, Outcome::Bad, format!("{found}: no job is run"))
            .fix("install what gives it (gVisor: https://gvisor.dev/docs/user_guide/install), or ask for less: [sandbox] isolation = \"container\"");
    }
    let words: Vec<&str> = offered.iter().map(|isolation| word(*isolation)).collect();
    Check::new(NAME, Outcome::Good, format!("offered to jobs: {}", words.join("; ")))
}

const fn word(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Container => "containers on this machine's own kernel",
        Isolation::UserNamespace => "containers whose root is nobody outside",
        Isolation::Gvisor => "a kernel in user space (gVisor)",
        Isolation::Kata => "a virtual machine of their own (Kata)",
        Isolation::Unknown => "a separation that this version of fizz does not know",
    }
}

/// Which images jobs may use.
pub(super) fn images(config: &ImagesConfig) -> Check {
    const NAME: &str = "images";
    // The cache's size is not looked at here, so its default does not matter.
    if let Err(error) = ImagePolicy::read(config, 0) {
        return Check::new(NAME, Outcome::Bad, error.to_string()).fix("mend it in fizz.toml under [images]");
    }
    let mut found = match config.allow.len() {
        0 => "from everywhere".to_owned(),
        count => format!("only what begins with one of {count} entries of allow"),
    };
    if !config.deny.is_empty() {
        found.push_str(&format!(", but for {} entries of deny", config.deny.len()));
    }
    if !config.signed_by.is_empty() {
        found.push_str(&format!(", only if signed by one of {} keys", config.signed_by.len()));
    }
    if let Some(mirror) = &config.mirror {
        found.push_str(&format!(", Docker Hub's by way of {mirror}"));
    }
    match config.cache {
        Some(size) => found.push_str(&format!("; {} MiB of them are kept", size.0 >> 20)),
        None => found.push_str("; a tenth of the disk of them is kept"),
    }
    Check::new(NAME, Outcome::Good, found)
}

#[cfg(test)]
mod tests {
    use super::super::picture;
    use super::*;

    fn facts() -> EngineFacts {
        EngineFacts { limits_hold: true, seccomp: true, apparmor: true, ..EngineFacts::default() }
    }

    fn finding(effect: Effect) -> Finding {
        Finding {
            component: "runc".into(),
            version: "1.1.5".into(),
            cves: vec!["CVE-2024-21626".into()],
            effect,
            uncertain: false,
            what: "a container could leave".into(),
            install: "runc 1.1.12".into(),
            sources: vec!["https://example.org/advisory".into()],
        }
    }

    fn told(checks: &[Check]) -> String {
        picture(80, checks).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn holes_are_told_with_what_to_install_and_what_follows() {
        let findings = [Effect::RefuseJobs, Effect::RefuseGpus, Effect::Warn].map(finding);
        let checks = holes(&findings);
        let outcomes: Vec<Outcome> = checks.iter().map(|check| check.outcome).collect();
        assert_eq!(outcomes, [Outcome::Bad, Outcome::Bad, Outcome::Warning]);
        let text = told(&checks);
        for part in ["CVE-2024-21626", "install runc 1.1.12", "no job is run", "no job gets a GPU", "example.org"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert_eq!(holes(&[])[0].outcome, Outcome::Good);
    }

    #[test]
    fn walls_and_root_are_told_as_the_engine_and_the_owner_have_them() {
        assert!(told(&[walls(&facts())]).contains("AppArmor"));
        assert_eq!(walls(&EngineFacts { seccomp: false, ..facts() }).outcome, Outcome::Bad);
        assert_eq!(walls(&EngineFacts { limits_hold: false, ..facts() }).outcome, Outcome::Bad);
        let rule = |root| SandboxConfig { root, ..SandboxConfig::default() };
        let warned = root(&rule(RootRule::Yes), &facts());
        assert_eq!(warned.outcome, Outcome::Warning);
        assert!(told(&[warned]).contains("userns-remap"));
        assert_eq!(root(&rule(RootRule::Remapped), &facts()).outcome, Outcome::Good);
        assert_eq!(root(&rule(RootRule::No), &facts()).outcome, Outcome::Good);
        let mapped = EngineFacts { userns_remap: true, ..facts() };
        assert!(root(&rule(RootRule::Yes), &mapped).found.contains("nobody outside"));
    }

    #[test]
    fn an_engine_below_the_owners_wish_is_told_as_broken() {
        let wish = SandboxConfig { isolation: Isolation::Gvisor, ..SandboxConfig::default() };
        assert_eq!(separation(&wish, &[]).outcome, Outcome::Bad);
        let given = separation(&wish, &[Isolation::Gvisor, Isolation::Kata]);
        assert!(given.outcome == Outcome::Good && given.found.contains("gVisor") && given.found.contains("Kata"));
    }

    #[test]
    fn a_key_that_is_not_there_is_told_and_an_ordinary_policy_is_read_out() {
        let config = ImagesConfig { signed_by: vec!["/nowhere/key.pub".into()], ..ImagesConfig::default() };
        let check = images(&config);
        assert!(check.outcome == Outcome::Bad && check.found.contains("/nowhere/key.pub"), "{check:?}");
        let config = ImagesConfig { allow: vec!["docker.io/library/".into()], ..ImagesConfig::default() };
        let check = images(&config);
        assert!(check.outcome == Outcome::Good && check.found.contains("one of 1 entries"), "{check:?}");
        assert_eq!(images(&ImagesConfig::default()).outcome, Outcome::Good);
    }
}
