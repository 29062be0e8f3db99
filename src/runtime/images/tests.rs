use super::*;

fn reference(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

fn digest() -> String {
    format!("sha256:{}", "0a".repeat(32))
}

fn rules(allow: &[&str], deny: &[&str]) -> ImageRules {
    let words = |entries: &[&str]| entries.iter().map(|&entry| entry.to_owned()).collect::<Vec<_>>();
    ImageRules::new(&words(allow), &words(deny), None, Vec::new()).unwrap()
}

#[test]
fn names_are_written_out_as_docker_means_them() {
    for (text, name, version, shown) in [
        ("alpine", "docker.io/library/alpine", "latest", "alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine", "3.20", "alpine:3.20"),
        ("docker.io/alpine", "docker.io/library/alpine", "latest", "alpine:latest"),
        ("index.docker.io/library/alpine:3", "docker.io/library/alpine", "3", "alpine:3"),
        ("acme/render", "docker.io/acme/render", "latest", "acme/render:latest"),
        ("ghcr.io/acme/a/b:v1", "ghcr.io/acme/a/b", "v1", "ghcr.io/acme/a/b:v1"),
        ("127.0.0.1:5000/x", "127.0.0.1:5000/x", "latest", "127.0.0.1:5000/x:latest"),
        ("localhost/x", "localhost/x", "latest", "localhost/x:latest"),
        ("[::1]:5000/x", "[::1]:5000/x", "latest", "[::1]:5000/x:latest"),
        ("a__b-c/d.e--f", "docker.io/a__b-c/d.e--f", "latest", "a__b-c/d.e--f:latest"),
    ] {
        let text_of = reference(text);
        assert_eq!((text_of.name().as_str(), text_of.version()), (name, version), "{text}");
        assert_eq!(text_of.to_string(), shown);
        assert_eq!(reference(&text_of.to_string()).name(), name, "what is shown means the same");
    }
}

#[test]
fn a_digest_goes_before_a_tag() {
    let both = reference(&format!("ghcr.io/a/b:3@{}", digest()));
    assert_eq!(both.version(), digest());
    assert_eq!(both.to_string(), format!("ghcr.io/a/b@{}", digest()));
    assert_eq!(reference("alpine:3").pinned(&digest()), format!("alpine@{}", digest()));
}

#[test]
fn what_no_image_can_be_called_is_refused() {
    for text in [
        "",
        "/",
        "a//b",
        "Alpine:3",
        "a/B",
        "a b",
        "alpine:",
        "alpine:-x",
        "alpine@sha256:00",
        "a..b",
        "a-",
        "_a",
        "alpine@md5:0123",
        "http://x/y",
        "a___b",
        "ghcr.io/",
    ] {
        assert!(Reference::parse(text).is_err(), "{text}");
    }
    assert!(Reference::parse(&format!("a@SHA256:{}", "0".repeat(64))).is_err());
    assert!(Reference::parse(&"a".repeat(300)).is_err());
}

#[test]
fn an_id_is_no_name() {
    let id = "a".repeat(64);
    assert_eq!(ImageName::parse(&id), Ok(ImageName::Id(id.clone())));
    assert_eq!(ImageName::parse(&format!("sha256:{id}")), Ok(ImageName::Id(format!("sha256:{id}"))));
    assert!(matches!(ImageName::parse("abcdef"), Ok(ImageName::Reference(_))));
}

#[test]
fn rules_compare_whole_components_and_deny_goes_first() {
    let rules =
        rules(&["ghcr.io/acme", "docker.io/library/", "registry.example:5000"], &["ghcr.io/acme/bad", "busybox"]);
    for good in ["ghcr.io/acme/x", "ghcr.io/acme", "alpine", "registry.example:5000/any/thing:1"] {
        assert_eq!(rules.check(&reference(good)), Ok(()), "{good}");
    }
    for (refused, word) in [
        ("ghcr.io/acme-evil/x", "only from"),
        ("ghcr.io/acme/bad", "no images from ghcr.io/acme/bad"),
        ("ghcr.io/acme/bad/deeper:1", "no images from"),
        ("busybox", "no images from docker.io/library/busybox"),
        ("acme/render", "not from docker.io/acme/render"),
        ("registry.example/x", "only from"),
        ("evil.example/ghcr.io/acme/x", "only from"),
    ] {
        let sentence = rules.check(&reference(refused)).unwrap_err();
        assert!(sentence.contains(word), "{refused}: {sentence}");
    }
    assert_eq!(rules.check(&reference("ghcr.io/acme/badly")), Ok(()));
}

#[test]
fn without_rules_every_image_is_taken() {
    assert_eq!(ImageRules::default().check(&reference("evil.example/x")), Ok(()));
}

#[test]
fn entries_that_would_silently_match_nothing_are_refused() {
    for entry in ["", " ", "/", "https://ghcr.io", "ghcr.io/*", "a b"] {
        assert!(ImageRules::new(&[entry.to_owned()], &[], None, Vec::new()).is_err(), "{entry}");
    }
    for mirror in ["", "mirror", "https://", "https://a.example/path"] {
        assert!(ImageRules::new(&[], &[], Some(mirror), Vec::new()).is_err(), "{mirror}");
    }
    let rules = ImageRules::new(&[], &[], Some("https://mirror.example/"), Vec::new()).unwrap();
    assert_eq!(rules.mirror(), Some("mirror.example"));
}

#[test]
fn a_registry_at_home_is_asked_only_when_its_owner_named_it() {
    let named = rules(&["192.168.1.5:5000/me", "docker.io"], &[]);
    assert!(named.names_registry_of(&reference("192.168.1.5:5000/me/x")));
    assert!(!named.names_registry_of(&reference("192.168.1.6:5000/me/x")));
    assert!(
        !named.names_registry_of(&reference("alpine")),
        "a name that resolves into the home is no reason to go there"
    );
}
