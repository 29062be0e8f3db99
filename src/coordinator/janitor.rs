//! Housekeeping: rows that nobody needs any more, and the certificate.

use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::App;
use super::problem::chain;
use super::tls::CertificateSource;
use crate::clock::Clock;

const CLEAN_EVERY: Duration = Duration::from_secs(300);
const LOOK_AT_CERTIFICATE_EVERY: Duration = Duration::from_secs(3600);

/// Deletes what has expired, every five minutes.
pub(crate) async fn clean(app: App, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(CLEAN_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = app.store.delete_expired(app.clock.now()).await {
            tracing::warn!(error = %chain(&error), "expired rows could not be deleted; trying again later");
        }
    }
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
