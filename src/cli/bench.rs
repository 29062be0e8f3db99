//! `fizz bench`: measure this machine.
//!
//! Graphics drivers run in a child process, `fizz bench --json --child`; this side starts it, shows how far it is and draws
//! the table. The agent starts the same child.

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::errors::{CliError, Exit};
use super::output::{self, Align};
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
    if args.json {
        return output::json(&output).map(|()| 0);
    }
    print(args, &output).map(|()| 0)
}

fn run_as_child(args: &BenchArgs) -> Result<u8, CliError> {
    bench::child::watch_parent();
    let options = BenchOptions { quick: args.quick, list_only: args.list };
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
    let options = BenchOptions { quick: args.quick, list_only: args.list };
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
        let rows: Vec<Vec<String>> = gpu.more.figures().map(|(name, figure)| figure_row(name, figure)).collect();
        if !rows.is_empty() {
            let heads = [("Figure", Align::Left), ("Value", Align::Right), ("Unit", Align::Left)];
            output::line(format!("\n{}", gpu.name))?;
            output::line(output::table(output::columns(), &heads, &rows))?;
        }
    }
    output::line(format!("Hardware score: {}", output.report.score))
}

/// How figures of the report are called and counted for people.
const LABELS: [(&str, &str, f64, &str); 6] = [
    ("fp16_flops", "fp16 FMA", 1e12, "TFLOP/s"),
    ("int32_ops", "int32 multiply-add", 1e12, "TOP/s"),
    ("int8_dot_ops", "int8 dot product", 1e12, "TOP/s"),
    ("matmul_fp16_flops", "fp16 matrix product", 1e12, "TFLOP/s"),
    ("memory_read_bytes_per_second", "memory read", 1e9, "GB/s"),
    ("memory_write_bytes_per_second", "memory write", 1e9, "GB/s"),
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
    fn every_figure_has_a_label_and_a_unit() {
        let all = serde_json::json!({
            "fp16_flops": 1.0, "int32_ops": 1.0, "int8_dot_ops": 1.0, "matmul_fp16_flops": 1.0,
            "memory_read_bytes_per_second": 1.0, "memory_write_bytes_per_second": 1.0,
        });
        let figures: GpuFigures = serde_json::from_value(all.clone()).unwrap();
        assert_eq!(figures.figures().count(), all.as_object().unwrap().len());
        for (name, figure) in figures.figures() {
            let row = figure_row(name, figure);
            assert!(row[0] != name && !row[2].is_empty(), "{row:?}");
        }
    }
}
