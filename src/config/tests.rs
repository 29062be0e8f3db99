//! The configuration file as people write it, and what they are told when it is wrong.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "fizz.toml", |_| None)
}

fn error(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn a_missing_file_is_the_default_unless_somebody_named_it() {
    let nowhere = Path::new("/nonexistent/fizz.toml");
    assert_eq!(Config::load(nowhere, false, |_| None).unwrap(), Config::default());
    let error = Config::load(nowhere, true, |_| None).unwrap_err().to_string();
    assert!(error.starts_with("/nonexistent/fizz.toml does not exist; make it with `fizz enroll`"), "{error}");
}

#[test]
fn a_whole_file_is_read() {
    let config = parse(
        r#"
        name = "attic"
        drain_deadline_seconds = 5
        [[coordinators]]
        url = "https://a.example:8443"
        ca_file = "/etc/fizz/ca.pem"
        [[coordinators]]
        url = "https://b.example"
        [offer]
        cpus = 1.5
        memory = "8GiB"
        disk = 1000000
        gpus = 0
        price_per_hour = "0.25"
        [engine]
        address = "unix:///var/run/docker.sock"
        [sandbox]
        isolation = "gvisor"
        root = "remapped"
        interactive = false
        cpu_weight = 128
        services_max = 2
pids_max = 100
        [network]
        internet = false
        domains = ["example.org"]
        resolvers = ["9.9.9.9"]
        download_per_second = "10MB"
        pool = "10.219.0.0/16"
        [images]
        allow = ["docker.io/library/"]
        deny = ["ghcr.io/bad/"]
        cache = "20GiB"
        mirror = "https://mirror.example"
        signed_by = ["/etc/fizz/cosign.pub"]
        "#,
    )
    .unwrap();
    assert_eq!(config.coordinators.len(), 2);
    assert_eq!(config.offer.cpus.unwrap().0, 1500);
    assert_eq!(config.offer.memory.unwrap().0, 8 << 30);
    assert_eq!(config.offer.disk.unwrap().0, 1_000_000);
    assert_eq!(config.offer.price_min().micros(), 250_000);
    assert_eq!(config.drain_deadline_seconds.as_duration().as_secs(), 5);
    let ceiling = config.ceiling();
    assert_eq!((ceiling.sandbox.root, ceiling.sandbox.cpu_weight.get()), (RootRule::Remapped, 128));
    assert_eq!(ceiling.network.download_per_second.unwrap().0, 10_000_000);
    let pool = ceiling.network.pool.unwrap();
    assert_eq!((pool.address().to_string().as_str(), pool.prefix()), ("10.219.0.0", 16));
    assert_eq!(ceiling.images.cache.unwrap().0, 20 << 30);
}

#[test]
fn an_unknown_key_is_told_with_its_place_and_the_nearest_key() {
    assert_eq!(
        error("name = \"a\"\n\n[offer]\n  memroy = \"1GiB\"\n"),
        "fizz.toml:4:3: there is no key 'offer.memroy'; did you mean 'memory'?"
    );
    assert_eq!(
        error("coordinators = [{ url = \"https://a\", ca = \"x\" }]"),
        "fizz.toml:1:38: there is no key 'coordinators.ca'; did you mean 'ca_file'?"
    );
    let far = error("zzzzzzzzzzzz = 1");
    assert!(far.starts_with("fizz.toml:1:1: there is no key 'zzzzzzzzzzzz'; the keys here are"), "{far}");
}

#[test]
fn a_wrong_value_is_told_with_its_place() {
    for (text, place, part) in [
        ("[offer]\nmemory = \"lots\"", "fizz.toml:2:10:", "8GiB"),
        ("[offer]\nprice_per_hour = 0", "fizz.toml:2:18:", "must be from $0.000001"),
        ("[offer]\nprice_per_hour = -1.5", "fizz.toml:2:18:", "must be from $0.000001"),
        ("[offer]\nprice_per_hour = \"99999999999999999999\"", "fizz.toml:2:18:", "too large"),
        ("[offer]\nprice_per_hour = \"cheap\"", "fizz.toml:2:18:", "not an amount"),
        ("[offer]\ncpus = 0", "fizz.toml:2:8:", "0.01 to 1024"),
        ("[[coordinators]]\nurl = \"http://a\"", "fizz.toml:2:7:", "https://"),
        ("drain_deadline_seconds = 100000", "fizz.toml:1:26:", "86400"),
        ("name = 7", "fizz.toml:1:8:", "'name'"),
        ("[network]\npool = \"many\"", "fizz.toml:2:8:", "like 10.219.0.0/16"),
        ("[network]\npool = \"fd00::/64\"", "fizz.toml:2:8:", "like 10.219.0.0/16"),
        ("[network]\npool = \"10.219.0.0\"", "fizz.toml:2:8:", "like 10.219.0.0/16"),
        ("[network]\npool = \"10.219.0.0/27\"", "fizz.toml:2:8:", "8 to 26 bits"),
        ("[network]\npool = \"10.219.0.1/16\"", "fizz.toml:2:8:", "write 10.219.0.0/16"),
        ("[network]\npool = \"172.0.0.0/8\"", "fizz.toml:2:8:", "not private"),
        ("[network]\npool = \"8.8.8.0/24\"", "fizz.toml:2:8:", "not private"),
    ] {
        let error = error(text);
        assert!(error.starts_with(place) && error.contains(part), "{text:?} gave {error}");
    }
}

#[test]
fn a_syntax_error_is_told_with_its_place() {
    let error = error("name = \"a\nx = 1");
    assert!(error.starts_with("fizz.toml:1:"), "{error}");
    assert!(error.contains("not valid TOML"), "{error}");
}

#[test]
fn variables_go_before_the_file_and_errors_name_them() {
    let env = |name: &str| match name {
        "FIZZ_OFFER__PRICE_PER_HOUR" => Some("0.1".to_owned()),
        "FIZZ_COORDINATORS" => Some("[{url=\"https://c.example\"}]".to_owned()),
        _ => None,
    };
    let config = Config::parse("[offer]\nprice_per_hour = \"0.9\"", "fizz.toml", env).unwrap();
    assert_eq!(config.offer.price_min().micros(), 100_000);
    assert_eq!(config.coordinators[0].url.as_str(), "https://c.example");
    let env = |name: &str| (name == "FIZZ_OFFER__MEMORY").then(|| "much".to_owned());
    let error = Config::parse("", "fizz.toml", env).unwrap_err().to_string();
    assert!(error.starts_with("FIZZ_OFFER__MEMORY: "), "{error}");
}
