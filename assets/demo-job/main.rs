//! The demo's job: a path tracer that paints a glass of something fizzy.
//!
//! It depends on nothing but the standard library, is linked statically and runs in an otherwise empty container.
//! - The picture depends on size, samples and seed only, never on the number of threads.
//! - It uses every processor it may use: `available_parallelism` knows affinity masks and cgroup quotas.
//! - Standard output gets a line per tenth of the work and a summary; the picture goes to a file.

mod camera;
mod finish;
mod glass;
mod math;
mod options;
mod png;
mod random;
mod scene;
mod shapes;
mod trace;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use math::Vec3;
use options::Options;
use scene::Scene;

fn main() -> ExitCode {
    let options = match Options::from_process() {
        Ok(Some(options)) => options,
        Ok(None) => {
            say(options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprintln!("render: {why}; see render --help");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("render: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    let start = Instant::now();
    let (width, height) = (options.width, options.height);
    say(&format!(
        "fizz-render: {width}x{height} pixels, {} samples each, {} threads, seed {}",
        options.samples, options.threads, options.seed
    ));
    let scene = Scene::new(options.seed);
    say(&format!("scene: {} bubbles in one glass", scene.bubble_count));
    let film = render(options, &scene);
    let seconds = start.elapsed().as_secs_f64();
    say("developing: noise, glow and tone");
    let pixels = finish::develop(&film, width, height, options.threads);
    let file = png::encode(width, height, &pixels);
    write_picture(&options.output, &file)?;
    let paths = width as f64 * height as f64 * f64::from(options.samples);
    say(&format!(
        "done: {:.1} million paths in {seconds:.1} s ({:.2} million/s), {} bytes in {}",
        paths / 1e6,
        paths / 1e6 / seconds.max(1e-9),
        file.len(),
        options.output
    ));
    Ok(())
}

/// What the light left on one pixel.
#[derive(Clone, Copy, Default)]
pub struct Exposure {
    /// Mean radiance.
    pub mean: Vec3,
    /// Variance of the mean, over the channels.
    pub variance: f32,
}

/// Renders row by row; the threads take the next free row.
fn render(options: &Options, scene: &Scene) -> Vec<Exposure> {
    let (width, height) = (options.width, options.height);
    let camera = camera::Camera::new(width, height);
    let film = Mutex::new(vec![Exposure::default(); width * height]);
    let progress = Mutex::new(Progress::default());
    let next_row = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..options.threads {
            scope.spawn(|| {
                loop {
                    let y = next_row.fetch_add(1, Ordering::Relaxed);
                    if y >= height {
                        return;
                    }
                    let row: Vec<Exposure> =
                        (0..width).map(|x| trace::expose(scene, &camera, (x, y), options)).collect();
                    if let Ok(mut film) = film.lock() {
                        film[y * width..(y + 1) * width].copy_from_slice(&row);
                    }
                    if let Ok(mut progress) = progress.lock() {
                        progress.row_done(height);
                    }
                }
            });
        }
    });
    film.into_inner().unwrap_or_default()
}

/// Says every tenth of the work once.
#[derive(Default)]
struct Progress {
    rows: usize,
    tenths: usize,
}

impl Progress {
    fn row_done(&mut self, height: usize) {
        self.rows += 1;
        let tenths = self.rows * 10 / height;
        if tenths > self.tenths {
            self.tenths = tenths;
            say(&format!("rendered {:3} %  ({} of {height} rows)", tenths * 10, self.rows));
        }
    }
}

fn write_picture(path: &str, file: &[u8]) -> Result<(), String> {
    if let Some(folder) = std::path::Path::new(path).parent() {
        std::fs::create_dir_all(folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    }
    std::fs::write(path, file).map_err(|error| format!("cannot write {path}: {error}"))
}

/// A whole line at once, so that readers of a pipe see it at once; a closed pipe ends nothing.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
