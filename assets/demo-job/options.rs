//! Size, samples and the rest, from the environment and then from the command line.

/// The help text.
pub const HELP: &str = "\
render: paints a glass of something fizzy
usage: render [--width N] [--height N] [--samples N] [--seed N] [--threads N] [--output FILE]
Each is also read from the environment: RENDER_WIDTH, RENDER_HEIGHT, RENDER_SAMPLES, RENDER_SEED,
RENDER_THREADS (default: every processor it may use) and RENDER_OUTPUT (default: /output/fizz.png).";

/// What to paint and where to put it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Paths per pixel.
    pub samples: u32,
    /// Of the bubbles and of the noise.
    pub seed: u32,
    /// Workers.
    pub threads: usize,
    /// File to write.
    pub output: String,
}

impl Options {
    /// From this process's environment and arguments; `None` when help was asked for.
    pub fn from_process() -> Result<Option<Self>, String> {
        Self::parse(std::env::args().skip(1), |name| std::env::var(name).ok())
    }

    fn parse(
        mut args: impl Iterator<Item = String>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, String> {
        let mut options = Self {
            width: 960,
            height: 600,
            samples: 32,
            seed: 7,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            output: "/output/fizz.png".to_owned(),
        };
        for name in ["width", "height", "samples", "seed", "threads", "output"] {
            if let Some(value) = env(&format!("RENDER_{}", name.to_uppercase())) {
                options.set(name, &value)?;
            }
        }
        while let Some(arg) = args.next() {
            if arg == "--help" || arg == "-h" {
                return Ok(None);
            }
            let name = arg.strip_prefix("--").ok_or_else(|| format!("'{arg}' is no option"))?.to_owned();
            let value = args.next().ok_or_else(|| format!("--{name} needs a value"))?;
            options.set(&name, &value)?;
        }
        Ok(Some(options))
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "width" => self.width = number(name, value, 16, 8192)? as usize,
            "height" => self.height = number(name, value, 16, 8192)? as usize,
            "samples" => self.samples = number(name, value, 1, 65536)?,
            "seed" => self.seed = number(name, value, 0, u32::MAX)?,
            "threads" => self.threads = number(name, value, 1, 1024)? as usize,
            "output" => self.output = value.to_owned(),
            _ => return Err(format!("there is no option --{name}")),
        }
        Ok(())
    }
}

fn number(name: &str, value: &str, min: u32, max: u32) -> Result<u32, String> {
    match value.parse::<u32>() {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(format!("{name} must be a whole number from {min} to {max}, not '{value}'")),
    }
}
