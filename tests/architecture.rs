//! The house keeps its arrows: who may use whom, and who may touch the world. Each broken rule is said as the sentence that
//! it is.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// A room and the others it may use, as paths. `all` stands for every room.
const ARROWS: &[(&str, &[&str])] = &[
    ("volume", &[]),
    ("plan", &["volume", "mount::table"]),
    ("fault", &[]),
    ("inflight", &[]),
    ("privilege", &[]),
    ("child", &[]),
    ("mount", &["child", "volume", "fault"]),
    ("backend", &["mount", "child", "volume", "plan", "fault"]),
    ("csi", &["plan", "backend", "mount", "volume", "inflight", "telemetry", "fault"]),
    ("kubernetes", &["telemetry", "volume"]),
    // How a line is logged is a setting.
    ("telemetry", &["settings::LogFormat", "settings::LogSettings"]),
    // The other side of CSI: its words are the specification's.
    ("client", &["csi::proto", "mount::table", "telemetry::rpc", "volume"]),
    ("trial", &["client", "volume"]),
    // What the driver is measured against: the same system calls, bare.
    ("bench", &["client", "volume", "mount", "backend::store::tree"]),
    ("inspection", &["child", "fault", "volume", "kubernetes", "telemetry"]),
    // A plugin's flags are its words.
    ("kubectl", &["args", "inspection"]),
    ("args", &[]),
    ("settings", &["args", "volume", "bench", "trial", "csi::registration::socket", "inspection::runner"]),
    ("run", &["all"]),
    ("lib", &["all"]),
    ("main", &["all"]),
];

/// A crate, and the only rooms that may name it.
const OUTSIDE: &[(&str, &[&str])] = &[
    ("tonic", &["csi", "telemetry", "client", "run"]),
    ("prost", &["csi", "telemetry"]),
    ("tonic_prost", &["telemetry"]),
    ("kube", &["kubernetes", "inspection", "kubectl", "run"]),
    ("k8s_openapi", &["kubernetes", "inspection", "kubectl"]),
    ("tower", &["telemetry"]),
    ("http", &["telemetry", "inspection"]),
    ("http_body", &["telemetry"]),
    ("axum", &["telemetry", "inspection"]),
    ("prometheus_client", &["telemetry"]),
    ("tracing_subscriber", &["telemetry"]),
    ("clap", &["args", "main"]),
    ("bytesize", &["args", "bench", "trial"]),
    ("strsim", &["volume"]),
    ("sys_mount", &["mount"]),
    ("libc", &["mount", "backend"]),
    ("maud", &["inspection"]),
];

/// All that a pure room may name of other crates.
const PURE: [&str; 5] = ["std", "serde", "sha2", "strsim", "thiserror"];

/// The pure rooms, and what of the standard library is an effect.
const PURE_ROOMS: [&str; 2] = ["volume", "plan"];
const EFFECTS: [&str; 13] = [
    "std::fs",
    "std::process",
    "std::os",
    "std::env",
    "std::io",
    "std::thread",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::time::SystemTime",
    "std::time::Instant",
    "std::sync",
];

/// The pure parts of rooms that have others too, and what they may name beyond [`PURE`]: the words of Kubernetes' API, and the
/// moments that others give them. Nothing in them asks for the time.
const PURE_PARTS: [&str; 4] =
    ["inspection/task/", "inspection/run/", "inspection/schedule", "inspection/intent/"];
const PURE_WORDS: [&str; 8] = [
    "jiff",
    "k8s_openapi",
    "kube::CustomResource",
    "kube::CustomResourceExt",
    "kube::KubeSchema",
    "schemars",
    "serde_json",
    "serde_saphyr",
];

/// tonic gives the macro of the crate async-trait on to its users, and nothing of gRPC comes with it: a direct dependency on
/// that crate would be one more to watch for the same code.
const NO_GRPC: &str = "tonic::async_trait";

/// The files that may hold `unsafe`.
const UNSAFE: [&str; 5] = [
    "backend/pool/ioctl/btrfs.rs",
    "backend/pool/ioctl/loops.rs",
    "backend/pool/ioctl/project.rs",
    "child/serve.rs",
    "mount/linux.rs",
];

const MOST_LINES: usize = 500;

/// A source file.
struct File {
    /// Beneath src/.
    name: String,
    text: String,
    /// Its words and signs, without comments, strings and test modules.
    tokens: Vec<String>,
}

impl File {
    fn room(&self) -> &str {
        let first = self.name.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// Its module: `a::b` of a/b.rs and a/b/mod.rs.
    fn module(&self) -> Vec<String> {
        let path = self.name.trim_end_matches(".rs").trim_end_matches("/mod");
        path.split('/').map(str::to_owned).collect()
    }

    /// Every path in it, from the crate's root (`crate::…`) or from another crate's name.
    fn paths(&self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut at = 0;
        while let Some(token) = self.tokens.get(at) {
            let inner = at > 0 && matches!(self.tokens[at - 1].as_str(), "::" | "." | "'");
            at += 1;
            if inner || self.tokens.get(at).is_none_or(|next| next != "::") {
                continue;
            }
            let mut start = vec![token.clone()];
            if token == "super" {
                start = [vec!["crate".to_owned()], self.module()].concat();
                start.pop();
                while self.tokens.get(at + 1).is_some_and(|next| next == "super") {
                    start.pop();
                    at += 2;
                }
            }
            at = expand(&self.tokens, at, &start, &mut found);
        }
        found
    }
}

/// Follows a path, and each branch of a group in braces, from the `::` at `at`; where it goes on.
fn expand(tokens: &[String], mut at: usize, prefix: &[String], found: &mut BTreeSet<String>) -> usize {
    let mut path = prefix.to_vec();
    while tokens.get(at).is_some_and(|token| token == "::") {
        match tokens.get(at + 1).map(String::as_str) {
            Some("{") => {
                at += 2;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    if tokens[at] == "," {
                        at += 1;
                        continue;
                    }
                    let mut branch = path.clone();
                    if tokens[at] != "self" {
                        branch.push(tokens[at].clone());
                    }
                    at = expand(tokens, at + 1, &branch, found);
                    // An "as NAME" behind it.
                    while tokens.get(at).is_some_and(|token| token != "," && token != "}") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            Some(word) if is_word(word) || word == "*" => {
                path.push(word.to_owned());
                at += 2;
            }
            _ => break,
        }
    }
    found.insert(path.join("::"));
    at
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// `text` as words and signs; comments and what stands in quotes are left out.
fn tokens(text: &str) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let ahead =
        |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| characters.get(at + i) == Some(&c));
    let find = |from: usize, what: &str| {
        (from..characters.len()).find(|&at| ahead(at, what)).unwrap_or(characters.len())
    };
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < characters.len() {
        let c = characters[at];
        let hashes = (at + 1..characters.len()).take_while(|&i| characters[i] == '#').count();
        if ahead(at, "//") {
            at = find(at, "\n");
        } else if ahead(at, "/*") {
            at = find(at, "*/") + 2;
        } else if c == 'r' && characters.get(at + 1 + hashes) == Some(&'"') {
            let end = format!("\"{}", "#".repeat(hashes));
            at = find(at + hashes + 2, &end) + end.len();
        } else if c == '"' {
            at += 1;
            while at < characters.len() && characters[at] != '"' {
                at += if characters[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\''
            && (characters.get(at + 1) == Some(&'\\') || characters.get(at + 2) == Some(&'\''))
        {
            at = find(at + if characters[at + 1] == '\\' { 3 } else { 2 }, "'") + 1;
        } else if c.is_ascii_alphanumeric() || c == '_' {
            let end = (at..characters.len())
                .find(|&i| !(characters[i].is_ascii_alphanumeric() || characters[i] == '_'));
            let end = end.unwrap_or(characters.len());
            tokens.push(characters[at..end].iter().collect());
            at = end;
        } else if ahead(at, "::") {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            at += 1;
        }
    }
    tokens
}

/// `tokens` without what is marked `#[cfg(test)]`.
fn without_tests(tokens: Vec<String>) -> Vec<String> {
    let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if !tokens[at..].iter().take(mark.len()).eq(mark) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let mut depth = 0;
        at += mark.len();
        while at < tokens.len() {
            match tokens[at].as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 && matches!(tokens[at - 1].as_str(), "}" | ";") {
                break;
            }
        }
    }
    kept
}

fn sources() -> Vec<File> {
    fn read(directory: &Path, root: &Path, found: &mut Vec<File>) {
        let mut entries: Vec<PathBuf> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                read(&path, root, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                let text = std::fs::read_to_string(&path).unwrap();
                let tokens = without_tests(tokens(&text));
                found.push(File { name, text, tokens });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    read(&root, &root, &mut found);
    assert!(found.len() > 50, "the sources are elsewhere");
    found
}

/// The sources without those that are tests altogether.
fn house() -> Vec<File> {
    sources().into_iter().filter(|file| !file.name.ends_with("/tests.rs")).collect()
}

fn hold(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

/// Whether `path` is `allowed` or lies in it.
fn within(path: &str, allowed: &str) -> bool {
    path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

#[test]
fn every_room_uses_only_those_it_may() {
    let mut broken = Vec::new();
    for file in house() {
        let room = file.room();
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            broken.push(format!(
                "the room {room} ({}) has no arrows yet: say in this test what it may use",
                file.name
            ));
            continue;
        };
        for path in file.paths() {
            let ours = path.strip_prefix("crate::").or(path.strip_prefix("kuration::"));
            let Some(used) = ours.filter(|used| !within(used, room)) else { continue };
            // The macro of fault.rs stands at the root, as every macro does.
            let used = if used == "fault_point" { "fault" } else { used };
            let may = allowed.iter().any(|may| *may == "all" || within(used, may));
            if !may {
                let may = if allowed.is_empty() { "nothing of ours".to_owned() } else { allowed.join(", ") };
                broken.push(format!("{room} may use {may}; but {} uses {used}", file.name));
            }
        }
    }
    hold(broken);
}

#[test]
fn every_crate_is_named_only_where_it_belongs() {
    let mut broken = Vec::new();
    for file in house() {
        for path in file.paths().iter().filter(|path| *path != NO_GRPC) {
            let named = path.split("::").next().unwrap_or_default();
            let Some((_, rooms)) = OUTSIDE.iter().find(|(name, _)| *name == named) else { continue };
            if !rooms.contains(&file.room()) {
                broken.push(format!(
                    "only {} may name {named}; but {} names {path}",
                    rooms.join(", "),
                    file.name
                ));
            }
        }
    }
    hold(broken);
}

/// The crates of Cargo.toml, as a path names them, and those of the language.
fn crates() -> Vec<String> {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    let after = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
    let lines = after.lines().take_while(|line| !line.starts_with('['));
    let named = lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.replace('-', "_"));
    named.chain(["std", "core", "alloc", "kube"].map(str::to_owned)).collect()
}

#[test]
fn pure_rooms_touch_nothing() {
    let crates = crates();
    assert!(
        crates.contains(&"tokio".to_owned()) && crates.contains(&"tracing_subscriber".to_owned()),
        "{crates:?}"
    );
    let mut broken = Vec::new();
    for file in house().iter().filter(|file| PURE_ROOMS.contains(&file.room())) {
        for path in file.paths() {
            let named = path.split("::").next().unwrap_or_default();
            if crates.iter().any(|known| known == named) && !PURE.contains(&named) {
                let may = PURE.join(", ");
                broken.push(format!(
                    "{} is pure and may name {may}; but {} names {path}",
                    file.room(),
                    file.name
                ));
            }
            if let Some(effect) = EFFECTS.iter().find(|effect| within(&path, effect)) {
                broken.push(format!("{} is pure; but {} names {effect}", file.room(), file.name));
            }
        }
    }
    hold(broken);
}

#[test]
fn pure_parts_touch_nothing_and_ask_for_no_time() {
    let crates = crates();
    let mut broken = Vec::new();
    for file in house().iter().filter(|file| PURE_PARTS.iter().any(|part| file.name.starts_with(part))) {
        for path in file.paths() {
            let named = path.split("::").next().unwrap_or_default();
            let word = PURE_WORDS.iter().any(|word| within(&path, word));
            if crates.iter().any(|known| known == named) && !PURE.contains(&named) && !word {
                broken.push(format!("{} is pure; but it names {path}", file.name));
            }
            if EFFECTS.iter().any(|effect| within(&path, effect)) || path.ends_with("::now") {
                broken.push(format!("{} is pure; but it names {path}", file.name));
            }
        }
    }
    hold(broken);
}

#[test]
fn unsafe_stands_where_it_may_and_says_why_it_is_sound() {
    let mut broken = Vec::new();
    for file in sources() {
        // Nothing in quotes, nothing in comments: the word alone.
        let lines: Vec<&str> = file.text.lines().collect();
        let holds = |line: &str| tokens(line).iter().any(|token| token == "unsafe");
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| holds(line)) {
            let place = format!("{}:{}", file.name, at + 1);
            if !UNSAFE.contains(&file.name.as_str()) {
                broken.push(format!("unsafe stands only in {}; but it stands in {place}", UNSAFE.join(", ")));
            }
            let before = &lines[at.saturating_sub(6)..at];
            let function = tokens(line).windows(2).any(|pair| pair == ["unsafe", "fn"]);
            // What an implementation of an unsafe trait promises is said where it begins.
            let said = if function {
                before.iter().any(|line| line.contains("# Safety")) || line.starts_with("    ")
            } else {
                before.iter().any(|line| line.trim_start().starts_with("// SAFETY: "))
            };
            if !said {
                broken.push(format!("every unsafe says why it is sound; but {place} does not"));
            }
        }
    }
    hold(broken);
}

#[test]
fn no_file_is_too_long_to_be_read_at_once() {
    let long = sources().into_iter().map(|file| (file.text.lines().count(), file.name));
    let long = long.filter(|(lines, _)| *lines > MOST_LINES);
    hold(
        long.map(|(lines, name)| format!("a file has at most {MOST_LINES} lines; but {name} has {lines}"))
            .collect(),
    );
}

#[test]
fn the_door_stays_small() {
    let door = sources().into_iter().find(|file| file.name == "main.rs").unwrap();
    let lines = door.text.lines().count();
    assert!(lines < 40, "main.rs is the door: parse, run, one exit code; but it has {lines} lines");
}

#[test]
fn what_reads_the_house_reads_it_right() {
    let text = r##"
        // use crate::comment;
        use crate::{a, b::{self, c as d}, e::*};
        use super::super::f::{G};
        fn x<'a>(y: &'a str) -> char { let _ = "crate::string\" "; let _ = r#"crate::raw"#; crate::h::i::<u8>(); '"' }
        /* crate::block */ #[cfg(test)] mod tests { use crate::tested; fn y() { {} } }
        #[tonic::async_trait] impl j::K for L { fn m(&self) { std::fs::read(n.tokio::x) } }
    "##;
    let file =
        File { name: "room/part/file.rs".into(), text: String::new(), tokens: without_tests(tokens(text)) };
    let found: Vec<String> = file.paths().into_iter().collect();
    let wanted = [
        "crate::a",
        "crate::b",
        "crate::b::c",
        "crate::e::*",
        "crate::h::i",
        "crate::room::f::G",
        "j::K",
        "std::fs::read",
        "tonic::async_trait",
    ];
    assert_eq!(found, wanted);
    assert_eq!((file.room(), file.module().join("::")), ("room", "room::part::file".to_owned()));
}
