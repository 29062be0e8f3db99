//! The operator's commands: run a coordinator and look after its accounts, nodes and ledger.

pub mod admin;
pub mod serve;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::errors::CliError;
use super::values::{parse_amount, parse_seconds};
use crate::wire::{AccountId, Amount};

/// What can be typed after `fizz coordinator`.
#[derive(Debug, Subcommand)]
pub enum CoordinatorCommand {
    /// Serve nodes and renters until stopped
    Serve(serve::ServeArgs),
    /// Make accounts and put money on them
    #[command(subcommand)]
    Account(AccountCommand),
    /// Make join tokens for machines
    #[command(subcommand)]
    Token(TokenCommand),
    /// The nodes and where they stand
    Nodes(ListArgs),
    /// Let a machine in that shows a code
    Approve(ApproveArgs),
    /// Every balance, and whether they sum to zero
    Ledger(ListArgs),
}

/// What can be typed after `fizz coordinator account`.
#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an account; its API key is shown once
    Create(CreateArgs),
    /// Put money on an account
    Deposit(DepositArgs),
    /// Balance, held money and earnings of your account
    Show(ShowArgs),
}

/// What can be typed after `fizz coordinator token`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token that lets one machine join your account
    Create(TokenArgs),
}

/// Where the operator's coordinator is, and how to trust it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Coordinator")]
pub struct WhereArgs {
    /// Address of the coordinator [default: https://127.0.0.1:8443]
    #[arg(long, value_name = "URL", env = "FIZZ_COORDINATOR", hide_env = true)]
    pub coordinator: Option<String>,
    /// Certificate of the authority to trust [default: the data folder's ca.pem]
    #[arg(long, value_name = "FILE", env = "FIZZ_CA_FILE", hide_env = true)]
    pub ca_file: Option<PathBuf>,
    /// The coordinator's data folder, when it is on this machine
    #[arg(long, value_name = "DIR", env = "FIZZ_COORDINATOR_DIR", hide_env = true)]
    pub data_dir: Option<PathBuf>,
}

/// The coordinator, with the operator's credential.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
The admin token comes from --admin-token-file, FIZZ_ADMIN_TOKEN or
FIZZ_ADMIN_TOKEN_FILE, else from admin.token in the data folder.")]
pub struct OperatorArgs {
    /// File with the admin token
    #[arg(long, value_name = "FILE", help_heading = "Coordinator")]
    pub admin_token_file: Option<PathBuf>,
    /// Which coordinator.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// The coordinator, with an account's credential.
#[derive(Debug, Clone, Args)]
#[command(after_help = "The API key comes from --api-key-file, FIZZ_API_KEY or FIZZ_API_KEY_FILE.")]
pub struct AccountArgs {
    /// File with the account's API key
    #[arg(long, value_name = "FILE", help_heading = "Coordinator")]
    pub api_key_file: Option<PathBuf>,
    /// Which coordinator.
    #[command(flatten)]
    pub place: WhereArgs,
}

/// Arguments of lists.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

/// Arguments of `fizz coordinator account create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// Name for people, 1 to 63 characters
    pub name: String,
    /// Write the API key to this new file (mode 0600) instead of showing it
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

/// Arguments of `fizz coordinator account deposit`.
#[derive(Debug, Clone, Args)]
pub struct DepositArgs {
    /// The account
    pub account: AccountId,
    /// Dollars, like 10 or 2.50
    #[arg(value_name = "USD", value_parser = parse_amount, allow_negative_numbers = true)]
    pub amount: Amount,
    /// Name of this deposit: repeated with the same name, it is made once
    #[arg(long, value_name = "TEXT")]
    pub key: Option<String>,
    /// Which coordinator.
    #[command(flatten)]
    pub operator: OperatorArgs,
}

/// Arguments of `fizz coordinator account show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub account: AccountArgs,
}

/// Arguments of `fizz coordinator token create`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// How long it may be used, like 1h or 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = parse_seconds)]
    pub expires: u64,
    /// Write the token to this new file (mode 0600) instead of showing it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub account: AccountArgs,
}

/// Arguments of `fizz coordinator approve`.
#[derive(Debug, Clone, Args)]
pub struct ApproveArgs {
    /// The code that the machine shows, like BCDF-GHJK
    pub code: String,
    /// Keep the machine out instead
    #[arg(long)]
    pub deny: bool,
    /// Do not ask back
    #[arg(long, short)]
    pub yes: bool,
    /// Which coordinator.
    #[command(flatten)]
    pub account: AccountArgs,
}

/// Does what was typed.
///
/// # Errors
/// When the coordinator cannot start, cannot be reached or refuses.
pub fn run(command: CoordinatorCommand) -> Result<u8, CliError> {
    match command {
        CoordinatorCommand::Serve(args) => serve::run(args),
        CoordinatorCommand::Account(AccountCommand::Create(args)) => super::block_on(admin::create_account(args)),
        CoordinatorCommand::Account(AccountCommand::Deposit(args)) => super::block_on(admin::deposit(args)),
        CoordinatorCommand::Account(AccountCommand::Show(args)) => super::block_on(admin::show_account(args)),
        CoordinatorCommand::Token(TokenCommand::Create(args)) => super::block_on(admin::create_token(args)),
        CoordinatorCommand::Nodes(args) => super::block_on(admin::nodes(args)),
        CoordinatorCommand::Approve(args) => super::block_on(admin::approve(args)),
        CoordinatorCommand::Ledger(args) => super::block_on(admin::ledger(args)),
    }
}
