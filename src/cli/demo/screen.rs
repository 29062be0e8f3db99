//! What the demo shows while it works: bars on a terminal, plain lines where nobody watches.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output;

const BAR: &str = "  {bar:28} {percent:>3}%  {wide_msg}";
const SPINNER: &str = "  {spinner} {wide_msg}";

/// Standard error as the demo's stage.
#[derive(Debug, Default)]
pub struct Screen {
    bar: Option<ProgressBar>,
    doing: String,
}

impl Screen {
    /// Begins something that takes a while.
    pub fn begin(&mut self, doing: &str) {
        self.clear();
        doing.clone_into(&mut self.doing);
        if output::stderr_is_terminal() {
            let bar = ProgressBar::new(1000);
            set_style(&bar, SPINNER);
            bar.set_message(doing.to_owned());
            bar.enable_steady_tick(Duration::from_millis(90));
            self.bar = Some(bar);
        } else {
            output::aside(format!("  .. {doing}"));
        }
    }

    /// How far it is, from 0 to 1, and which part of it is being done.
    pub fn progress(&self, part: f64, detail: &str) {
        if let Some(bar) = &self.bar {
            if bar.position() == 0 {
                set_style(bar, BAR);
            }
            // A float to an integer saturates; a progress bar forgives the rest.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1 ..= 1000")]
            bar.set_position((part * 1000.0).clamp(1.0, 1000.0) as u64);
            bar.set_message(format!("{} {detail}", self.doing));
        }
    }

    /// Ends it with a line on what came of it.
    pub fn done(&mut self, result: &str) {
        self.clear();
        output::aside(format!("  ok {result}"));
    }

    /// A line in between.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::aside(text)),
            None => output::aside(text),
        }
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("━╸─").tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
    }
}
