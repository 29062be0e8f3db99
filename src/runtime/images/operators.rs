//! Registries whose operators are known: a stranger can put images there, but not say where the engine is sent for them.

use super::DOCKER_HUB;

/// Whole host names.
const HOSTS: &[&str] = &[
    DOCKER_HUB,
    "gcr.io",
    "ghcr.io",
    "lscr.io",
    "mcr.microsoft.com",
    "nvcr.io",
    "public.ecr.aws",
    "quay.io",
    "registry.access.redhat.com",
    "registry.fedoraproject.org",
    "registry.gitlab.com",
    "registry.k8s.io",
    "registry.redhat.io",
    "registry.suse.com",
];
/// Ends of host names that only the operator gives out.
const DOMAINS: &[&str] = &[".gcr.io", ".pkg.dev", ".azurecr.io", ".dkr.ecr.*.amazonaws.com", ".ocir.io", ".icr.io"];

/// Whether the registry is one of these. A port makes it another one.
pub(super) fn is_known(registry: &str) -> bool {
    let registry = registry.to_ascii_lowercase();
    HOSTS.contains(&registry.as_str()) || DOMAINS.iter().any(|domain| ends_with(&registry, domain))
}

/// `*` stands for one label.
fn ends_with(host: &str, domain: &str) -> bool {
    let Some((head, tail)) = domain.split_once('*') else {
        return host.strip_suffix(domain).is_some_and(|account| !account.is_empty());
    };
    let Some((account, region)) = host.strip_suffix(tail).and_then(|rest| rest.rsplit_once(head)) else { return false };
    !account.is_empty() && !region.is_empty() && !region.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_operators_are_told_from_those_who_look_like_them() {
        for known in
            ["docker.io", "GHCR.io", "eu.gcr.io", "europe-docker.pkg.dev", "123.dkr.ecr.eu-west-1.amazonaws.com"]
        {
            assert!(is_known(known), "{known}");
        }
        for other in [
            "evil.example",
            "ghcr.io.evil.example",
            "evilghcr.io",
            "ghcr.io:8443",
            ".gcr.io",
            "x.dkr.ecr.evil.example.amazonaws.com",
            ".dkr.ecr.eu-west-1.amazonaws.com",
            "s3.amazonaws.com",
            "127.0.0.1:5000",
            "localhost",
        ] {
            assert!(!is_known(other), "{other}");
        }
    }
}
