//! A camera with a thin lens: what is not in focus turns into soft discs.

use crate::math::{Ray, Vec3, v};
use crate::random::Sampler;

const EYE: Vec3 = v(0.35, 2.55, 8.6);
const TARGET: Vec3 = v(0.12, 1.52, 0.0);
/// In focus: the front of the glass.
const FOCUS: Vec3 = v(0.0, 1.6, 0.75);
const LENS_RADIUS: f32 = 0.13;
/// Half the picture's height at distance one.
const HALF_HEIGHT: f32 = 0.252;

/// Where from and whereto, with the picture's size.
pub struct Camera {
    width: f32,
    height: f32,
    right: Vec3,
    up: Vec3,
    forward: Vec3,
    focus_distance: f32,
}

impl Camera {
    pub fn new(width: usize, height: usize) -> Self {
        let forward = (TARGET - EYE).unit();
        let right = forward.cross(v(0.0, 1.0, 0.0)).unit();
        let up = right.cross(forward);
        let focus_distance = (FOCUS - EYE).dot(forward);
        Self { width: width as f32, height: height as f32, right, up, forward, focus_distance }
    }

    /// A ray through a random point of the pixel and of the lens.
    pub fn ray(&self, pixel: (usize, usize), sampler: &mut Sampler) -> Ray {
        let (jx, jy) = sampler.pair();
        let x = (2.0 * (pixel.0 as f32 + tent(jx)) - self.width) / self.height * HALF_HEIGHT;
        let y = (1.0 - 2.0 * (pixel.1 as f32 + tent(jy)) / self.height) * HALF_HEIGHT;
        let in_focus = (self.forward + self.right * x + self.up * y) * self.focus_distance;
        let (u, w) = sampler.pair();
        let (radius, angle) = (LENS_RADIUS * u.sqrt(), std::f32::consts::TAU * w);
        let lens = self.right * (radius * angle.cos()) + self.up * (radius * angle.sin());
        Ray { from: EYE + lens, dir: (in_focus - lens).unit() }
    }
}

/// Spreads a uniform number over the pixel and half of each neighbour: smooth edges.
fn tent(u: f32) -> f32 {
    if u < 0.5 { (2.0 * u).sqrt() - 0.5 } else { 1.5 - (2.0 - 2.0 * u).sqrt() }
}
