//! Registry logins of the leases that are here, in memory only.
//!
//! Invariants
//! - They come with the assignments and go with them; nothing of them is written anywhere.
//! - A lease of the journal has lost its login; it waits until the coordinator has listed it again.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::wire::LeaseId;
use crate::wire::job::{RegistryLogin, ServiceSpec};
use crate::wire::lease::Assignment;

type Known = HashMap<LeaseId, HashMap<String, RegistryLogin>>;

/// The logins. Clones know the same.
#[derive(Clone)]
pub struct Logins(Arc<watch::Sender<Known>>);

impl Default for Logins {
    fn default() -> Self {
        Self(Arc::new(watch::channel(Known::new()).0))
    }
}

impl std::fmt::Debug for Logins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Logins({} leases)", self.0.borrow().len())
    }
}

impl Logins {
    /// Takes the logins of everything that the coordinator lists, and forgets those of what it lists no longer.
    pub fn learn(&self, assignments: &[Assignment]) {
        let known: Known = assignments
            .iter()
            .map(|assignment| (assignment.lease_id, logins_of(&assignment.spec.services)))
            .filter(|(_, logins)| !logins.is_empty())
            .collect();
        self.0.send_if_modified(|before| {
            let changed = *before != known;
            *before = known;
            changed
        });
    }

    /// The login for a service's image; waits for it when it is not here. `None` when the job has none.
    pub(super) async fn of(
        &self,
        lease_id: LeaseId,
        service: &ServiceSpec,
        waits: impl FnOnce(),
    ) -> Option<RegistryLogin> {
        let login = service.registry.as_ref()?;
        if !login.password.expose().is_empty() {
            return Some(login.clone());
        }
        let mut known = self.0.subscribe();
        let find = |known: &Known| known.get(&lease_id)?.get(&service.name).cloned();
        if let Some(login) = find(&known.borrow_and_update()) {
            return Some(login);
        }
        waits();
        let found = known.wait_for(|known| find(known).is_some()).await;
        found.ok().and_then(|known| find(&known))
    }
}

fn logins_of(services: &[ServiceSpec]) -> HashMap<String, RegistryLogin> {
    let with_login = |service: &ServiceSpec| {
        let login = service.registry.clone().filter(|login| !login.password.expose().is_empty())?;
        Some((service.name.clone(), login))
    };
    services.iter().filter_map(with_login).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Secret;
    use jiff::Timestamp;

    fn service(password: &str) -> ServiceSpec {
        let login = RegistryLogin { username: "me".into(), password: Secret::new(password) };
        ServiceSpec { name: "main".into(), registry: Some(login), ..ServiceSpec::default() }
    }

    fn assignment(service: ServiceSpec) -> Assignment {
        let now = Timestamp::UNIX_EPOCH;
        Assignment {
            lease_id: LeaseId::generate(now),
            job_id: crate::wire::JobId::generate(now),
            generation: crate::wire::Generation(1),
            desired: crate::wire::lease::Desired::Run,
            rate: crate::wire::HourlyRate::MIN,
            spec: crate::wire::job::JobSpec { services: vec![service], ..Default::default() },
        }
    }

    #[tokio::test]
    async fn a_lease_that_lost_its_login_waits_until_the_coordinator_says_it_again() {
        let logins = Logins::default();
        let full = assignment(service("sesame"));
        assert_eq!(
            logins.of(full.lease_id, &service("own"), || panic!("waits")).await.unwrap().password.expose(),
            "own"
        );
        let asking = {
            let (logins, lease_id) = (logins.clone(), full.lease_id);
            let (say, heard) = tokio::sync::oneshot::channel();
            let task =
                tokio::spawn(async move { logins.of(lease_id, &service(""), move || say.send(()).unwrap()).await });
            heard.await.unwrap();
            task
        };
        logins.learn(&[assignment(service("somebody else's"))]);
        logins.learn(std::slice::from_ref(&full));
        assert_eq!(asking.await.unwrap().unwrap().password.expose(), "sesame");
        logins.learn(&[]);
        assert!(!format!("{logins:?}").contains("sesame"));
        assert!(logins.0.borrow().is_empty());
        let none = ServiceSpec::default();
        assert_eq!(logins.of(full.lease_id, &none, || panic!("waits")).await, None);
    }
}
