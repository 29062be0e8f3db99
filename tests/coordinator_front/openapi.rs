//! The interface's description, as it is checked in.

use crate::harness::World;

const CHECKED_IN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/openapi.json");

#[tokio::test]
async fn the_checked_in_document_is_what_the_coordinator_serves() {
    let world = World::new().await;
    let answer = world.client.get("/v1/openapi.json").open().await.unwrap();
    let served = answer.text().await.unwrap();
    if std::env::var_os("FIZZ_BLESS").is_some() {
        std::fs::write(CHECKED_IN, &served).unwrap();
    }
    let checked_in = std::fs::read_to_string(CHECKED_IN).unwrap();
    assert!(
        checked_in == served,
        "assets/openapi.json is not what the routes say; type FIZZ_BLESS=1 cargo test --test coordinator_front openapi"
    );
}

#[tokio::test]
async fn every_route_is_described_with_its_errors_and_nothing_refers_to_nothing() {
    let world = World::new().await;
    let document: serde_json::Value = world.client.get("/v1/openapi.json").receive().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name} is referred to and not there");
    }
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(operation["summary"].is_string(), "{method} {path} says nothing about itself");
            let api = path.starts_with("/v1/") && path != "/v1/openapi.json";
            let refuses = operation["responses"].as_object().unwrap().keys().any(|status| status.starts_with('4'));
            assert!(!api || refuses, "{method} {path} does not say how it refuses");
        }
    }
}
