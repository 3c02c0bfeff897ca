//! SELinux labels, `user:role:type:level`, as far as two of them must be compared.

/// Whether two labels have the same level: the part by which pods are kept apart.
///
/// The kernel shows a level in its own way, whatever it was given (`s0:c9,c3,c2,c1` is `s0:c1.c3,c9` then). The other parts are
/// left out, for a policy may know one by several names, and shows the one that it likes best.
pub fn same_level(one: &str, other: &str) -> bool {
    let (one, other) = (level(one), level(other));
    one == other || canonical(one).is_some_and(|one| Some(one) == canonical(other))
}

/// Empty, where a policy has no levels.
fn level(label: &str) -> &str {
    label.splitn(4, ':').nth(3).unwrap_or_default()
}

/// Ranges of categories, first and last of each, in their order and apart.
type Categories = Vec<(u32, u32)>;

/// The ends of a range of levels (low, or low and high), each a sensitivity with its categories. None for what has names of its
/// own.
fn canonical(level: &str) -> Option<Vec<(&str, Categories)>> {
    let ends = level.split('-').map(|end| match end.split_once(':') {
        Some((sensitivity, categories)) => Some((sensitivity, ranges(categories)?)),
        None => Some((end, Vec::new())),
    });
    let mut ends = ends.collect::<Option<Vec<_>>>()?;
    ends.dedup();
    Some(ends)
}

fn ranges(categories: &str) -> Option<Categories> {
    let number = |category: &str| category.strip_prefix('c')?.parse::<u32>().ok();
    let all = categories.split(',').map(|range| match range.split_once('.') {
        Some((first, last)) => Some((number(first)?, number(last)?)),
        None => number(range).map(|one| (one, one)),
    });
    let mut all = all.collect::<Option<Vec<_>>>()?;
    all.sort_unstable();
    let mut merged = Categories::new();
    for (first, last) in all {
        match merged.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    Some(merged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alike(one: &str, other: &str) -> bool {
        let label = |level: &str| format!("system_u:object_r:container_file_t:{level}");
        same_level(&label(one), &label(other))
    }

    #[test]
    fn a_level_is_the_same_however_its_categories_are_written() {
        // As OpenShift writes them, and as the kernel shows them.
        assert!(alike("s0:c26,c5", "s0:c5,c26"));
        assert!(alike("s0:c9,c3,c2,c1", "s0:c1.c3,c9"));
        assert!(alike("s0:c1,c1.c4,c2", "s0:c1.c4"));
        assert!(alike("s0:c1,c2-s0:c1,c2", "s0:c1,c2"));
        assert!(alike("s0-s0:c0.c1023", "s0-s0:c0.c1023"));
        assert!(alike("SystemHigh", "SystemHigh"));
    }

    #[test]
    fn other_categories_are_another_level() {
        for other in
            ["s0", "s0:c1", "s0:c1,c3", "s0:c1.c3", "s1:c1,c2", "s0-s0:c1,c2", "SystemHigh", "s0:c1,two", ""]
        {
            assert!(!alike("s0:c1,c2", other), "{other}");
        }
        assert!(!alike("s0:c1,two", "s0:two,c1"), "nobody knows");
    }

    #[test]
    fn what_else_a_label_says_may_have_several_names() {
        assert!(same_level("u:r:svirt_sandbox_file_t:s0:c1", "u:r:container_file_t:s0:c1"));
        // A policy without levels.
        assert!(same_level("u:r:one", "u:r:two") && !same_level("u:r:one", "u:r:one:s0"));
    }
}
