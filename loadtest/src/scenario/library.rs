//! The scenarios that are compiled in: the files of `loadtest/scenarios`, so that a binary alone can
//! measure a machine; and reading others from a folder.

use std::path::Path;

use anyhow::{Context, bail};

use super::Scenario;

/// Name of the file and its text, in the order in which a set runs.
const BUILT_IN: [(&str, &str); 29] = [
    (
        "ingest-ceiling",
        include_str!("../../scenarios/ingest-ceiling.toml"),
    ),
    ("ingest-64", include_str!("../../scenarios/ingest-64.toml")),
    (
        "ingest-batch",
        include_str!("../../scenarios/ingest-batch.toml"),
    ),
    (
        "source-ceiling",
        include_str!("../../scenarios/source-ceiling.toml"),
    ),
    (
        "ingest-source",
        include_str!("../../scenarios/ingest-source.toml"),
    ),
    (
        "management",
        include_str!("../../scenarios/management.toml"),
    ),
    (
        "end-to-end-1x1",
        include_str!("../../scenarios/end-to-end-1x1.toml"),
    ),
    (
        "fan-out-1x5",
        include_str!("../../scenarios/fan-out-1x5.toml"),
    ),
    (
        "fan-out-1x100",
        include_str!("../../scenarios/fan-out-1x100.toml"),
    ),
    (
        "latency-200",
        include_str!("../../scenarios/latency-200.toml"),
    ),
    (
        "latency-quarter",
        include_str!("../../scenarios/latency-quarter.toml"),
    ),
    (
        "origin-target",
        include_str!("../../scenarios/origin-target.toml"),
    ),
    (
        "endpoints-10k",
        include_str!("../../scenarios/endpoints-10k.toml"),
    ),
    (
        "healthy-1000",
        include_str!("../../scenarios/healthy-1000.toml"),
    ),
    (
        "dead-tenth",
        include_str!("../../scenarios/dead-tenth.toml"),
    ),
    (
        "slow-endpoints",
        include_str!("../../scenarios/slow-endpoints.toml"),
    ),
    (
        "recovery-base",
        include_str!("../../scenarios/recovery-base.toml"),
    ),
    ("recovery", include_str!("../../scenarios/recovery.toml")),
    ("mixed", include_str!("../../scenarios/mixed.toml")),
    ("burst", include_str!("../../scenarios/burst.toml")),
    ("ramp", include_str!("../../scenarios/ramp.toml")),
    ("restart", include_str!("../../scenarios/restart.toml")),
    ("soak", include_str!("../../scenarios/soak.toml")),
    (
        "curve-stored",
        include_str!("../../scenarios/curve-stored.toml"),
    ),
    (
        "curve-endpoints",
        include_str!("../../scenarios/curve-endpoints.toml"),
    ),
    (
        "curve-fan-out",
        include_str!("../../scenarios/curve-fan-out.toml"),
    ),
    (
        "curve-pending",
        include_str!("../../scenarios/curve-pending.toml"),
    ),
    (
        "curve-rate",
        include_str!("../../scenarios/curve-rate.toml"),
    ),
    (
        "pending-100k",
        include_str!("../../scenarios/pending-100k.toml"),
    ),
];

/// All that are compiled in.
pub(crate) fn built_in() -> anyhow::Result<Vec<Scenario>> {
    let read = |(name, text): &(&str, &str)| {
        Scenario::parse(text).with_context(|| format!("scenario {name}"))
    };
    BUILT_IN.iter().map(read).collect()
}

/// One file.
pub(crate) fn file(path: &Path) -> anyhow::Result<Scenario> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Scenario::parse(&text).with_context(|| path.display().to_string())
}

/// Every `*.toml` of a folder, by name.
pub(crate) fn folder(path: &Path) -> anyhow::Result<Vec<Scenario>> {
    let entries =
        std::fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut paths: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    if paths.is_empty() {
        bail!("{} holds no scenarios", path.display());
    }
    paths.iter().map(|path| file(path)).collect()
}

/// The wanted ones (none named: the standard set) with those that they need, in an order in which
/// each comes after what it needs.
pub(crate) fn select(all: &[Scenario], names: &[String]) -> anyhow::Result<Vec<Scenario>> {
    let mut chosen = Vec::new();
    let standard: Vec<String> = all
        .iter()
        .filter(|scenario| scenario.standard)
        .map(|scenario| scenario.name.clone())
        .collect();
    let names = if names.is_empty() { &standard } else { names };
    let mut points = Vec::new();
    for scenario in all {
        points.extend(scenario.points()?);
    }
    for name in names {
        let swept = all
            .iter()
            .find(|one| one.name == *name && one.sweep.is_some());
        let of_curve = |one: &&Scenario| one.point.as_ref().is_some_and(|at| at.curve == *name);
        let wanted: Vec<&str> = match swept {
            Some(_) => points
                .iter()
                .filter(of_curve)
                .map(|one| one.name.as_str())
                .collect(),
            None => vec![name.as_str()],
        };
        for one in wanted {
            add(&points, one, &mut chosen, &mut Vec::new())?;
        }
    }
    Ok(chosen)
}

fn add(
    all: &[Scenario],
    name: &str,
    chosen: &mut Vec<Scenario>,
    asking: &mut Vec<String>,
) -> anyhow::Result<()> {
    if chosen.iter().any(|scenario| scenario.name == name) {
        return Ok(());
    }
    if asking.iter().any(|asked| asked == name) {
        bail!(
            "scenarios need each other in a circle: {} -> {name}",
            asking.join(" -> ")
        );
    }
    let found = all.iter().find(|scenario| scenario.name == name);
    let scenario = found.with_context(|| {
        let names: Vec<_> = all.iter().map(|scenario| scenario.name.as_str()).collect();
        format!("no scenario {name}; there are {}", names.join(", "))
    })?;
    asking.push(name.to_owned());
    for needed in scenario.needs() {
        add(all, &needed, chosen, asking)?;
    }
    asking.pop();
    chosen.push(scenario.clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_compiled_in_and_reads() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut files: Vec<_> = folder(Path::new(path))
            .unwrap()
            .into_iter()
            .map(|scenario| scenario.name)
            .collect();
        let mut names: Vec<_> = built_in()
            .unwrap()
            .into_iter()
            .map(|one| one.name)
            .collect();
        files.sort();
        names.sort();
        assert_eq!(files, names);
        for (file, _) in BUILT_IN {
            assert!(
                names.contains(&file.to_owned()),
                "{file} has another name inside"
            );
        }
    }

    #[test]
    fn what_is_needed_comes_first() {
        let all = built_in().unwrap();
        let chosen = select(&all, &["latency-quarter".to_owned()]).unwrap();
        let names: Vec<_> = chosen.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["end-to-end-1x1", "latency-quarter"]);
        let error = select(&all, &["nothing".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("ingest-ceiling"), "{error}");
    }

    #[test]
    fn a_circle_of_needs_is_refused() {
        let text = |name: &str, of: &str| {
            format!(
                "name = '{name}'\ntitle = 't'\nabout = 'a'\n[load]\nduration = '1s'\npace = {{ kind = 'share', of = '{of}', share = 0.5 }}"
            )
        };
        let all: Vec<_> = [("a", "b"), ("b", "a")]
            .iter()
            .map(|(name, of)| Scenario::parse(&text(name, of)).unwrap())
            .collect();
        let error = select(&all, &["a".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("a -> b -> a"), "{error}");
    }

    #[test]
    fn the_standard_set_fits_into_a_quarter_of_an_hour() {
        let all = built_in().unwrap();
        let standard = select(&all, &[]).unwrap();
        assert!(standard.len() >= 12 && !standard.iter().any(|one| one.name == "soak"));
        let estimates = standard.iter();
        let all: Duration = estimates
            .map(|one| one.estimate(Duration::from_secs(1)))
            .sum();
        assert!(all < Duration::from_secs(14 * 60), "{all:?}");
    }
}
