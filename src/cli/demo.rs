//! `fizz demo`: the whole network on one machine, from a coordinator to a paid job, and nothing left of it.

#[cfg(feature = "coordinator")]
pub mod image;
#[cfg(feature = "coordinator")]
pub mod node;
#[cfg(feature = "coordinator")]
pub mod play;
#[cfg(feature = "coordinator")]
pub mod screen;
#[cfg(feature = "coordinator")]
pub mod stage;
#[cfg(feature = "coordinator")]
pub mod story;

use std::path::PathBuf;

use clap::Args;

use super::errors::{CliError, Exit};

/// Arguments of `fizz demo`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
It starts a coordinator and a node on this machine, measures the machine, runs
one job in a container, brings its picture to ./fizz-demo/ and tells what it cost
and who earned what. It needs Docker and nothing else, and leaves nothing running.

  fizz demo
  fizz demo -- --samples 200
  fizz demo --image alpine:3 -- echo hello")]
pub struct DemoArgs {
    /// Run this image instead of the built-in renderer
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Folder for what the job leaves in /output [default: fizz-demo]
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Command for the image, or arguments for the built-in renderer
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// Runs the demo; answers with the job's exit code.
///
/// # Errors
/// When a part of it does not work; the sentence says which.
#[cfg(feature = "coordinator")]
pub fn run(args: DemoArgs) -> Result<u8, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Error, "the runtime cannot be started").because(error))?;
    let result = runtime.block_on(show(&args));
    runtime.shutdown_background();
    result
}

/// Runs the demo, which this build cannot.
///
/// # Errors
/// Always.
#[cfg(not(feature = "coordinator"))]
pub fn run(_args: DemoArgs) -> Result<u8, CliError> {
    Err(CliError::new(Exit::Error, "this fizz was built without the coordinator, which the demo needs")
        .next("build it with its default features: cargo build --release"))
}

#[cfg(feature = "coordinator")]
async fn show(args: &DemoArgs) -> Result<u8, CliError> {
    use super::{output, run, unpack};

    crate::http::install_crypto_provider();
    let clock = crate::clock::Clock::system();
    let folder = args.output.clone().or_else(|| args.image.is_none().then(|| PathBuf::from(play::OUTPUT_DEFAULT)));
    if let Some(folder) = &folder {
        unpack::check_target(folder)?;
    }
    let mut stage = stage::Stage::build(clock.clone()).await?;
    let mut screen = screen::Screen::default();
    let played = tokio::select! {
        played = play::play(args, &mut stage, &clock, &mut screen) => played,
        _ = crate::os::interrupted() => Err(CliError::new(Exit::Job(run::ending::EXIT_INTERRUPTED), "the demo was stopped")),
    };
    screen.begin("taking everything down");
    let left_over = stage.strike().await;
    screen.clear();
    match played {
        Ok(mut story) => {
            story.left_over = left_over;
            output::line(story.to_string().trim_end())?;
            Ok(run::ending::exit_code(&story.job))
        }
        Err(error) if left_over.is_empty() => Err(error),
        Err(error) => Err(error.next(format!("left over: {}", left_over.join(", ")))),
    }
}
