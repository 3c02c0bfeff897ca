//! The table of values in the chart's README, made of the comments in values.yaml.

use serde_json::Value;

const BEGIN: &str = "<!-- made of values.yaml by UPDATE_GOLDEN=1 cargo test --test charts -->\n";
const END: &str = "<!-- end -->\n";

/// The README with its table made anew from the text of values.yaml.
///
/// A key is a section where something beneath it has a comment; else what stands beneath it is its default.
pub fn written_into(readme: &str, values: &str) -> String {
    let (before, rest) = readme.split_once(BEGIN).expect("README.md has the line that begins the table");
    let (_, after) = rest.split_once(END).expect("README.md has the line that ends the table");
    format!("{before}{BEGIN}{}{END}{after}", table(values))
}

fn table(text: &str) -> String {
    let all: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("values.yaml: {error}"));
    let mut table = "\n| value | default | meaning |\n|---|---|---|\n".to_owned();
    let mut path: Vec<&str> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    // Lines deeper than this belong to the default above them.
    let mut within = None;
    let lines: Vec<&str> = text.lines().collect();
    for (number, line) in lines.iter().enumerate() {
        let content = line.trim_start();
        let depth = (line.len() - content.len()) / 2;
        if content.is_empty() {
            comment.clear();
            continue;
        }
        if within.is_some_and(|outer| depth > outer || (depth == outer && content.starts_with("- "))) {
            continue;
        }
        within = None;
        if let Some(words) = content.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let (key, value) = content.split_once(':').unwrap_or_else(|| panic!("values.yaml: {line}"));
        path.truncate(depth);
        path.push(key);
        let name = path.join(".");
        let meaning = comment.join(" ").replace('|', "\\|");
        comment.clear();
        if value.is_empty() && !is_value(&lines, number) {
            if !meaning.is_empty() {
                table += &format!("| **`{name}`** | | **{meaning}** |\n");
            }
            continue;
        }
        assert!(!meaning.is_empty(), "values.yaml does not say what {name} means");
        let default = all.pointer(&format!("/{}", path.join("/"))).unwrap_or_else(|| panic!("{name}"));
        table += &format!("| `{name}` | `{default}` | {meaning} |\n");
        within = Some(depth);
    }
    table + "\n"
}

/// Whether what stands beneath a key is its default: nothing in it has a comment.
fn is_value(lines: &[&str], number: usize) -> bool {
    let depth = |line: &str| line.len() - line.trim_start().len();
    let own = depth(lines[number]);
    !lines[number + 1..]
        .iter()
        .take_while(|line| line.trim().is_empty() || depth(line) > own)
        .any(|line| line.trim_start().starts_with('#'))
}
