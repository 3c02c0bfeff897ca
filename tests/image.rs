//! `deploy/image/build`: what is in the image, and that it is the same every time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use serde_json::Value;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn build(program: &Path, archive: &Path) -> Output {
    let script = repository().join("deploy/image/build");
    Command::new(script).arg("--binary").arg(program).arg("--output").arg(archive).output().unwrap()
}

/// A static program: the smallest there is.
fn program(directory: &Path) -> PathBuf {
    let (source, program) = (directory.join("program.c"), directory.join("program"));
    fs::write(&source, "int main(void) { return 0; }").unwrap();
    let made = Command::new("cc").arg("-static").arg("-o").arg(&program).arg(&source).status().unwrap();
    assert!(made.success());
    program
}

/// A file of the archive, or of its layer.
fn member(archive: &Path, name: &str) -> Vec<u8> {
    let read = Command::new("tar").arg("-xOf").arg(archive).arg(name).output().unwrap();
    assert!(read.status.success(), "{name}: {}", String::from_utf8_lossy(&read.stderr));
    read.stdout
}

fn json(archive: &Path, name: &str) -> Value {
    serde_json::from_slice(&member(archive, name)).unwrap()
}

/// Where the archive has the blob that `pointer` names by its digest.
fn blob(document: &Value, pointer: &str) -> String {
    let digest = document.pointer(pointer).and_then(Value::as_str).expect(pointer);
    format!("./blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap())
}

#[test]
fn the_same_program_gives_the_same_image_twice() {
    let directory = tempfile::tempdir().unwrap();
    let program = program(directory.path());
    let archives = ["first.tar", "second.tar"].map(|name| directory.path().join(name));
    let said: Vec<String> = archives
        .iter()
        .map(|archive| {
            // As in another checkout, at another time.
            let other_day =
                SystemTime::now() - Duration::from_secs(86_400 * u64::from(archive.ends_with("first.tar")));
            File::options().write(true).open(&program).unwrap().set_modified(other_day).unwrap();
            let built = build(&program, archive);
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            String::from_utf8(built.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
        })
        .collect();
    assert!(said[0].starts_with("sha256:"));
    assert_eq!(said[0], said[1]);
    assert!(fs::read(&archives[0]).unwrap() == fs::read(&archives[1]).unwrap(), "the archives differ");
}

#[test]
fn the_image_is_the_program_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let program = program(directory.path());
    let archive = directory.path().join("image.tar");
    assert!(build(&program, &archive).status.success());

    let manifest = json(&archive, &blob(&json(&archive, "./index.json"), "/manifests/0/digest"));
    let configuration = json(&archive, &blob(&manifest, "/config/digest"));
    assert_eq!(configuration["config"]["Entrypoint"], serde_json::json!(["/kuration"]));
    assert_eq!(configuration["config"]["User"], "65532:65532");
    assert_eq!(
        configuration["config"]["Labels"]["org.opencontainers.image.version"],
        env!("CARGO_PKG_VERSION")
    );

    let layer = directory.path().join("layer.tar");
    fs::write(&layer, member(&archive, &blob(&manifest, "/layers/0/digest"))).unwrap();
    let listed = Command::new("tar").arg("-tvf").arg(&layer).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<&str> = listed.lines().collect();
    assert_eq!(files.len(), 2, "{listed}");
    assert!(files[0].ends_with(" ./") && files[1].ends_with(" ./kuration"), "{listed}");
    assert!(files[1].starts_with("-rwxr-xr-x 0/0"), "{listed}");

    // For docker load, which reads this file.
    let names = json(&archive, "./manifest.json");
    let expected = format!("ghcr.io/kuration-io/kuration:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(names[0]["RepoTags"], serde_json::json!([expected]));
}

#[test]
fn a_program_that_needs_a_loader_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("image.tar");
    let refused = build(Path::new(env!("CARGO_BIN_EXE_kuration")), &archive);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("is not static"));
    assert!(!archive.exists());
}
