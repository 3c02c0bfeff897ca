//! Helm, and what it makes of the chart.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// What the chart is rendered for.
const KUBERNETES: &str = "1.36.0";

/// A file of this repository.
pub fn in_repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn chart() -> PathBuf {
    in_repository("charts/kuration-csi")
}

/// The program: `HELM` names it, else the PATH has one.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("HELM") {
        return named.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|directory| directory.join("helm")).find(|helm| helm.is_file()).expect(
        "there is no helm, and nothing else can render a chart: HELM=$(tests/cluster/build helm) makes one and names it, \
         `go install helm.sh/helm/v4/cmd/helm@v4.3.1` puts one into the PATH",
    )
}

/// Runs Helm; what it prints, or what it complains of.
fn helm(arguments: &[&str], values: &Value) -> Result<String, String> {
    let file = tempfile::Builder::new().suffix(".json").tempfile().expect("a file");
    std::fs::write(file.path(), values.to_string()).expect("a file that can be written");
    let program = program();
    let done = Command::new(&program)
        .args(arguments)
        .arg("--values")
        .arg(file.path())
        // Nothing that this machine happens to have configured.
        .env("HELM_CONFIG_HOME", "/nonexistent")
        .env("KUBECONFIG", "/nonexistent")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    if done.status.success() { Ok(text(done.stdout)) } else { Err(text(done.stderr)) }
}

/// `helm lint --strict`.
pub fn lint(values: &Value) -> Result<String, String> {
    let chart = chart();
    helm(&["lint", "--strict", "--kube-version", KUBERNETES, chart.to_str().expect("UTF-8")], values)
}

fn template(namespace: &str, kubernetes: &str, values: &Value) -> Result<String, String> {
    let chart = chart();
    let chart = chart.to_str().expect("UTF-8");
    helm(&["template", "kuration", chart, "--namespace", namespace, "--kube-version", kubernetes], values)
}

/// The chart rendered as text, for another version of Kubernetes.
pub fn text_for(kubernetes: &str, values: &Value) -> Result<String, String> {
    template("kuration-system", kubernetes, values)
}

/// The chart rendered as text, for another namespace.
pub fn text_in(namespace: &str, values: &Value) -> Result<String, String> {
    template(namespace, KUBERNETES, values)
}

/// The chart rendered as text. Helm 3 and 4 differ in empty lines and nothing else, so those go.
pub fn text(values: &Value) -> Result<String, String> {
    let text = text_for(KUBERNETES, values)?;
    Ok(text.lines().filter(|line| !line.trim().is_empty()).flat_map(|line| [line, "\n"]).collect())
}

/// The objects of another chart, at `path` in this repository, in a cluster that also knows `groups`.
pub fn other(path: &str, groups: &[&str], values: &Value) -> Result<Vec<Value>, String> {
    let chart = in_repository(path);
    let chart = chart.to_str().expect("UTF-8");
    let namespace = ["--namespace", "kuration-system", "--kube-version", KUBERNETES];
    let known = groups.iter().flat_map(|group| ["--api-versions", group]);
    let arguments: Vec<&str> =
        ["template", "kuration", chart].into_iter().chain(namespace).chain(known).collect();
    Ok(objects(&helm(&arguments, values)?))
}

/// The objects in a text of YAML documents.
pub fn objects(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}"));
    all.into_iter().filter(|object| !object.is_null()).collect()
}

/// The chart's objects.
pub fn render(values: &Value) -> Vec<Value> {
    objects(&text(values).unwrap_or_else(|error| panic!("{error}")))
}
