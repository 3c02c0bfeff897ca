//! docs/troubleshooting.md is searched for what an event or a log says: what stands there is what is said.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// What the page quotes of Kubernetes and of the kernel.
const OTHERS: [&str; 12] = [
    "waiting for first consumer",
    "waiting for a volume to be created … by the external provisioner",
    "driver name … not found in the list of registered CSI drivers",
    "AttachVolume.Attach failed",
    "MountVolume.MountDevice failed",
    "applyFSGroup failed",
    "operation not permitted",
    "conflicting SELinux labels",
    "didn't match PersistentVolume's node affinity",
    "had volume node affinity conflict",
    "hostPath type check failed",
    "violates PodSecurity",
];

/// The program's lines without comments, in which a string that goes on in the next line is one.
fn source(directory: &Path, all: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
                match line.strip_suffix('\\') {
                    Some(begun) => all.push_str(begun),
                    None => all.extend([line, "\n"]),
                }
            }
        }
    }
}

#[test]
fn what_the_page_quotes_is_what_the_program_says() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut said = String::new();
    source(&home.join("src"), &mut said);
    let page = fs::read_to_string(home.join("docs/troubleshooting.md")).unwrap();
    let first_cells = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    // Every second piece stands between two backticks.
    let quoted: BTreeSet<&str> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let others = BTreeSet::from(OTHERS);
    let gone: Vec<_> = others.difference(&quoted).collect();
    assert!(gone.is_empty(), "no longer on the page: {gone:?}");
    let own: Vec<_> = quoted.difference(&others).collect();
    assert!(own.len() > 15, "{own:?}");
    for words in own {
        // "…" stands for what differs from case to case.
        for part in words.split('…').map(str::trim) {
            assert!(said.contains(part), "the page quotes {words:?}, and nothing in src says {part:?}");
        }
    }
}
