//! The page: one file without anything outside it, readable by light and by dark.

use std::fmt::Write;

use super::plot::{Plot, Scale, Series, escape, svg};
use super::table::{generator_warning, machine_line, percent, ranged, verdict};
use super::{figure, time};
use crate::hist::whole;
use crate::record::{Latency, Outcome, Record, Run};
use crate::scenario::measure::{Better, KINDS};
use crate::timeline::Line;

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn page(record: &Record) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Load test report</title><style>{STYLE}</style></head><body>\n"
    );
    head(&mut out, record);
    overview(&mut out, record);
    bars(&mut out, record);
    out += &super::curve::sections(record);
    for outcome in &record.results {
        scenario(&mut out, outcome);
    }
    out + "</body></html>\n"
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    if out.write_fmt(text).is_err() {}
}

fn head(out: &mut String, record: &Record) {
    let versions = record.versions.iter();
    let versions: Vec<_> = versions
        .map(|(name, version)| format!("{name}: {version}"))
        .collect();
    let faults = record.faults();
    push(
        out,
        format_args!(
            "<header><h1>Load test report</h1><p class=\"soft\">{} UTC, seed {}</p><p>{}</p><p class=\"soft\">{}</p><p><code>{}</code></p>",
            utc(record.started),
            record.seed,
            escape(&machine_line(&record.machine)),
            escape(&versions.join(", ")),
            escape(&record.command),
        ),
    );
    for fault in &faults {
        push(
            out,
            format_args!("<p class=\"warning\">Fault: {}</p>", escape(fault)),
        );
    }
    *out += "<p class=\"soft\">Figures are medians over the repetitions, with their range where there is more than one; shares are of the bare ceilings measured beside each repetition. Read the shares: absolute figures belong to this machine at this hour.</p></header>\n";
}

fn overview(out: &mut String, record: &Record) {
    *out += "<section><h2>Overview</h2><div class=\"wide\"><table><thead><tr><th>Scenario</th><th>accepted/s</th><th>of bare accept</th><th>delivered/s</th><th>of bare send</th><th>ingest p50</th><th>p99</th><th>event to delivery p50</th><th>p99</th><th>CPU/message</th><th>memory</th><th>disk B/B</th><th>lost</th></tr></thead><tbody>\n";
    for outcome in &record.results {
        let cell = |name: &str, unit: &str| match outcome.spread(name) {
            None => "<td>–</td>".to_owned(),
            Some(spread) => {
                let range = if spread.least < spread.greatest {
                    format!(
                        "<small>{} … {}</small>",
                        figure(spread.least),
                        figure(spread.greatest)
                    )
                } else {
                    String::new()
                };
                format!("<td>{}{unit}{range}</td>", figure(spread.median))
            }
        };
        let share = |name: &str, ceiling: &str| match outcome.share(name, ceiling) {
            None => "<td>–</td>".to_owned(),
            Some(share) => format!(
                "<td><span class=\"share\" style=\"--at:{:.0}%\">{}</span></td>",
                (share.median * 100.0).clamp(0.0, 100.0),
                percent(share.median)
            ),
        };
        push(
            out,
            format_args!(
                "<tr><td><a href=\"#{0}\">{0}</a></td>{1}{2}{3}{4}{5}{6}{7}{8}{9}{10}{11}{12}</tr>\n",
                escape(&outcome.name),
                cell("accepted_per_second", ""),
                share("accepted_per_second", "ceiling_accept"),
                cell("delivered_per_second", ""),
                share("delivered_per_second", "ceiling_send"),
                cell("ingest_p50_ms", " ms"),
                cell("ingest_p99_ms", " ms"),
                cell("delivery_p50_ms", " ms"),
                cell("delivery_p99_ms", " ms"),
                cell("gateway_cpu_us", " µs"),
                cell("peak_memory_mib", " MiB"),
                cell("bytes_per_payload_byte", ""),
                cell("lost", ""),
            ),
        );
    }
    *out += "</tbody></table></div></section>\n";
}

fn bars(out: &mut String, record: &Record) {
    if record.results.iter().all(|outcome| outcome.bars.is_empty()) {
        return;
    }
    *out += "<section><h2>Bars</h2><div class=\"wide\"><table><thead><tr><th>Scenario</th><th class=\"words\">bar</th><th>measured</th><th></th></tr></thead><tbody>\n";
    for outcome in &record.results {
        for judged in &outcome.bars {
            let class = if judged.held { "held" } else { "missed" };
            push(
                out,
                format_args!(
                    "<tr><td>{}</td><td class=\"words\"><code>{}</code></td><td>{}</td><td class=\"{class}\">{}</td></tr>\n",
                    escape(&outcome.name),
                    escape(&judged.bar.text()),
                    judged
                        .value
                        .map_or_else(|| "not measured".to_owned(), figure),
                    verdict(judged),
                ),
            );
        }
    }
    *out += "</tbody></table></div></section>\n";
}

fn scenario(out: &mut String, outcome: &Outcome) {
    push(
        out,
        format_args!(
            "<section id=\"{}\"><h2>{}</h2><p class=\"soft\">{}</p><p>{}</p>",
            escape(&outcome.name),
            escape(&outcome.title),
            escape(&outcome.about),
            escape(&outcome.load),
        ),
    );
    let settings = if outcome.settings.is_empty() {
        "Gateway as it comes: no setting differs from its default.".to_owned()
    } else {
        let each = outcome
            .settings
            .iter()
            .map(|line| format!("<code>{}</code>", escape(line)));
        format!(
            "Settings that differ from the default: {}",
            each.collect::<Vec<_>>().join(", ")
        )
    };
    push(out, format_args!("<p class=\"soft\">{settings}</p>"));
    if let Some(run) = outcome.middle() {
        if let Some(warning) = generator_warning(run) {
            push(
                out,
                format_args!("<p class=\"warning\">{}</p>", escape(warning)),
            );
        }
        for fault in &run.faults {
            push(
                out,
                format_args!("<p class=\"warning\">Fault: {}</p>", escape(fault)),
            );
        }
        *out += "<div class=\"plots\">";
        *out += &percentiles(run);
        *out += &rates(run);
        *out += &latency_line(run);
        *out += &resources(run);
        *out += "</div>";
        processes(out, run);
    }
    measures(out, outcome);
    *out += "</section>\n";
}

fn percentiles(run: &Run) -> String {
    let series = |name: &str, latency: &Latency| Series {
        name: name.to_owned(),
        points: latency
            .curve
            .iter()
            .map(|(percentile, micros)| (nines(*percentile), *micros as f64))
            .collect(),
    };
    let mut all = vec![series("ingest", &run.ingest)];
    if run.by_behaviour.is_empty() {
        all.push(series("event to delivery", &run.delivery));
    }
    for (behaviour, latency) in run.by_behaviour.iter().take(4) {
        all.push(series(&format!("event to delivery, {behaviour}"), latency));
    }
    let ticks = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99];
    svg(&Plot {
        title: "Latency by percentile",
        x_label: "percentile",
        scale: Scale::Log,
        x_ticks: ticks.map(|tick| (nines(tick), format!("{tick}"))).to_vec(),
        unit: |micros| time(whole(micros)),
        series: all,
        marks: Vec::new(),
    })
}

/// Each further nine is one step to the right.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

fn rates(run: &Run) -> String {
    let series = |name: &str, line: &Line| Series {
        name: name.to_owned(),
        points: over_time(line, line.per_second.iter().copied()),
    };
    svg(&Plot {
        title: "Messages and deliveries a second",
        x_label: "seconds after the first send, warm-up and drain included",
        scale: Scale::Linear,
        x_ticks: Vec::new(),
        unit: figure,
        series: vec![
            series("accepted", &run.accepted_line),
            series("delivered", &run.delivered_line),
        ],
        marks: run.events.clone(),
    })
}

fn latency_line(run: &Run) -> String {
    let series = |name: &str, line: &Line, micros: &[u64]| Series {
        name: name.to_owned(),
        points: over_time(line, micros.iter().map(|micros| *micros as f64)),
    };
    let (accepted, delivered) = (&run.accepted_line, &run.delivered_line);
    svg(&Plot {
        title: "Latency over time",
        x_label: "seconds after the first send",
        scale: Scale::Log,
        x_ticks: Vec::new(),
        unit: |micros| time(whole(micros)),
        series: vec![
            series("ingest p50", accepted, &accepted.p50_us),
            series("ingest p99", accepted, &accepted.p99_us),
            series("event to delivery p50", delivered, &delivered.p50_us),
            series("event to delivery p99", delivered, &delivered.p99_us),
        ],
        marks: run.events.clone(),
    })
}

fn resources(run: &Run) -> String {
    let series = |name: &str, value: fn(&crate::record::Sample) -> f64| Series {
        name: name.to_owned(),
        points: run
            .samples
            .iter()
            .map(|sample| (sample.at, value(sample)))
            .collect(),
    };
    svg(&Plot {
        title: "Gateway: memory, CPU, disk",
        x_label: "seconds after the first send",
        scale: Scale::Linear,
        x_ticks: Vec::new(),
        unit: figure,
        series: vec![
            series("resident memory, MiB", |sample| sample.memory_mib),
            series("CPU, % of a core", |sample| sample.cores * 100.0),
            series("written to disk, MiB", |sample| sample.written_mib),
        ],
        marks: run.events.clone(),
    })
}

fn over_time(line: &Line, values: impl Iterator<Item = f64>) -> Vec<(f64, f64)> {
    let mut middle = line.slot_seconds / 2.0;
    let mut points = Vec::new();
    for value in values {
        points.push((middle, value));
        middle += line.slot_seconds;
    }
    points
}

fn processes(out: &mut String, run: &Run) {
    *out += "<div class=\"wide\"><table><thead><tr><th>Process</th><th>CPU</th><th>CPU per 1,000 messages</th><th>peak resident</th><th>written</th><th>threads</th><th>context switches</th></tr></thead><tbody>";
    let mebi = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
    for (name, process) in &run.processes {
        let is_thread = process.threads == 0;
        let level = |text: String| if is_thread { "–".to_owned() } else { text };
        push(
            out,
            format_args!(
                "<tr><td>{}</td><td>{:.2} s</td><td>{:.3} s</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(name),
                process.cpu_seconds,
                process.cpu_seconds_per_1000,
                level(mebi(process.peak_memory)),
                level(mebi(process.written)),
                level(process.threads.to_string()),
                level(super::thousands(process.switches as f64)),
            ),
        );
    }
    *out += "</tbody></table></div>";
}

fn measures(out: &mut String, outcome: &Outcome) {
    *out += "<details><summary>All measures</summary><div class=\"wide\"><table><thead><tr><th>Measure</th><th>median (range)</th><th>better is</th><th></th></tr></thead><tbody>";
    for kind in &KINDS {
        let Some(spread) = outcome.spread(kind.name) else {
            continue;
        };
        let better = match kind.better {
            Better::Higher => "higher",
            Better::Lower => "lower",
            Better::Neither => "–",
        };
        push(
            out,
            format_args!(
                "<tr><td><code>{}</code></td><td>{}</td><td>{better}</td><td class=\"words soft\">{}</td></tr>",
                kind.name,
                ranged(spread),
                escape(kind.about),
            ),
        );
    }
    *out += "</tbody></table></div></details>";
}

/// Unix seconds as `2026-01-05 08:15`. By the civil calendar of Howard Hinnant's `days_from_civil`.
fn utc(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, add) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    format!(
        "{:04}-{month:02}-{day:02} {:02}:{:02}",
        year + era * 400 + add,
        rest / 3600,
        rest / 60 % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Sample;

    fn record() -> Record {
        let line = Line {
            slot_seconds: 0.5,
            per_second: vec![10.0, 20.0],
            p50_us: vec![100, 200],
            p99_us: vec![300, 400],
        };
        let run = Run {
            accepted_line: line.clone(),
            delivered_line: line,
            samples: vec![Sample::default(); 3],
            events: vec![(0.5, "<restart>".to_owned())],
            faults: vec!["<script>alert(1)</script>".to_owned()],
            ..Run::default()
        };
        Record {
            command: "loadtest set \"<x>\"".to_owned(),
            started: 1_767_600_930,
            results: vec![Outcome {
                name: "one".to_owned(),
                title: "A & B".to_owned(),
                settings: vec!["log.level = \"<none>\"".to_owned()],
                runs: vec![run],
                ..Outcome::default()
            }],
            ..Record::default()
        }
    }

    #[test]
    fn the_page_stands_alone_and_nothing_breaks_out_of_it() {
        let page = page(&record());
        for outside in [
            "http://", "https://", "src=", "<script", "<link", "@import", "url(",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
        for bad in ["<x>", "<restart>", "<none>", "NaN"] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert!(page.contains("A &amp; B") && page.contains("2026-01-05 08:15"));
        assert!(page.contains("prefers-color-scheme: dark"));
        assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    }

    #[test]
    fn a_record_without_runs_still_makes_a_page() {
        let mut empty = record();
        empty.results[0].runs.clear();
        assert!(page(&empty).contains("A &amp; B"));
        assert!(page(&Record::default()).ends_with("</html>\n"));
    }

    #[test]
    fn leap_days_are_dated_rightly() {
        assert_eq!(utc(1_709_164_800), "2024-02-29 00:00");
        assert_eq!(utc(0), "1970-01-01 00:00");
        assert_eq!(utc(4_102_444_799), "2099-12-31 23:59");
    }
}
