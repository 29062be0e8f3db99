//! Housekeeping: rows that nobody needs any more, and the certificate.

use std::collections::BTreeSet;
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::App;
use super::problem::chain;
use super::store::StoreError;
use super::tls::CertificateSource;
use crate::clock::Clock;
use crate::wire::LeaseId;

const CLEAN_EVERY: Duration = Duration::from_secs(300);
const LOOK_AT_CERTIFICATE_EVERY: Duration = Duration::from_secs(3600);

/// Deletes what has expired and what is left of deleted secrets, every five minutes.
pub(crate) async fn clean(app: App, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(CLEAN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = app.store.delete_expired(app.clock.now()).await {
            tracing::warn!(error = %chain(&error), "expired rows could not be deleted; trying again later");
        }
        if let Err(error) = drop_orphaned_parts(&app).await {
            tracing::warn!(error = %chain(&error), "parts of outputs could not be looked through; trying again later");
        }
        match app.store.empty_log().await {
            Ok(true) => {}
            Ok(false) => tracing::debug!("the database's log is being read; emptying it later"),
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the database's log could not be emptied; later again")
            }
        }
    }
}

/// Removes parts of outputs whose lease is over: nobody will finish them.
async fn drop_orphaned_parts(app: &App) -> Result<(), StoreError> {
    // Listed first: a lease that is made meanwhile has no part in the list.
    let found = app.outputs.leases_with_parts().await?;
    if found.is_empty() {
        return Ok(());
    }
    let live: BTreeSet<LeaseId> = app.store.live_leases().await?.into_iter().map(|lease| lease.lease_id).collect();
    for lease_id in found.difference(&live) {
        app.outputs.drop_parts(*lease_id, None).await;
    }
    Ok(())
}

/// Replaces the certificate when its time has come.
pub(crate) async fn renew(source: CertificateSource, mut renew_at: Timestamp, serving: RustlsConfig, clock: Clock) {
    let mut ticks = tokio::time::interval(LOOK_AT_CERTIFICATE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if clock.now() < renew_at {
            continue;
        }
        match source.issue(clock.now()) {
            Ok(fresh) => {
                renew_at = fresh.renew_at;
                serving.reload_from_config(fresh.config);
                tracing::info!(next = %renew_at, "the certificate is renewed");
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the certificate could not be renewed; trying again in an hour");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::CoordinatorConfig;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn the_certificate_is_replaced_a_month_before_it_expires_and_not_earlier() {
        let folder = tempfile::tempdir().unwrap();
        let config = CoordinatorConfig { data_dir: folder.path().to_owned(), ..CoordinatorConfig::default() };
        let clock = Clock::manual(Timestamp::from_second(1_790_000_000).unwrap());
        let source = CertificateSource::open(&config, clock.now()).unwrap();
        let first = source.issue(clock.now()).unwrap();
        let serving = RustlsConfig::from_config(Arc::clone(&first.config));
        let task = tokio::spawn(renew(source, first.renew_at, serving.clone(), clock.clone()));
        let day = Duration::from_secs(24 * 3600);
        clock.advance(day * 59);
        tokio::time::sleep(2 * LOOK_AT_CERTIFICATE_EVERY).await;
        assert!(Arc::ptr_eq(&serving.get_inner(), &first.config));
        clock.advance(day);
        tokio::time::sleep(2 * LOOK_AT_CERTIFICATE_EVERY).await;
        assert!(!Arc::ptr_eq(&serving.get_inner(), &first.config));
        task.abort();
    }
}
