//! Known holes in what runs strangers' containers, and whether this machine has them. Pure.
//!
//! The table is `assets/vulnerable.json`, with its sources. A hole that a job could use here refuses jobs, or GPU jobs; one whose
//! precondition no job can meet (a capability, a shared mount, a terminal) is told as a warning.
//!
//! Invariants
//! - An upstream release is judged by its number. A version that nobody can read is judged as unfixed.
//! - A distribution mends without changing the upstream number, so its packages are judged by the distribution's own fixed version.
//!   A package of a release that the table does not name may be mended or not: it warns and never refuses.

mod version;

use serde::Deserialize;

use version::Upstream;

const TABLE: &str = include_str!("../../assets/vulnerable.json");

/// A part of the engine, as it names itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// `engine`, `containerd`, `runc`, `docker-desktop`, `nvidia-container-toolkit`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The package it came in, where a distribution tells: `1.1.5+ds1-1+deb12u1`.
    pub package: Option<String>,
}

/// What follows from a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The owner is told.
    Warn,
    /// No job gets a GPU.
    RefuseGpus,
    /// No job runs.
    RefuseJobs,
}

/// A hole that this machine has, or may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// In which component.
    pub component: String,
    /// Its version here, the package's where there is one.
    pub version: String,
    /// `CVE-…`, one or more.
    pub cves: Vec<String>,
    /// What follows.
    pub effect: Effect,
    /// Whether it is only not known to be mended: a distribution's package that the table does not know.
    pub uncertain: bool,
    /// What a container could do, as half a sentence.
    pub what: String,
    /// What to install.
    pub install: String,
    /// Where that is written.
    pub sources: Vec<String>,
}

impl Finding {
    /// One sentence for the owner: what is wrong and what to install.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self { component, version, what, install, .. } = self;
        let cves = self.cves.join(", ");
        if self.uncertain {
            format!("{component} {version} may have {cves} ({what}); see whether its distribution has mended it")
        } else {
            format!("{component} {version} has {cves}: {what}; install {install}")
        }
    }
}

#[derive(Debug, Deserialize)]
struct Table {
    holes: Vec<Hole>,
}

#[derive(Debug, Deserialize)]
struct Hole {
    component: String,
    cves: Vec<String>,
    effect: Effect,
    fixed: Vec<String>,
    packages: Vec<Package>,
    what: String,
    install: String,
    sources: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Package {
    mark: String,
    fixed: String,
}

/// The holes that these components have, the gravest first.
#[must_use]
pub fn check(components: &[Component]) -> Vec<Finding> {
    // The table is a part of the program, and a test reads it.
    let holes = serde_json::from_str::<Table>(TABLE).map(|table| table.holes).unwrap_or_default();
    let mut found: Vec<Finding> =
        holes.iter().flat_map(|hole| components.iter().filter_map(|component| judge(hole, component))).collect();
    found.sort_by_key(|finding| std::cmp::Reverse(finding.effect));
    found
}

/// The gravest of them that stops all jobs, as a sentence.
#[must_use]
pub fn refuses_jobs(findings: &[Finding]) -> Option<String> {
    first(findings, |effect| effect == Effect::RefuseJobs)
}

/// The gravest of them that stops jobs with GPUs, as a sentence.
#[must_use]
pub fn refuses_gpus(findings: &[Finding]) -> Option<String> {
    first(findings, |effect| effect >= Effect::RefuseGpus)
}

fn first(findings: &[Finding], which: impl Fn(Effect) -> bool) -> Option<String> {
    findings.iter().find(|finding| which(finding.effect)).map(Finding::sentence)
}

enum Verdict {
    Fixed,
    Open,
    Uncertain,
}

fn judge(hole: &Hole, component: &Component) -> Option<Finding> {
    if hole.component != component.name {
        return None;
    }
    let uncertain = match verdict(hole, component) {
        Verdict::Fixed => return None,
        Verdict::Open => false,
        Verdict::Uncertain => true,
    };
    Some(Finding {
        component: component.name.clone(),
        version: component.package.clone().unwrap_or_else(|| component.version.clone()),
        cves: hole.cves.clone(),
        effect: if uncertain { Effect::Warn } else { hole.effect },
        uncertain,
        what: hole.what.clone(),
        install: hole.install.clone(),
        sources: hole.sources.clone(),
    })
}

fn verdict(hole: &Hole, component: &Component) -> Verdict {
    let lines: Vec<Upstream> = hole.fixed.iter().filter_map(|text| Upstream::read(text)).collect();
    let here = Upstream::read(&component.version);
    if here.as_ref().is_some_and(|here| here.is_fixed_by(&lines)) {
        return Verdict::Fixed;
    }
    let named = component.package.as_deref().unwrap_or(&component.version);
    if let Some(package) = hole.packages.iter().find(|package| named.contains(&package.mark)) {
        let mended = version::compare_packages(named, &package.fixed).is_ge();
        return if mended { Verdict::Fixed } else { Verdict::Open };
    }
    if version::is_package(named) { Verdict::Uncertain } else { Verdict::Open }
}

#[cfg(test)]
mod tests;
