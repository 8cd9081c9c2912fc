//! Compares the producer's record with the receiver's. Both are lines of `<message id> <sha-256>`.

use std::collections::{HashMap, HashSet};

/// What the records say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: usize,
    pub(crate) deliveries: usize,
    /// Further deliveries of an id.
    pub(crate) repeated: usize,
    /// Acknowledged, never delivered (C1).
    pub(crate) lost: Vec<String>,
    /// Delivered, never sent by a producer (C2); liveness probes have an id the producers' record
    /// lacks, and are told by `invoked`.
    pub(crate) forged: Vec<String>,
    /// Delivered with other bytes than were acknowledged, or with different bytes each time (C3).
    pub(crate) changed: Vec<String>,
}

/// `invoked` holds the hashes of everything that was ever sent, answered or not.
pub(crate) fn judge(produced: &str, consumed: &str, invoked: &[String]) -> Verdict {
    let mut verdict = Verdict::default();
    let acked: HashMap<&str, &str> = lines(produced).collect();
    let invoked: HashSet<&str> = invoked.iter().map(String::as_str).collect();
    let probes: HashSet<String> = (0..super::KILLS)
        .map(|kill| super::hash(serde_json::json!({"probe": kill}).to_string().as_bytes()))
        .collect();
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for (id, sum) in lines(consumed) {
        verdict.deliveries += 1;
        if let Some(before) = seen.insert(id, sum) {
            verdict.repeated += 1;
            if before != sum {
                verdict.changed.push(id.to_owned());
            }
        }
        if acked.get(id).is_some_and(|sent| *sent != sum) {
            verdict.changed.push(id.to_owned());
        }
        if !invoked.contains(sum) && !probes.contains(sum) {
            verdict.forged.push(id.to_owned());
        }
    }
    verdict.acknowledged = acked.len();
    verdict.lost = acked
        .keys()
        .filter(|id| !seen.contains_key(**id))
        .map(|id| (*id).to_owned())
        .collect();
    verdict
}

/// Complete lines; the last one may be cut off if the writer was killed.
fn lines(record: &str) -> impl Iterator<Item = (&str, &str)> {
    record
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n')?.split_once(' '))
}

mod tests {
    use super::judge;

    fn invoked() -> Vec<String> {
        ["s1", "s2", "s3"].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_complete_history_passes_and_repetitions_are_counted() {
        let verdict = judge("a s1\nb s2\n", "b s2\na s1\na s1\n", &invoked());
        assert!(verdict.lost.is_empty() && verdict.forged.is_empty());
        assert!(verdict.changed.is_empty());
        assert_eq!((verdict.acknowledged, verdict.repeated), (2, 1));
    }

    #[test]
    fn a_dropped_delivery_is_found() {
        let verdict = judge("a s1\nb s2\n", "a s1\n", &invoked());
        assert_eq!(verdict.lost, ["b"]);
    }

    #[test]
    fn a_forged_delivery_is_found() {
        let verdict = judge("a s1\n", "a s1\nz s9\n", &invoked());
        assert_eq!(verdict.forged, ["z"]);
    }

    #[test]
    fn swapped_bodies_are_found() {
        let verdict = judge("a s1\nb s2\n", "a s2\nb s1\n", &invoked());
        assert_eq!(verdict.changed.len(), 2);
    }

    #[test]
    fn an_unacknowledged_event_may_arrive() {
        let verdict = judge("a s1\n", "a s1\nc s3\n", &invoked());
        assert!(verdict.lost.is_empty() && verdict.forged.is_empty());
    }
}
