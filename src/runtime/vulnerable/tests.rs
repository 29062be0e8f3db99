//! The table is readable, and each kind of version is judged as it should be.

use super::*;

fn component(name: &str, version: &str, package: Option<&str>) -> Component {
    Component { name: name.into(), version: version.into(), package: package.map(str::to_owned) }
}

fn gravest(name: &str, version: &str, package: Option<&str>) -> Option<Effect> {
    check(&[component(name, version, package)]).first().map(|finding| finding.effect)
}

#[test]
fn every_hole_in_the_table_names_its_cves_its_fix_and_its_sources() {
    let table: Table = serde_json::from_str(TABLE).unwrap();
    assert!(table.holes.len() >= 5);
    for hole in &table.holes {
        assert!(hole.cves.iter().all(|cve| cve.starts_with("CVE-")) && !hole.cves.is_empty());
        assert!(hole.sources.iter().all(|url| url.starts_with("https://")) && !hole.sources.is_empty());
        assert!(hole.fixed.iter().all(|text| Upstream::read(text).is_some()) && !hole.fixed.is_empty());
        assert!(!hole.what.is_empty() && !hole.install.is_empty());
    }
}

#[test]
fn releases_with_a_known_hole_are_refused_with_the_cve_and_the_version_to_install() {
    let findings = check(&[component("docker-desktop", "4.44.2", None)]);
    let sentence = refuses_jobs(&findings).unwrap();
    assert!(sentence.contains("CVE-2025-9074") && sentence.contains("4.44.3"), "{sentence}");
    assert_eq!(refuses_jobs(&check(&[component("docker-desktop", "4.44.3", None)])), None);

    let toolkit = check(&[component("nvidia-container-toolkit", "1.17.7", None)]);
    assert_eq!(refuses_jobs(&toolkit), None, "jobs without a GPU are not touched by it");
    let sentence = refuses_gpus(&toolkit).unwrap();
    assert!(sentence.contains("CVE-2025-23266") && sentence.contains("1.17.8"), "{sentence}");
    assert_eq!(refuses_gpus(&check(&[component("nvidia-container-toolkit", "1.17.8", None)])), None);

    assert_eq!(gravest("runc", "1.1.11", None), Some(Effect::RefuseJobs));
    assert_eq!(gravest("runc", "1.0.0-rc93", None), Some(Effect::RefuseJobs));
}

#[test]
fn a_hole_that_no_job_here_can_use_warns() {
    assert_eq!(gravest("runc", "1.1.12", None), Some(Effect::Warn));
    assert_eq!(gravest("runc", "1.3.2", None), Some(Effect::Warn));
    assert_eq!(gravest("runc", "1.3.3", None), None);
    assert_eq!(gravest("engine", "24.0.9", None), Some(Effect::Warn));
}

#[test]
fn a_distributions_backport_is_not_refused_and_the_package_before_it_is() {
    assert_ne!(gravest("runc", "1.1.5+ds1", Some("1.1.5+ds1-1+deb12u1")), Some(Effect::RefuseJobs));
    assert_ne!(gravest("runc", "1.1.5+ds1", Some("1.1.5+ds1-1+deb12u2")), Some(Effect::RefuseJobs));
    assert_ne!(gravest("runc", "1.1.7-0ubuntu1~22.04.2", None), Some(Effect::RefuseJobs));
    assert_eq!(gravest("runc", "1.1.7-0ubuntu1~22.04.1", None), Some(Effect::RefuseJobs));
    assert_eq!(gravest("runc", "1.0.0~rc93+ds1", Some("1.0.0~rc93+ds1-5+deb11u2")), Some(Effect::RefuseJobs));
}

#[test]
fn a_package_that_the_table_does_not_know_warns_and_says_that_it_is_not_sure() {
    let findings = check(&[component("runc", "1.1.9-2.el9", None)]);
    assert!(!findings.is_empty() && findings.iter().all(|f| f.uncertain && f.effect == Effect::Warn));
    assert!(findings[0].sentence().contains("may have"), "{}", findings[0].sentence());
}

#[test]
fn a_version_that_nobody_can_read_is_judged_as_unfixed() {
    assert_eq!(gravest("runc", "", None), Some(Effect::RefuseJobs));
    assert_eq!(gravest("runc", "custom build", None), Some(Effect::RefuseJobs));
    assert_eq!(check(&[component("something-else", "0.1", None)]), []);
}
