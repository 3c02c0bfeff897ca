//! The fault points (src/fault.rs) that there are.

use std::collections::BTreeSet;
use std::path::Path;

/// The names of all fault points, as the sources have them.
pub fn all() -> BTreeSet<String> {
    fn read(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(directory).expect("the sources") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                read(&path, found);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("text");
            for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
                for rest in line.split("fault_point!(\"").skip(1) {
                    found.extend(rest.split('"').next().map(str::to_owned));
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    found
}
