//! A task out of a file.

use std::path::Path;

use serde::Deserialize;

use crate::inspection::run::TaskName;
use crate::inspection::task::{InspectionTask, InspectionTaskSpec, Rule, Target, TargetError};

/// Why a file holds no task.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It can't be read.
    #[error("{0}: {1}")]
    Read(String, std::io::Error),
    /// It is no task.
    #[error("{0} is no InspectionTask: {1}")]
    Parse(String, String),
    /// Its target can't be read.
    #[error("{0}: {1}")]
    Target(String, TargetError),
    /// It has a list of rules without any.
    #[error("{0}: rules is empty; leave it out and the target decides what is checked")]
    NoRules(String),
}

/// A task, ready to be run.
pub struct Loaded {
    /// As it was written.
    pub text: String,
    /// Who it is.
    pub name: TaskName,
    /// What it says.
    pub spec: InspectionTaskSpec,
    /// What it looks at.
    pub target: Target,
    /// Its rules; the target's own where it has none.
    pub rules: Vec<Rule>,
}

/// Reads a task: JSON, or YAML, which JSON is a part of.
pub fn load(path: &Path) -> Result<Loaded, LoadError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| LoadError::Read(name.clone(), error))?;
    let bad = |error: String| LoadError::Parse(name.clone(), error);
    let task: InspectionTask = match serde_json::from_str(&text) {
        Ok(task) => task,
        Err(error) if text.trim_start().starts_with('{') => return Err(bad(error.to_string())),
        Err(_) => serde_saphyr::from_str(&text).map_err(|error| bad(error.to_string()))?,
    };
    let target = Target::parse(&task.spec.target).map_err(|error| LoadError::Target(name.clone(), error))?;
    let rules = match &task.spec.rules {
        Some(rules) if rules.is_empty() => return Err(LoadError::NoRules(name)),
        Some(rules) => rules.clone(),
        None => vec![of_target().map_err(|error| bad(error.to_string()))?],
    };
    let about = TaskName {
        namespace: task.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned()),
        name: task.metadata.name.clone().unwrap_or_default(),
        uid: task.metadata.uid.clone().unwrap_or_default(),
        generation: task.metadata.generation.unwrap_or_default(),
    };
    Ok(Loaded { text, name: about, spec: task.spec, target, rules })
}

/// The rule of a task without rules.
fn of_target() -> Result<Rule, serde_json::Error> {
    let text = serde_json::json!({"name": "target", "severity": "critical", "timeoutSeconds": 20, "retries": 1,
                                  "target": {}});
    Rule::deserialize(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn written(text: &str) -> Result<Loaded, LoadError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        load(file.path())
    }

    const SMALL: &str = "apiVersion: kuration.io/v1\nkind: InspectionTask\nmetadata: {name: check-database}\n\
                         spec:\n  schedule: \"*/5 * * * *\"\n  target: \"mysql-service\"\n";

    #[test]
    fn the_smallest_task_looks_at_its_target() {
        let task = written(SMALL).unwrap();
        assert_eq!((task.rules.len(), task.rules[0].kind().unwrap().name()), (1, "target"));
        assert_eq!((task.name.namespace.as_str(), task.name.name.as_str()), ("default", "check-database"));
        assert_eq!(task.target.service(), Some("mysql-service"));
    }

    #[test]
    fn what_is_no_task_is_refused_with_the_place() {
        assert!(matches!(written("{\"a\": "), Err(LoadError::Parse(..))));
        assert!(matches!(written("just: text"), Err(LoadError::Parse(..))));
        assert!(matches!(written(&format!("{SMALL}  rules: []\n")), Err(LoadError::NoRules(_))));
        assert!(matches!(written(&SMALL.replace("mysql-service", "a b")), Err(LoadError::Target(..))));
        assert!(matches!(load(Path::new("/nowhere/task.json")), Err(LoadError::Read(..))));
    }
}
