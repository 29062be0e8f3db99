//! A report as a picture (SVG): for each adapter its roofline, and its place among known cards. Pure.
//!
//! A roofline (Williams, Waterman, Patterson, 2009) says how fast a program can be that does so many operations for each byte it moves:
//! at first memory bounds it, a slope; then the arithmetic, a flat roof. Both axes are logarithmic, and so are the bars: what one
//! compares reaches over five powers of ten.
//!
//! Invariants
//! - Only positive, finite figures are drawn; an adapter without them is left out.
//! - What a driver calls itself is text in the picture, never markup.

mod canvas;

use serde::Deserialize;

use crate::wire::bench::{BenchmarkReport, GpuResult};
use crate::wire::node::GpuKind;
use canvas::{Anchor, Canvas, Scale};

const CARDS: &str = include_str!("../../assets/reference_cards.json");

const WIDTH: f64 = 1000.0;
const PANEL: f64 = 380.0;
const INK: &str = "#1f2933";
const FAINT: &str = "#d5dbe1";
const OURS: &str = "#c2410c";
const THEIRS: &str = "#94a3b8";
/// Roofs, from the first: fp32, fp16, int8, matrix products.
const ROOFS: [&str; 5] = ["#c2410c", "#1d4ed8", "#047857", "#7c3aed", "#be185d"];

#[derive(Deserialize)]
struct Cards {
    cards: Vec<Card>,
}

#[derive(Deserialize)]
struct Card {
    name: String,
    fp32_flops: f64,
    memory_bytes_per_second: f64,
}

/// The picture of a report; a line of text in it where no adapter was measured.
#[must_use]
pub fn svg(report: &BenchmarkReport) -> String {
    let cards = reference_cards();
    let drawn: Vec<&GpuResult> = report.gpus.iter().filter(|gpu| can_be_drawn(gpu)).collect();
    #[expect(clippy::cast_precision_loss, reason = "a few adapters")]
    let height = 70.0 + PANEL * (drawn.len().max(1) as f64);
    let mut canvas = Canvas::new(WIDTH, height);
    canvas.text(30.0, 34.0, 20.0, INK, Anchor::Start, &format!("Hardware score {}", report.score));
    let when = format!("fizz bench, {}, method {}", report.measured_at.strftime("%Y-%m-%d %H:%M UTC"), report.method);
    canvas.text(WIDTH - 30.0, 34.0, 13.0, INK, Anchor::End, &when);
    if drawn.is_empty() {
        canvas.text(30.0, 90.0, 14.0, INK, Anchor::Start, "No graphics adapter was measured.");
    }
    let mut top = 70.0;
    for gpu in drawn {
        roofline(&mut canvas, top, gpu);
        let ours = |figure: f64| Bar { name: "this adapter".to_owned(), figure, color: OURS };
        let theirs = |card: &Card, figure: f64| Bar { name: card.name.clone(), figure, color: THEIRS };
        let mut fp32: Vec<Bar> = cards.iter().map(|card| theirs(card, card.fp32_flops)).collect();
        fp32.push(ours(gpu.fp32_flops));
        let mut memory: Vec<Bar> = cards.iter().map(|card| theirs(card, card.memory_bytes_per_second)).collect();
        memory.push(ours(gpu.memory_bytes_per_second));
        bars(&mut canvas, top + 20.0, "fp32, FLOP/s (logarithmic)", fp32);
        bars(&mut canvas, top + 190.0, "memory, byte/s (logarithmic)", memory);
        top += PANEL;
    }
    canvas.end()
}

/// The cards of `assets/reference_cards.json`.
fn reference_cards() -> Vec<Card> {
    // The file is part of the program, and a test reads it.
    serde_json::from_str::<Cards>(CARDS).map(|cards| cards.cards).unwrap_or_default()
}

fn can_be_drawn(gpu: &GpuResult) -> bool {
    [gpu.fp32_flops, gpu.memory_bytes_per_second, gpu.matmul_flops]
        .into_iter()
        .all(|figure| figure.is_normal() && figure > 0.0)
}

/// Operations per second that a program can reach which does `intensity` operations for each byte.
fn reachable(intensity: f64, roof: f64, bytes_per_second: f64) -> f64 {
    roof.min(intensity * bytes_per_second)
}

fn roofline(canvas: &mut Canvas, top: f64, gpu: &GpuResult) {
    let kind = if gpu.kind == GpuKind::Software { " (software)" } else { "" };
    canvas.text(30.0, top + 6.0, 15.0, INK, Anchor::Start, &format!("{}{kind}: score {}", gpu.name, gpu.score));
    let bandwidth = gpu.more.memory_read_bytes_per_second.unwrap_or(gpu.memory_bytes_per_second);
    let roofs: Vec<(&str, f64)> = [
        ("fp32", Some(gpu.fp32_flops)),
        ("fp16", gpu.more.fp16_flops),
        ("int8 dot", gpu.more.int8_dot_ops),
        ("matrix fp32", Some(gpu.matmul_flops)),
        ("matrix fp16", gpu.more.matmul_fp16_flops),
    ]
    .into_iter()
    .filter_map(|(name, figure)| Some((name, figure.filter(|figure| figure.is_normal() && *figure > 0.0)?)))
    .collect();
    let highest = roofs.iter().map(|(_, roof)| *roof).fold(0.0, f64::max);

    let x = Scale::log(0.0625, 4096.0, 90.0, 470.0);
    let y = Scale::log(bandwidth * 0.0625, highest * 2.0, top + 320.0, top + 30.0);
    for intensity in [0.1, 1.0, 10.0, 100.0, 1000.0] {
        canvas.line((x.at(intensity), top + 30.0), (x.at(intensity), top + 320.0), FAINT, 1.0);
        canvas.text(x.at(intensity), top + 336.0, 11.0, INK, Anchor::Middle, &format!("{intensity}"));
    }
    for tick in y.powers_of_ten() {
        canvas.line((90.0, y.at(tick)), (470.0, y.at(tick)), FAINT, 1.0);
        canvas.text(84.0, y.at(tick) + 4.0, 11.0, INK, Anchor::End, &short(tick));
    }
    canvas.text(280.0, top + 354.0, 12.0, INK, Anchor::Middle, "operations for each byte moved");
    canvas.text(90.0, top + 24.0, 11.0, INK, Anchor::Start, &format!("operations/s; memory {}B/s", short(bandwidth)));

    // Names side by side would cover each other where roofs are alike: they stand in a list, from the highest roof down.
    let mut listed: Vec<(usize, &(&str, f64))> = roofs.iter().enumerate().collect();
    listed.sort_by(|left, right| right.1.1.total_cmp(&left.1.1));
    let mut below = top + 44.0;
    for (number, (name, roof)) in listed {
        let color = ROOFS[number % ROOFS.len()];
        let ridge = (roof / bandwidth).clamp(0.0625, 4096.0);
        let points = [0.0625, ridge, 4096.0].map(|i| (x.at(i), y.at(reachable(i, *roof, bandwidth))));
        canvas.polyline(&points, color, if number == 0 { 3.0 } else { 1.6 });
        canvas.line((482.0, below - 4.0), (498.0, below - 4.0), color, 3.0);
        canvas.text(503.0, below, 11.0, INK, Anchor::Start, name);
        canvas.text(503.0, below + 13.0, 11.0, INK, Anchor::Start, &short(*roof));
        below += 34.0;
    }
}

struct Bar {
    name: String,
    figure: f64,
    color: &'static str,
}

/// Horizontal bars, the longest first.
fn bars(canvas: &mut Canvas, top: f64, title: &str, mut bars: Vec<Bar>) {
    bars.sort_by(|left, right| right.figure.total_cmp(&left.figure));
    let most = bars.first().map_or(1.0, |bar| bar.figure);
    let least = bars.last().map_or(1.0, |bar| bar.figure);
    let x = Scale::log(least / 4.0, most, 730.0, 900.0);
    canvas.text(730.0, top, 12.0, INK, Anchor::Start, title);
    for tick in x.powers_of_ten() {
        canvas.line((x.at(tick), top + 8.0), (x.at(tick), top + 144.0), FAINT, 1.0);
    }
    let mut y = top + 10.0;
    for bar in &bars {
        canvas.rect((730.0, y), (x.at(bar.figure) - 730.0, 12.0), bar.color);
        canvas.text(724.0, y + 10.0, 11.0, INK, Anchor::End, &bar.name);
        canvas.text(x.at(bar.figure) + 5.0, y + 10.0, 11.0, INK, Anchor::Start, &short(bar.figure));
        y += 17.0;
    }
}

/// Three digits and a prefix: `82.6 T`.
fn short(figure: f64) -> String {
    let (size, prefix) = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")]
        .into_iter()
        .find(|(size, _)| figure >= *size)
        .unwrap_or((1.0, ""));
    let scaled = figure / size;
    let digits = if scaled >= 99.95 {
        0
    } else if scaled >= 9.995 {
        1
    } else {
        2
    };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} {prefix}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::bench::GpuFigures;

    fn gpu(name: &str) -> GpuResult {
        GpuResult {
            name: name.into(),
            kind: GpuKind::Software,
            pci_address: None,
            fp32_flops: 5.0e10,
            memory_bytes_per_second: 4.0e9,
            matmul_flops: 8.0e9,
            score: 5,
            verified: true,
            more: GpuFigures { fp16_flops: Some(5.0e9), int8_dot_ops: Some(3.0e10), ..GpuFigures::default() },
            health: None,
        }
    }

    fn report(gpus: Vec<GpuResult>) -> BenchmarkReport {
        BenchmarkReport {
            measured_at: jiff::Timestamp::UNIX_EPOCH,
            fingerprint: "f".into(),
            method: 1,
            gpus,
            score: 5,
            host: Default::default(),
            problems: Vec::new(),
        }
    }

    #[test]
    fn every_reference_card_has_a_name_figures_and_a_source() {
        let file: serde_json::Value = serde_json::from_str(CARDS).unwrap();
        let cards = reference_cards();
        assert!(cards.len() >= 5);
        for (card, fields) in cards.iter().zip(file["cards"].as_array().unwrap()) {
            assert!(!card.name.is_empty() && card.fp32_flops > 1e12 && card.memory_bytes_per_second > 1e11);
            assert!(fields["source"].as_str().unwrap().starts_with("https://"), "{}", card.name);
        }
    }

    #[test]
    fn a_name_with_markup_in_it_is_text_and_stays_within_the_picture() {
        let picture = svg(&report(vec![gpu("<script>alert(1)</script> & \"co\" \u{1}")]));
        assert!(!picture.contains("<script") && picture.contains("&lt;script&gt;"), "{picture}");
        assert!(!picture.contains('\u{1}'));
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(svg(&report(vec![gpu(&"x".repeat(10_000))])).len() < 40_000);
    }

    #[test]
    fn an_adapter_without_figures_is_left_out_and_nothing_is_no_number() {
        let wrong = GpuResult { fp32_flops: 0.0, ..gpu("wrong") };
        let endless = GpuResult { matmul_flops: f64::INFINITY, ..gpu("endless") };
        let picture = svg(&report(vec![wrong, endless]));
        assert!(picture.contains("No graphics adapter was measured."));
        let both = svg(&report(vec![gpu("one"), gpu("two")]));
        assert!(both.contains("one (software)") && both.contains("two (software)"));
        assert!(!both.contains("NaN") && !both.contains("inf"), "{both}");
    }

    #[test]
    fn memory_bounds_a_program_until_the_roof_does() {
        assert_eq!(reachable(1.0, 100.0, 10.0), 10.0);
        assert_eq!(reachable(10.0, 100.0, 10.0), 100.0);
        assert_eq!(reachable(1e9, 100.0, 10.0), 100.0);
    }

    #[test]
    fn figures_are_shown_with_three_digits_and_a_prefix() {
        let shown = [82.6e12, 3.35e12, 960e9, 4e9, 5.678e10, 12.0].map(short);
        assert_eq!(shown, ["82.6 T", "3.35 T", "960 G", "4 G", "56.8 G", "12"]);
    }
}
