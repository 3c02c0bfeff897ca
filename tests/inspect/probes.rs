//! Rules against servers that answer, refuse, hang, flood and lie.

use super::*;

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
    assert_eq!(of(json!({"exec": {"image": "busybox", "command": ["true"]}})), came("error", "NotHere"));
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
