//! Where rays meet simple bodies. Every function gives the nearest meeting beyond [`NEAR`] and before `far`.

use crate::math::{Ray, Vec3, v};

/// Meetings nearer than this are the place the ray starts from.
pub const NEAR: f32 = 4e-4;

/// Both roots of `a t² + 2 b t + c = 0`, in order.
fn roots(a: f32, b: f32, c: f32) -> Option<(f32, f32)> {
    let discriminant = b * b - a * c;
    if discriminant <= 0.0 || a == 0.0 {
        return None;
    }
    let q = -(b + discriminant.sqrt().copysign(b));
    let (one, two) = (q / a, c / q);
    Some(if one < two { (one, two) } else { (two, one) })
}

/// Distance to a sphere.
pub fn sphere(ray: &Ray, centre: Vec3, radius: f32, far: f32) -> Option<f32> {
    let from = ray.from - centre;
    let b = from.dot(ray.dir);
    let c = from.dot(from) - radius * radius;
    if c > 0.0 && b > 0.0 {
        return None;
    }
    let (one, two) = roots(1.0, b, c)?;
    [one, two].into_iter().find(|t| *t > NEAR && *t < far)
}

/// An upright round wall whose radius changes evenly with height: `radius + slope · y` for `low ≤ y ≤ high`.
#[derive(Clone, Copy)]
pub struct Wall {
    pub radius: f32,
    pub slope: f32,
    pub low: f32,
    pub high: f32,
}

impl Wall {
    pub fn radius_at(&self, y: f32) -> f32 {
        self.radius + self.slope * y
    }

    /// Distance and the normal that points away from the axis.
    pub fn meet(&self, ray: &Ray, far: f32) -> Option<(f32, Vec3)> {
        let (o, d, k) = (ray.from, ray.dir, self.slope);
        let r = self.radius_at(o.y);
        let a = d.x * d.x + d.z * d.z - k * k * d.y * d.y;
        let b = o.x * d.x + o.z * d.z - k * d.y * r;
        let c = o.x * o.x + o.z * o.z - r * r;
        let (one, two) = roots(a, b, c)?;
        let fits = |t: &f32| {
            let y = o.y + d.y * t;
            *t > NEAR && *t < far && y >= self.low && y <= self.high
        };
        let t = [one, two].into_iter().find(fits)?;
        let p = ray.at(t);
        Some((t, v(p.x, -k * self.radius_at(p.y), p.z).unit()))
    }
}

/// Distance to a level disc around the vertical axis.
pub fn disc(ray: &Ray, y: f32, radius: f32, far: f32) -> Option<f32> {
    let t = (y - ray.from.y) / ray.dir.y;
    if !(t > NEAR && t < far) {
        return None;
    }
    let p = ray.at(t);
    (p.x * p.x + p.z * p.z <= radius * radius).then_some(t)
}

/// Part of a ring around the vertical axis: the upper half, or the outer quarter below.
#[derive(Clone, Copy)]
pub struct Ring {
    /// Distance of the tube's middle from the axis.
    pub radius: f32,
    /// Of the tube.
    pub tube: f32,
    /// Height of the tube's middle.
    pub y: f32,
    /// The upper half; else the lower outer quarter.
    pub upper: bool,
}

impl Ring {
    fn distance(&self, p: Vec3) -> f32 {
        let across = p.x.hypot(p.z) - self.radius;
        across.hypot(p.y - self.y) - self.tube
    }

    /// Distance and the normal that points out of the tube.
    pub fn meet(&self, ray: &Ray, far: f32) -> Option<(f32, Vec3)> {
        let (low, high) = if self.upper { (self.y, self.y + self.tube) } else { (self.y - self.tube, self.y) };
        let (mut start, mut end) = ((low - ray.from.y) / ray.dir.y, (high - ray.from.y) / ray.dir.y);
        if start > end {
            (start, end) = (end, start);
        }
        // Outside this cylinder there is nothing of the ring.
        let (o, d, r) = (ray.from, ray.dir, self.radius + self.tube);
        let (one, two) = roots(d.x * d.x + d.z * d.z, o.x * d.x + o.z * d.z, o.x * o.x + o.z * o.z - r * r)?;
        let (start, end) = (start.max(one).max(NEAR), end.min(two).min(far));
        if !(start < end) {
            return None;
        }
        let hole = self.radius - self.tube;
        let (a, b) = (ray.at(start), ray.at(end));
        if a.x.hypot(a.z) < hole && b.x.hypot(b.z) < hole {
            return None;
        }
        self.march(ray, start, end)
    }

    fn march(&self, ray: &Ray, start: f32, end: f32) -> Option<(f32, Vec3)> {
        let mut t = start;
        let mut before = self.distance(ray.at(t));
        for _ in 0..64 {
            let step = (before.abs() * 0.95).max(3e-4);
            let next = t + step;
            let after = self.distance(ray.at(next));
            if (after < 0.0) != (before < 0.0) {
                let t = t + step * before / (before - after);
                let p = ray.at(t);
                let across = p.x.hypot(p.z);
                if t <= end && (self.upper || across >= self.radius) {
                    let middle = v(p.x, 0.0, p.z) * (self.radius / across) + v(0.0, self.y, 0.0);
                    return Some((t, (p - middle).unit()));
                }
            }
            (t, before) = (next, after);
            if t > end {
                return None;
            }
        }
        None
    }
}

/// A tube between two points, open at both ends.
#[derive(Clone, Copy)]
pub struct Tube {
    pub from: Vec3,
    pub axis: Vec3,
    pub length: f32,
    pub radius: f32,
}

impl Tube {
    pub fn new(from: Vec3, to: Vec3, radius: f32) -> Self {
        let along = to - from;
        Self { from, axis: along.unit(), length: along.length(), radius }
    }

    /// Distance, outward normal, and how far along the tube.
    pub fn meet(&self, ray: &Ray, far: f32) -> Option<(f32, Vec3, f32)> {
        let o = ray.from - self.from;
        let (oa, da) = (o.dot(self.axis), ray.dir.dot(self.axis));
        let (across, dir) = (o - self.axis * oa, ray.dir - self.axis * da);
        let (one, two) = roots(dir.dot(dir), across.dot(dir), across.dot(across) - self.radius * self.radius)?;
        let fits = |t: &f32| {
            let along = oa + da * t;
            *t > NEAR && *t < far && along >= 0.0 && along <= self.length
        };
        let t = [one, two].into_iter().find(fits)?;
        Some((t, (across + dir * t) / self.radius, oa + da * t))
    }
}

/// A ball.
#[derive(Clone, Copy)]
pub struct Ball {
    pub centre: Vec3,
    pub radius: f32,
}

/// Many balls in a tree of boxes.
pub struct Balls {
    balls: Vec<Ball>,
    nodes: Vec<Node>,
}

struct Node {
    low: Vec3,
    high: Vec3,
    /// First ball of a leaf, or index of the second child (the first one follows its parent).
    index: usize,
    /// Balls of a leaf; 0 for an inner node.
    count: usize,
}

impl Balls {
    pub fn new(mut balls: Vec<Ball>) -> Self {
        let mut nodes = Vec::new();
        if !balls.is_empty() {
            let count = balls.len();
            split(&mut balls, 0, count, &mut nodes);
        }
        Self { balls, nodes }
    }

    /// The nearest ball and the distance to it.
    pub fn meet(&self, ray: &Ray, mut far: f32) -> Option<(f32, Ball)> {
        let mut best = None;
        let inverse = ray.dir.map(|d| 1.0 / d);
        let mut stack = [0_usize; 32];
        let mut depth = usize::from(!self.nodes.is_empty());
        while depth > 0 {
            depth -= 1;
            let at = stack[depth];
            let node = &self.nodes[at];
            if !in_box(ray, inverse, node, far) {
                continue;
            }
            if node.count == 0 {
                stack[depth] = node.index;
                stack[depth + 1] = at + 1;
                depth += 2;
                continue;
            }
            for ball in &self.balls[node.index..node.index + node.count] {
                if let Some(t) = sphere(ray, ball.centre, ball.radius, far) {
                    far = t;
                    best = Some((t, *ball));
                }
            }
        }
        best
    }
}

fn in_box(ray: &Ray, inverse: Vec3, node: &Node, far: f32) -> bool {
    let one = (node.low - ray.from) * inverse;
    let two = (node.high - ray.from) * inverse;
    let enter = one.x.min(two.x).max(one.y.min(two.y)).max(one.z.min(two.z));
    let leave = one.x.max(two.x).min(one.y.max(two.y)).min(one.z.max(two.z));
    enter <= leave && leave > NEAR && enter < far
}

/// Builds the subtree of `balls[from..to]`, halving it along its longest side.
fn split(balls: &mut [Ball], from: usize, to: usize, nodes: &mut Vec<Node>) {
    let (mut low, mut high) = (Vec3::ONE * f32::MAX, Vec3::ONE * f32::MIN);
    for ball in &balls[from..to] {
        let (a, b) = (ball.centre - Vec3::ONE * ball.radius, ball.centre + Vec3::ONE * ball.radius);
        low = v(low.x.min(a.x), low.y.min(a.y), low.z.min(a.z));
        high = v(high.x.max(b.x), high.y.max(b.y), high.z.max(b.z));
    }
    let at = nodes.len();
    nodes.push(Node { low, high, index: from, count: to - from });
    if to - from <= 3 {
        return;
    }
    let size = high - low;
    let key = |ball: &Ball| {
        if size.x >= size.y && size.x >= size.z {
            ball.centre.x
        } else if size.y >= size.z {
            ball.centre.y
        } else {
            ball.centre.z
        }
    };
    balls[from..to].sort_by(|a, b| key(a).total_cmp(&key(b)));
    let middle = from.midpoint(to);
    split(balls, from, middle, nodes);
    nodes[at].index = nodes.len();
    nodes[at].count = 0;
    split(balls, middle, to, nodes);
}
