//! `fizz earnings`: what the node has earned.

use crate::cli::errors::{CliError, Exit};
use crate::cli::output::{self, Align};
use crate::cli::owner::{EarningsArgs, control_error};
use crate::cli::settings;
use crate::cli::values::count;
use crate::control::{Answer, Client, Request};
use crate::wire::account::Earnings;

/// Shows what the agent knows, freshly asked where the coordinator answers.
///
/// # Errors
/// When no agent runs here, or nothing is known yet.
pub async fn run(args: EarningsArgs) -> Result<u8, CliError> {
    let socket = settings::state_dir(args.config.as_deref())?.control_socket();
    match Client::ask(&socket, Request::Earnings).await.map_err(control_error)? {
        Answer::Earnings { earnings, stale } => {
            if let Some(why) = stale {
                output::note(format!(
                    "these are the figures of {}: {}",
                    earnings.as_of.strftime("%F %T UTC"),
                    output::printable(&why)
                ));
            }
            if args.json {
                output::json(&earnings)?;
            } else {
                output::line(picture(output::columns(), &earnings))?;
            }
            Ok(0)
        }
        Answer::Refused { why } => Err(CliError::new(Exit::Error, why)),
        Answer::Draining | Answer::Asked | Answer::Snapshot { .. } => {
            Err(CliError::new(Exit::Error, "the agent answered something else; restart it: `fizz up`"))
        }
    }
}

/// The earnings as a picture of at most `columns` columns.
#[must_use]
pub fn picture(columns: u16, earnings: &Earnings) -> String {
    let percent = format!("{}.{}", earnings.fee_per_mille / 10, earnings.fee_per_mille % 10);
    let summary = output::pairs(
        columns,
        &[
            ("Today (UTC)", earnings.today.to_string()),
            ("Last 7 days", earnings.last_7_days.to_string()),
            ("All time", format!("{} for {}", earnings.all_time, count(earnings.leases_paid, "lease"))),
            ("Pending", format!("{} when running leases end", earnings.pending)),
            ("Fee", format!("{}% of what renters pay, already taken off", percent.trim_end_matches(".0"))),
        ],
    );
    if earnings.days.is_empty() {
        return summary;
    }
    let rows: Vec<_> = earnings
        .days
        .iter()
        .map(|day| vec![day.date.to_string(), day.net.to_string(), day.leases.to_string()])
        .collect();
    let heads = [("day", Align::Left), ("earned", Align::Right), ("leases", Align::Right)];
    format!("{summary}\n\n{}", output::table(columns, &heads, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Amount;
    use crate::wire::account::DayEarnings;
    use jiff::Timestamp;
    use jiff::civil::date;

    #[test]
    fn the_picture_shows_sums_and_days() {
        let earnings = Earnings {
            as_of: Timestamp::UNIX_EPOCH,
            today: Amount::from_micros(1_500),
            last_7_days: Amount::from_micros(2_500_000),
            all_time: Amount::from_micros(9_000_000),
            pending: Amount::from_micros(1),
            leases_paid: 12,
            fee_per_mille: 50,
            days: vec![DayEarnings { date: date(2026, 11, 22), net: Amount::from_micros(1_500), leases: 2 }],
        };
        let text = picture(80, &earnings);
        for part in ["$0.0015", "$2.50", "12 leases", "5% of", "2026-11-22"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
