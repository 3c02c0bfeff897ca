//! Tasks that people are given to copy: those of deploy/inspections and those that stand in the documentation. Each is what it says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use kuration::inspection::rules::{cel, refused};
use kuration::inspection::runner;
use kuration::inspection::schedule::Schedule;
use kuration::inspection::task::{Kind, Rule};
use serde_json::{Value, json};

use super::structure;

const RULES: &str = "docs/inspection-rules.md";

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(in_repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The objects in a text of YAML documents.
fn documents(at: &str, text: &str) -> Vec<Value> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{at}: {error}"));
    all.into_iter().filter(|document| !document.is_null()).collect()
}

/// The files of a directory of ready tasks.
fn files(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(in_repository(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut paths: Vec<String> =
        names.filter(|name| name.ends_with(".yaml")).map(|name| format!("{directory}/{name}")).collect();
    paths.sort();
    paths
}

/// Every object in deploy/inspections, with its file.
fn library() -> Vec<(String, Value)> {
    ["deploy/inspections", "deploy/inspections/examples"]
        .into_iter()
        .flat_map(files)
        .flat_map(|path| documents(&path, &read(&path)).into_iter().map(move |object| (path.clone(), object)))
        .collect()
}

/// The blocks of YAML in a page, each with the headline above it.
fn blocks(page: &str) -> Vec<(String, String)> {
    let (mut found, mut headline, mut block) = (Vec::new(), String::new(), None::<String>);
    for line in page.lines() {
        match (&mut block, line.trim_end()) {
            (None, "```yaml") => block = Some(String::new()),
            (Some(text), "```") => {
                found.push((headline.clone(), std::mem::take(text)));
                block = None;
            }
            (Some(text), line) => *text += &format!("{line}\n"),
            (None, line) => {
                if let Some(words) = line.strip_prefix('#') {
                    headline = words.trim_start_matches('#').trim().to_owned();
                }
            }
        }
    }
    assert!(block.is_none(), "a block has no end");
    found
}

/// A task of what a page shows: a whole one, rules, or fields of a spec.
fn whole(shown: Value) -> Value {
    let mut spec = json!({"schedule": "*/5 * * * *", "target": "mysql-service"});
    match shown {
        Value::Array(rules) => spec["rules"] = rules.into(),
        Value::Object(fields) if fields.contains_key("kind") => return Value::Object(fields),
        Value::Object(fields) => spec.as_object_mut().unwrap().extend(fields),
        other => panic!("{other} is part of no task"),
    }
    json!({"apiVersion": "kuration.io/v1", "kind": "InspectionTask", "metadata": {"name": "shown"}, "spec": spec})
}

/// The tasks that pages show, with their place.
fn shown() -> Vec<(String, Value)> {
    let mut pages: Vec<String> = files_of("docs").filter(|page| page.contains("/inspection")).collect();
    pages.push("README.md".to_owned());
    let mut tasks = Vec::new();
    for page in pages {
        for (headline, text) in blocks(&read(&page)) {
            let at = format!("{page}, {headline}");
            tasks.extend(documents(&at, &text).into_iter().map(|document| (at.clone(), whole(document))));
        }
    }
    tasks.retain(|(_, object)| object["kind"] == "InspectionTask");
    tasks
}

fn files_of(directory: &'static str) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(in_repository(directory)).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".md")).map(move |name| format!("{directory}/{name}"))
}

/// What the program itself would refuse, or call an error before it looks.
fn refused_by_the_program(task: &Value) -> Vec<String> {
    let mut faults = Vec::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), task.to_string()).unwrap();
    let loaded = match runner::load(file.path()) {
        Ok(loaded) => loaded,
        Err(error) => return vec![error.to_string()],
    };
    for rule in &loaded.rules {
        if rule.kind().is_none() {
            faults.push(format!("{}: it has not one kind", rule.name));
        }
        faults.extend(refused(rule).map(|blind| format!("{}: {}", rule.name, blind.message)));
        let filter = rule.resource.as_ref().and_then(|resource| resource.filter.as_deref());
        let filter = filter.map(cel::Expression::compile).and_then(Result::err);
        faults.extend(filter.map(|error| format!("{}: where: {error}", rule.name)));
    }
    let seconds: i64 = loaded.rules.iter().map(|rule| i64::from(rule.timeout_seconds)).max().unwrap_or(0);
    if seconds >= loaded.spec.active_deadline_seconds {
        faults.push("a rule may take longer than the whole run".to_owned());
    }
    faults.extend(Schedule::parse(&loaded.spec.schedule).err().map(|error| error.to_string()));
    faults.extend(TimeZone::get(&loaded.spec.time_zone).err().map(|error| error.to_string()));
    faults
}

fn is_taken(at: &str, task: &Value) {
    let faults = [structure::faults(task), refused_by_the_program(task)].concat();
    assert!(faults.is_empty(), "{at}: {faults:#?}");
}

fn tasks(all: Vec<(String, Value)>) -> Vec<(String, Value)> {
    all.into_iter().filter(|(_, object)| object["kind"] == "InspectionTask").collect()
}

#[test]
fn every_ready_task_is_taken_by_the_api_server_and_by_the_program() {
    let all = tasks(library());
    assert_eq!(all.len(), 11);
    for (at, task) in all {
        is_taken(&at, &task);
        assert!(task["metadata"]["namespace"].is_string(), "{at}: kubectl would put it anywhere");
        // So that a person can try it: `kuration inspect -f`.
        runner::load(&in_repository(&at)).unwrap_or_else(|error| panic!("{at}: {error}"));
    }
}

#[test]
fn every_task_in_the_documentation_is_taken_too() {
    let all = shown();
    assert!(all.len() > 25, "{}", all.len());
    for (at, task) in all {
        is_taken(&at, &task);
    }
}

#[test]
fn what_is_wrong_with_a_task_is_found() {
    let with = |fields: Value| whole(fields);
    for (task, wanted) in [
        (with(json!({"scedule": "@daily"})), "spec.scedule is no field"),
        (with(json!([{"name": "a", "http": {"pth": "/"}}])), ".http.pth is no field"),
        (with(json!([{"name": "a", "tcp": {"port": 3306}}])), "bare connect"),
        (
            with(json!([{"name": "a", "dns": {"name": "x"}, "assert": [{"expr": "result.x =="}]}])),
            "does not compile",
        ),
        (
            with(json!([{"name": "a", "dns": {"name": "x"}, "warn": [{"expr": "nothing(1)"}]}])),
            "calls nothing()",
        ),
        (with(json!({"timeZone": "Mars/Olympus"})), "Mars/Olympus"),
    ] {
        let faults = [structure::faults(&task), refused_by_the_program(&task)].concat().join("\n");
        assert!(faults.contains(wanted), "{wanted}: {faults}");
    }
}

#[test]
fn every_kind_of_rule_has_an_example_and_its_default() {
    let page = read(RULES);
    let examples = blocks(&page);
    for kind in Kind::ALL {
        let section = page.split("\n### ").find(|section| section.starts_with(&format!("{kind}\n")));
        let section = section.unwrap_or_else(|| panic!("{RULES} has no section {kind}"));
        assert!(section.contains("Passes ") || section.contains(" passes"), "{kind}: when does it pass?");
        let asserts = section.contains("Needs an assertion");
        assert_eq!(asserts, ["resource", "promql"].contains(kind), "{kind}");
        let mut rules = examples.iter().filter(|(headline, _)| headline == kind).flat_map(|(at, text)| {
            let shown = documents(at, text).remove(0);
            shown.as_array().cloned().unwrap_or_default()
        });
        let is_one = |rule: Value| {
            let rule: Rule = serde_json::from_value(rule).unwrap_or_else(|error| panic!("{kind}: {error}"));
            rule.kind().unwrap().name() == *kind
        };
        assert!(rules.any(is_one), "{kind} has no example");
    }
}

/// What a rule asks of the API server: verb, resource with its group, and whether beyond the task's own namespace.
fn needed(rule: &Value, target: &str) -> BTreeSet<(String, String, bool)> {
    let kind = Kind::ALL.iter().find(|kind| !rule[**kind].is_null()).unwrap();
    let body = &rule[*kind];
    let wide = !matches!(&body["namespaces"], Value::Null) && body["namespaces"] != "Own";
    let all = |rights: &[&str], wide: bool| -> BTreeSet<(String, String, bool)> {
        let split = rights.iter().map(|right| right.split_once(' ').unwrap());
        split.map(|(verb, resource)| (verb.to_owned(), resource.to_owned(), wide)).collect()
    };
    match *kind {
        "target" => match target.split_once('/').unwrap().0 {
            "storageclass" => all(&["get storageclasses.storage.k8s.io"], true),
            other => panic!("say here what {other} needs"),
        },
        "resource" => {
            let (plural, namespaced) = match body["kind"].as_str().unwrap() {
                "Node" => ("nodes", false),
                "Namespace" => ("namespaces", false),
                "PersistentVolume" => ("persistentvolumes", false),
                "APIService" => ("apiservices", false),
                "ResourceQuota" => ("resourcequotas", true),
                "Job" => ("jobs", true),
                "HorizontalPodAutoscaler" => ("horizontalpodautoscalers", true),
                "PodDisruptionBudget" => ("poddisruptionbudgets", true),
                "EndpointSlice" => ("endpointslices", true),
                other => panic!("say here what {other} is called"),
            };
            let group = body["apiVersion"].as_str().unwrap().rsplit_once('/').map_or("", |(group, _)| group);
            let dot = if group.is_empty() { "" } else { "." };
            all(&[&format!("list {plural}{dot}{group}")], wide || !namespaced)
        }
        "workload" => all(&["list deployments.apps", "list statefulsets.apps", "list daemonsets.apps"], wide),
        "pods" => all(&["list pods"], wide),
        "events" => all(&["list events"], wide),
        "node" => all(&["list nodes"], true),
        "certificateSecrets" => all(&["list secrets"], wide),
        "persistentVolumeClaims" => all(&["list persistentvolumeclaims", "list events"], wide),
        "volumeUsage" if body["source"] == "Mount" => BTreeSet::new(),
        "volumeUsage" => {
            let claims = all(&["list persistentvolumeclaims"], wide);
            let driver = all(&["list pods", "list persistentvolumes"], true);
            let by_driver = body["source"] != "Prometheus";
            claims.into_iter().chain(driver.into_iter().filter(|_| by_driver)).collect()
        }
        "volumeProbe" if body["mode"] == "Provision" => {
            let claims =
                ["create", "get", "list", "delete"].map(|verb| format!("{verb} persistentvolumeclaims"));
            let claims = all(&claims.each_ref().map(String::as_str), false);
            let wide = ["get persistentvolumes", "get storageclasses.storage.k8s.io"];
            claims.into_iter().chain(all(&wide, true)).collect()
        }
        "csiDriver" => all(
            &[
                "list nodes",
                "list csinodes.storage.k8s.io",
                "list daemonsets.apps",
                "list pods",
                "list volumeattachments.storage.k8s.io",
                "list leases.coordination.k8s.io",
            ],
            true,
        ),
        "nfs" if !body["fromStorageClass"].is_null() => all(&["get storageclasses.storage.k8s.io"], true),
        _ => BTreeSet::new(),
    }
}

/// What an account may do, in the same words.
fn granted(account: &str, namespace: &str, objects: &[Value]) -> BTreeSet<(String, String, bool)> {
    let mut rights = BTreeSet::new();
    for binding in objects.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("RoleBinding")) {
        let subjects = binding["subjects"].as_array().unwrap();
        if !subjects.iter().any(|subject| subject["name"] == account && subject["namespace"] == namespace) {
            continue;
        }
        let wide = binding["kind"] == "ClusterRoleBinding" || binding["metadata"]["namespace"] != namespace;
        let is_role = |role: &&Value| {
            role["kind"] == binding["roleRef"]["kind"]
                && role["metadata"]["name"] == binding["roleRef"]["name"]
        };
        let role = objects.iter().find(is_role).unwrap_or_else(|| panic!("{}", binding["roleRef"]));
        let list = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        for rule in role["rules"].as_array().unwrap() {
            for (group, resource) in list(&rule["apiGroups"])
                .iter()
                .flat_map(|group| list(&rule["resources"]).into_iter().map(move |r| (group.clone(), r)))
            {
                let dot = if group.is_empty() { "" } else { "." };
                let name = format!("{resource}{dot}{group}");
                rights.extend(list(&rule["verbs"]).into_iter().map(|verb| (verb, name.clone(), wide)));
            }
        }
    }
    rights
}

#[test]
fn the_accounts_of_ready_tasks_may_do_what_their_rules_need_and_no_more() {
    let objects: Vec<Value> = library().into_iter().map(|(_, object)| object).collect();
    let mut accounts = BTreeSet::new();
    for (at, task) in tasks(library()) {
        let namespace = task["metadata"]["namespace"].as_str().unwrap();
        let target = task["spec"]["target"].as_str().unwrap();
        let rules = task["spec"]["rules"].as_array().unwrap();
        match task["spec"]["serviceAccountName"].as_str() {
            Some(account) => drop(accounts.insert((account.to_owned(), namespace.to_owned()))),
            // What comes by itself sees this, in the task's own namespace.
            None => {
                let usual = ["list endpointslices.discovery.k8s.io"];
                for (verb, resource, wide) in rules.iter().flat_map(|rule| needed(rule, target)) {
                    let right = format!("{verb} {resource}");
                    assert!(!wide && usual.contains(&right.as_str()), "{at} may not {right}");
                }
            }
        }
    }
    assert_eq!(accounts.len(), 4, "{accounts:?}");
    for (account, namespace) in accounts {
        let is_there = |object: &Value| {
            object["kind"] == "ServiceAccount"
                && object["metadata"] == json!({"name": account, "namespace": namespace})
        };
        assert!(objects.iter().any(is_there), "there is no {namespace}/{account}");
        let of_account = tasks(library()).into_iter().filter(|(_, task)| {
            task["spec"]["serviceAccountName"] == account && task["metadata"]["namespace"] == namespace
        });
        let needed: BTreeSet<_> = of_account
            .flat_map(|(_, task)| {
                let target = task["spec"]["target"].as_str().unwrap().to_owned();
                let rules = task["spec"]["rules"].as_array().unwrap().clone();
                rules.into_iter().flat_map(move |rule| needed(&rule, &target))
            })
            .collect();
        assert_eq!(granted(&account, &namespace, &objects), needed, "{namespace}/{account}");
    }
}

#[test]
fn the_readme_of_the_ready_tasks_names_each() {
    let page = read("deploy/inspections/README.md");
    for path in files("deploy/inspections") {
        let name = path.rsplit('/').next().unwrap();
        assert!(page.contains(&format!("[{name}]({name})")), "{name}");
    }
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let root = in_repository("");
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    let mut waiting = vec![root.join("docs"), root.join("charts"), root.join("deploy")];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => waiting.push(path),
                Some(extension) if extension == "md" => pages.push(path),
                _ => {}
            }
        }
    }
    let mut links = 0;
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            if link.starts_with("http") {
                continue;
            }
            links += 1;
            let (path, headline) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            let has =
                |text: String| text.lines().any(|line| line.starts_with('#') && anchor(line) == headline);
            let found = headline.is_empty() || has(fs::read_to_string(&target).unwrap());
            assert!(found, "{}: {link}: there is no such headline", page.display());
        }
    }
    assert!(links > 60, "{links}");
}

/// By what a page's headline is linked to.
fn anchor(line: &str) -> String {
    let words = line.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// What expressions over objects of the API find: an object that is well, and one that is not.
#[test]
fn the_expressions_of_ready_tasks_tell_what_is_well_from_what_is_not() {
    let conditions =
        |kind: &str, status: &str| json!({"status": {"conditions": [{"type": kind, "status": status}]}});
    let quota = |used: &str| json!({"status": {"hard": {"cpu": "2", "services.loadbalancers": "0"}, "used": {"cpu": used, "services.loadbalancers": "0"}}});
    let ending = |time: &str| json!({"metadata": {"deletionTimestamp": time}});
    let node = |version: &str| json!({"status": {"nodeInfo": {"kubeletVersion": version}}});
    let slice = |ready: bool| json!({"endpoints": [{"conditions": {"ready": ready}}]});
    let scaler = |n: i64| json!({"spec": {"maxReplicas": 3}, "status": {"currentReplicas": n}});
    let budget = |n: i64| json!({"status": {"expectedPods": 2, "disruptionsAllowed": n}});
    let volume =
        |phase: &str| json!({"status": {"phase": phase}, "spec": {"storageClassName": "kuration-nfs"}});
    let many = |items: &[Value]| Value::Array(items.to_vec());
    let cases = [
        ("cluster", "api-services", conditions("Available", "True"), conditions("Available", "False")),
        ("cluster", "namespaces-ending", ending("2026-09-01T11:30:00Z"), ending("2026-09-01T10:00:00Z")),
        ("cluster", "namespaces-ending", json!({"metadata": {}}), ending("2026-08-01T10:00:00Z")),
        (
            "cluster",
            "node-versions",
            many(&[node("v1.36.1"), node("v1.36.1")]),
            many(&[node("v1.36.1"), node("v1.35.0")]),
        ),
        ("cluster", "failed-jobs", conditions("Complete", "True"), conditions("Failed", "True")),
        ("cluster", "failed-jobs", json!({"status": {}}), conditions("Failed", "True")),
        ("cluster", "quotas", quota("1500m"), quota("2000m")),
        ("cluster", "autoscalers", scaler(2), scaler(3)),
        ("cluster", "disruption-budgets", budget(1), budget(0)),
        ("storage", "volumes-left-over", volume("Bound"), volume("Released")),
        ("storage", "volumes-left-over", volume("Available"), volume("Failed")),
        ("databases-mysql", "endpoints", many(&[slice(false), slice(true)]), many(&[slice(false)])),
        ("examples/check-database", "endpoints", many(&[slice(true)]), many(&[])),
        (
            "examples/check-storage",
            "volumes-not-orphaned",
            many(&[volume("Bound")]),
            many(&[volume("Released")]),
        ),
    ];
    for (file, name, well, bad) in cases {
        let path = format!("deploy/inspections/{file}.yaml");
        let task = documents(&path, &read(&path)).remove(0);
        let rule = task["spec"]["rules"].as_array().unwrap().iter().find(|rule| rule["name"] == name);
        let rule = rule.unwrap_or_else(|| panic!("{path} has no rule {name}"));
        let holds = |seen: &Value| -> bool {
            let items = seen.as_array().cloned().unwrap_or_else(|| vec![seen.clone()]);
            let mut scope = cel::Scope::new("2026-09-01T12:00:00Z".parse().unwrap());
            scope.set("result", cel::ours(&json!({"count": items.len()})));
            scope.set("items", cel::theirs(&Value::Array(items.clone())));
            scope.set("previous", cel::theirs(&json!({})));
            let mut all = ["assert", "warn"]
                .into_iter()
                .flat_map(|field| rule[field].as_array().cloned().unwrap_or_default());
            all.all(|assertion| {
                let expression = cel::Expression::compile(assertion["expr"].as_str().unwrap()).unwrap();
                let said = |said: Result<bool, String>| {
                    said.unwrap_or_else(|error| panic!("{path}, {name}: {error}"))
                };
                if expression.is_for_each() {
                    items.iter().all(|item| said(expression.holds_for(&scope, &cel::theirs(item))))
                } else {
                    said(expression.holds(&scope))
                }
            })
        };
        assert!(holds(&well), "{path}, {name}: {well} is well");
        assert!(!holds(&bad), "{path}, {name}: {bad} is not well");
    }
}
