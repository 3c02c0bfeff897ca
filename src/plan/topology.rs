//! Where a volume can be used.

use std::collections::BTreeMap;

/// Whether what stands at `place` stands within the part of the world that `segments` describe: each of them is one of its own.
///
/// Keys are compared without case (CSI specification, `Topology.segments`); values are names, and compared as they are. No
/// segment at all describes the whole world.
pub fn lies_within<'a>(
    place: &BTreeMap<String, String>,
    segments: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> bool {
    segments
        .into_iter()
        .all(|(key, value)| place.iter().any(|(own, at)| own.eq_ignore_ascii_case(key) && at == value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_place_lies_within_what_names_no_more_than_it_has() {
        let place = segments(&[("zone", "a"), ("pool.csi.kuration.io/node", "n1")]);
        for (asked, within) in [
            (segments(&[]), true),
            (segments(&[("zone", "a")]), true),
            (segments(&[("ZONE", "a"), ("pool.csi.kuration.io/node", "n1")]), true),
            (segments(&[("zone", "A")]), false),
            (segments(&[("zone", "b")]), false),
            (segments(&[("zone", "a"), ("rack", "1")]), false),
        ] {
            assert_eq!(lies_within(&place, &asked), within, "{asked:?}");
        }
    }
}
