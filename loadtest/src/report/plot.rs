//! Line plots as inline SVG. Colours come from the page's style sheet by class, so that one drawing
//! fits a light and a dark page.

use std::fmt::Write;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 38.0;
/// Points of one line; more cannot be told apart.
const POINTS: usize = 400;

/// How values are laid out upwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0.
    Linear,
    /// Powers of ten; values of 0 are left out.
    Log,
}

/// One line.
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// One drawing. Text is escaped here.
pub(super) struct Plot<'a> {
    pub(super) title: &'a str,
    pub(super) x_label: &'a str,
    pub(super) scale: Scale,
    /// Ticks to the right, with their text; none = round numbers.
    pub(super) x_ticks: Vec<(f64, String)>,
    /// Text of a value.
    pub(super) unit: fn(f64) -> String,
    pub(super) series: Vec<Series>,
    /// Upright lines with a text.
    pub(super) marks: Vec<(f64, String)>,
}

/// From data to the drawing.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    scale: Scale,
}

impl Frame {
    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.across(x), self.up(y))
    }

    fn across(&self, x: f64) -> f64 {
        let part = (x - self.x.0) / (self.x.1 - self.x.0);
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn up(&self, y: f64) -> f64 {
        let y = match self.scale {
            Scale::Linear => y,
            Scale::Log => y.max(f64::MIN_POSITIVE).log10(),
        };
        let part = (y - self.y.0) / (self.y.1 - self.y.0);
        HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)
    }
}

/// Draws it; a text in its place if there is nothing to draw.
pub(super) fn svg(plot: &Plot<'_>) -> String {
    let shown = |(x, y): &(f64, f64)| {
        x.is_finite() && y.is_finite() && (plot.scale == Scale::Linear || *y > 0.0)
    };
    let all: Vec<(f64, f64)> = plot
        .series
        .iter()
        .flat_map(|series| series.points.iter().copied())
        .filter(|point| shown(point))
        .collect();
    if all.len() < 2 {
        return format!(
            "<figure><figcaption>{}</figcaption><p class=\"empty\">nothing measured</p></figure>",
            escape(plot.title)
        );
    }
    let frame = frame(plot, &all);
    let mut out = format!(
        "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(plot.title),
        escape(plot.title)
    );
    axes(&mut out, plot, &frame);
    for (x, text) in plot
        .marks
        .iter()
        .filter(|(x, _)| (frame.x.0..=frame.x.1).contains(x))
    {
        let at = frame.across(*x);
        push(
            &mut out,
            format_args!(
                "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"><title>{}</title></line>",
                HEIGHT - BOTTOM,
                escape(text)
            ),
        );
    }
    for (number, series) in plot.series.iter().enumerate() {
        let points: Vec<_> = series.points.iter().copied().filter(shown).collect();
        line(&mut out, number, &thinned(&points), &frame);
    }
    out += "</svg>";
    legend(&mut out, &plot.series);
    out + "</figure>"
}

fn frame(plot: &Plot<'_>, all: &[(f64, f64)]) -> Frame {
    let span = |value: fn(&(f64, f64)) -> f64| {
        let values = all.iter().map(value);
        let least = values.clone().fold(f64::INFINITY, f64::min);
        (least, values.fold(f64::NEG_INFINITY, f64::max))
    };
    let mut x = span(|point| point.0);
    if x.1 <= x.0 {
        x.1 = x.0 + 1.0;
    }
    let (low, high) = span(|point| point.1);
    let y = match plot.scale {
        Scale::Linear => (0.0, if high > 0.0 { high * 1.08 } else { 1.0 }),
        Scale::Log => {
            let (low, high) = (low.log10().floor(), high.log10().ceil());
            (low, if high > low { high } else { low + 1.0 })
        }
    };
    Frame {
        x,
        y,
        scale: plot.scale,
    }
}

fn axes(out: &mut String, plot: &Plot<'_>, frame: &Frame) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    for value in y_ticks(frame) {
        let at = frame.up(value);
        push(
            out,
            format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/><text class=\"y\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                escape(&(plot.unit)(value))
            ),
        );
    }
    let ticks = if plot.x_ticks.is_empty() {
        let values = round_ticks(frame.x.0, frame.x.1).into_iter();
        values.map(|value| (value, super::figure(value))).collect()
    } else {
        plot.x_ticks.clone()
    };
    for (value, text) in ticks
        .iter()
        .filter(|(x, _)| (frame.x.0..=frame.x.1).contains(x))
    {
        let at = frame.across(*value);
        push(
            out,
            format_args!(
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/><text class=\"x\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
                bottom + 15.0,
                escape(text)
            ),
        );
    }
    push(
        out,
        format_args!(
            "<text class=\"x\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 5.0,
            escape(plot.x_label)
        ),
    );
}

fn y_ticks(frame: &Frame) -> Vec<f64> {
    match frame.scale {
        Scale::Linear => round_ticks(frame.y.0, frame.y.1),
        Scale::Log => {
            let mut ticks = Vec::new();
            let mut power = frame.y.0;
            while power <= frame.y.1 {
                ticks.push(10_f64.powf(power));
                power += 1.0;
            }
            ticks
        }
    }
}

/// Four to nine round numbers: steps of 1, 2 or 5 times a power of ten.
fn round_ticks(from: f64, to: f64) -> Vec<f64> {
    let wanted = (to - from) / 5.0;
    if !wanted.is_finite() || wanted <= 0.0 {
        return vec![from];
    }
    let power = 10_f64.powf(wanted.log10().floor());
    let step = [1.0, 2.0, 5.0]
        .into_iter()
        .map(|factor| factor * power)
        .find(|step| *step >= wanted)
        .unwrap_or(10.0 * power);
    let mut ticks = Vec::new();
    let mut number = (from / step).ceil();
    while number * step <= to {
        ticks.push(number * step);
        number += 1.0;
    }
    ticks
}

fn line(out: &mut String, number: usize, points: &[(f64, f64)], frame: &Frame) {
    let mut path = String::new();
    for (at, point) in points.iter().enumerate() {
        let (x, y) = frame.at(*point);
        let letter = if at == 0 { 'M' } else { 'L' };
        push(&mut path, format_args!("{letter}{x:.1} {y:.1}"));
    }
    push(
        out,
        format_args!("<path class=\"line s{number}\" d=\"{path}\"/>"),
    );
}

fn legend(out: &mut String, series: &[Series]) {
    *out += "<p class=\"legend\">";
    for (number, one) in series.iter().enumerate() {
        push(
            out,
            format_args!(
                "<span class=\"s{number}\"><i></i>{}</span>",
                escape(&one.name)
            ),
        );
    }
    *out += "</p>";
}

/// At most [`POINTS`]; of each group the highest stays, since peaks are what is looked for.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(POINTS).max(1);
    let highest = |group: &[(f64, f64)]| group.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points.chunks(group).filter_map(highest).collect()
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    if out.write_fmt(text).is_err() {}
}

/// Text between tags or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            c if c.is_control() && c != '\n' && c != '\t' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>, scale: Scale) -> String {
        svg(&Plot {
            title: "a <b>",
            x_label: "x",
            scale,
            x_ticks: Vec::new(),
            unit: super::super::figure,
            series: vec![Series {
                name: "s & t".to_owned(),
                points,
            }],
            marks: vec![(0.5, "restart".to_owned())],
        })
    }

    #[test]
    fn text_cannot_break_out() {
        assert_eq!(
            escape("<a href='x\">&\u{1}"),
            "&lt;a href=&#39;x&quot;&gt;&amp;\u{fffd}"
        );
        let drawn = plot(vec![(0.0, 1.0), (1.0, 2.0)], Scale::Linear);
        assert!(!drawn.contains("<b>") && drawn.contains("a &lt;b&gt;"));
        assert!(drawn.contains("s &amp; t"));
    }

    #[test]
    fn values_without_a_place_are_left_out() {
        for scale in [Scale::Linear, Scale::Log] {
            let odd = vec![
                (0.0, f64::NAN),
                (1.0, f64::INFINITY),
                (2.0, 0.0),
                (3.0, 5.0),
                (4.0, 5.0),
            ];
            let drawn = plot(odd, scale);
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
        assert!(plot(vec![], Scale::Log).contains("nothing measured"));
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(round_ticks(0.0, 10.0), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(round_ticks(0.0, 21_000.0).len(), 5);
        assert_eq!(round_ticks(3.0, 3.0), [3.0]);
    }

    #[test]
    fn long_lines_keep_their_peaks() {
        let mut points: Vec<_> = (0..10_000).map(|n| (f64::from(n), 1.0)).collect();
        points[7777].1 = 99.0;
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS && thin.contains(&(7777.0, 99.0)));
    }
}
