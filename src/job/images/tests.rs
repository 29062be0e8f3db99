use super::*;

fn busy(retry_after: Option<u64>) -> RuntimeError {
    let retry_after = retry_after.map(Duration::from_secs);
    RuntimeError::RegistryBusy { image: "x".into(), detail: "toomanyrequests".into(), retry_after }
}

#[test]
fn a_busy_registry_is_asked_again_when_it_says_and_not_all_at_once() {
    assert_eq!(busy_wait(&busy(None), Duration::from_secs(8), 1.0), Duration::from_secs(8));
    assert_eq!(busy_wait(&busy(None), Duration::from_secs(8), 0.75), Duration::from_secs(6));
    let asked = busy_wait(&busy(Some(60)), Duration::from_secs(8), 0.75);
    assert_eq!(asked, Duration::from_secs(60), "never before");
    let later = busy_wait(&busy(Some(60)), Duration::from_secs(8), 1.25);
    assert!(later > asked && later <= Duration::from_secs(66), "{later:?}");
    assert!(busy_wait(&busy(Some(u64::MAX)), Duration::from_secs(8), 1.0) > BUSY_MAX);
}

#[test]
fn a_mistake_in_the_owners_rules_names_the_key_and_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cosign.pub");
    let config = |signed_by: Vec<PathBuf>| ImagesConfig { signed_by, ..ImagesConfig::default() };
    let error = ImagePolicy::read(&config(vec![file.clone()]), 1).unwrap_err().to_string();
    assert!(error.contains("images.signed_by") && error.contains("cosign.pub"), "{error}");
    std::fs::write(&file, "no key").unwrap();
    let error = ImagePolicy::read(&config(vec![file]), 1).unwrap_err().to_string();
    assert!(error.contains("holds no public key"), "{error}");
    let bad = ImagesConfig { allow: vec!["https://ghcr.io".into()], ..ImagesConfig::default() };
    assert!(ImagePolicy::read(&bad, 1).unwrap_err().to_string().contains("images.allow"));
    assert_eq!(ImagePolicy::read(&ImagesConfig::default(), 7).unwrap().cache_bytes, 7);
}
