//! `fizz bench`: measure this machine.
//!
//! Graphics drivers run in a child process, `fizz bench --json --child`; this side starts it, shows how far it is and draws
//! the table. The agent starts the same child.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::errors::{CliError, Exit};
use super::output::{self, Align};
use super::values::parse_seconds;
use crate::bench::{self, BenchError, BenchOptions, BenchOutput, BenchProgress};
use crate::clock::Clock;

/// Arguments of `fizz bench`.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// Measure for a shorter time, less exactly
    #[arg(long)]
    pub quick: bool,
    /// Only list the graphics adapters
    #[arg(long)]
    pub list: bool,
    /// Also run every adapter for so long (60s), to see whether it stays as fast when it is hot
    #[arg(long, value_name = "TIME", value_parser = sustain_time, conflicts_with = "list")]
    pub sustain: Option<Duration>,
    /// Also draw the results into this file, as SVG
    #[arg(long, value_name = "FILE", conflicts_with_all = ["list", "child"])]
    pub plot: Option<PathBuf>,
    /// Measure in this process; what the parent starts
    #[arg(long, hide = true)]
    pub child: bool,
}

/// Measures and prints.
///
/// # Errors
/// When the measurement crashes, hangs, or the output cannot be written. A machine without a graphics adapter is no error.
pub fn run(args: &BenchArgs) -> Result<u8, CliError> {
    if args.child {
        return run_as_child(args);
    }
    let output = super::block_on(in_child(args))?;
    if let Some(file) = &args.plot {
        draw(file, &output)?;
    }
    if args.json {
        return output::json(&output).map(|()| 0);
    }
    print(args, &output).map(|()| 0)
}

/// A time between 4 s, below which nothing grows hot, and what a child may take.
fn sustain_time(text: &str) -> Result<Duration, String> {
    let time = Duration::from_secs(parse_seconds(text)?);
    let longest = bench::SUSTAIN_MAX;
    if (Duration::from_secs(4)..=longest).contains(&time) {
        Ok(time)
    } else {
        Err(format!("a long run takes from 4s to {}s", longest.as_secs()))
    }
}

fn draw(file: &Path, output: &BenchOutput) -> Result<(), CliError> {
    let written = std::fs::write(file, bench::plot::svg(&output.report));
    written.map_err(|error| {
        let what = format!("the picture cannot be written to {}; give another --plot", file.display());
        CliError::new(Exit::Error, what).because(error)
    })
}

fn run_as_child(args: &BenchArgs) -> Result<u8, CliError> {
    bench::child::watch_parent();
    let options = BenchOptions { quick: args.quick, list_only: args.list, sustain: args.sustain };
    let output = bench::run_here(options, &Clock::system(), |step| {
        // A step is three plain fields; it always has a JSON form.
        output::aside(serde_json::to_string(&step).unwrap_or_default());
    });
    output::json(&output).map(|()| 0)
}

async fn in_child(args: &BenchArgs) -> Result<BenchOutput, CliError> {
    let exe = std::env::current_exe()
        .map_err(|error| CliError::new(Exit::Error, "fizz cannot find its own program file").because(error))?;
    let bar = bar();
    let options = BenchOptions { quick: args.quick, list_only: args.list, sustain: args.sustain };
    let output = bench::run_options(&exe, options, |step| show(&bar, step)).await;
    bar.finish_and_clear();
    output.map_err(failed)
}

fn failed(error: BenchError) -> CliError {
    CliError::new(Exit::Error, error.to_string()).because(error)
}

fn bar() -> ProgressBar {
    if !output::stderr_is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

fn show(bar: &ProgressBar, step: BenchProgress) {
    bar.set_length(u64::from(step.steps_total));
    bar.set_position(u64::from(step.steps_done));
    bar.set_message(step.doing);
}

fn print(args: &BenchArgs, output: &BenchOutput) -> Result<(), CliError> {
    if args.list {
        let heads = [("Adapter", Align::Left), ("Kind", Align::Left), ("API", Align::Left), ("Driver", Align::Left)];
        let rows: Vec<Vec<String>> = output
            .gpus
            .iter()
            .map(|gpu| {
                let kind = bench::kind_label(gpu.kind).to_owned();
                vec![gpu.name.clone(), kind, gpu.backend.clone(), gpu.driver.clone()]
            })
            .collect();
        if !rows.is_empty() {
            output::line(output::table(output::columns(), &heads, &rows))?;
        }
    } else {
        print_results(output)?;
    }
    output.report.problems.iter().for_each(output::note);
    Ok(())
}

fn print_results(output: &BenchOutput) -> Result<(), CliError> {
    let heads = [
        ("Adapter", Align::Left),
        ("Kind", Align::Left),
        ("TFLOP/s", Align::Right),
        ("Matmul", Align::Right),
        ("GB/s", Align::Right),
        ("Score", Align::Right),
    ];
    let rows: Vec<Vec<String>> = bench::table_rows(output)
        .into_iter()
        .map(|row| {
            let score = if row.verified { row.score.to_string() } else { "wrong".to_owned() };
            let tflops = |figure: f64| format!("{figure:.3}");
            let memory = format!("{:.1}", row.memory_gigabytes_per_second);
            vec![row.name, row.kind.to_owned(), tflops(row.fp32_tflops), tflops(row.matmul_tflops), memory, score]
        })
        .collect();
    if !rows.is_empty() {
        output::line(output::table(output::columns(), &heads, &rows))?;
    }
    for gpu in &output.report.gpus {
        let health = gpu.health.clone().unwrap_or_default();
        print_figures(
            &format!("{} ({})", gpu.name, bench::kind_label(gpu.kind)),
            gpu.more.figures().chain(health.figures()),
        )?;
        if !health.held_back_by.is_empty() {
            output::line(format!("Held back by {}", health.held_back_by.join(", ")))?;
        }
    }
    let host = &output.report.host;
    if let (Some(threads), Some(vectors)) = (host.cpu_threads, &host.cpu_vectors) {
        print_figures(&format!("This machine: {threads} threads, {vectors}"), host.figures())?;
    }
    output::line(format!("Hardware score: {}", output.report.score))
}

fn print_figures(head: &str, figures: impl Iterator<Item = (&'static str, f64)>) -> Result<(), CliError> {
    let rows: Vec<Vec<String>> = figures.map(|(name, figure)| figure_row(name, figure)).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let heads = [("Figure", Align::Left), ("Value", Align::Right), ("Unit", Align::Left)];
    output::line(format!("\n{head}"))?;
    output::line(output::table(output::columns(), &heads, &rows))
}

/// How figures of the report are called and counted for people.
const LABELS: [(&str, &str, f64, &str); 28] = [
    ("fp16_flops", "fp16 FMA", 1e12, "TFLOP/s"),
    ("int32_ops", "int32 multiply-add", 1e12, "TOP/s"),
    ("int8_dot_ops", "int8 dot product", 1e12, "TOP/s"),
    ("challenge_ops", "int8 product of a challenge", 1e12, "TOP/s"),
    ("matmul_fp16_flops", "fp16 matrix product", 1e12, "TFLOP/s"),
    ("memory_read_bytes_per_second", "memory read", 1e9, "GB/s"),
    ("memory_write_bytes_per_second", "memory write", 1e9, "GB/s"),
    ("memory_latency_nanos", "load latency", 1.0, "ns"),
    ("launch_nanos", "launch latency", 1e3, "µs"),
    ("upload_bytes_per_second", "upload", 1e9, "GB/s"),
    ("download_bytes_per_second", "download", 1e9, "GB/s"),
    ("sustained_first_flops", "fp32 FMA, long run, first", 1e12, "TFLOP/s"),
    ("sustained_last_flops", "fp32 FMA, long run, last", 1e12, "TFLOP/s"),
    ("temperature_celsius", "temperature", 1.0, "°C"),
    ("power_watts", "power", 1.0, "W"),
    ("clock_hertz", "clock", 1e6, "MHz"),
    ("memory_bytes_found", "memory found", 1e9, "GB"),
    ("cpu_int32_ops", "int32 multiply-add", 1e9, "GOP/s"),
    ("cpu_int32_ops_one_thread", "int32, one thread", 1e9, "GOP/s"),
    ("cpu_fp32_flops", "fp32 multiply-add", 1e9, "GFLOP/s"),
    ("cpu_fp32_flops_one_thread", "fp32, one thread", 1e9, "GFLOP/s"),
    ("cpu_fp64_flops", "fp64 multiply-add", 1e9, "GFLOP/s"),
    ("cpu_fp64_flops_one_thread", "fp64, one thread", 1e9, "GFLOP/s"),
    ("memory_triad_bytes_per_second", "memory triad", 1e9, "GB/s"),
    ("disk_read_bytes_per_second", "disk read", 1e6, "MB/s"),
    ("disk_write_bytes_per_second", "disk write", 1e6, "MB/s"),
    ("disk_reads_per_second", "disk reads of 4 KiB", 1.0, "/s"),
    ("disk_writes_per_second", "disk writes of 4 KiB", 1.0, "/s"),
];

/// Name, value and unit of a figure; one without a label is shown as the report has it.
fn figure_row(name: &str, figure: f64) -> Vec<String> {
    let (_, label, unit_size, unit) =
        LABELS.into_iter().find(|(known, ..)| *known == name).unwrap_or((name, name, 1.0, ""));
    vec![label.to_owned(), format!("{:.3}", figure / unit_size), unit.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bench::GpuFigures;

    #[test]
    fn a_long_run_is_neither_too_short_nor_too_long() {
        assert_eq!(sustain_time("60s").unwrap(), Duration::from_secs(60));
        assert_eq!(sustain_time("10m").unwrap(), Duration::from_secs(600));
        for bad in ["3s", "11m", "long", ""] {
            assert!(sustain_time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_figure_has_a_label_and_a_unit() {
        let gpu = GpuFigures { fp16_flops: Some(1.5e12), memory_bytes_found: Some(8 << 30), ..GpuFigures::default() };
        let text = [("launch_nanos", 1500.0), ("disk_reads_per_second", 9.0)].into_iter().chain(gpu.figures());
        let rows: Vec<Vec<String>> = text.map(|(name, figure)| figure_row(name, figure)).collect();
        assert_eq!(rows[0], ["launch latency", "1.500", "µs"]);
        assert_eq!(rows[2], ["fp16 FMA", "1.500", "TFLOP/s"]);
        // Every field of the two records of figures, as the source has them.
        let source = include_str!("../wire/bench.rs");
        let names = source.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next());
        for name in names.filter(|name| !["fp32_flops", "memory_bytes_per_second", "matmul_flops"].contains(name)) {
            assert!(LABELS.iter().any(|(known, ..)| *known == name), "{name} has no label");
        }
    }
}
