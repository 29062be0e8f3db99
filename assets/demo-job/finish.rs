//! From light to a picture: less noise, a little glow, tone, eight bits.

use crate::Exposure;
use crate::math::{Vec3, smoothstep, v};

/// Three bytes per pixel, ready to be written.
pub fn develop(film: &[Exposure], width: usize, height: usize, threads: usize) -> Vec<u8> {
    let quiet = denoise(film, width, height, threads);
    let glow = glow(&quiet, width, height);
    let mut bytes = Vec::with_capacity(quiet.len() * 3);
    for (i, light) in quiet.iter().enumerate() {
        let (x, y) = ((i % width) as f32 / width as f32 - 0.5, (i / width) as f32 / height as f32 - 0.5);
        let corner = 1.0 - 0.55 * smoothstep(0.2, 0.8, x.hypot(y));
        let colour = tone((*light + glow[i] * 0.16) * (1.12 * corner));
        for part in [colour.x, colour.y, colour.z] {
            bytes.push((part * 255.0 + 0.5) as u8);
        }
    }
    bytes
}

/// Half the side of the square that is searched for pixels alike.
const REACH: usize = 5;
/// Pixels repeated around the picture, so that no search leaves it.
const MARGIN: usize = REACH + 1;
/// How many standard deviations apart two patches may be and still be alike.
const STRENGTH: f32 = 1.25;

/// Non-local means: every pixel becomes the mean of those nearby whose surroundings differ from its own by no more than
/// their noise explains. Works on compressed brightness, so that highlights do not drown their neighbours.
fn denoise(film: &[Exposure], width: usize, height: usize, threads: usize) -> Vec<Vec3> {
    let grid = Grid::new(film, width, height);
    let mut quiet = vec![Vec3::ZERO; film.len()];
    let rows = height.div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        for (index, part) in quiet.chunks_mut(rows * width).enumerate() {
            let grid = &grid;
            scope.spawn(move || {
                for (i, pixel) in part.iter_mut().enumerate() {
                    let (x, y) = (i % width, index * rows + i / width);
                    *pixel = grid.quiet((y + MARGIN) * grid.stride + x + MARGIN).map(|c| c.exp() - 1.0);
                }
            });
        }
    });
    quiet
}

/// The variance of every compressed pixel, averaged with its neighbours because it is itself a guess.
fn smooth_noise(film: &[Exposure], width: usize, height: usize) -> Vec<f32> {
    let one = |e: &Exposure| e.variance / (1.0 + e.mean.dot(Vec3::ONE) / 3.0).powi(2);
    let raw: Vec<f32> = film.iter().map(one).collect();
    let mut smooth = Vec::with_capacity(raw.len());
    for y in 0..height {
        for x in 0..width {
            let (mut sum, mut count) = (0.0, 0.0);
            for row in raw.chunks_exact(width).take(height.min(y + 2)).skip(y.saturating_sub(1)) {
                for value in &row[x.saturating_sub(1)..width.min(x + 2)] {
                    sum += value;
                    count += 1.0;
                }
            }
            smooth.push(sum / count);
        }
    }
    smooth
}

/// A pixel in compressed brightness, and the variance of its noise.
#[derive(Clone, Copy)]
struct Cell {
    colour: Vec3,
    noise: f32,
}

/// The picture with its margin.
struct Grid {
    cells: Vec<Cell>,
    stride: usize,
}

impl Grid {
    fn new(film: &[Exposure], width: usize, height: usize) -> Self {
        let noise = smooth_noise(film, width, height);
        let stride = width + 2 * MARGIN;
        let inside = |at: usize, size: usize| at.saturating_sub(MARGIN).min(size - 1);
        let cell = |i: usize| {
            let at = inside(i / stride, height) * width + inside(i % stride, width);
            Cell { colour: film[at].mean.map(|c| (1.0 + c).ln()), noise: noise[at] }
        };
        Self { cells: (0..stride * (height + 2 * MARGIN)).map(cell).collect(), stride }
    }

    fn quiet(&self, here: usize) -> Vec3 {
        let corner = here - REACH * self.stride - REACH;
        let (mut sum, mut weights) = (Vec3::ZERO, 0.0);
        for row in 0..=2 * REACH {
            for there in corner + row * self.stride..=corner + row * self.stride + 2 * REACH {
                let weight = self.alike(here, there);
                if weight > 0.0 {
                    sum += self.cells[there].colour * weight;
                    weights += weight;
                }
            }
        }
        sum / weights
    }

    /// How much the surroundings of two pixels are alike: 1 = but for noise.
    fn alike(&self, here: usize, there: usize) -> f32 {
        let mut apart = 0.0;
        for (add, take) in [(0, 0), (1, 0), (0, 1), (self.stride, 0), (0, self.stride)] {
            let (p, q) = (&self.cells[here + add - take], &self.cells[there + add - take]);
            let difference = p.colour - q.colour;
            let expected = p.noise + p.noise.min(q.noise);
            let scale = 1e-6 + STRENGTH * STRENGTH * (p.noise + q.noise);
            apart += (difference.dot(difference) / 3.0 - expected) / scale;
            if apart > 20.0 {
                return 0.0;
            }
        }
        (-(apart / 5.0).max(0.0)).exp()
    }
}

/// Light that spills around what is very bright: three boxes make a bell, at a quarter of the size.
fn glow(light: &[Vec3], width: usize, height: usize) -> Vec<Vec3> {
    let (w, h) = (width.div_ceil(4), height.div_ceil(4));
    let mut small = vec![Vec3::ZERO; w * h];
    for (i, colour) in light.iter().enumerate() {
        small[i / width / 4 * w + i % width / 4] += colour.map(|c| (c - 0.75).clamp(0.0, 8.0)) / 16.0;
    }
    let radius = (height / 80).max(1);
    for _ in 0..3 {
        small = transpose(&blur_rows(&small, w, radius), w, h);
        small = transpose(&blur_rows(&small, h, radius), h, w);
    }
    (0..width * height)
        .map(|i| {
            let (x, y) = ((i % width) as f32 / 4.0 - 0.375, (i / width) as f32 / 4.0 - 0.375);
            let (x, y) = (x.clamp(0.0, (w - 1) as f32), y.clamp(0.0, (h - 1) as f32));
            let (x0, y0) = (x as usize, y as usize);
            let (x1, y1) = ((x0 + 1).min(w - 1), (y0 + 1).min(h - 1));
            let top = small[y0 * w + x0].lerp(small[y0 * w + x1], x.fract());
            let bottom = small[y1 * w + x0].lerp(small[y1 * w + x1], x.fract());
            top.lerp(bottom, y.fract())
        })
        .collect()
}

fn blur_rows(image: &[Vec3], width: usize, radius: usize) -> Vec<Vec3> {
    let mut out = Vec::with_capacity(image.len());
    for row in image.chunks_exact(width) {
        for x in 0..width {
            let part = &row[x.saturating_sub(radius)..width.min(x + radius + 1)];
            let sum = part.iter().fold(Vec3::ZERO, |sum, c| sum + *c);
            out.push(sum / (2 * radius + 1) as f32);
        }
    }
    out
}

fn transpose(image: &[Vec3], width: usize, height: usize) -> Vec<Vec3> {
    (0..image.len()).map(|i| image[i % height * width + i / height]).collect()
}

/// Bends brightness as film does (Narkowicz's fit of ACES), then to sRGB.
fn tone(light: Vec3) -> Vec3 {
    let film = light.map(|x| ((x * (2.51 * x + 0.03)) / (x * (2.43 * x + 0.59) + 0.14)).clamp(0.0, 1.0));
    let grey = film.luminance();
    let rich = v(grey, grey, grey).lerp(film, 1.06).map(|c| c.clamp(0.0, 1.0));
    rich.map(|c| if c <= 0.003_130_8 { 12.92 * c } else { 1.055 * c.powf(1.0 / 2.4) - 0.055 })
}
