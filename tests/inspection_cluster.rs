//! What a real API server says of tasks: `KUBECONFIG=… cargo test --test inspection_cluster`, against a cluster that has the
//! definition.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use kube::api::{Api, DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

#[tokio::test]
async fn the_api_server_takes_what_is_right_and_refuses_what_is_wrong() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("inspection/tasks.json")).unwrap();
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("kuration.io", "v1", "InspectionTask"));
    let client = Client::try_default().await.expect("a cluster: set KUBECONFIG");
    let tasks: Api<DynamicObject> = Api::namespaced_with(client, "default", &kind);
    let dry = PostParams { dry_run: true, ..Default::default() };
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let called = if name.contains(' ') { "check" } else { name };
        let task: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
            "metadata": { "name": called, "namespace": "default" }, "spec": case["spec"],
        }))
        .unwrap();
        match (case["refused"].as_str(), tasks.create(&dry, &task).await) {
            (None, Ok(made)) => assert_eq!(made.name_any(), called),
            (Some(word), Err(kube::Error::Api(refused))) if refused.message.contains(word) => {}
            (_, said) => wrong.push(format!("{name}: {said:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
