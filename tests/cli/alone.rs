//! What works, or fails politely, without a coordinator.

use super::world::{Ended, fizz, run, within};

/// Every command's help, found by asking for it.
fn all_commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, path: &[String], found: &mut Vec<Vec<String>>) {
        found.push(path.to_vec());
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            walk(sub, &[path, &[sub.get_name().to_owned()]].concat(), found);
        }
    }
    let mut found = Vec::new();
    walk(&fizz::cli::description(), &[], &mut found);
    found
}

#[tokio::test]
async fn every_help_fits_80_columns() {
    let home = tempfile::tempdir().unwrap();
    let commands = all_commands();
    assert!(commands.len() > 20, "{commands:?}");
    for path in commands {
        let args: Vec<&str> = path.iter().map(String::as_str).chain(["--help"]).collect();
        let help = run(home.path(), &args).await.expect(0);
        for line in help.text().lines() {
            assert!(line.chars().count() <= 80, "{args:?}: {line}");
        }
    }
}

#[tokio::test]
async fn completions_come_for_every_shell_and_manual_pages_for_every_command() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(home.path(), &["completions", shell]).await.expect(0);
        assert!(script.text().contains("enroll"), "{shell}");
    }
    let page = run(home.path(), &["man"]).await.expect(0);
    assert!(page.text().contains(".TH fizz 1") && page.text().contains("125"), "{}", page.text());
    run(home.path(), &["man", "--out", "pages"]).await.expect(0);
    for name in ["fizz.1", "fizz-run.1", "fizz-job-logs.1", "fizz-coordinator-serve.1"] {
        assert!(home.path().join("pages").join(name).exists(), "{name}");
    }
}

#[tokio::test]
async fn what_cannot_be_parsed_ends_with_2_and_says_what_can() {
    let home = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&["statsu"][..], "status"),
        (&["run"], "IMAGE"),
        (&["run", "--max-price", "0", "x"], "must be from $0.000001"),
        (&["run", "--max-price", "-1", "x"], "must be from $0.000001"),
        (&["run", "--max-price", "1e99", "x"], "not an amount"),
        (&["run", "--memory", "lots", "x"], "512m"),
        (&["run", "--cpus", "0", "x"], "0.01 to 1024"),
        (&["run", "--timeout", "soon", "x"], "90s"),
        (&["run", "--env", "=secret", "x"], "KEY=VALUE"),
        (&["run", "--env-file", "absent", "x"], "absent"),
        (&["coordinator", "account", "deposit", "x", "1"], "invalid value 'x'"),
    ] {
        let ended = run(home.path(), args).await.expect(2);
        assert!(ended.err.contains(part), "{args:?}: {}", ended.err);
        assert!(ended.out.is_empty(), "{args:?}");
    }
}

#[tokio::test]
async fn misspelled_files_are_refused_with_their_place() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("job.toml"), "nmae = \"x\"\n").unwrap();
    let ended = run(home.path(), &["run", "--file", "job.toml"]).await.expect(2);
    assert!(ended.err.contains("job.toml:1:1: there is no key 'nmae'; did you mean 'name'?"), "{}", ended.err);
    std::fs::write(home.path().join("bad.toml"), "[network]\npool = \"8.8.8.0/24\"\n").unwrap();
    let ended = run(home.path(), &["doctor", "--config", "bad.toml"]).await.expect(3);
    assert!(ended.err.contains("bad.toml:2:8: 'network.pool': '8.8.8.0/24' is not private"), "{}", ended.err);
}

#[tokio::test]
async fn the_doctor_tells_what_can_be_seen_without_an_engine() {
    let home = tempfile::tempdir().unwrap();
    let config = "[engine]\naddress = \"unix:///nowhere/docker.sock\"\n[network]\ninternet = false\n\
                  [images]\nsigned_by = [\"/nowhere/key.pub\"]\n";
    std::fs::write(home.path().join("fizz.toml"), config).unwrap();
    let ended = run(home.path(), &["doctor", "--config", "fizz.toml"]).await.expect(1);
    let text = ended.text().split_whitespace().collect::<Vec<_>>().join(" ");
    for part in ["container engine:", "/nowhere/docker.sock", "images:", "/nowhere/key.pub", "disk:"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[tokio::test]
async fn without_a_coordinator_it_ends_with_3_or_4_and_says_what_to_type() {
    let home = tempfile::tempdir().unwrap();
    let ended = run(home.path(), &["job", "list"]).await.expect(3);
    assert!(ended.err.contains("no coordinator is set") && ended.err.contains("--coordinator"), "{}", ended.err);
    std::fs::write(home.path().join("key"), "fzk_x").unwrap();
    let nobody = ["run", "--coordinator", "https://127.0.0.1:1", "--api-key-file", "key", "alpine"];
    let ended = run(home.path(), &nobody).await.expect(4);
    assert!(ended.err.contains("https://127.0.0.1:1 cannot be reached"), "{}", ended.err);
    let ended =
        run(home.path(), &["job", "list", "--coordinator", "http://a", "--api-key-file", "key"]).await.expect(3);
    assert!(ended.err.contains("https://"), "{}", ended.err);
    let ended = run(home.path(), &["job", "list", "--coordinator", "https://a"]).await.expect(3);
    assert!(ended.err.contains("FIZZ_API_KEY"), "{}", ended.err);
}

#[tokio::test]
async fn a_wrong_configuration_ends_with_3_and_names_the_line() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("fizz.toml"), "[offer]\nmemroy = \"1g\"\n").unwrap();
    let ended = run(home.path(), &["up"]).await.expect(3);
    assert!(ended.err.contains("fizz.toml:2:1") && ended.err.contains("did you mean 'memory'"), "{}", ended.err);
}

#[tokio::test]
async fn a_named_configuration_that_is_not_there_matters_only_where_something_is_needed_from_it() {
    let home = tempfile::tempdir().unwrap();
    let absent = home.path().join("absent.toml");
    std::fs::write(home.path().join("key"), "fzk_x").unwrap();
    for args in [&["up"][..], &["status"], &["job", "list"], &["run", "--api-key-file", "key", "x"]] {
        let ended = Ended::of(within(fizz(home.path(), args).env("FIZZ_CONFIG", &absent).output()).await.unwrap());
        let ended = ended.expect(3);
        assert!(ended.err.contains("absent.toml does not exist; make it with `fizz enroll`"), "{}", ended.err);
        assert!(ended.err.contains("or unset FIZZ_CONFIG"), "{}", ended.err);
    }
    // 4: it went on to the coordinator, where nobody is.
    for args in [&["run", "x"][..], &["job", "list"]] {
        let mut command = fizz(home.path(), args);
        command.env("FIZZ_CONFIG", &absent).env("FIZZ_COORDINATOR", "https://127.0.0.1:1");
        command.env("FIZZ_API_KEY", "fzk_x");
        Ended::of(within(command.output()).await.unwrap()).expect(4);
    }
}

#[tokio::test]
async fn a_ca_file_without_a_certificate_is_named_as_what_is_wrong() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("key"), "fzk_x").unwrap();
    std::fs::write(home.path().join("ca.pem"), "not yet copied").unwrap();
    let args = ["job", "list", "--coordinator", "https://127.0.0.1:1", "--api-key-file", "key", "--ca-file", "ca.pem"];
    let ended = run(home.path(), &args).await.expect(3);
    assert!(ended.err.contains("the CA file holds no certificate"), "{}", ended.err);
}

#[tokio::test]
async fn without_an_agent_the_owners_commands_say_how_to_start_one() {
    let home = tempfile::tempdir().unwrap();
    for command in ["status", "earnings", "drain"] {
        let ended = run(home.path(), &[command]).await.expect(1);
        assert!(ended.err.contains("no agent runs here") && ended.err.contains("fizz up"), "{}", ended.err);
    }
    let ended = run(home.path(), &["up"]).await.expect(3);
    assert!(ended.err.contains("fizz enroll --coordinator"), "{}", ended.err);
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_crash() {
    let home = tempfile::tempdir().unwrap();
    let mut child = fizz(home.path(), &["completions", "bash"]).spawn().unwrap();
    drop(child.stdout.take());
    let ended = within(child.wait_with_output()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
}
