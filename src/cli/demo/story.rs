//! What the demo tells at its end. Pure: everything in it was measured or counted before.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::bench::kind_label;
use crate::cli::output::printable;
use crate::cli::run::ending;
use crate::cli::values::{show_bytes, show_duration};
use crate::wire::account::LedgerView;
use crate::wire::bench::{BenchmarkReport, GpuResult};
use crate::wire::job::JobView;
use crate::wire::node::GpuKind;
use crate::wire::{Amount, NodeId};

/// Everything there is to tell.
#[derive(Debug, Clone)]
pub struct Story {
    /// What the benchmark found.
    pub benchmark: BenchmarkReport,
    /// Where the job ran.
    pub node_id: NodeId,
    /// The job at its end.
    pub job: JobView,
    /// From just before the submission to the first bytes of log in the renter's hands.
    pub first_log_after: Option<Duration>,
    /// Files the job handed back.
    pub files: Vec<(PathBuf, u64)>,
    /// What the node's owner has earned.
    pub earned: Amount,
    /// The ledger at the end.
    pub ledger: LedgerView,
    /// What was found to be left running after everything was stopped; nothing, if all went well.
    pub left_over: Vec<String>,
}

impl Story {
    /// The network's part of what the renter paid.
    #[must_use]
    pub fn fee(&self) -> Amount {
        self.job.cost.checked_sub(self.earned).unwrap_or(Amount::ZERO)
    }

    fn hardware(&self) -> Vec<String> {
        let mut lines = vec![self.benchmark_line()];
        if let Some(gpu) = counted(&self.benchmark) {
            lines.push(format!(
                "{:.3} TFLOP/s fp32, {:.3} TFLOP/s matmul, {:.1} GB/s memory",
                gpu.fp32_flops / 1e12,
                gpu.matmul_flops / 1e12,
                gpu.memory_bytes_per_second / 1e9,
            ));
            lines.push(if gpu.verified { "every result checked on the CPU" } else { "RESULTS WRONG" }.to_owned());
        }
        lines
    }

    fn benchmark_line(&self) -> String {
        match counted(&self.benchmark) {
            None => "no graphics adapter could be measured; score 0".to_owned(),
            Some(gpu) if gpu.kind == GpuKind::Software => {
                format!("score {}: {}, a software adapter and no GPU", gpu.score, printable(&gpu.name))
            }
            Some(gpu) => format!("score {}: {} ({})", gpu.score, printable(&gpu.name), kind_label(gpu.kind)),
        }
    }

    fn ledger_line(&self) -> String {
        let ledger = &self.ledger;
        let accounts = ledger.lines.len();
        if ledger.sum == Amount::ZERO && ledger.unbalanced == 0 {
            format!("{} transactions over {accounts} accounts, and they sum to {}", ledger.transactions, ledger.sum)
        } else {
            format!("DOES NOT BALANCE: it sums to {}, {} transactions are uneven", ledger.sum, ledger.unbalanced)
        }
    }
}

/// The adapter the score comes from.
fn counted(report: &BenchmarkReport) -> Option<&GpuResult> {
    report.gpus.iter().find(|gpu| gpu.score == report.score).or_else(|| report.gpus.first())
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut tell = |what: &str, text: &str| writeln!(f, "  {what:<10} {text}");
        for (index, line) in self.hardware().iter().enumerate() {
            tell(if index == 0 { "hardware" } else { "" }, line)?;
        }
        tell("node", &self.node_id.to_string())?;
        if let Some(after) = self.first_log_after {
            tell("speed", &format!("{} ms from submit to the first line of log", after.as_millis()))?;
        }
        let ran = ending::ran_for(&self.job, self.job.submitted_at).unwrap_or_default();
        tell("end", &format!("{} after {}", ending::how(&self.job), show_duration(ran)))?;
        for (path, bytes) in &self.files {
            tell("picture", &format!("{} ({})", path.display(), show_bytes(*bytes)))?;
        }
        tell("money", &format!("the job cost the renter {}", self.job.cost))?;
        tell("", &format!("the node earned {}, the network's fee is {}", self.earned, self.fee()))?;
        tell("ledger", &self.ledger_line())?;
        if self.left_over.is_empty() {
            tell("left over", "nothing: no container, no image, no process")
        } else {
            tell("left over", &self.left_over.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::run::ending::tests::view;
    use crate::wire::account::LedgerLine;
    use crate::wire::job::JobState;
    use crate::wire::lease::LeaseEnd;
    use jiff::Timestamp;

    fn story() -> Story {
        let gpu = GpuResult {
            name: "llvmpipe".to_owned(),
            kind: GpuKind::Software,
            pci_address: None,
            fp32_flops: 5e10,
            memory_bytes_per_second: 8e9,
            matmul_flops: 2e10,
            score: 4,
            verified: true,
            more: Default::default(),
            health: None,
        };
        let mut job = view(JobState::Done, Some(LeaseEnd::Exited { code: 0 }));
        job.cost = Amount::from_micros(1_200);
        let line =
            |account: &str, micros| LedgerLine { account: account.to_owned(), balance: Amount::from_micros(micros) };
        Story {
            benchmark: BenchmarkReport {
                measured_at: Timestamp::UNIX_EPOCH,
                fingerprint: String::new(),
                method: 1,
                host: Default::default(),
                gpus: vec![gpu],
                score: 4,
                problems: Vec::new(),
            },
            node_id: NodeId::generate(Timestamp::UNIX_EPOCH),
            job,
            first_log_after: Some(Duration::from_millis(512)),
            files: vec![(PathBuf::from("fizz-demo/fizz.png"), 1_728_798)],
            earned: Amount::from_micros(1_140),
            ledger: LedgerView {
                lines: vec![line("fees", 60), line("deposits", -60)],
                sum: Amount::ZERO,
                transactions: 3,
                unbalanced: 0,
            },
            left_over: Vec::new(),
        }
    }

    #[test]
    fn it_tells_score_speed_exit_code_picture_money_and_ledger() {
        let text = story().to_string();
        for part in [
            "score 4: llvmpipe, a software adapter and no GPU",
            "512 ms from submit",
            "exit code 0 after 42 s",
            "fizz-demo/fizz.png (1.6 MiB)",
            "cost the renter $0.0012",
            "earned $0.00114, the network's fee is $0.00006",
            "3 transactions over 2 accounts, and they sum to $0.00",
            "nothing: no container",
        ] {
            assert!(text.contains(part), "'{part}' is missing in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_ledger_that_does_not_balance_is_not_passed_over() {
        let mut story = story();
        story.ledger.unbalanced = 1;
        assert!(story.to_string().contains("DOES NOT BALANCE"));
    }
}
