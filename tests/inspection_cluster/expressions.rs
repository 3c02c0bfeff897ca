//! What expressions say, asked of the API server itself: the tables that the program is held to are its words.

use std::collections::BTreeSet;
use std::process::Command;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy as Policy, ValidatingAdmissionPolicyBinding as Binding,
};
use kube::api::DeleteParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::asked::{NOW, OBJECT, SAID, Said, USES};
use super::ground::{self, Ground, kubectl, typed};

/// What an API server does not have and the program has: of cel-go's own libraries, and what is in no library but in pages.
const BEYOND: [&str; 24] = [
    "math.abs",
    "math.ceil",
    "math.floor",
    "math.round",
    "math.trunc",
    "math.sign",
    "math.sqrt",
    "math.greatest",
    "math.least",
    "math.isNaN",
    "math.isInf",
    "math.isFinite",
    "math.bitAnd",
    "math.bitOr",
    "math.bitXor",
    "math.bitNot",
    "math.bitShiftLeft",
    "math.bitShiftRight",
    "isIPv4",
    "isIPv6",
    "isCIDRv4",
    "isCIDRv6",
    "base64.encode",
    "base64.decode",
];

/// What only a MutatingAdmissionPolicy has.
const IN_MUTATIONS: &str = "jsonpatch.escapeKey";

/// The API server tells what was found by warnings, in 4 KiB of headers: an error is told with the whole expression.
const AT_ONCE: usize = 16;

/// What its compiler refuses of these: their places.
async fn refused(client: &Client, name: &str, expressions: &[(usize, String)]) -> BTreeSet<usize> {
    let check = |(place, expression): &(usize, String)| json!({ "expression": expression, "message": format!("#{place}.") });
    let checks = expressions.iter().map(check).chain([json!({ "expression": "false", "message": "#last." })]);
    let policy: Policy = typed(json!({ "metadata": { "name": name }, "spec": {
        "failurePolicy": "Fail",
        "matchConstraints": { "resourceRules": [{ "apiGroups": ["coordination.k8s.io"], "apiVersions": ["v1"],
            "operations": ["CREATE"], "resources": ["leases"], "resourceNames": [name] }] },
        "validations": checks.collect::<Vec<_>>(),
    } }));
    let causes = match Api::<Policy>::all(client.clone()).create(&Default::default(), &policy).await {
        Ok(_) => return BTreeSet::new(),
        Err(kube::Error::Api(refused)) => refused.details.map(|details| details.causes).unwrap_or_default(),
        Err(other) => panic!("{name}: {other}"),
    };
    let place =
        |field: &str| field.strip_prefix("spec.validations[")?.split_once(']')?.0.parse::<usize>().ok();
    let places =
        causes.iter().map(|cause| expressions[place(&cause.field).unwrap_or_else(|| panic!("{cause:?}"))].0);
    let places: BTreeSet<usize> = places.collect();
    assert!(!places.is_empty(), "{name} is refused without a cause");
    places
}

/// What the API server says of each.
async fn answers(ground: &Ground, name: &str, expressions: &[String]) -> Vec<Said> {
    let mut said = vec![Said::True; expressions.len()];
    let mut left: Vec<(usize, String)> = expressions.iter().cloned().enumerate().collect();
    loop {
        let refused = refused(&ground.client, name, &left).await;
        refused.iter().for_each(|place| said[*place] = Said::Error);
        left.retain(|(place, _)| !refused.contains(place));
        if refused.is_empty() {
            break;
        }
    }
    let binding: Binding = typed(json!({ "metadata": { "name": name },
        "spec": { "policyName": name, "validationActions": ["Warn"] } }));
    Api::<Binding>::all(ground.client.clone()).create(&Default::default(), &binding).await.unwrap();
    let mut lease: Value = serde_json::from_str(OBJECT).unwrap();
    lease["metadata"]["name"] = json!(name);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), lease.to_string()).unwrap();
    let mut told = String::new();
    ground
        .until_so("the policy is in force", async || {
            let mut create = Command::new("kubectl");
            create.args(["create", "--dry-run=server", "-n", &ground.name, "-f"]).arg(file.path());
            let done = create.output().unwrap();
            assert!(done.status.success(), "{done:?}");
            told = String::from_utf8_lossy(&done.stderr).into_owned();
            told.contains("#last.")
        })
        .await;
    for (place, expression) in &left {
        if told.contains(&format!("#{place}.")) {
            said[*place] = Said::False;
        } else if told.contains(&format!("expression '{expression}' resulted in error")) {
            said[*place] = Said::Error;
        }
    }
    let counted = said.iter().filter(|said| **said != Said::True).count() + 1;
    let compiled = expressions.len() - left.len();
    assert_eq!(told.matches("Warning:").count() + compiled, counted, "each warning is somebody's: {told}");
    drop(Api::<Binding>::all(ground.client.clone()).delete(name, &DeleteParams::default()).await);
    drop(Api::<Policy>::all(ground.client.clone()).delete(name, &DeleteParams::default()).await);
    said
}

#[test]
fn each_expression_says_here_what_the_table_says_that_it_does() {
    ground::run(async |ground: &Ground| {
        let mut wrong = Vec::new();
        for (part, asked) in SAID.chunks(AT_ONCE).enumerate() {
            let expressions: Vec<String> = asked.iter().map(|(expr, _)| (*expr).to_owned()).collect();
            let said = answers(ground, &format!("{}-said-{part}", ground.name), &expressions).await;
            let other = asked.iter().zip(said).filter(|((_, table), said)| table != said);
            wrong.extend(other.map(|((expr, table), said)| format!("{expr}: {said:?}, not {table:?}")));
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn each_function_of_the_documentation_does_here_what_it_does_in_the_program() {
    ground::run(async |ground: &Ground| {
        let (other, theirs): (Vec<_>, Vec<_>) =
            USES.iter().partition(|(name, _)| BEYOND.contains(name) || *name == IN_MUTATIONS);
        let now = format!("timestamp('{NOW}')");
        let asked = |uses: &[&(&str, &str)]| {
            uses.iter().map(|(_, expr)| expr.replace("now", &now)).collect::<Vec<_>>()
        };
        let mut wrong = Vec::new();
        for (uses, expected) in [(theirs, Said::True), (other, Said::Error)] {
            for (part, uses) in uses.chunks(AT_ONCE).enumerate() {
                let name = format!("{}-uses-{}-{part}", ground.name, expected == Said::True);
                let said = answers(ground, &name, &asked(uses)).await;
                let other = uses.iter().zip(said).filter(|(_, said)| *said != expected);
                wrong.extend(other.map(|((name, expr), said)| format!("{name}: {expr}: {said:?}")));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert_eq!(in_a_mutation(ground).await, "true");
    });
}

/// What the use of the one function comes out as that only a change of objects may call.
async fn in_a_mutation(ground: &Ground) -> String {
    let name = &ground.name;
    let (_, expr) = USES.iter().find(|(function, _)| *function == IN_MUTATIONS).expect("a use");
    let patch =
        format!("[JSONPatch{{op: 'add', path: '/metadata/annotations', value: {{'said': string({expr})}}}}]");
    let group = "admissionregistration.k8s.io/v1";
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": group, "kind": "MutatingAdmissionPolicy", "metadata": { "name": name }, "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": { "resourceRules": [{ "apiGroups": ["coordination.k8s.io"], "apiVersions": ["v1"],
                "operations": ["CREATE"], "resources": ["leases"], "resourceNames": [name] }] },
            "mutations": [{ "patchType": "JSONPatch", "jsonPatch": { "expression": patch } }],
        } },
        { "apiVersion": group, "kind": "MutatingAdmissionPolicyBinding", "metadata": { "name": name },
          "spec": { "policyName": name } },
    ] });
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    std::fs::write(path, objects.to_string()).unwrap();
    kubectl(&["create", "-f", path]).unwrap();
    let lease =
        json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name } });
    std::fs::write(path, lease.to_string()).unwrap();
    let shown =
        ["create", "--dry-run=server", "-n", name, "-o", "jsonpath={.metadata.annotations.said}", "-f", path];
    let mut said = String::new();
    ground
        .until_so("the policy is in force", async || {
            said = kubectl(&shown).unwrap();
            !said.is_empty()
        })
        .await;
    for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
        drop(kubectl(&["delete", kind, name]));
    }
    said
}
