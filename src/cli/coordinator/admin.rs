//! Calls to a coordinator's admin and account routes.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tempfile::NamedTempFile;
use uuid::Uuid;

use super::{
    AccountArgs, ApproveArgs, CreateArgs, DepositArgs, ListArgs, OperatorArgs, ShowArgs, TokenArgs, WhereArgs,
};
use crate::cli::connect::trust;
use crate::cli::errors::{CliError, Exit};
use crate::cli::output::{self, Align, Style};
use crate::cli::values::{count, show_age, show_bytes, show_cpus};
use crate::cli::{secrets, settings};
use crate::clock::Clock;
use crate::http::ApiClient;
use crate::wire::account::{
    AccountCreated, AccountView, Deposit, JoinTokenCreated, LedgerView, NewAccount, NewJoinToken,
};
use crate::wire::challenge::ProofState;
use crate::wire::enroll::EnrollmentView;
use crate::wire::node::{NodeList, NodeState, NodeView};
use crate::wire::{Amount, IDEMPOTENCY_HEADER, Secret};

/// Where a coordinator on this machine listens by itself.
const HERE: &str = "https://127.0.0.1:8443";

/// The folder of the coordinator on this machine.
///
/// # Errors
/// When no folder is named and none is usual.
pub fn data_dir(named: Option<&Path>) -> Result<PathBuf, CliError> {
    match named {
        Some(folder) => Ok(folder.to_owned()),
        None => Ok(settings::load_or_default()?.0.coordinator_dir),
    }
}

fn client(place: &WhereArgs) -> Result<ApiClient, CliError> {
    let ca_file = match &place.ca_file {
        Some(file) => Some(file.clone()),
        // Without a CA file of its own the coordinator has a certificate that the system trusts.
        None => Some(data_dir(place.data_dir.as_deref())?.join("ca.pem")).filter(|file| file.exists()),
    };
    Ok(ApiClient::new(place.coordinator.as_deref().unwrap_or(HERE), &trust(ca_file.as_deref())?)?)
}

fn operator(args: &OperatorArgs) -> Result<(ApiClient, Secret), CliError> {
    let token = match secrets::find(args.admin_token_file.as_deref(), "FIZZ_ADMIN_TOKEN")? {
        Some(token) => token,
        None => {
            let file = data_dir(args.place.data_dir.as_deref())?.join("admin.token");
            secrets::from_file(&file).map_err(|error| {
                CliError::new(Exit::Config, "no admin token is at hand").because(error.to_string()).next(
                    "give --data-dir with the coordinator's folder, or --admin-token-file FILE, or set FIZZ_ADMIN_TOKEN",
                )
            })?
        }
    };
    Ok((client(&args.place)?, token))
}

fn account(args: &AccountArgs) -> Result<(ApiClient, Secret), CliError> {
    let key = match secrets::find(args.api_key_file.as_deref(), "FIZZ_API_KEY")? {
        Some(key) => key,
        None => secrets::ask("API key")?.ok_or_else(|| {
            CliError::new(Exit::Config, "no API key is set")
                .next("set FIZZ_API_KEY, or put the key into a file and give --api-key-file FILE")
        })?,
    };
    Ok((client(&args.place)?, key))
}

/// Makes an account.
pub(super) async fn create_account(args: CreateArgs) -> Result<u8, CliError> {
    let (client, token) = operator(&args.operator)?;
    let file = args.key_file.as_deref().map(new_secret_file).transpose()?;
    let made: AccountCreated =
        client.post("/v1/admin/accounts").bearer(&token).json(&NewAccount { name: args.name }).receive().await?;
    match (file, args.key_file) {
        (Some(file), Some(path)) => {
            write_secret(file, &path, &made.api_key)?;
            if args.json {
                output::json(&serde_json::json!({ "account_id": made.account_id, "api_key_file": path }))?;
            } else {
                output::line(made.account_id.to_string())?;
                output::note(format!("its API key is in {}", path.display()));
            }
        }
        _ if args.json => output::json(&made)?,
        _ => {
            let pairs = [("Account", made.account_id.to_string()), ("API key", made.api_key.expose().to_owned())];
            output::line(output::pairs(output::columns(), &pairs))?;
            output::note("the key is shown only now; whoever has it can spend the account's money");
        }
    }
    Ok(0)
}

/// Puts money on an account.
pub(super) async fn deposit(args: DepositArgs) -> Result<u8, CliError> {
    let (client, token) = operator(&args.operator)?;
    let key = args.key.unwrap_or_else(|| Uuid::new_v4().to_string());
    let call = client.post(&format!("/v1/admin/accounts/{}/deposits", args.account));
    call.bearer(&token).header(IDEMPOTENCY_HEADER, &key).json(&Deposit { amount: args.amount }).done().await?;
    output::note(format!("{} put on account {}", args.amount, args.account));
    Ok(0)
}

/// Shows the account behind an API key.
pub(super) async fn show_account(args: ShowArgs) -> Result<u8, CliError> {
    let (client, key) = account(&args.account)?;
    let view: AccountView = client.get("/v1/account").bearer(&key).receive().await?;
    if args.json {
        output::json(&view)?;
        return Ok(0);
    }
    let pairs = [
        ("Account", format!("{} ({})", view.name, view.account_id)),
        ("To spend", view.balance.to_string()),
        ("Held for jobs", view.escrow.to_string()),
        ("Earned", view.earned.to_string()),
    ];
    output::line(output::pairs(output::columns(), &pairs))?;
    Ok(0)
}

/// Makes a join token for the account's next machine.
pub(super) async fn create_token(args: TokenArgs) -> Result<u8, CliError> {
    let (client, key) = account(&args.account)?;
    let file = args.out.as_deref().map(new_secret_file).transpose()?;
    let wish = NewJoinToken { expires_seconds: args.expires };
    let made: JoinTokenCreated = client.post("/v1/account/join-tokens").bearer(&key).json(&wish).receive().await?;
    let until = made.expires_at.strftime("%F %T UTC").to_string();
    match (file, args.out) {
        (Some(file), Some(path)) => {
            write_secret(file, &path, &made.join_token)?;
            output::note(format!("the token is in {}, good for one machine until {until}", path.display()));
        }
        _ if args.json => output::json(&made)?,
        _ => {
            output::line(made.join_token.expose())?;
            output::note(format!("good for one machine until {until}; on that machine: `fizz enroll --token`"));
        }
    }
    Ok(0)
}

/// Lets a machine in, or keeps it out, after showing which one it is.
pub(super) async fn approve(args: ApproveArgs) -> Result<u8, CliError> {
    let (client, key) = account(&args.account)?;
    if !args.code.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') || args.code.is_empty() {
        return Err(CliError::usage(format!("'{}' is no code; it looks like BCDF-GHJK", args.code.escape_debug())));
    }
    let path = format!("/v1/account/enrollments/{}", args.code);
    let found: EnrollmentView = client.get(&path).bearer(&key).receive().await?;
    let name = output::printable(&found.node_name);
    if !args.yes
        && !args.deny
        && !output::confirm(&format!("Let '{name}' (fizz {}) join your account?", found.agent_version))?
    {
        output::note("nothing was decided");
        return Ok(1);
    }
    let verb = if args.deny { "deny" } else { "approve" };
    let decided: EnrollmentView = client.post(&format!("{path}/{verb}")).bearer(&key).receive().await?;
    match decided.node_id {
        Some(node) if !args.deny => output::note(format!("'{name}' is in, as node {node}")),
        _ => output::note(format!("'{name}' stays out")),
    }
    Ok(0)
}

/// Lists the nodes.
pub(super) async fn nodes(args: ListArgs) -> Result<u8, CliError> {
    let (client, token) = operator(&args.operator)?;
    let list: NodeList = client.get("/v1/admin/nodes").bearer(&token).receive().await?;
    if args.json {
        output::json(&list)?;
    } else if list.nodes.is_empty() {
        output::note("no nodes yet; let one in with `fizz coordinator token create` and `fizz enroll` on the machine");
    } else {
        output::line(nodes_table(output::columns(), &list.nodes, Clock::system().now()))?;
    }
    Ok(0)
}

fn nodes_table(columns: u16, nodes: &[NodeView], now: Timestamp) -> String {
    let heads = [
        ("node", Align::Left),
        ("state", Align::Left),
        ("seen", Align::Left),
        ("score", Align::Right),
        ("lends", Align::Left),
        ("price", Align::Right),
        ("jobs", Align::Right),
    ];
    let rows: Vec<_> = nodes
        .iter()
        .map(|node| {
            let offer = node.offer.as_ref();
            vec![
                output::shortened(&node.name, 16),
                node_word(node).to_owned(),
                node.seen_at.map_or_else(|| "never".to_owned(), |seen| show_age(seen, now)),
                node.score.map_or_else(|| "-".to_owned(), |score| score.to_string()),
                offer.map_or_else(
                    || "-".to_owned(),
                    |offer| {
                        let gpus = if offer.gpus > 0 { format!(" {} GPU", offer.gpus) } else { String::new() };
                        format!("{} CPU {}{gpus}", show_cpus(offer.cpu_millis), show_bytes(offer.memory_bytes))
                    },
                ),
                offer.map_or_else(|| "-".to_owned(), |offer| offer.price_min.to_string()),
                node.leases.to_string(),
            ]
        })
        .collect();
    output::table(columns, &heads, &rows)
}

fn node_word(node: &NodeView) -> &'static str {
    let suspended = node.proof.as_ref().is_some_and(|proof| proof.state == ProofState::Suspended);
    match (node.online, suspended) {
        (false, _) => "silent",
        (true, true) => "suspended",
        (true, false) => state_word(node.state),
    }
}

const fn state_word(state: NodeState) -> &'static str {
    match state {
        NodeState::Enrolling => "enrolling",
        NodeState::Benchmarking => "measuring",
        NodeState::Idle => "idle",
        NodeState::Working => "working",
        NodeState::Paused => "paused",
        NodeState::Updating => "updating",
        NodeState::Draining => "draining",
        NodeState::Stopped => "stopped",
        NodeState::Unknown => "unknown",
    }
}

/// Shows every balance and whether the books are right.
pub(super) async fn ledger(args: ListArgs) -> Result<u8, CliError> {
    let (client, token) = operator(&args.operator)?;
    let view: LedgerView = client.get("/v1/admin/ledger").bearer(&token).receive().await?;
    if args.json {
        output::json(&view)?;
    } else {
        output::line(ledger_table(output::columns(), &view))?;
    }
    Ok(if balances(&view) { 0 } else { 1 })
}

fn balances(view: &LedgerView) -> bool {
    view.sum == Amount::ZERO && view.unbalanced == 0
}

fn ledger_table(columns: u16, view: &LedgerView) -> String {
    let rows: Vec<_> = view.lines.iter().map(|line| vec![line.account.clone(), line.balance.to_string()]).collect();
    let table = output::table(columns, &[("account", Align::Left), ("balance", Align::Right)], &rows);
    let verdict = if balances(view) {
        output::styled(Style::Good, &format!("{}, the sum is {}", count(view.transactions, "transaction"), view.sum))
    } else {
        let text = format!(
            "{} of {} transactions do not balance, the sum is {}",
            view.unbalanced, view.transactions, view.sum
        );
        output::styled(Style::Bad, &text)
    };
    format!("{table}\n\n{verdict}")
}

/// Makes a private file beside `path` before the secret exists: a secret that cannot be kept should not be made.
fn new_secret_file(path: &Path) -> Result<NamedTempFile, CliError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    if path.symlink_metadata().is_ok() {
        return Err(CliError::new(Exit::Error, format!("{} is there already", path.display()))
            .next("give a file that does not exist yet"));
    }
    NamedTempFile::new_in(folder).map_err(|error| {
        CliError::new(Exit::Error, format!("{} cannot be made", path.display()))
            .because(error)
            .next("give a file in a folder that you may write to")
    })
}

/// Only the user may read the file, and what was there before is never replaced.
fn write_secret(mut file: NamedTempFile, path: &Path, secret: &Secret) -> Result<(), CliError> {
    let unwritable = |error: std::io::Error| {
        CliError::new(Exit::Error, format!("{} cannot be written", path.display())).because(error)
    };
    writeln!(file, "{}", secret.expose()).and_then(|()| file.as_file().sync_all()).map_err(unwritable)?;
    file.persist_noclobber(path).map(drop).map_err(|error| unwritable(error.error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::account::LedgerLine;
    use crate::wire::node::Offer;
    use crate::wire::{HourlyRate, NodeId};

    #[test]
    fn the_nodes_fit_80_columns() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let node = NodeView {
            node_id: NodeId::generate(now),
            name: "a-machine-with-a-very-long-name-in-the-attic".to_owned(),
            state: NodeState::Working,
            online: true,
            seen_at: Some(now),
            score: Some(123_456),
            offer: Some(Offer {
                cpu_millis: 1_024_000,
                memory_bytes: 1_073_741_824_000,
                disk_bytes: 1,
                gpus: 8,
                price_min: HourlyRate::MAX,
                internet: false,
                domains: None,
                isolation: Vec::new(),
            }),
            leases: 100,
            proof: None,
        };
        let text = nodes_table(80, &[node], now);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn a_secret_file_is_private_and_never_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_secret(new_secret_file(&path).unwrap(), &path, &Secret::new("fzk_a")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "fzk_a\n");
        assert!(new_secret_file(&path).unwrap_err().to_string().contains("there already"));
        assert!(new_secret_file(&folder.path().join("absent/key")).is_err());
    }

    #[test]
    fn a_ledger_that_does_not_balance_is_said_to() {
        let line = LedgerLine { account: "fees".to_owned(), balance: Amount::from_micros(7) };
        let mut view = LedgerView { lines: vec![line], sum: Amount::ZERO, transactions: 3, unbalanced: 0 };
        assert!(ledger_table(80, &view).contains("3 transactions, the sum is $0.00"));
        view.unbalanced = 1;
        assert!(ledger_table(80, &view).contains("1 of 3 transactions do not balance"));
        assert!(!balances(&view));
    }
}
