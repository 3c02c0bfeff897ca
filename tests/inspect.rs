//! `kuration inspect` as a person and a pod run it: against servers on loopback that answer, refuse, hang, flood and lie,
//! and with results volumes that are broken, full of others' files, or half written.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A server on loopback that treats each connection by `serve`; its port.
fn server(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(stream));
        }
    });
    port
}

/// Reads the head of an HTTP request.
fn head(stream: &mut TcpStream) -> String {
    let mut held = Vec::new();
    let mut byte = [0];
    while !held.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        held.push(byte[0]);
    }
    String::from_utf8_lossy(&held).into_owned()
}

fn http(answer: &'static str) -> u16 {
    server(move |mut stream| {
        head(&mut stream);
        stream.write_all(answer.as_bytes()).ok();
    })
}

struct Task {
    place: TempDir,
    text: Value,
}

impl Task {
    fn new(rules: Value) -> Self {
        let text = json!({
            "apiVersion": "kuration.io/v1", "kind": "InspectionTask",
            "metadata": {"name": "check", "namespace": "shop", "uid": "0badcafe-1111", "generation": 3},
            "spec": {"schedule": "* * * * *", "target": "mysql-service", "rules": rules,
                     "activeDeadlineSeconds": 60, "results": {"persistTimeoutSeconds": 10}},
        });
        Self { place: tempfile::tempdir().unwrap(), text }
    }

    fn passing() -> Self {
        let port = http("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        Self::new(json!([{"name": "page", "http": {"url": format!("http://127.0.0.1:{port}/")}}]))
    }

    fn root(&self) -> PathBuf {
        let root = self.place.path().join("volume");
        fs::create_dir_all(&root).unwrap();
        root
    }

    fn directory(&self) -> PathBuf {
        self.root().join("shop/check-0badcafe")
    }

    fn command(&self, args: &[&str]) -> Command {
        let file = self.place.path().join("task.json");
        fs::write(&file, self.text.to_string()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kuration"));
        command.args(["inspect", "--task"]).arg(file).args(args);
        command.env_remove("KUBECONFIG").env("HOME", "/nonexistent");
        command
    }

    /// A run without a volume.
    fn look(&self) -> Value {
        run(self.command(&[]).output().unwrap())
    }

    /// A run of the Job of a minute, with a volume; the run and the pod's last word.
    fn keep(&self, minute: u32) -> (Value, Value) {
        let last = self.place.path().join("last");
        let output = self.kept(minute, &last).output().unwrap();
        (run(output), serde_json::from_slice(&fs::read(last).unwrap()).unwrap())
    }

    fn kept(&self, minute: u32, last: &Path) -> Command {
        let root = self.root();
        let job = format!("check-{minute}");
        let pod = format!("{job}-pod-{}", last.file_name().unwrap().to_string_lossy());
        let args = ["--results", root.to_str().unwrap(), "--job", &job, "--pod", &pod, "--termination-log"];
        let mut command = self.command(&args);
        command.arg(last);
        command
    }

    fn index(&self) -> Value {
        serde_json::from_slice(&fs::read(self.directory().join("index.json")).unwrap()).unwrap()
    }

    /// Every run that can be seen, each checked against its digest.
    fn seen(&self) -> Vec<Value> {
        let mut found = Vec::new();
        let mut waiting = vec![self.directory().join("runs")];
        while let Some(directory) = waiting.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if entry.file_name().to_string_lossy().starts_with('.') {
                    continue;
                }
                if path.join("SHA256SUMS").exists() {
                    let mut sums = Command::new("sha256sum");
                    sums.args(["--check", "--strict", "--quiet", "SHA256SUMS"]).current_dir(&path);
                    assert!(sums.status().unwrap().success(), "{}", path.display());
                    found.push(serde_json::from_slice(&fs::read(path.join("run.json")).unwrap()).unwrap());
                } else if path.is_dir() {
                    waiting.push(path);
                }
            }
        }
        found
    }
}

/// The minute of a moment in 2026.
const MINUTE: u32 = 29_804_405;

fn run(output: Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

/// How one rule came out: result and reason.
fn of(rule: Value) -> (String, String) {
    let mut whole = json!({"name": "r", "timeoutSeconds": 3});
    whole.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
    let run = Task::new(json!([whole])).look();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&run["rules"][0]["result"]), text(&run["rules"][0]["reason"]))
}

fn came(result: &str, reason: &str) -> (String, String) {
    (result.to_owned(), reason.to_owned())
}

#[test]
fn a_page_that_answers_passes_and_one_that_errs_fails() {
    let good = http("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"up\":true}");
    let url = |port: u16| format!("http://127.0.0.1:{port}/");
    assert_eq!(of(json!({"http": {"url": url(good)}})), came("pass", "Passed"));
    let up =
        json!({"http": {"url": url(good)}, "assert": [{"expr": "result.json.up && result.status == 200"}]});
    assert_eq!(of(up), came("pass", "Passed"));
    let bad = http("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(of(json!({"http": {"url": url(bad)}})), came("fail", "HttpStatus"));
    assert_eq!(of(json!({"http": {"url": "http://127.0.0.1:1/"}})), came("fail", "ConnectionRefused"));
    assert_eq!(of(json!({"http": {"url": "http://no-such-host.invalid/"}})), came("error", "Unresolvable"));
}

#[test]
fn a_server_that_hangs_is_an_error_and_one_that_hangs_up_a_failure() {
    let hangs = server(|stream| {
        std::thread::sleep(Duration::from_secs(30));
        drop(stream);
    });
    let begun = Instant::now();
    assert_eq!(of(json!({"http": {"url": format!("http://127.0.0.1:{hangs}/")}})), came("error", "Timeout"));
    assert_eq!(of(json!({"mysql": {"host": "127.0.0.1", "port": hangs}})), came("error", "Timeout"));
    assert!(begun.elapsed() < Duration::from_secs(15));
    let closes = server(drop);
    let (result, reason) = of(json!({"redis": {"host": "127.0.0.1", "port": closes}}));
    assert!(result == "fail" && reason.starts_with("Connection"), "{result} {reason}");
}

#[test]
fn an_answer_of_a_hundred_megabytes_is_read_as_far_as_it_is_kept() {
    let port = server(|mut stream| {
        head(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n").ok();
        let piece = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            if stream.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let rule = json!({"http": {"url": format!("http://127.0.0.1:{port}/")},
                      "assert": [{"expr": "result.bodyTruncated && result.body.size() == 65536"}]});
    assert_eq!(of(rule), came("pass", "Passed"));
}

#[test]
fn redirects_without_end_are_left_and_secrets_are_told_to_no_other_host() {
    let port = server(|mut stream| {
        head(&mut stream);
        stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n").ok();
    });
    let url = format!("http://127.0.0.1:{port}/");
    assert_eq!(of(json!({"http": {"url": url}})), came("fail", "TooManyRedirects"));

    let (sender, heard) = std::sync::mpsc::channel();
    let other = server(move |mut stream| {
        sender.send(head(&mut stream)).ok();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok();
    });
    let sends = server(move |mut stream| {
        head(&mut stream);
        let away =
            format!("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:{other}/\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(away.as_bytes()).ok();
    });
    let rule = json!({"http": {"url": format!("http://127.0.0.1:{sends}/"),
                               "headers": [{"name": "authorization", "value": "canary-3f9a"}]}});
    assert_eq!(of(rule), came("pass", "Passed"));
    assert!(!heard.recv().unwrap().contains("canary-3f9a"));
}

/// A TLS server whose certificate ends so many days from now; its port, and its certificate as PEM.
fn tls_server(days: i64) -> (u16, String) {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let end = jiff::Timestamp::now().as_second() + days * 86_400;
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end.try_into().unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let pem = certificate.pem();
    let chain = vec![certificate.der().clone()];
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let port = server(move |mut stream| {
        let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
        while connection.is_handshaking() {
            if connection.complete_io(&mut stream).is_err() {
                return;
            }
        }
        std::thread::sleep(Duration::from_millis(200));
    });
    (port, pem)
}

#[test]
fn certificates_that_end_soon_are_over_or_can_not_be_trusted_are_told_apart() {
    let rule = |port: u16| json!({"tls": {"host": "localhost", "port": port}});
    assert_eq!(of(rule(tls_server(-1).0)), came("fail", "CertificateExpired"));
    assert_eq!(of(rule(tls_server(5).0)), came("fail", "CertificateExpiring"));
    assert_eq!(of(rule(tls_server(90).0)), came("fail", "CertificateUntrusted"));

    let (port, pem) = tls_server(90);
    let secrets = tempfile::tempdir().unwrap();
    fs::create_dir(secrets.path().join("ca")).unwrap();
    fs::write(secrets.path().join("ca/ca.crt"), pem).unwrap();
    let rule = json!([{"name": "r", "tls": {"host": "localhost", "port": port, "caSecretRef": {"name": "ca", "key": "ca.crt"}},
        "warn": [{"expr": "result.notAfter - now > duration('2400h')", "message": "soon"}]}]);
    let output = Task::new(rule).command(&["--secrets", secrets.path().to_str().unwrap()]).output().unwrap();
    let run = run(output);
    assert_eq!(
        (&run["rules"][0]["result"], &run["rules"][0]["message"]),
        (&json!("warn"), &json!("soon")),
        "{run}"
    );
}

#[test]
fn what_is_written_wrong_is_an_error_with_its_reason() {
    let page = json!({"url": "http://127.0.0.1:1/"});
    let with = |expr: &str| json!({"http": page.clone(), "assert": [{"expr": expr}]});
    assert_eq!(of(with("result.status ==")), came("error", "BadExpression"));
    assert_eq!(of(with("true || nonsense(result)")), came("error", "BadExpression"));
    assert_eq!(of(json!({"tcp": {"host": "127.0.0.1", "port": 3306}})), came("error", "BadRule"));
    assert_eq!(of(json!({})), came("error", "BadRule"));
    assert_eq!(of(json!({"pods": {}})), came("error", "NoCluster"));
    assert_eq!(of(json!({"exec": {"image": "busybox"}})), came("error", "NotHere"));
}

#[test]
fn a_name_server_says_what_it_knows() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let mut answer = buffer[..length].to_vec();
            let exists = !answer.windows(4).any(|part| part == b"none");
            // An answer; with NXDOMAIN or with one record: a pointer to the name, A, IN, 60 s, an address.
            answer[2] |= 0x80;
            answer[3] = if exists { 0x80 } else { 0x83 };
            if exists {
                answer[7] = 1;
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
            }
            socket.send_to(&answer, from).ok();
        }
    });
    let ask = |name: &str, expr: &str| {
        of(json!({"dns": {"name": name, "server": format!("127.0.0.1:{port}")}, "assert": [{"expr": expr}]}))
    };
    assert_eq!(
        ask("a.example", "result.rcode == 'NOERROR' && result.answers == ['192.0.2.7']"),
        came("pass", "Passed")
    );
    assert_eq!(ask("none.example", "result.rcode == 'NXDOMAIN'"), came("pass", "Passed"));
    let default = json!({"dns": {"name": "none.example", "server": format!("127.0.0.1:{port}")}});
    assert_eq!(of(default), came("fail", "NameNotFound"));
    assert_eq!(
        of(json!({"dns": {"name": "a.example", "server": "127.0.0.1:9"}})),
        came("error", "NoNameServer")
    );
}

#[test]
fn a_query_without_samples_is_no_pass() {
    let answer = |body: &str| -> u16 {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        http(Box::leak(text.into_boxed_str()))
    };
    let rule = |port: u16, on_empty: &str| {
        json!({"promql": {"endpoint": format!("http://127.0.0.1:{port}"), "query": "up", "onEmpty": on_empty},
               "assert": [{"expr": "items.all(s, s.value == 1.0)"}]})
    };
    let empty = answer(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
    assert_eq!(of(rule(empty, "Error")), came("error", "NoSamples"));
    assert_eq!(of(rule(empty, "Pass")), came("pass", "Passed"));
    let down = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"job":"a"},"value":[1,"0"]}]}}"#;
    assert_eq!(of(rule(answer(down), "Error")), came("fail", "AssertionFailed"));
    assert_eq!(of(rule(1, "Error")), came("error", "PrometheusUnavailable"));
}

#[test]
fn a_person_gets_a_table_and_an_exit_code() {
    let task = Task::new(json!([{"name": "closed", "tcp": {"host": "127.0.0.1", "port": 1}}]));
    let output = task.command(&["--output", "table", "--once"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("fail") && text.contains("closed") && text.contains("ConnectionRefused"), "{text}");
    assert!(text.contains("0 pass, 0 warn, 1 fail, 0 error, 0 skip"), "{text}");
    let plain = task.command(&["--output", "table"]).output().unwrap();
    assert!(plain.status.success(), "a run that found something out has succeeded");
}

#[test]
fn runs_are_kept_with_their_digests_and_the_index_names_them() {
    let task = Task::passing();
    let (first, last) = task.keep(MINUTE);
    assert_eq!(first["id"], "20260901T120500Z-29804405");
    assert_eq!(last["persisted"], json!({"ok": true}));
    assert_eq!(last["path"], "shop/check-0badcafe/runs/2026/09/01/20260901T120500Z-29804405");
    task.keep(MINUTE + 5);
    let index = task.index();
    let ids: Vec<&str> =
        index["runs"].as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["20260901T121000Z-29804410", "20260901T120500Z-29804405"]);
    assert_eq!(task.seen().len(), 2);
    // The same Job tried again is another run beside the first.
    task.keep(MINUTE);
    assert_eq!(task.seen().len(), 3);
    assert!(task.directory().join("runs/2026/09/01/20260901T120500Z-29804405-r1").is_dir());
}

#[test]
fn a_task_that_says_nothing_of_results_has_them_kept_all_the_same() {
    let mut task = Task::passing();
    task.text["spec"].as_object_mut().unwrap().remove("results");
    assert_eq!(task.keep(MINUTE).1["persisted"], json!({"ok": true}));
}

#[test]
fn an_index_that_is_lost_or_corrupt_is_made_again_byte_for_byte() {
    let task = Task::passing();
    task.keep(MINUTE);
    task.keep(MINUTE + 5);
    let good = task.index();
    let path = task.directory().join("index.json");
    for broken in [None, Some("{\"schema\": "), Some("[]"), Some("")] {
        match broken {
            None => fs::remove_file(&path).unwrap(),
            Some(text) => fs::write(&path, text).unwrap(),
        }
        task.keep(MINUTE + 10);
        let made = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        // What the next run makes from nothing begins with the same entries.
        let runs = serde_json::from_slice::<Value>(&made).unwrap()["runs"].as_array().unwrap().clone();
        assert_eq!(runs[runs.len() - 2..], good["runs"].as_array().unwrap()[..]);
        fs::write(&path, &made).unwrap();
    }
}

#[test]
fn what_is_not_ours_and_what_is_half_written_is_left_alone_and_not_believed() {
    let task = Task::passing();
    task.keep(MINUTE);
    let day = task.directory().join("runs/2026/09/01");
    fs::write(day.join("notes.txt"), "a person's").unwrap();
    fs::create_dir(day.join("20260901T120000Z-29804400")).unwrap();
    fs::write(day.join("20260901T120000Z-29804400/run.json"), "{\"half").unwrap();
    fs::create_dir_all(task.directory().join("runs/photos/summer")).unwrap();
    task.keep(MINUTE + 5);
    assert_eq!(task.index()["runs"].as_array().unwrap().len(), 2);
    assert!(day.join("notes.txt").exists() && day.join("20260901T120000Z-29804400/run.json").exists());
    assert!(task.directory().join("runs/photos/summer").is_dir());
}

#[test]
fn history_stays_within_its_limits_and_a_day_leaves_its_sum() {
    let mut task = Task::passing();
    task.text["spec"]["results"]["history"] = json!({"maxRuns": 3});
    for at in 0..6 {
        task.keep(MINUTE + at * 5);
    }
    assert_eq!(task.seen().len(), 3);
    assert_eq!(task.index()["runs"].as_array().unwrap().len(), 3);
    let daily: Value =
        serde_json::from_slice(&fs::read(task.directory().join("daily/2026-09-01.json")).unwrap()).unwrap();
    assert_eq!((&daily["runs"], &daily["outcomes"]["pass"]), (&json!(6), &json!(6)), "{daily}");
    assert_eq!(daily["rules"]["page"]["counts"]["pass"], 6);
}

#[test]
fn the_report_stands_beside_the_runs_unless_it_is_not_wanted() {
    let mut task = Task::passing();
    let report = task.directory().join("report.html");
    let first = task.keep(MINUTE).0["id"].clone();
    let page = fs::read_to_string(&report).unwrap();
    assert!(page.contains(first.as_str().unwrap()) && page.contains("shop"), "{page}");
    let second = task.keep(MINUTE + 5).0["id"].clone();
    assert!(fs::read_to_string(&report).unwrap().contains(second.as_str().unwrap()));
    // One that can't be written costs no run.
    fs::remove_file(&report).unwrap();
    fs::create_dir_all(report.join("in the way")).unwrap();
    assert_eq!(task.keep(MINUTE + 10).1["persisted"]["ok"], true);
    fs::remove_dir_all(&report).unwrap();
    task.text["spec"]["results"]["html"] = json!(false);
    task.keep(MINUTE + 15);
    assert!(!report.exists());
}

#[test]
fn the_parts_of_a_run_on_every_node_are_one_run_that_names_the_missing() {
    let mut task = Task::passing();
    let mut once = task.text["spec"]["rules"][0].clone();
    (once["name"], once["scope"]) = (json!("once"), json!("Once"));
    task.text["spec"]["rules"].as_array_mut().unwrap().push(once);
    let part = |node: &str, index: &str| {
        let mut command = task.kept(MINUTE, &task.place.path().join(node));
        command.args(["--node", node, "--shard", index, "--shards", "3", "--nodes", "a,b,c"]);
        command
    };
    let outcome = |run: &Value, name: &str| {
        let of_rule = run["rules"].as_array().unwrap().iter().filter(|rule| rule["name"] == name);
        let of = |rule: &Value| {
            let words = [&rule["node"], &rule["result"], &rule["reason"]]
                .map(|word| word.as_str().unwrap_or("-").to_owned());
            words.join(" ")
        };
        of_rule.map(of).collect::<Vec<_>>()
    };
    // The pod that evaluates what is evaluated once is not the first to end.
    run(part("b", "1").output().unwrap());
    let [seen] = task.seen().try_into().unwrap();
    assert_eq!(seen["shards"], json!({"expected": 3, "present": 1, "missing": ["a", "c"]}));
    assert_eq!(
        outcome(&seen, "page"),
        ["b pass Passed", "a error NodeNotInspected", "c error NodeNotInspected"]
    );
    assert_eq!(outcome(&seen, "once"), ["- error NodeNotInspected"]);
    run(part("a", "0").output().unwrap());
    let [seen] = task.seen().try_into().unwrap();
    assert_eq!(outcome(&seen, "once"), ["a pass Passed"]);
    assert_eq!(
        (&seen["outcome"], &seen["summary"]["error"], &seen["shards"]["missing"]),
        (&json!("error"), &json!(1), &json!(["c"]))
    );
    // A third pod that found its own node closed.
    run(part("a", "2").output().unwrap());
    let [seen] = task.seen().try_into().unwrap();
    assert_eq!(
        (outcome(&seen, "once"), &seen["shards"]["present"]),
        (vec!["a pass Passed".to_owned()], &json!(2))
    );
    let word = task.place.path().join("a");
    fs::remove_file(&word).unwrap();
    run(part("a", "0").output().unwrap());
    run(part("c", "2").output().unwrap());
    let [seen] = task.seen().try_into().unwrap();
    assert_eq!((&seen["outcome"], &seen["summary"]["pass"]), (&json!("pass"), &json!(4)), "{seen}");
    assert_eq!(task.index()["runs"][0]["summary"]["pass"], 4);
    // What each pod says last is what it found itself.
    let said = |node: &str| -> Value {
        serde_json::from_slice(&fs::read(task.place.path().join(node)).unwrap()).unwrap()
    };
    assert_eq!((&said("a")["summary"]["pass"], &said("b")["summary"]["pass"]), (&json!(2), &json!(1)));
    assert_eq!((&said("b")["summary"]["skip"], &said("c")["shards"]), (&json!(0), &json!(3)));
    let sums = fs::read_to_string(
        task.directory()
            .join(said("c")["path"].as_str().unwrap().split_once("0badcafe/").unwrap().1)
            .join("SHA256SUMS"),
    );
    assert!(sums.unwrap().contains(said("c")["sha256"].as_str().unwrap()));
}

#[test]
fn parts_that_end_at_once_lose_nothing() {
    let nodes: Vec<String> = (0..12).map(|at| format!("n{at}")).collect();
    // One by the schedule, whose id all parts know; one by hand, whose id is the first one's.
    for job in ["check-29804405", "by-hand"] {
        let task = Task::passing();
        let root = task.root();
        let start = |(at, node): (usize, &String)| {
            let (index, last) = (at.to_string(), task.place.path().join(node));
            let (root, last, all) = (root.to_str().unwrap(), last.to_str().unwrap(), nodes.join(","));
            let mut command = task.command(&[
                "--results",
                root,
                "--job",
                job,
                "--pod",
                node,
                "--termination-log",
                last,
                "--node",
                node,
                "--shard",
                &index,
                "--shards",
                "12",
                "--nodes",
                &all,
            ]);
            // Not all of them begin in one second.
            std::thread::sleep(Duration::from_millis(150));
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        };
        let parts: Vec<_> = nodes.iter().enumerate().map(start).collect();
        for mut part in parts {
            assert!(part.wait().unwrap().success());
        }
        let [seen] = task.seen().try_into().unwrap();
        assert_eq!(
            (&seen["shards"]["present"], &seen["summary"]["pass"]),
            (&json!(12), &json!(12)),
            "{seen}"
        );
        for node in &nodes {
            let last: Value =
                serde_json::from_slice(&fs::read(task.place.path().join(node)).unwrap()).unwrap();
            assert_eq!(last["id"], seen["id"], "{node}");
        }
    }
}

#[test]
fn a_volume_that_can_not_be_written_costs_no_result() {
    let task = Task::passing();
    let root = task.root();
    fs::write(root.join("shop"), "a file where a directory should be").unwrap();
    let (run, last) = task.keep(MINUTE);
    assert_eq!(run["outcome"], "pass");
    assert_eq!((&last["persisted"]["ok"], &last["outcome"]), (&json!(false), &json!("pass")));
    assert!(["EEXIST", "ENOTDIR"].contains(&last["persisted"]["reason"].as_str().unwrap()), "{last}");
    // It is written down by the next run that finds its volume.
    let handed = task.place.path().join("handed");
    fs::create_dir(&handed).unwrap();
    fs::write(handed.join("run"), last.to_string()).unwrap();
    fs::remove_file(root.join("shop")).unwrap();
    let word = task.place.path().join("word");
    let output =
        task.kept(MINUTE + 5, &word).args(["--backfill", handed.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success());
    let word: Value = serde_json::from_slice(&fs::read(word).unwrap()).unwrap();
    assert_eq!(word["backfilled"], json!(["20260901T120500Z-29804405"]));
    let index = task.index();
    let old = &index["runs"][1];
    assert_eq!((&old["detail"], &old["trigger"]), (&json!("SummaryOnly"), &json!("Backfill")), "{index}");
}

#[test]
fn a_volume_that_is_full_is_emptied_of_the_oldest_once() {
    let task = Task::passing();
    let root = task.root();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=96k", "tmpfs"]).arg(&root).status().unwrap();
    assert!(mount.success(), "this test mounts a file system of 96 KiB, and needs root for it");
    let kept = (0..12).map(|at| task.keep(MINUTE + at * 5).1).collect::<Vec<Value>>();
    let runs = task.seen().len();
    Command::new("umount").arg("-l").arg(&root).status().unwrap();
    let written = kept.iter().filter(|last| last["persisted"]["ok"] == true).count();
    assert!(written == 12 && runs < 12, "{written} written, {runs} left: {:?}", kept.last());
}

#[test]
fn a_volume_that_hangs_costs_its_deadline_and_no_result() {
    let mut task = Task::passing();
    task.text["spec"]["results"]["persistTimeoutSeconds"] = json!(2);
    // A FIFO in the place of a file that is read: opening it waits for a writer that never comes.
    let directory = task.directory();
    fs::create_dir_all(&directory).unwrap();
    let fifo = directory.join("index.json");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let begun = Instant::now();
    let (run, last) = task.keep(MINUTE);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!((&run["outcome"], &last["persisted"]["reason"]), (&json!("pass"), &json!("Timeout")));
}

#[cfg(feature = "fault-points")]
#[test]
fn a_writer_killed_at_any_point_leaves_whole_runs_and_the_next_one_puts_all_in_order() {
    const POINTS: [&str; 10] = [
        "results.half",
        "results.staged",
        "results.committed",
        "results.locked",
        "results.reconciled",
        "results.removing",
        "results.indexed",
        "results.reported",
        "results.done",
        "none",
    ];
    for action in ["kill", "kill-child"] {
        for point in POINTS {
            let mut task = Task::passing();
            task.text["spec"]["results"]["history"] = json!({"maxRuns": 2});
            for at in 0..2 {
                task.keep(MINUTE + at * 5);
            }
            let last = task.place.path().join("word");
            let status = task
                .kept(MINUTE + 10, &last)
                .env("KURATION_FAULT", format!("{point}={action}"))
                .output()
                .unwrap()
                .status;
            // With its child alone killed, the run itself goes on to its end.
            assert_eq!(status.success(), point == "none" || action == "kill-child", "{point} {action}");
            let whole = task.seen().len();
            assert!((2..=3).contains(&whole), "{whole} runs after {point}");
            // The lock of the dead expires; here it is made old.
            let lock = task.directory().join(".lock");
            if lock.exists() {
                let touched = Command::new("touch").args(["-d", "1 hour ago"]).arg(&lock).status().unwrap();
                assert!(touched.success());
                fs::remove_file(lock.join("owner.json")).ok();
                Command::new("touch").args(["-d", "1 hour ago"]).arg(&lock).status().unwrap();
            }
            let (_, last) = task.keep(MINUTE + 15);
            assert_eq!(last["persisted"]["ok"], true, "after {point}: {last}");
            assert_eq!(task.seen().len(), 2, "after {point}");
            let index = task.index();
            assert_eq!(index["runs"].as_array().unwrap().len(), 2, "after {point}: {index}");
            assert!(!task.directory().join(".lock").exists());
            let left = fs::read_dir(task.directory().join("runs")).unwrap().flatten();
            let gone = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(".gone-")).count();
            assert_eq!(gone, 0, "after {point}");
        }
    }
}
