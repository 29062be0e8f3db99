//! How an agent is told to stop: by the system's signals, or by whoever embeds it.

use tokio::sync::watch;

/// How to stop. Later words go before earlier ones when they are stronger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Go on.
    #[default]
    No,
    /// Finish or hand back every lease, then stop.
    Drain,
    /// Stop now and leave the containers running; the next start takes them up again.
    Leave,
}

/// The sending and the receiving end. Dropping the sender changes nothing.
#[must_use]
pub fn channel() -> (watch::Sender<Stop>, watch::Receiver<Stop>) {
    watch::channel(Stop::No)
}

/// Turns SIGTERM and SIGINT (Ctrl-C) into words: the first drains, the second leaves. Never returns.
///
/// # Errors
/// When the system does not let the signals be caught.
#[cfg(unix)]
pub async fn listen(stop: watch::Sender<Stop>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stronger(&stop);
    }
}

/// Turns Ctrl-C into words: the first drains, the second leaves. Never returns.
///
/// # Errors
/// When the system does not let it be caught.
#[cfg(not(unix))]
pub async fn listen(stop: watch::Sender<Stop>) -> std::io::Result<()> {
    loop {
        tokio::signal::ctrl_c().await?;
        stronger(&stop);
    }
}

fn stronger(stop: &watch::Sender<Stop>) {
    stop.send_modify(|word| {
        *word = match word {
            Stop::No => Stop::Drain,
            Stop::Drain | Stop::Leave => Stop::Leave,
        };
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_drains_and_the_second_leaves() {
        let (sender, receiver) = channel();
        stronger(&sender);
        assert_eq!(*receiver.borrow(), Stop::Drain);
        stronger(&sender);
        stronger(&sender);
        assert_eq!(*receiver.borrow(), Stop::Leave);
    }
}
