//! The load: a renter who always has a few jobs under way, each with a log that is known in advance.

use std::time::Duration;

use fizz::rent::{RentClient, RentError};
use fizz::wire::JobId;
use fizz::wire::job::{JobSpec, JobView};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::process_support::PATIENCE;

/// Jobs under way at once.
const ALIVE: usize = 6;
const LOOK: Duration = Duration::from_millis(200);

/// What one job does: numbered lines to both streams, then perhaps a file, then its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) shape: Shape,
    /// Lines with a pause behind each.
    pub(crate) slow_lines: u32,
    /// Lines as fast as they can be written, after those.
    pub(crate) fast_lines: u32,
    /// Whether it leaves a file behind.
    pub(crate) output: bool,
    pub(crate) code: i32,
}

/// Of how many containers it is, and how often its main one runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One container that runs once.
    Plain,
    /// One container that is started again after its first end.
    Twice,
    /// A second one beside it, on a network of their own, that writes numbered lines until it is ended.
    Pair,
}

/// The second container's name, as it stands before each of its lines in the log.
pub(crate) const SIDE: &str = "side";
/// The second container's numbered lines begin with this.
pub(crate) const TICK: &str = "tick ";

/// Numbers in the file.
pub(crate) const OUTPUT_NUMBERS: u32 = 20_000;
const PAUSE_SECONDS: &str = "0.04";

impl Plan {
    fn choose(rng: &mut StdRng) -> Self {
        let (slow_lines, fast_lines, output) = match rng.random_range(0..10) {
            0..3 => (rng.random_range(0..5), 0, false),
            3..6 => (rng.random_range(10..75), 0, rng.random_bool(0.2)),
            6..8 => (rng.random_range(0..20), rng.random_range(1000..30_000), false),
            _ => (rng.random_range(0..10), rng.random_range(0..100), true),
        };
        let shape = match rng.random_range(0..20) {
            0..14 => Shape::Plain,
            14..17 => Shape::Twice,
            _ => Shape::Pair,
        };
        Self { shape, slow_lines, fast_lines, output, code: if rng.random_bool(0.1) { 3 } else { 0 } }
    }

    fn script(self) -> String {
        let Self { shape: _, slow_lines, fast_lines, output, code } = self;
        // The folder stays when the container is started again.
        let mut script = "[ -e /work/ran ] && w=again || w=start; echo > /work/ran\n".to_owned();
        script += "echo $w; echo $w >&2; i=0\n";
        script += &format!("while [ $i -lt {slow_lines} ]; do i=$((i+1)); echo \"line $i\"; ");
        script += &format!("[ $((i % 7)) -ne 0 ] || echo \"mark $i\" >&2; sleep {PAUSE_SECONDS}; done\n");
        if fast_lines > 0 {
            script += &format!("seq {fast_lines}\n");
        }
        if output {
            script += &format!("mkdir -p /output; seq {OUTPUT_NUMBERS} > /output/numbers\n");
        }
        script + &format!("echo end; exit {code}\n")
    }

    /// What the main container of a whole lease writes to standard output and standard error.
    pub(crate) fn expected(self) -> (String, String) {
        let (stdout, stderr) = self.expected_run("start");
        match self.shape {
            Shape::Plain | Shape::Pair => (stdout, stderr),
            Shape::Twice => {
                let again = self.expected_run("again");
                (stdout + &again.0, stderr + &again.1)
            }
        }
    }

    fn expected_run(self, first: &str) -> (String, String) {
        let (mut stdout, mut stderr) = (format!("{first}\n"), format!("{first}\n"));
        for i in 1..=self.slow_lines {
            stdout += &format!("line {i}\n");
            if i % 7 == 0 {
                stderr += &format!("mark {i}\n");
            }
        }
        stdout.extend((1..=self.fast_lines).map(|i| format!("{i}\n")));
        stdout += "end\n";
        (stdout, stderr)
    }

    fn spec(self, image: &str) -> JobSpec {
        let service = |name: &str, script: String| {
            serde_json::json!({
                "name": name, "image": image, "command": ["/bin/sh", "-c", script],
                "resources": {"cpu_millis": 50, "memory_bytes": 16 << 20, "disk_bytes": 4 << 20},
            })
        };
        let mut main = service("main", self.script());
        let mut services = Vec::new();
        match self.shape {
            Shape::Plain => {}
            Shape::Twice => main["restart"] = serde_json::json!({"when": "always", "times_max": 1}),
            Shape::Pair => {
                let script = format!("i=0; while :; do i=$((i+1)); echo {TICK}$i; sleep 0.1; done");
                services.push(service(SIDE, script));
            }
        }
        services.insert(0, main);
        let mut spec = serde_json::json!({
            "services": services,
            "limits": {"price_max": 10_000_000_000_u64, "duration_seconds_max": 600, "stop_grace_seconds": 1},
        });
        if self.output {
            spec["output_path"] = "/output".into();
        }
        serde_json::from_value(spec).unwrap()
    }
}

/// A job that was accepted, and what became of it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) plan: Plan,
    pub(crate) job_id: JobId,
    /// The last that was heard of it.
    pub(crate) view: JobView,
}

/// The renter at work.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    work: JoinHandle<Vec<Job>>,
}

impl Load {
    pub(crate) fn begin(renter: RentClient, image: String, seed: u64) -> Self {
        let (stop, stopped) = watch::channel(false);
        let rng = StdRng::seed_from_u64(seed ^ 0x10ad);
        Self { stop, work: tokio::spawn(work(renter, image, rng, stopped)) }
    }

    /// Submits nothing more, waits until every job is over or patience is, and says what became of each.
    pub(crate) async fn finish(self) -> Vec<Job> {
        self.stop.send_replace(true);
        self.work.await.unwrap()
    }
}

async fn work(renter: RentClient, image: String, mut rng: StdRng, stopped: watch::Receiver<bool>) -> Vec<Job> {
    let (mut alive, mut over): (Vec<Job>, Vec<Job>) = (Vec::new(), Vec::new());
    while !*stopped.borrow() {
        while alive.len() < ALIVE {
            let key = format!("job {}", alive.len() + over.len());
            alive.push(submit(&renter, &image, Plan::choose(&mut rng), &key).await);
        }
        look(&renter, &mut alive, &mut over).await;
        tokio::time::sleep(LOOK).await;
    }
    let ending = async {
        while !alive.is_empty() {
            look(&renter, &mut alive, &mut over).await;
            tokio::time::sleep(LOOK).await;
        }
    };
    // What is not over by then is lost.
    let _ = tokio::time::timeout(PATIENCE, ending).await;
    over.append(&mut alive);
    over
}

/// As often as it takes; the key makes it one job.
async fn submit(renter: &RentClient, image: &str, plan: Plan, key: &str) -> Job {
    loop {
        match renter.submit(&plan.spec(image), key).await {
            Ok(view) => return Job { plan, job_id: view.job_id, view },
            // It stays away for longer than one submission tries.
            Err(RentError::Http(error)) if error.problem().is_none() => {}
            Err(error) => panic!("{error:?}"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Looks at what is under way and puts aside what is over.
async fn look(renter: &RentClient, alive: &mut Vec<Job>, over: &mut Vec<Job>) {
    for mut job in std::mem::take(alive) {
        if let Ok(view) = renter.job(job.job_id).await {
            job.view = view;
        }
        if job.view.state.is_final() { over.push(job) } else { alive.push(job) }
    }
}
