//! Scenarios that differ in one number, drawn as curves: work against cost.

use super::figure;
use super::plot::{Plot, Scale, Series, escape, svg};
use crate::record::{Outcome, Record};

/// Title, measures with their names, how values are laid out.
type Drawing = (&'static str, &'static [(&'static str, &'static str)], Scale);

/// What is drawn of each curve.
const DRAWN: [Drawing; 4] = [
    (
        "Messages and deliveries a second",
        &[
            ("accepted_per_second", "accepted"),
            ("delivered_per_second", "delivered"),
        ],
        Scale::Linear,
    ),
    (
        "Gateway CPU, microseconds",
        &[
            ("gateway_cpu_us", "for each message"),
            ("gateway_cpu_us_per_delivery", "for each delivery"),
        ],
        Scale::Linear,
    ),
    (
        "Latency, milliseconds",
        &[
            ("ingest_p99_ms", "ingest p99"),
            ("delivery_p50_ms", "event to delivery p50"),
            ("delivery_p99_ms", "event to delivery p99"),
            ("first_delivery_ms", "first delivery after the start"),
        ],
        Scale::Log,
    ),
    (
        "Resident memory, MiB",
        &[
            ("idle_memory_mib", "before the load"),
            ("peak_memory_mib", "peak"),
        ],
        Scale::Linear,
    ),
];

/// A section for each curve of the record; nothing if there is none.
pub(super) fn sections(record: &Record) -> String {
    let mut names: Vec<&str> = Vec::new();
    for point in record.results.iter().filter_map(|one| one.point.as_ref()) {
        if !names.contains(&point.curve.as_str()) {
            names.push(&point.curve);
        }
    }
    names.iter().map(|name| section(record, name)).collect()
}

fn section(record: &Record, curve: &str) -> String {
    let on_curve = |one: &&Outcome| one.point.as_ref().is_some_and(|at| at.curve == curve);
    let outcomes: Vec<&Outcome> = record.results.iter().filter(on_curve).collect();
    let over = outcomes.first().and_then(|one| one.point.as_ref());
    let over = over.map_or("", |point| point.over.as_str());
    let mut out = format!(
        "<section><h2>Curve: {}</h2><p class=\"soft\">Medians over the repetitions, by {}.</p><div class=\"plots\">",
        escape(curve),
        escape(over)
    );
    for (title, measures, scale) in DRAWN {
        let series: Vec<Series> = measures
            .iter()
            .map(|(measure, name)| Series {
                name: (*name).to_owned(),
                points: points(&outcomes, measure),
            })
            .filter(|series| !series.points.is_empty())
            .collect();
        out += &svg(&Plot {
            title,
            x_label: over,
            scale,
            x_ticks: ticks(&outcomes),
            unit: figure,
            series,
            marks: Vec::new(),
        });
    }
    out + "</div></section>\n"
}

/// Each power of ten is one step to the right.
fn place(outcome: &Outcome) -> Option<f64> {
    let value = outcome.point.as_ref()?.value;
    Some((value.max(1) as f64).log10())
}

fn points(outcomes: &[&Outcome], measure: &str) -> Vec<(f64, f64)> {
    let point = |one: &&Outcome| Some((place(one)?, one.spread(measure)?.median));
    outcomes.iter().filter_map(point).collect()
}

fn ticks(outcomes: &[&Outcome]) -> Vec<(f64, String)> {
    let tick = |one: &&Outcome| {
        let value = one.point.as_ref()?.value;
        Some((place(one)?, super::thousands(value as f64)))
    };
    outcomes.iter().filter_map(tick).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Run;
    use crate::scenario::Point;
    use crate::scenario::measure::Measures;

    #[test]
    fn scenarios_of_one_sweep_become_one_curve() {
        let outcome = |value: u64, rate: f64| Outcome {
            name: format!("stored-{value}"),
            point: Some(Point {
                curve: "stored".to_owned(),
                over: "messages stored before".to_owned(),
                value,
            }),
            runs: vec![Run {
                measures: Measures::from([("accepted_per_second".to_owned(), rate)]),
                ..Run::default()
            }],
            ..Outcome::default()
        };
        let mut record = Record {
            results: vec![outcome(10, 500.0), outcome(1000, 400.0)],
            ..Record::default()
        };
        record.results.push(Outcome::default());
        let page = sections(&record);
        assert_eq!(page.matches("<section>").count(), 1);
        assert!(page.contains("messages stored before") && page.contains("1,000"));
        assert_eq!(page.matches("class=\"line ").count(), 1, "{page}");
        assert_eq!(sections(&Record::default()), "");
    }
}
