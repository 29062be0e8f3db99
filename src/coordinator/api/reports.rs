//! What a node signs about itself: inventory and benchmarks.

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::coordinator::App;
use crate::coordinator::auth::NodeAuth;
use crate::coordinator::problem::{ApiError, Json};
use crate::coordinator::signatures::verify_report;
use crate::wire::ErrorCode;
use crate::wire::bench::BenchmarkReport;
use crate::wire::node::{Gpu, Inventory};
use crate::wire::signed::{ReportKind, SignedReport};

const GPUS_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 256;

/// The routes of this file.
pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(put_inventory)).routes(routes!(post_benchmarks))
}

/// Hand in the hardware as found, and what of it is lent. The body is an `Inventory` as signed text.
#[utoipa::path(put, path = "/v1/node/inventory", tag = "node", request_body = SignedReport,
    security(("session" = [])), responses(
    (status = 204, description = "Stored, unless a newer one is stored already"),
))]
async fn put_inventory(
    State(app): State<App>,
    node: NodeAuth,
    Json(report): Json<SignedReport>,
) -> Result<StatusCode, ApiError> {
    let report = verify_report::<Inventory>(&app, ReportKind::Inventory, node.node_id, &report).await?;
    check_inventory(&report.content).map_err(invalid)?;
    app.store.put_inventory(&report).await?;
    app.wake.match_jobs();
    Ok(StatusCode::NO_CONTENT)
}

/// Hand in the hardware as measured. The body is a `BenchmarkReport` as signed text.
#[utoipa::path(post, path = "/v1/node/benchmarks", tag = "node", request_body = SignedReport,
    security(("session" = [])), responses(
    (status = 204, description = "Stored, unless a newer one is stored already"),
))]
async fn post_benchmarks(
    State(app): State<App>,
    node: NodeAuth,
    Json(report): Json<SignedReport>,
) -> Result<StatusCode, ApiError> {
    let report = verify_report::<BenchmarkReport>(&app, ReportKind::Benchmarks, node.node_id, &report).await?;
    check_benchmarks(&report.content).map_err(invalid)?;
    app.store.put_benchmarks(&report).await?;
    app.wake.match_jobs();
    Ok(StatusCode::NO_CONTENT)
}

fn invalid(what: String) -> ApiError {
    ApiError::new(ErrorCode::InvalidRequest, what)
}

/// A node cannot lend what it does not say it has. Free disk is not held against the offer: jobs use it up.
fn check_inventory(inventory: &Inventory) -> Result<(), String> {
    let Inventory { host, gpus, engine, offer } = inventory;
    for text in [&host.os, &host.kernel, &host.architecture, &host.cpu_model, &engine.name, &engine.version] {
        check_text(text)?;
    }
    if gpus.len() > GPUS_MAX {
        return Err(format!("{} graphics adapters are listed; the most is {GPUS_MAX}", gpus.len()));
    }
    for Gpu { name, vendor, backend, driver, .. } in gpus {
        [name, vendor, backend, driver].into_iter().try_for_each(|text| check_text(text))?;
    }
    if offer.cpu_millis == 0 || offer.memory_bytes == 0 {
        return Err("the offer lends no CPU or no memory".to_owned());
    }
    let cpu_millis = u64::from(host.cpu_threads) * 1000;
    if u64::from(offer.cpu_millis) > cpu_millis {
        return Err(format!(
            "the offer lends {} thousandths of a core; the machine has {cpu_millis}",
            offer.cpu_millis
        ));
    }
    if offer.memory_bytes > host.memory_bytes {
        return Err(format!("the offer lends {} bytes of memory of {}", offer.memory_bytes, host.memory_bytes));
    }
    let hardware = gpus.iter().filter(|gpu| gpu.kind.is_hardware()).count();
    if usize::try_from(offer.gpus).is_ok_and(|offered| offered > hardware) {
        return Err(format!("the offer lends {} GPUs; the machine has {hardware}", offer.gpus));
    }
    Ok(())
}

fn check_benchmarks(report: &BenchmarkReport) -> Result<(), String> {
    check_text(&report.fingerprint)?;
    if report.gpus.len() > GPUS_MAX {
        return Err(format!("{} graphics adapters are measured; the most is {GPUS_MAX}", report.gpus.len()));
    }
    for gpu in &report.gpus {
        check_text(&gpu.name)?;
        let held_back_by = gpu.health.as_ref().map(|health| health.held_back_by.as_slice()).unwrap_or_default();
        if held_back_by.len() > GPUS_MAX {
            return Err(format!(
                "{} reasons are given that hold {} back; the most is {GPUS_MAX}",
                held_back_by.len(),
                gpu.name
            ));
        }
        held_back_by.iter().try_for_each(|reason| check_text(reason))?;
        if let Some((what, _)) = gpu.figures().find(|(_, figure)| !figure.is_finite() || *figure < 0.0) {
            return Err(format!("{what} of {} is negative or no number", gpu.name));
        }
    }
    check_text(report.host.cpu_vectors.as_deref().unwrap_or_default())?;
    if let Some((what, _)) = report.host.figures().find(|(_, figure)| !figure.is_finite() || *figure < 0.0) {
        return Err(format!("{what} is negative or no number"));
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("a text is longer than {TEXT_BYTES_MAX} bytes or has control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn inventory(offer: serde_json::Value) -> Inventory {
        serde_json::from_value(json!({
            "host": {"os": "Debian 13", "kernel": "6.12", "architecture": "amd64", "cpu_model": "x", "cpu_cores": 2,
                     "cpu_threads": 4, "memory_bytes": 1000, "disk_bytes_free": 10},
            "gpus": [{"name": "llvmpipe", "vendor": "mesa", "kind": "software", "backend": "vulkan", "driver": "mesa"}],
            "engine": {"name": "docker", "version": "28", "api_version": "1.48"},
            "offer": offer,
        }))
        .unwrap()
    }

    #[test]
    fn an_offer_of_more_than_the_machine_has_is_refused_by_name() {
        let offer = |cpu, memory, gpus| {
            inventory(
                json!({"cpu_millis": cpu, "memory_bytes": memory, "disk_bytes": 50, "gpus": gpus, "price_min": 1}),
            )
        };
        assert_eq!(check_inventory(&offer(4000, 1000, 0)), Ok(()));
        for (bad, word) in [
            (offer(4001, 1000, 0), "core"),
            (offer(4000, 1001, 0), "memory"),
            (offer(0, 1000, 0), "no CPU"),
            (offer(4000, 1000, 1), "GPUs"),
        ] {
            let why = check_inventory(&bad).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }
}
