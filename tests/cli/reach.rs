//! `fizz exec` and `fizz cp` against a coordinator and a node.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use super::world::{Ended, Live, first_line, interrupt, within};

/// A job that runs, by its name.
async fn running(live: &Live, name: &str, flags: &[&str]) {
    let args = [&["run", "--detach", "--name", name][..], flags, &["worker"]].concat();
    live.run(&args).await.expect(0);
    let shown = async {
        while live.run(&["job", "show", name, "--json"]).await.expect(0).json()["state"] != "running" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(shown).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_in_ones_own_job_feels_like_a_local_one() {
    let live = Live::start().await;
    running(&live, "night", &["--interactive"]).await;
    let ended = live.run(&["exec", "night", "--", "echo", "hello", "there"]).await.expect(0);
    assert_eq!((ended.text(), ended.err.as_str()), ("hello there", ""));
    let ended = live.run(&["exec", "night", "exit", "7"]).await.expect(7);
    assert_eq!((ended.out.as_slice(), ended.err.as_str()), (&b""[..], "going\n"));

    let mut child = live.command(&["exec", "-i", "night", "cat"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let bytes = sent.clone();
    let writing = tokio::spawn(async move { stdin.write_all(&bytes).await });
    let ended = Ended::of(within(child.wait_with_output()).await.unwrap()).expect(0);
    writing.await.unwrap().unwrap();
    assert!(ended.out == sent, "{} bytes of {}", ended.out.len(), sent.len());

    let ended = live.run(&["exec", "-it", "night", "sh"]).await.expect(2);
    assert!(ended.err.contains("needs a terminal"), "{}", ended.err);
    live.release_all();
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_did_not_ask_for_it_lets_nobody_in_and_says_what_to_type() {
    let live = Live::start().await;
    running(&live, "closed", &[]).await;
    for args in [&["exec", "closed", "echo"][..], &["cp", "closed:/work", "."]] {
        let ended = live.run(args).await.expect(5);
        assert!(ended.err.contains("fizz run --interactive"), "{}", ended.err);
    }
    let ended = live.run(&["cp", "a", "b"]).await.expect(2);
    assert!(ended.err.contains("JOB:/PATH"), "{}", ended.err);
    live.release_all();
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_command_ends_in_the_job_too() {
    let live = Live::start().await;
    running(&live, "night", &["--interactive"]).await;
    let mut child = live.command(&["exec", "night", "hold"]).spawn().unwrap();
    assert_eq!(first_line(&mut child).await, "holds\n");
    assert_eq!(live.engine.commands_running(), 1);
    interrupt(&child);
    within(child.wait()).await.unwrap();
    let ended = async {
        while live.engine.commands_running() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(ended).await;
    live.release_all();
    live.stop().await;
}

/// On a terminal, which `script` makes.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_terminal_is_raw_meanwhile_and_afterwards_what_it_was_however_it_ends() {
    let live = Live::start().await;
    running(&live, "night", &["--interactive"]).await;
    let fizz = env!("CARGO_BIN_EXE_fizz");
    let lines = format!(
        "stty -g > before\n{fizz} exec -it night exit 7\necho code=$?\nstty -g > after-exit\n\
         (until stty -a < /dev/tty | grep -q -e -icanon; do sleep 0.1; done\n\
          stty -a < /dev/tty > meanwhile; kill -TERM $(cat pid)) &\n\
         sh -c 'echo $$ > pid; exec {fizz} exec -it night cat'\necho code=$?\nstty -g > after-signal\n\
         {fizz} exec -it --service nobody night cat\nstty -g > after-refusal\n"
    );
    std::fs::write(live.home.path().join("lines.sh"), lines).unwrap();
    let template = live.command(&[]);
    let mut script = tokio::process::Command::new("script");
    for (name, value) in template.as_std().get_envs() {
        match value {
            Some(value) => drop(script.env(name, value)),
            None => drop(script.env_remove(name)),
        }
    }
    script.args(["-qec", "sh lines.sh", "/dev/null"]).current_dir(live.home.path());
    script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = script.spawn().unwrap();
    let _open = child.stdin.take().unwrap();
    let ended = Ended::of(within(child.wait_with_output()).await.unwrap());
    let read = |name: &str| std::fs::read_to_string(live.home.path().join(name)).unwrap();
    let text = String::from_utf8_lossy(&ended.out).into_owned();
    assert!(text.contains("code=7") && text.contains("going") && text.contains("code=125"), "{text}");
    assert!(read("meanwhile").contains("-icanon") && read("meanwhile").contains("-echo"), "{}", read("meanwhile"));
    for after in ["after-exit", "after-signal", "after-refusal"] {
        assert_eq!(read(after), read("before"), "{after}: {text}");
    }
    live.release_all();
    live.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_and_folders_are_copied_both_ways() {
    let live = Live::start().await;
    running(&live, "night", &["--interactive"]).await;
    let here = live.home.path();
    std::fs::create_dir_all(here.join("scenes/deep")).unwrap();
    std::fs::write(here.join("scenes/deep/one"), "first").unwrap();
    std::fs::write(here.join("two"), vec![7; 300_000]).unwrap();
    live.run(&["cp", "scenes", "night:/work"]).await.expect(0);
    live.run(&["cp", "two", "night:/work/renamed"]).await.expect(0);
    live.run(&["cp", "night:/work", "back"]).await.expect(0);
    assert_eq!(std::fs::read(here.join("back/seed")).unwrap(), b"seed");
    assert_eq!(std::fs::read(here.join("back/scenes/deep/one")).unwrap(), b"first");
    assert_eq!(std::fs::read(here.join("back/renamed")).unwrap(), vec![7; 300_000]);
    live.run(&["cp", "night:/work/scenes", "back"]).await.expect(0);
    assert_eq!(std::fs::read(here.join("back/scenes/deep/one")).unwrap(), b"first");
    live.run(&["cp", "night:/work/seed", "single"]).await.expect(0);
    assert_eq!(std::fs::read(here.join("single")).unwrap(), b"seed");

    let ended = live.run(&["cp", "two", "night:/etc"]).await.expect(1);
    assert!(ended.err.contains("not where the job may write; copy to /work"), "{}", ended.err);
    let ended = live.run(&["cp", "night:/nowhere", "."]).await.expect(1);
    assert!(ended.err.contains("no '/nowhere'"), "{}", ended.err);
    live.release_all();
    live.stop().await;
}
