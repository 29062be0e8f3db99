//! A QR picture in a terminal: two modules per character, in colours of its own so that it reads on dark and light.

use qrcode::{Color, EcLevel, QrCode};

/// Empty modules around it, without which scanners do not find it.
const QUIET: usize = 3;
/// Black on white whatever the terminal's theme.
const COLOURS: &str = "\x1b[38;5;16;48;5;231m";
const PLAIN: &str = "\x1b[0m";

/// The picture of `text`, with line ends; `None` when it does not fit into `columns`.
#[must_use]
pub(super) fn picture(text: &str, columns: u16) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let width = code.width();
    let side = width + 2 * QUIET;
    if side > usize::from(columns) {
        return None;
    }
    let dark = |x: usize, y: usize| {
        let inside = |at: usize| at.checked_sub(QUIET).filter(|at| *at < width);
        matches!((inside(x), inside(y)), (Some(x), Some(y)) if code[(x, y)] == Color::Dark)
    };
    let mut out = String::new();
    for row in (0..side).step_by(2) {
        out.push_str(COLOURS);
        for x in 0..side {
            out.push(match (dark(x, row), dark(x, row + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        out.push_str(PLAIN);
        out.push('\n');
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_same_width_and_its_own_colours() {
        let text = picture("https://coordinator.example:8443/activate?code=BCDF-GHJK", 80).unwrap();
        let widths: Vec<_> = text
            .lines()
            .map(|line| line.strip_prefix(COLOURS).unwrap().strip_suffix(PLAIN).unwrap().chars().count())
            .collect();
        assert!(widths.iter().all(|width| *width == widths[0] && *width <= 45), "{widths:?}");
        assert_eq!(widths.len(), widths[0].div_ceil(2));
    }

    #[test]
    fn the_three_corners_are_where_scanners_look_for_them() {
        let text = picture("https://a", 80).unwrap();
        let first: Vec<char> = text.lines().nth(1).unwrap().strip_prefix(COLOURS).unwrap().chars().collect();
        // Row 3 is the lower half of line 1: seven dark modules of the finder pattern after the quiet zone.
        assert!(first[QUIET..QUIET + 7].iter().all(|c| matches!(c, '▄' | '█')), "{first:?}");
    }

    #[test]
    fn a_narrow_terminal_gets_none() {
        assert_eq!(picture("https://a", 20), None);
    }
}
