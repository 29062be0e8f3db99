//! Follows light backwards from the eye.

use crate::Exposure;
use crate::camera::Camera;
use crate::glass::{Medium, absorption};
use crate::math::{Ray, Vec3, v};
use crate::options::Options;
use crate::random::Sampler;
use crate::scene::{Hit, Material, Scene};

const BOUNCES_MAX: u32 = 48;
/// Brighter paths are cut off here: the price of few samples, paid in a little light instead of in sparks.
const SHARP_MAX: f32 = 24.0;
const SOFT_MAX: f32 = 5.0;

/// Mean and spread of all paths of one pixel.
pub fn expose(scene: &Scene, camera: &Camera, pixel: (usize, usize), options: &Options) -> Exposure {
    let id = (pixel.1 * options.width + pixel.0) as u32;
    let (mut sum, mut squares) = (Vec3::ZERO, Vec3::ZERO);
    for index in 0..options.samples {
        let mut sampler = Sampler::new(options.seed, id, index);
        let ray = camera.ray(pixel, &mut sampler);
        let light = follow(scene, ray, &mut sampler);
        sum += light;
        squares += light * light;
    }
    let n = options.samples as f32;
    let mean = sum / n;
    let spread = (squares / n - mean * mean).map(|x| x.max(0.0));
    Exposure { mean, variance: spread.dot(Vec3::ONE) / 3.0 / (n - 1.0).max(1.0) }
}

/// One path on its way.
struct Path {
    ray: Ray,
    medium: Medium,
    weight: Vec3,
    /// Whether only mirrors and clear surfaces were met so far.
    sharp: bool,
}

fn follow(scene: &Scene, ray: Ray, sampler: &mut Sampler) -> Vec3 {
    let mut path = Path { ray, medium: Medium::Air, weight: Vec3::ONE, sharp: true };
    for bounce in 0..BOUNCES_MAX {
        let Some(hit) = scene.hit(&path.ray, path.medium) else {
            let light = path.weight * scene.sky(path.ray.dir, path.sharp);
            let limit = if path.sharp { SHARP_MAX } else { SOFT_MAX };
            return light * (limit / light.max_part().max(limit));
        };
        if path.medium == Medium::Drink {
            // Absorption changes evenly with height, so its mean over the way is that of both ends.
            let there = path.ray.at(hit.t).y;
            let mean = (absorption(path.ray.from.y) + absorption(there)) * 0.5;
            path.weight = path.weight * mean.map(|a| (-a * hit.t).exp());
        }
        path.scatter(scene, &hit, sampler);
        if bounce > 4 {
            let chance = path.weight.max_part().min(0.97);
            if sampler.next() >= chance {
                return Vec3::ZERO;
            }
            path.weight = path.weight / chance;
        }
    }
    Vec3::ZERO
}

impl Path {
    fn scatter(&mut self, scene: &Scene, hit: &Hit, sampler: &mut Sampler) {
        let point = self.ray.at(hit.t);
        let facing = if hit.normal.dot(self.ray.dir) < 0.0 { hit.normal } else { -hit.normal };
        let cos = -facing.dot(self.ray.dir);
        match hit.material {
            Material::Clear(boundary) => {
                let entering = hit.normal.dot(self.ray.dir) < 0.0;
                let (from, to) =
                    if entering { (boundary.outer, boundary.inner) } else { (boundary.inner, boundary.outer) };
                let ratio = from.index() / to.index();
                let reflected = fresnel(cos, ratio);
                if sampler.next() < reflected {
                    self.ray = Ray { from: point, dir: self.ray.dir.reflect(facing).unit() };
                    self.medium = from;
                } else {
                    let across = (1.0 - ratio * ratio * (1.0 - cos * cos)).max(0.0).sqrt();
                    let dir = self.ray.dir * ratio + facing * (ratio * cos - across);
                    self.ray = Ray { from: point, dir: dir.unit() };
                    self.medium = to;
                }
            }
            Material::Coated(colour) => {
                let reflected = 0.04 + 0.96 * (1.0 - cos).powi(5);
                if sampler.next() < reflected {
                    self.mirror(point, facing, 0.03, sampler);
                } else {
                    self.spread(scene, point, facing, colour, sampler);
                }
            }
            Material::Matt(colour) => self.spread(scene, point, facing, colour, sampler),
            Material::Metal(colour, roughness) => {
                let edge = (1.0 - cos).powi(5);
                self.weight = self.weight * colour.lerp(Vec3::ONE, edge);
                self.mirror(point, facing, roughness, sampler);
            }
            Material::Soap => {
                let film = soap(cos, point.y);
                let chance = film.max_part().min(1.0);
                if sampler.next() < chance {
                    self.weight = self.weight * film / chance;
                    self.mirror(point, facing, 0.0, sampler);
                } else {
                    self.ray.from = point;
                }
            }
        }
    }

    fn mirror(&mut self, point: Vec3, normal: Vec3, roughness: f32, sampler: &mut Sampler) {
        let mut dir = self.ray.dir.reflect(normal);
        if roughness > 0.0 {
            let (u, w) = sampler.pair();
            dir = (dir + ball(u, w) * (roughness * sampler.next().cbrt())).unit();
            if dir.dot(normal) <= 0.0 {
                dir = self.ray.dir.reflect(normal);
            }
        }
        self.ray = Ray { from: point + normal * 1e-4, dir: dir.unit() };
    }

    /// Matt: half of the paths go anywhere, half towards the lights; each weighs by the chance of both.
    fn spread(&mut self, scene: &Scene, point: Vec3, normal: Vec3, colour: Vec3, sampler: &mut Sampler) {
        let pick = sampler.next();
        let (u, w) = sampler.pair();
        let dir =
            if pick < 0.5 { (normal + ball(u, w) * 0.999).unit() } else { scene.sample_light(pick * 2.0 - 1.0, u, w) };
        let even = normal.dot(dir) / std::f32::consts::PI;
        if even <= 0.0 {
            self.weight = Vec3::ZERO;
        } else {
            let density = 0.5 * even + 0.5 * scene.light_density(dir);
            self.weight = self.weight * colour * (even / density);
        }
        self.sharp = false;
        self.ray = Ray { from: point + normal * 1e-4, dir };
    }
}

/// A point on the unit sphere.
fn ball(u: f32, w: f32) -> Vec3 {
    let (z, angle) = (1.0 - 2.0 * u, std::f32::consts::TAU * w);
    let r = (1.0 - z * z).max(0.0).sqrt();
    v(r * angle.cos(), r * angle.sin(), z)
}

/// The part of the light that a clear surface mirrors.
fn fresnel(cos: f32, ratio: f32) -> f32 {
    let squared = ratio * ratio * (1.0 - cos * cos);
    if squared >= 1.0 {
        return 1.0;
    }
    let across = (1.0 - squared).sqrt();
    let s = (ratio * cos - across) / (ratio * cos + across);
    let p = (cos - ratio * across) / (cos + ratio * across);
    (s * s + p * p) * 0.5
}

/// What a soap film mirrors: more at the edge, in colours that follow its thickness.
fn soap(cos: f32, height: f32) -> Vec3 {
    let edge = 0.03 + 0.75 * (1.0 - cos).powi(4);
    let inside = (1.0 - (1.0 - cos * cos) / 1.77).sqrt();
    let path = (5.2 + 1.6 * (height * 7.0).sin()) * inside;
    let colour = v((path * 2.1).cos(), (path * 2.55).cos(), (path * 3.1).cos()).map(|c| 0.55 + 0.45 * c);
    colour * (edge * 1.5)
}
