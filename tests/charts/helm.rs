//! Helm, and what it makes of the charts.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

/// What charts are rendered for.
const KUBERNETES: &str = "1.36.0";

/// A file of this repository.
pub fn in_repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A chart of this repository.
pub struct Chart {
    /// Its directory.
    pub path: &'static str,
    /// Groups that the cluster knows beside Kubernetes' own.
    pub groups: &'static [&'static str],
}

/// The driver's.
const DRIVER: Chart = Chart { path: "charts/kuration-csi", groups: &[] };

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

impl Chart {
    fn directory(&self) -> String {
        in_repository(self.path).to_str().expect("UTF-8").to_owned()
    }

    /// `helm lint --strict`.
    pub fn lint(&self, values: &Value) -> Result<String, String> {
        helm(&["lint", "--strict", "--kube-version", KUBERNETES, &self.directory()], values)
    }

    fn template(&self, namespace: &str, kubernetes: &str, values: &Value) -> Result<String, String> {
        let chart = self.directory();
        let place = ["--namespace", namespace, "--kube-version", kubernetes];
        let known = self.groups.iter().flat_map(|group| ["--api-versions", group]);
        let arguments: Vec<&str> =
            ["template", "kuration", &chart].into_iter().chain(place).chain(known).collect();
        helm(&arguments, values)
    }

    /// It rendered as text, for another version of Kubernetes.
    pub fn text_for(&self, kubernetes: &str, values: &Value) -> Result<String, String> {
        self.template("kuration-system", kubernetes, values)
    }

    /// It rendered as text, for another namespace. Helm 3 and 4 differ in empty lines and nothing else, so those go.
    pub fn text_in(&self, namespace: &str, values: &Value) -> Result<String, String> {
        let text = self.template(namespace, KUBERNETES, values)?;
        Ok(text.lines().filter(|line| !line.trim().is_empty()).flat_map(|line| [line, "\n"]).collect())
    }

    /// It rendered as text.
    pub fn text(&self, values: &Value) -> Result<String, String> {
        self.text_in("kuration-system", values)
    }

    /// Its objects.
    pub fn render(&self, values: &Value) -> Vec<Value> {
        objects(&self.text(values).unwrap_or_else(|error| panic!("{error}")))
    }
}

/// `helm lint --strict` of the driver's chart.
pub fn lint(values: &Value) -> Result<String, String> {
    DRIVER.lint(values)
}

/// The driver's chart rendered as text, for another version of Kubernetes.
pub fn text_for(kubernetes: &str, values: &Value) -> Result<String, String> {
    DRIVER.text_for(kubernetes, values)
}

/// The driver's chart rendered as text, for another namespace.
pub fn text_in(namespace: &str, values: &Value) -> Result<String, String> {
    DRIVER.text_in(namespace, values)
}

/// The driver's chart rendered as text.
pub fn text(values: &Value) -> Result<String, String> {
    DRIVER.text(values)
}

/// The objects of the driver's chart.
pub fn render(values: &Value) -> Vec<Value> {
    DRIVER.render(values)
}

/// The objects in a text of YAML documents.
pub fn objects(text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}"));
    all.into_iter().filter(|object| !object.is_null()).collect()
}
