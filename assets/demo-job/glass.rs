//! The glass, what is in it, and its bubbles.
//!
//! Every surface knows the medium on both of its sides, so a ray needs only the surfaces that bound the medium it is in.

use crate::math::{Ray, Vec3, v};
use crate::random::Random;
use crate::shapes::{Ball, Balls, Ring, Tube, Wall, disc};

/// What a ray goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    Air,
    Glass,
    Drink,
    Bubble,
}

impl Medium {
    /// Index of refraction.
    pub const fn index(self) -> f32 {
        match self {
            Self::Air | Self::Bubble => 1.0,
            Self::Glass => 1.5,
            Self::Drink => 1.34,
        }
    }
}

/// A surface between two media; the normal points to the outer one.
#[derive(Clone, Copy)]
pub struct Boundary {
    pub t: f32,
    pub normal: Vec3,
    pub inner: Medium,
    pub outer: Medium,
}

/// What a ray meets first.
pub enum Met {
    Boundary(Boundary),
    /// The straw: distance, outward normal, place along it and around it.
    Straw {
        t: f32,
        normal: Vec3,
        along: f32,
    },
}

const HEIGHT: f32 = 3.0;
const THICKNESS: f32 = 0.085;
const FLOOR: f32 = 0.3;
pub const LEVEL: f32 = 2.42;
const LIFT: f32 = 0.004;
const EDGE: f32 = 0.1;
const STRAW_RADIUS: f32 = 0.088;

/// A tumbler around the vertical axis, standing at height zero.
pub struct Glass {
    outer: Wall,
    inner_dry: Wall,
    inner_wet: Wall,
    rim: Ring,
    edge: Ring,
    bubbles: Balls,
    pub bubble_count: usize,
    straw: Tube,
}

impl Glass {
    pub fn new(seed: u32) -> Self {
        let rim_tube = THICKNESS / 2.0;
        let outer = Wall { radius: 0.9, slope: 0.085, low: LIFT + EDGE, high: HEIGHT - rim_tube };
        let inner = Wall { radius: outer.radius - THICKNESS, slope: outer.slope, low: LEVEL, high: HEIGHT - rim_tube };
        let rim =
            Ring { radius: inner.radius_at(inner.high) + rim_tube, tube: rim_tube, y: HEIGHT - rim_tube, upper: true };
        let edge = Ring { radius: outer.radius_at(LIFT + EDGE) - EDGE, tube: EDGE, y: LIFT + EDGE, upper: false };
        let straw = Tube::new(v(-0.42, FLOOR + 0.06, 0.3), v(1.42, 3.72, -0.62), STRAW_RADIUS);
        let inner_wet = Wall { low: FLOOR, high: LEVEL, ..inner };
        let bubbles = bubbles(seed, &inner_wet, &straw);
        let bubble_count = bubbles.len();
        Self { outer, inner_dry: inner, inner_wet, rim, edge, bubbles: Balls::new(bubbles), bubble_count, straw }
    }

    /// The first surface on the way through `medium`.
    pub fn meet(&self, ray: &Ray, medium: Medium, far: f32) -> Option<Met> {
        let mut nearest = Nearest { far, met: None };
        match medium {
            Medium::Air => {
                self.shell(ray, &mut nearest);
                self.surface(ray, &mut nearest);
                self.meet_straw(ray, &mut nearest);
            }
            Medium::Glass => {
                self.shell(ray, &mut nearest);
                self.basin(ray, &mut nearest);
            }
            Medium::Drink => {
                self.basin(ray, &mut nearest);
                self.surface(ray, &mut nearest);
                self.meet_bubbles(ray, &mut nearest);
                self.meet_straw(ray, &mut nearest);
            }
            Medium::Bubble => self.meet_bubbles(ray, &mut nearest),
        }
        nearest.met
    }

    /// Where glass meets air.
    fn shell(&self, ray: &Ray, nearest: &mut Nearest) {
        nearest.offer(self.outer.meet(ray, nearest.far), Medium::Glass, Medium::Air);
        nearest.offer(self.inner_dry.meet(ray, nearest.far), Medium::Air, Medium::Glass);
        nearest.offer(self.rim.meet(ray, nearest.far), Medium::Glass, Medium::Air);
        nearest.offer(self.edge.meet(ray, nearest.far), Medium::Glass, Medium::Air);
        let bottom = disc(ray, LIFT, self.edge.radius, nearest.far).map(|t| (t, v(0.0, -1.0, 0.0)));
        nearest.offer(bottom, Medium::Glass, Medium::Air);
    }

    /// Where the drink meets glass.
    fn basin(&self, ray: &Ray, nearest: &mut Nearest) {
        nearest.offer(self.inner_wet.meet(ray, nearest.far), Medium::Drink, Medium::Glass);
        let floor = disc(ray, FLOOR, self.inner_wet.radius_at(FLOOR), nearest.far).map(|t| (t, v(0.0, -1.0, 0.0)));
        nearest.offer(floor, Medium::Drink, Medium::Glass);
    }

    /// Where the drink meets air.
    fn surface(&self, ray: &Ray, nearest: &mut Nearest) {
        let top = disc(ray, LEVEL, self.inner_wet.radius_at(LEVEL), nearest.far).map(|t| (t, v(0.0, 1.0, 0.0)));
        nearest.offer(top, Medium::Drink, Medium::Air);
    }

    fn meet_bubbles(&self, ray: &Ray, nearest: &mut Nearest) {
        let met = self.bubbles.meet(ray, nearest.far);
        let met = met.map(|(t, ball)| (t, (ray.at(t) - ball.centre) / ball.radius));
        nearest.offer(met, Medium::Bubble, Medium::Drink);
    }

    fn meet_straw(&self, ray: &Ray, nearest: &mut Nearest) {
        if let Some((t, normal, along)) = self.straw.meet(ray, nearest.far) {
            nearest.far = t;
            nearest.met = Some(Met::Straw { t, normal, along });
        }
    }

    /// Paper with a stripe wound around it.
    pub fn straw_colour(&self, normal: Vec3, along: f32) -> Vec3 {
        let (a, b) = self.straw.axis.frame();
        let turn = normal.dot(a).atan2(normal.dot(b));
        if (along * 7.5 + turn).sin() > 0.05 { v(0.93, 0.9, 0.86) } else { v(0.86, 0.07, 0.1) }
    }
}

struct Nearest {
    far: f32,
    met: Option<Met>,
}

impl Nearest {
    fn offer(&mut self, met: Option<(f32, Vec3)>, inner: Medium, outer: Medium) {
        if let Some((t, normal)) = met {
            self.far = t;
            self.met = Some(Met::Boundary(Boundary { t, normal, inner, outer }));
        }
    }
}

/// What light loses per unit of way in the drink at height `y`: red below, golden above.
pub fn absorption(y: f32) -> Vec3 {
    v(0.03, 0.95, 2.0).lerp(v(0.02, 0.16, 0.9), ((y - FLOOR) / (LEVEL - FLOOR)).clamp(0.0, 1.0))
}

/// Strings of rising bubbles, bubbles on the wall, and a collar at the surface. None touches another, wall or straw.
fn bubbles(seed: u32, basin: &Wall, straw: &Tube) -> Vec<Ball> {
    let mut random = Random::new(seed, 0x00b0_bb1e);
    let mut placed: Vec<Ball> = Vec::new();
    let mut add = |centre: Vec3, radius: f32| {
        let along = (centre - straw.from).dot(straw.axis).clamp(0.0, straw.length);
        let from_straw = (centre - straw.from - straw.axis * along).length();
        let room = basin.radius_at(centre.y) - centre.x.hypot(centre.z);
        let apart = placed.iter().all(|b| (b.centre - centre).length() > b.radius + radius + 0.004);
        let level = centre.y - radius > FLOOR + 0.006 && centre.y + radius < LEVEL - 0.003;
        if apart && level && room > radius + 0.004 && (from_straw - straw.radius).abs() > radius + 0.004 {
            placed.push(Ball { centre, radius });
        }
    };
    let around = |random: &mut Random, reach: f32| {
        let (angle, r) = (random.between(0.0, std::f32::consts::TAU), reach * random.next().sqrt());
        (r * angle.cos(), r * angle.sin())
    };
    // The collar: nearly touching the surface, at the wall.
    for _ in 0..220 {
        let radius = 0.022 + 0.05 * random.next().powi(2);
        let angle = random.between(0.0, std::f32::consts::TAU);
        let y = LEVEL - radius - 0.005;
        let r = basin.radius_at(y) - radius - 0.006 - 0.1 * random.next().powi(3);
        add(v(r * angle.cos(), y, r * angle.sin()), radius);
    }
    // Strings: small at the bottom, growing and spreading as they rise.
    for _ in 0..22 {
        let (x, z) = around(&mut random, 0.72);
        let (mut y, mut radius) = (random.between(FLOOR + 0.04, FLOOR + 0.5), random.between(0.012, 0.02));
        let sway = random.between(0.0, 6.0);
        while y < LEVEL {
            let off = 0.02 * (y * 5.0 + sway).sin();
            add(v(x + off, y, z + off * 0.6), radius);
            y += radius * 2.0 + random.between(0.06, 0.2) * (0.6 + 0.4 * y);
            radius *= 1.09;
        }
    }
    // Those that still cling to the wall, and a few big ones on their way.
    for _ in 0..110 {
        let (radius, y) = (random.between(0.008, 0.024), random.between(FLOOR + 0.05, LEVEL - 0.1));
        let angle = random.between(0.0, std::f32::consts::TAU);
        let r = basin.radius_at(y) - radius - 0.006;
        add(v(r * angle.cos(), y, r * angle.sin()), radius);
    }
    for _ in 0..34 {
        let (x, z) = around(&mut random, 0.7);
        add(v(x, random.between(0.6, LEVEL - 0.1), z), random.between(0.03, 0.085));
    }
    placed
}
