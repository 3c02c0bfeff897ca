use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path as FilePath;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::inspection::run::{LATEST_SCHEMA, Latest, Outcome};
use crate::telemetry::listen;

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1")).await
}

async fn site(root: &FilePath, access: Access) -> SocketAddr {
    let listener = listen("[::]:0".parse().unwrap()).await.unwrap();
    // Every address, also of the family that the listener's own is not of.
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, listener.local_addr().unwrap().port()));
    tokio::spawn(serve(listener, root.to_owned(), access, std::future::pending()));
    address
}

fn task(root: &FilePath, name: &str, outcome: Outcome) {
    let home = root.join(name);
    std::fs::create_dir_all(&home).unwrap();
    let latest = Latest {
        schema: LATEST_SCHEMA.into(),
        id: "20261121T060500Z-29804405".into(),
        path: "runs/2026/11/21/20261121T060500Z-29804405".into(),
        outcome,
        completion_time: "2026-11-21T06:05:01Z".parse().unwrap(),
        sha256: String::new(),
    };
    std::fs::write(home.join("latest.json"), serde_json::to_vec(&latest).unwrap()).unwrap();
}

#[tokio::test]
async fn the_worst_comes_first_and_what_can_not_be_read_is_not_hidden() {
    let root = tempfile::tempdir().unwrap();
    task(root.path(), "shop/a-11111111", Outcome::Pass);
    task(root.path(), "shop/b-22222222", Outcome::Fail);
    std::fs::create_dir_all(root.path().join("shop/c-33333333")).unwrap();
    std::fs::write(root.path().join("shop/c-33333333/latest.json"), "{\"half").unwrap();
    let address = site(root.path(), Access::Everybody).await;
    let page = get(address, "/").await;
    let at = |name: &str| page.find(&format!("href=\"/t/shop/{name}\"")).unwrap();
    assert!(at("b-22222222") < at("c-33333333") && at("c-33333333") < at("a-11111111"), "{page}");
    assert!(page.contains("no readable run"));
    let page = get(address, "/?q=B-2").await;
    assert!(page.contains("b-22222222") && !page.contains("a-11111111"), "{page}");
}

#[tokio::test]
async fn no_address_leads_out_of_the_volume() {
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("run.json"), "canary").unwrap();
    let root = outside.path().join("results");
    task(&root, "shop/a-11111111", Outcome::Pass);
    std::os::unix::fs::symlink(outside.path(), root.join("shop/link")).unwrap();
    std::os::unix::fs::symlink("../../../run.json", root.join("shop/a-11111111/index.json")).unwrap();
    let address = site(&root, Access::Everybody).await;
    let tries = [
        "/t/shop/../..",
        "/t/%2e%2e/%2e%2e",
        "/t/shop/..%2f..%2f",
        "/t/..%2f..%2f..%2fetc/passwd",
        "/t/shop/link",
        "/t/shop/link/runs",
        "/t/shop/a-11111111/run/..%2f..%2f..%2f..%2frun/run.json",
        "/t/shop/a-11111111/run/%00/run.json",
        "/t//etc",
        "/t/shop/a-11111111/diff?a=../../&b=%2e%2e",
    ];
    for path in tries {
        let answer = get(address, path).await;
        assert!(answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 400"), "{path}: {answer}");
        assert!(!answer.contains("canary") && !answer.contains("root:"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_page_may_do_nothing_and_only_be_read() {
    let root = tempfile::tempdir().unwrap();
    let address = site(root.path(), Access::Everybody).await;
    let page = get(address, "/?q=%3Cscript%3Ealert(1)%3C/script%3E&lang=zh").await;
    let head = page.split("\r\n\r\n").next().unwrap();
    assert!(
        head.contains("default-src 'none'; style-src 'sha256-") && head.contains("frame-ancestors 'none'")
    );
    assert!(!head.contains("unsafe-inline"));
    for header in
        ["x-content-type-options: nosniff", "referrer-policy: no-referrer", "cache-control: no-store"]
    {
        assert!(head.contains(header), "{head}");
    }
    assert!(!page.contains("<script"), "{page}");
    assert!(page.contains("lang=\"zh-Hans\"><head>"), "{page}");
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert!(ask(address, &format!("{method} / HTTP/1.1")).await.starts_with("HTTP/1.1 405"), "{method}");
    }
}

/// An API server that knows one token, whose user may see the namespace shop alone.
async fn one_token(
    request: http::Request<kube::client::Body>,
) -> Result<http::Response<kube::client::Body>, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect_bytes().await.unwrap();
    let mut object: serde_json::Value = serde_json::from_slice(&body).unwrap();
    object["status"] = if path.ends_with("/tokenreviews") {
        let known = object["spec"]["token"] == "good";
        serde_json::json!({"authenticated": known, "user": {"username": "anna", "groups": ["shop"]}})
    } else {
        let spec = &object["spec"];
        let attributes = &spec["resourceAttributes"];
        let allowed = spec["user"] == "anna"
            && attributes["namespace"] == "shop"
            && attributes["resource"] == "inspectiontasks"
            && attributes["verb"] == "get";
        serde_json::json!({"allowed": allowed})
    };
    let body = serde_json::to_vec(&object).unwrap();
    Ok(http::Response::builder().status(201).body(kube::client::Body::from(body)).unwrap())
}

#[tokio::test]
async fn who_may_not_see_a_namespace_does_not_learn_what_is_in_it() {
    let root = tempfile::tempdir().unwrap();
    task(root.path(), "shop/a-11111111", Outcome::Pass);
    task(root.path(), "bank/b-22222222", Outcome::Fail);
    let address =
        site(root.path(), Access::kubernetes(kube::Client::new(tower::service_fn(one_token), "default")))
            .await;
    let nobody = get(address, "/").await;
    assert!(nobody.starts_with("HTTP/1.1 401") && nobody.contains("www-authenticate: Bearer"), "{nobody}");
    let with = async |token: &str, path: &str| {
        ask(address, &format!("GET {path} HTTP/1.1\r\nAuthorization: Bearer {token}")).await
    };
    assert!(with("bad", "/").await.starts_with("HTTP/1.1 401"));
    let page = with("good", "/").await;
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("a-11111111"), "{page}");
    assert!(!page.contains("b-22222222") && !page.contains("bank"), "{page}");
    for path in ["/t/bank/b-22222222", "/t/bank/none"] {
        assert!(with("good", path).await.starts_with("HTTP/1.1 403"), "{path}");
    }
}
