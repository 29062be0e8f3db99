//! Everything in the picture: the glass on a table, fruit, balls, soap bubbles in the air, and the lights around.

use crate::glass::{Boundary, Glass, Medium, Met};
use crate::math::{Ray, Vec3, smoothstep, v};
use crate::random::Random;
use crate::shapes::{NEAR, sphere};

/// How a surface treats light.
#[derive(Clone, Copy)]
pub enum Material {
    /// Between two media.
    Clear(Boundary),
    /// Matt with a clear coat.
    Coated(Vec3),
    /// Matt.
    Matt(Vec3),
    /// A mirror of this colour; the number is its roughness.
    Metal(Vec3, f32),
    /// A thin skin that mirrors in colours and otherwise lets light through.
    Soap,
}

/// What a ray meets first.
pub struct Hit {
    pub t: f32,
    /// Away from the body, not towards the ray.
    pub normal: Vec3,
    pub material: Material,
}

#[derive(Clone, Copy)]
enum Skin {
    Citrus(Vec3),
    Metal(Vec3, f32),
    Coated(Vec3),
    Glass,
    Soap,
}

struct Body {
    centre: Vec3,
    radius: f32,
    skin: Skin,
}

/// A soft box far away: a rectangle in the plane at distance one along `towards`.
struct Light {
    towards: Vec3,
    across: Vec3,
    along: Vec3,
    half: (f32, f32),
    radiance: Vec3,
}

impl Light {
    fn new(towards: Vec3, half: (f32, f32), radiance: Vec3) -> Self {
        let towards = towards.unit();
        let across = towards.cross(v(0.0, 1.0, 0.02)).unit();
        Self { towards, across, along: towards.cross(across), half, radiance }
    }

    /// Place in the rectangle, from -1 to 1 each.
    fn place(&self, dir: Vec3) -> Option<(f32, f32)> {
        let depth = dir.dot(self.towards);
        if depth <= 0.05 {
            return None;
        }
        let (x, y) = (dir.dot(self.across) / depth / self.half.0, dir.dot(self.along) / depth / self.half.1);
        (x.abs() < 1.0 && y.abs() < 1.0).then_some((x, y))
    }

    fn seen(&self, dir: Vec3) -> Vec3 {
        self.place(dir).map_or(Vec3::ZERO, |(x, y)| {
            let edge = smoothstep(1.0, 0.8, x.abs()) * smoothstep(1.0, 0.8, y.abs());
            self.radiance * edge
        })
    }

    fn density(&self, dir: Vec3) -> f32 {
        self.place(dir).map_or(0.0, |_| {
            let cos = dir.dot(self.towards);
            1.0 / (4.0 * self.half.0 * self.half.1 * cos * cos * cos)
        })
    }

    fn sample(&self, u: f32, w: f32) -> Vec3 {
        let (x, y) = ((2.0 * u - 1.0) * self.half.0, (2.0 * w - 1.0) * self.half.1);
        (self.towards + self.across * x + self.along * y).unit()
    }
}

/// A far lamp that shows as a disc of light where it is out of focus; it lights nothing.
struct Lamp {
    towards: Vec3,
    cos: f32,
    radiance: Vec3,
}

/// Everything.
pub struct Scene {
    glass: Glass,
    bodies: Vec<Body>,
    lights: Vec<Light>,
    lamps: Vec<Lamp>,
    pub bubble_count: usize,
}

const TABLE_RADIUS: f32 = 5.2;
const FAR: f32 = 1e4;

impl Scene {
    pub fn new(seed: u32) -> Self {
        let glass = Glass::new(seed);
        let bubble_count = glass.bubble_count;
        let lights = vec![
            Light::new(v(-0.8, 0.62, 0.25), (0.5, 0.6), v(1.0, 0.86, 0.7) * 7.0),
            Light::new(v(0.95, 0.32, -0.35), (0.16, 0.75), v(0.62, 0.8, 1.0) * 8.0),
            Light::new(v(0.15, 1.0, -0.35), (0.55, 0.4), v(1.0, 0.94, 0.88) * 2.6),
        ];
        Self { glass, bodies: bodies(seed), lights, lamps: lamps(seed), bubble_count }
    }

    pub fn hit(&self, ray: &Ray, medium: Medium) -> Option<Hit> {
        let mut best = None;
        let mut far = FAR;
        if medium == Medium::Air {
            let t = -ray.from.y / ray.dir.y;
            if t > NEAR && t < far {
                let p = ray.at(t);
                if p.x.hypot(p.z) < TABLE_RADIUS {
                    far = t;
                    best = Some(Hit { t, normal: v(0.0, 1.0, 0.0), material: Material::Coated(table(p)) });
                }
            }
        }
        if medium == Medium::Air || medium == Medium::Glass {
            for body in &self.bodies {
                // Inside glass only the glass ball itself can be met again.
                if medium == Medium::Glass && !matches!(body.skin, Skin::Glass) {
                    continue;
                }
                if let Some(t) = sphere(ray, body.centre, body.radius, far) {
                    far = t;
                    best = Some(body.hit(ray, t));
                }
            }
        }
        match self.glass.meet(ray, medium, far) {
            Some(Met::Boundary(b)) => Some(Hit { t: b.t, normal: b.normal, material: Material::Clear(b) }),
            Some(Met::Straw { t, normal, along }) => {
                let colour = self.glass.straw_colour(normal, along);
                Some(Hit { t, normal, material: Material::Matt(colour) })
            }
            None => best,
        }
    }

    /// Light from far away. Lamps show only where `sharp`: to the eye, in mirrors and through glass.
    pub fn sky(&self, dir: Vec3, sharp: bool) -> Vec3 {
        let mut light = backdrop(dir);
        for one in &self.lights {
            light += one.seen(dir);
        }
        if sharp {
            for lamp in &self.lamps {
                if dir.dot(lamp.towards) > lamp.cos {
                    light += lamp.radiance;
                }
            }
        }
        light
    }

    /// Density of [`Scene::sample_light`] towards `dir`.
    pub fn light_density(&self, dir: Vec3) -> f32 {
        self.lights.iter().map(|light| light.density(dir)).sum::<f32>() / self.lights.len() as f32
    }

    /// A direction towards one of the soft boxes.
    pub fn sample_light(&self, pick: f32, u: f32, w: f32) -> Vec3 {
        let index = ((pick * self.lights.len() as f32) as usize).min(self.lights.len() - 1);
        self.lights[index].sample(u, w)
    }
}

impl Body {
    fn hit(&self, ray: &Ray, t: f32) -> Hit {
        let normal = (ray.at(t) - self.centre) / self.radius;
        match self.skin {
            Skin::Citrus(colour) => {
                let rough = pores(normal);
                Hit {
                    t,
                    normal: rough,
                    material: Material::Coated(colour * (0.86 + 0.14 * rough.dot(normal).powi(40))),
                }
            }
            Skin::Metal(colour, roughness) => Hit { t, normal, material: Material::Metal(colour, roughness) },
            Skin::Coated(colour) => Hit { t, normal, material: Material::Coated(colour) },
            Skin::Glass => {
                let boundary = Boundary { t, normal, inner: Medium::Glass, outer: Medium::Air };
                Hit { t, normal, material: Material::Clear(boundary) }
            }
            Skin::Soap => Hit { t, normal, material: Material::Soap },
        }
    }
}

/// The normal of citrus peel.
fn pores(n: Vec3) -> Vec3 {
    let wave = |p: Vec3| {
        (p.x * 31.0 + 3.0 * (p.y * 17.0).sin()).sin()
            * (p.y * 29.0 + 2.0 * (p.z * 19.0).sin()).sin()
            * (p.z * 33.0 + 2.5 * (p.x * 15.0).sin()).sin()
    };
    let step = 0.01;
    let here = wave(n);
    let slope =
        v(wave(n + v(step, 0.0, 0.0)) - here, wave(n + v(0.0, step, 0.0)) - here, wave(n + v(0.0, 0.0, step)) - here)
            / step;
    (n - slope * 0.006).unit()
}

/// Dark stone with a faint cloud in it.
fn table(p: Vec3) -> Vec3 {
    let cloud = (p.x * 1.7 + (p.z * 1.3).sin() * 1.4).sin() * (p.z * 1.1 + (p.x * 0.9).cos() * 1.7).sin();
    v(0.07, 0.066, 0.08) * (1.0 + 0.12 * cloud)
}

/// The wall behind: dusk, with a warm glow behind the glass.
fn backdrop(dir: Vec3) -> Vec3 {
    let height = smoothstep(-0.35, 0.6, dir.y);
    let dusk = v(0.022, 0.014, 0.05).lerp(v(0.008, 0.034, 0.075), height);
    let behind = dir.dot(v(-0.02, -0.03, -1.0).unit());
    let glow = v(1.0, 0.42, 0.16) * (0.55 * ((behind - 1.0) * 55.0).exp())
        + v(0.5, 0.12, 0.3) * (0.06 * ((behind - 1.0) * 12.0).exp());
    dusk + glow
}

fn bodies(seed: u32) -> Vec<Body> {
    let ball = |x: f32, z: f32, radius: f32, skin| Body { centre: v(x, radius, z), radius, skin };
    let mut bodies = vec![
        ball(-2.3, -1.15, 0.82, Skin::Citrus(v(0.95, 0.36, 0.03))),
        ball(-1.62, 1.0, 0.46, Skin::Citrus(v(0.46, 0.62, 0.04))),
        ball(2.1, 0.35, 0.55, Skin::Glass),
        ball(2.75, -1.9, 0.9, Skin::Metal(v(0.96, 0.72, 0.58), 0.06)),
        ball(1.38, 1.5, 0.21, Skin::Metal(v(0.95, 0.95, 0.97), 0.0)),
        ball(-0.75, 2.1, 0.17, Skin::Coated(v(0.8, 0.06, 0.1))),
        ball(-3.6, 0.4, 0.4, Skin::Coated(v(0.06, 0.28, 0.42))),
    ];
    let mut random = Random::new(seed, 0x0050_a9);
    let soap = [
        (-2.55, 2.55, -0.4, 0.34),
        (-1.75, 3.15, 0.3, 0.17),
        (-1.6, 1.75, 0.9, 0.13),
        (2.15, 2.35, 0.2, 0.28),
        (2.95, 3.05, -0.9, 0.42),
        (1.75, 1.55, 1.2, 0.1),
        (-3.3, 1.55, 0.6, 0.2),
        (3.05, 1.5, 0.9, 0.16),
    ];
    for (x, y, z, radius) in soap {
        let centre = v(x + random.between(-0.05, 0.05), y + random.between(-0.05, 0.05), z);
        bodies.push(Body { centre, radius, skin: Skin::Soap });
    }
    bodies
}

fn lamps(seed: u32) -> Vec<Lamp> {
    let mut random = Random::new(seed, 0x1a_3905);
    let colours = [v(1.0, 0.55, 0.2), v(1.0, 0.3, 0.22), v(1.0, 0.78, 0.45), v(0.3, 0.65, 1.0), v(0.95, 0.3, 0.65)];
    (0..46)
        .map(|i| {
            let (x, y) = (random.between(-0.55, 0.55), random.between(-0.24, 0.16));
            let angle = random.between(0.004, 0.009);
            let radiance = colours[i % colours.len()] * random.between(2.0, 7.0);
            Lamp { towards: v(x, y, -1.0).unit(), cos: f32::cos(angle), radiance }
        })
        .collect()
}
