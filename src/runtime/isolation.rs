//! Which separations an engine gives, and which one a container gets. Pure.
//!
//! Invariants
//! - A container gets the weakest separation that satisfies both the job and the owner: a stronger one costs time and breaks
//!   programs.
//! - What was not seen working is not given.

use crate::wire::job::Isolation;

/// A separation that an engine gives, and by which of its runtimes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// What it is.
    pub isolation: Isolation,
    /// The engine's name of the runtime; its usual one when absent.
    pub runtime: Option<String>,
}

/// A runtime as an engine names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRuntime {
    /// `runc`, `runsc`, `kata`.
    pub name: String,
    /// Its program, or `io.containerd.…`, where the engine tells.
    pub program: String,
}

/// What an engine's runtimes would give if they work, weakest first; of several of a kind the one with the shortest name.
#[must_use]
pub fn candidates(runtimes: &[NamedRuntime], maps_users: bool) -> Vec<Given> {
    let plain = if maps_users { Isolation::UserNamespace } else { Isolation::Container };
    let mut given = vec![Given { isolation: plain, runtime: None }];
    for isolation in [Isolation::Gvisor, Isolation::Kata] {
        let mut of_kind: Vec<&NamedRuntime> =
            runtimes.iter().filter(|runtime| kind(runtime) == Some(isolation)).collect();
        of_kind.sort_by_key(|runtime| (runtime.name.len(), &runtime.name));
        given.extend(of_kind.first().map(|runtime| Given { isolation, runtime: Some(runtime.name.clone()) }));
    }
    given
}

fn kind(runtime: &NamedRuntime) -> Option<Isolation> {
    let says = |word: &str| {
        let program = runtime.program.rsplit('/').next().unwrap_or_default();
        [runtime.name.as_str(), program].iter().any(|text| text.split(['-', '.']).any(|part| part == word))
    };
    if says("runsc") || says("gvisor") {
        Some(Isolation::Gvisor)
    } else if says("kata") {
        Some(Isolation::Kata)
    } else {
        None
    }
}

/// The weakest of `given` that is at least what the job asks for and what the owner wants for every job.
#[must_use]
pub fn choose(asked: Option<Isolation>, owner: Isolation, given: &[Given]) -> Option<&Given> {
    given
        .iter()
        .find(|here| here.isolation.satisfies(owner) && asked.is_none_or(|asked| here.isolation.satisfies(asked)))
}

/// What the node offers: what is given and not below the owner's own wish.
#[must_use]
pub fn offered(given: &[Given], owner: Isolation) -> Vec<Isolation> {
    given.iter().map(|here| here.isolation).filter(|isolation| isolation.satisfies(owner)).collect()
}

/// Whether what a kernel says of itself shows that a container has a kernel of its own, apart from this machine's.
#[must_use]
pub fn shows_own_kernel(isolation: Isolation, kernel_outside: &str, kernel_inside: &str) -> bool {
    match isolation {
        Isolation::Gvisor | Isolation::Kata => {
            !kernel_inside.trim().is_empty() && kernel_inside.trim() != kernel_outside.trim()
        }
        Isolation::Container | Isolation::UserNamespace => true,
        Isolation::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime(name: &str, program: &str) -> NamedRuntime {
        NamedRuntime { name: name.into(), program: program.into() }
    }

    #[test]
    fn runtimes_are_told_by_name_or_program() {
        let all = [
            runtime("runc", "runc"),
            runtime("runsc-kvm", "/usr/bin/runsc"),
            runtime("sandbox", "/usr/local/bin/runsc"),
            runtime("kata", "io.containerd.kata.v2"),
            runtime("nvidia", "nvidia-container-runtime"),
        ];
        let given = candidates(&all, false);
        let names: Vec<_> = given.iter().map(|g| (g.isolation, g.runtime.as_deref())).collect();
        assert_eq!(
            names,
            [(Isolation::Container, None), (Isolation::Gvisor, Some("sandbox")), (Isolation::Kata, Some("kata"))]
        );
        assert_eq!(candidates(&[], true), [Given { isolation: Isolation::UserNamespace, runtime: None }]);
    }

    #[test]
    fn a_container_gets_the_weakest_separation_that_satisfies_job_and_owner() {
        let given = candidates(&[runtime("runsc", ""), runtime("kata", "")], false);
        let chosen = |asked, owner| choose(asked, owner, &given).map(|g| g.isolation);
        assert_eq!(chosen(None, Isolation::Container), Some(Isolation::Container));
        assert_eq!(chosen(Some(Isolation::UserNamespace), Isolation::Container), Some(Isolation::Gvisor));
        assert_eq!(chosen(Some(Isolation::Container), Isolation::Gvisor), Some(Isolation::Gvisor));
        assert_eq!(chosen(Some(Isolation::Kata), Isolation::Gvisor), Some(Isolation::Kata));
        assert_eq!(chosen(Some(Isolation::Unknown), Isolation::Container), None);
        let plain = candidates(&[], false);
        assert_eq!(choose(Some(Isolation::Gvisor), Isolation::Container, &plain), None);
        assert_eq!(choose(None, Isolation::UserNamespace, &plain), None, "the owner's wish is not passed over");
        assert_eq!(offered(&given, Isolation::Gvisor), [Isolation::Gvisor, Isolation::Kata]);
        assert_eq!(offered(&plain, Isolation::Gvisor), []);
    }

    #[test]
    fn a_kernel_of_its_own_is_believed_only_when_it_is_another() {
        assert!(shows_own_kernel(Isolation::Gvisor, "6.1.0-30-amd64", "4.4.0\n"));
        assert!(!shows_own_kernel(Isolation::Gvisor, "6.1.0-30-amd64", "6.1.0-30-amd64\n"));
        assert!(!shows_own_kernel(Isolation::Kata, "6.1.0", ""));
    }
}
