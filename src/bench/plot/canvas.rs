//! The few shapes of SVG that a plot needs, and logarithmic scales. Pure.

use std::fmt::Write as _;

/// Longest text of a label, in characters.
const TEXT_CHARS_MAX: usize = 60;

/// Where a text is held.
#[derive(Debug, Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture in the making.
pub(super) struct Canvas(String);

impl Canvas {
    pub(super) fn new(width: f64, height: f64) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             font-family=\"system-ui, sans-serif\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
        ))
    }

    pub(super) fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, width: f64) {
        self.polyline(&[from, to], color, width);
    }

    pub(super) fn polyline(&mut self, points: &[(f64, f64)], color: &str, width: f64) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        self.add(format_args!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"/>"
        ));
    }

    pub(super) fn rect(&mut self, at: (f64, f64), size: (f64, f64), color: &str) {
        let ((x, y), (width, height)) = (at, size);
        self.add(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{color}\"/>",
            width.max(0.0)
        ));
    }

    pub(super) fn text(&mut self, x: f64, y: f64, size: f64, color: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = escaped(text);
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" fill=\"{color}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = writeln!(self.0, "{element}");
    }
}

/// Text that is no markup, cut to what fits.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars().filter(|character| !character.is_control()).take(TEXT_CHARS_MAX) {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A logarithmic scale: where on the picture a figure lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    least: f64,
    most: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// `least` lies at `start`, `most` at `end`; both are positive.
    pub(super) fn log(least: f64, most: f64, start: f64, end: f64) -> Self {
        Self { least: least.log10(), most: most.log10(), start, end }
    }

    /// A figure beyond the scale lies at its end.
    pub(super) fn at(self, figure: f64) -> f64 {
        let share = (figure.log10() - self.least) / (self.most - self.least);
        self.start + share.clamp(0.0, 1.0) * (self.end - self.start)
    }

    /// The powers of ten on the scale.
    pub(super) fn powers_of_ten(self) -> impl Iterator<Item = f64> {
        (-18i32..=18)
            .filter(move |power| (self.least..=self.most).contains(&f64::from(*power)))
            .map(|power| 10f64.powi(power))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_puts_each_power_of_ten_equally_far_from_the_next_and_nothing_beyond_its_ends() {
        let scale = Scale::log(1.0, 1000.0, 0.0, 300.0);
        assert_eq!(
            scale.powers_of_ten().map(|tick| scale.at(tick).round()).collect::<Vec<_>>(),
            [0.0, 100.0, 200.0, 300.0]
        );
        assert_eq!((scale.at(0.001), scale.at(1e9)), (0.0, 300.0));
    }
}
