//! Processor, memory and disk as measured: what this process may use, bounded by the limits of a container or a virtual machine.
//!
//! Invariants
//! - As for adapters, a figure is a measurement whose result was checked; what went wrong is a sentence in `problems`.
//! - Bounded: a few hundred megabytes of memory, at most an eighth of it; a quarter of a gigabyte of disk, at most a twentieth of what
//!   is free; a few seconds in all.

mod cpu;
mod disk;
mod lanes;
mod memory;

use std::path::Path;
use std::time::Duration;

use super::BenchProgress;
use crate::clock::Clock;
use crate::os;
use crate::wire::bench::HostFigures;
use crate::wire::node::Host;

/// Time for each figure of processor and memory.
const BUDGET: Duration = Duration::from_millis(250);
/// Where container engines keep their data, the usual one first.
const DATA_DIRS: [&str; 2] = ["/var/lib/docker", "/var/lib/containers"];
/// Steps of [`measure`].
pub(super) const STEPS: u32 = 3;

/// Measures the host.
pub(super) fn measure(
    host: &Host,
    clock: &Clock,
    progress: &mut dyn FnMut(BenchProgress),
    problems: &mut Vec<String>,
) -> HostFigures {
    let mut say = |steps_done: u32, doing: &str| {
        progress(BenchProgress { doing: doing.to_owned(), steps_done, steps_total: STEPS });
    };
    let mut figures = HostFigures { cpu_threads: Some(host.cpu_threads), ..HostFigures::default() };
    say(0, "processor");
    cpu::measure(host.cpu_threads, BUDGET, clock, &mut figures, problems);
    say(1, "memory");
    let room = memory::Room::new(host.memory_bytes, host.cpu_threads);
    memory::measure(room, BUDGET, clock, &mut figures, problems);
    say(2, "disk");
    measure_disk(clock, &mut figures, problems);
    say(3, "done");
    figures
}

fn measure_disk(clock: &Clock, figures: &mut HostFigures, problems: &mut Vec<String>) {
    let engine = DATA_DIRS.iter().map(Path::new).find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    // The engine's folder is often closed to ordinary users; another one on the same disk says the same.
    let temporary = std::env::temp_dir();
    let here = std::env::current_dir().unwrap_or_else(|_| temporary.clone());
    let same = |folder: &&Path| os::same_file_system(folder, engine).unwrap_or(false);
    let folders = std::iter::once(engine).chain([here.as_path(), temporary.as_path()].into_iter().filter(same));
    let mut why = None;
    for folder in folders {
        match disk::measure(folder, disk::Bounds::FULL, clock, figures) {
            Ok(()) => return,
            // The first folder is the one that was asked for.
            Err(error) => _ = why.get_or_insert(error),
        }
    }
    let why = why.map_or_else(|| "no folder is there".to_owned(), |error| super::chain(&error));
    problems.push(format!("the disk below {} was not measured: {why}; try `sudo fizz bench`", engine.display()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware;

    #[test]
    fn processor_memory_and_disk_are_measured_within_the_limits_of_this_machine() {
        let host = hardware::host(Path::new("/")).unwrap();
        let (mut problems, mut steps) = (Vec::new(), Vec::new());
        let figures = measure(&host, &Clock::system(), &mut |step| steps.push(step.doing), &mut problems);
        assert_eq!(steps, ["processor", "memory", "disk", "done"]);
        assert_eq!(figures.cpu_threads, Some(host.cpu_threads));
        let there: Vec<&str> = figures.figures().map(|(name, _)| name).collect();
        for name in ["cpu_int32_ops", "cpu_fp32_flops", "cpu_fp64_flops", "memory_read_bytes_per_second"] {
            assert!(there.contains(&name), "{name} is missing: {problems:?}");
        }
        assert!(figures.figures().all(|(_, figure)| figure.is_finite() && figure > 0.0), "{figures:?}");
        // A file system without direct IO is the only thing that may be missing.
        assert!(problems.iter().all(|problem| problem.contains("disk")), "{problems:?}");
    }
}
