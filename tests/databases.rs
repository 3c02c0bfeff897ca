//! Rules against real servers: MariaDB, PostgreSQL and Redis, started here on ports of their own (packages mariadb-server,
//! postgresql, redis-server; as root).

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A password that must stand nowhere in what a run leaves.
const PASSWORD: &str = "canary-7b1e5d";

/// A server that ends with the test.
struct Server {
    place: TempDir,
    port: u16,
    process: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A program of a package, wherever the distribution has put it.
fn program(names: &[&str], places: &[&str]) -> PathBuf {
    let mut found = Vec::new();
    for place in places {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            found.push(entry.path().join("bin"));
        }
        found.push(PathBuf::from(place));
    }
    let all = found.iter().flat_map(|place| names.iter().map(move |name| place.join(name)));
    all.into_iter().find(|path| path.is_file()).unwrap_or_else(|| panic!("none of {names:?} is installed"))
}

const USUAL: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/lib/postgresql"];

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} within a minute");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// An address of this machine that is not loopback: servers count no errors of loopback.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

/// Runs one rule, with the password mounted as the Secret `login`.
fn look(rule: Value) -> Value {
    let place = tempfile::tempdir().unwrap();
    let secret = place.path().join("secrets/login");
    fs::create_dir_all(&secret).unwrap();
    fs::write(secret.join("username"), "inspector").unwrap();
    fs::write(secret.join("password"), PASSWORD).unwrap();
    fs::write(secret.join("stranger"), "stranger").unwrap();
    let task = place.path().join("task.json");
    let whole = json!({"apiVersion": "kuration.io/v1", "kind": "InspectionTask", "metadata": {"name": "check"},
                       "spec": {"schedule": "* * * * *", "target": "db", "rules": [rule]}});
    fs::write(&task, whole.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kuration"))
        .args(["inspect", "--output", "json", "-v", "8", "--secrets"])
        .arg(place.path().join("secrets"))
        .arg("--task")
        .arg(task)
        .output()
        .unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!said.contains(PASSWORD), "the password is told: {said}");
    serde_json::from_slice::<Value>(&output.stdout).unwrap()["rules"][0].clone()
}

fn came(rule: &Value) -> (&str, &str) {
    (rule["result"].as_str().unwrap(), rule["reason"].as_str().unwrap())
}

fn mariadb() -> Server {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let make = || {
        let install = program(&["mariadb-install-db", "mysql_install_db"], &USUAL);
        let mut made = Command::new(install);
        made.arg("--no-defaults").arg("--user=root").arg("--auth-root-authentication-method=normal");
        made.arg(format!("--datadir={}", data.display())).arg("--skip-test-db");
        quiet(&mut made).status().unwrap().success()
    };
    // One in fifteen fails beside another server, and says nothing but that it failed.
    let mut tries = 1;
    while !make() {
        assert!(tries < 4, "MariaDB can't make its system tables in {}", data.display());
        fs::remove_dir_all(&data).ok();
        tries += 1;
    }
    let port = free_port();
    let socket = place.path().join("sock");
    let process = quiet(
        Command::new(program(&["mariadbd", "mysqld"], &USUAL))
            .args(["--no-defaults", "--user=root", "--performance-schema=ON", "--max-connect-errors=3"])
            .args(["--bind-address=0.0.0.0", "--skip-log-bin"])
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--port={port}")),
    )
    .spawn()
    .unwrap();
    let server = Server { place, port, process };
    wait_until("MariaDB answers", || sql(server.place.path(), "SELECT 1").is_some());
    let user =
        format!("CREATE USER inspector@'%' IDENTIFIED BY '{PASSWORD}'; GRANT SELECT ON *.* TO inspector@'%'");
    sql(server.place.path(), &user).unwrap();
    server
}

fn sql(place: &Path, text: &str) -> Option<String> {
    let client = program(&["mariadb", "mysql"], &USUAL);
    let socket = format!("--socket={}", place.join("sock").display());
    let mut asked = Command::new(client);
    asked.args(["--no-defaults", "-uroot", "-N", "-B"]).arg(socket).args(["-e", text]);
    let output = asked.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).unwrap().trim().to_owned())
}

#[test]
fn fifty_handshakes_count_as_no_attack_where_four_bare_connections_do() {
    let server = mariadb();
    let host = own_address().to_string();
    let errors = || {
        let text = "SELECT COALESCE(SUM(SUM_CONNECT_ERRORS), 0) FROM performance_schema.host_cache";
        sql(server.place.path(), text).unwrap()
    };
    let rule = || json!({"name": "r", "mysql": {"host": host, "port": server.port}});
    for _ in 0..50 {
        let seen = look(rule());
        assert_eq!(came(&seen), ("pass", "Passed"), "{seen}");
    }
    assert_eq!(errors(), "0");
    assert_ne!(sql(server.place.path(), "SELECT COUNT(*) FROM performance_schema.host_cache").unwrap(), "0");
    // The same server, connected to as a bare TCP probe does.
    for _ in 0..5 {
        drop(TcpStream::connect((host.as_str(), server.port)).unwrap());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_ne!(errors(), "0", "this server would not have noticed");
    let seen = look(rule());
    assert_eq!(came(&seen), ("fail", "HostBlocked"), "{seen}");
}

#[test]
fn mariadb_is_asked_with_credentials_in_a_session_that_only_reads() {
    let server = mariadb();
    sql(
        server.place.path(),
        "CREATE DATABASE shop; CREATE TABLE shop.t (n INT); GRANT ALL ON shop.* TO inspector@'%'",
    );
    let rule = |more: Value, assert: &str| {
        let mut mysql =
            json!({"host": "127.0.0.1", "port": server.port, "credentialsSecretRef": {"name": "login"}});
        mysql.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        look(json!({"name": "r", "mysql": mysql, "assert": [{"expr": assert}]}))
    };
    let query = "SELECT COUNT(*) AS tables, 'x' AS word FROM information_schema.tables";
    let seen = rule(json!({"query": query}), "result.rows[0].tables > 0 && result.rows[0].word == 'x'");
    assert_eq!(came(&seen), ("pass", "Passed"), "{seen}");
    let share = "result.status.Threads_connected * 100 < result.variables.max_connections * 90 && !has(result.replica)";
    let seen = rule(json!({"collect": ["Status", "Replica"]}), share);
    // The account may not ask about replication: that is said, and is no pass.
    assert_eq!(came(&seen), ("error", "Forbidden"), "{seen}");
    let seen = rule(json!({"collect": ["Status"]}), share);
    assert_eq!(came(&seen), ("pass", "Passed"), "{seen}");
    for query in [
        "INSERT INTO shop.t VALUES (1)",
        "SELECT 1; INSERT INTO shop.t VALUES (1)",
        "WITH a AS (SELECT 1) DELETE FROM shop.t",
    ] {
        assert_ne!(came(&rule(json!({"query": query}), "result.rows.size() >= 0")).0, "pass", "{query}");
    }
    assert_eq!(sql(server.place.path(), "SELECT COUNT(*) FROM shop.t").unwrap(), "0");
    let wrong = json!({"name": "r", "mysql": {"host": "127.0.0.1", "port": server.port, "query": "SELECT 1",
        "credentialsSecretRef": {"name": "login", "usernameKey": "stranger"}}});
    assert_eq!(came(&look(wrong)), ("fail", "LoginRefused"));
}

#[test]
fn redis_is_alive_without_its_password_and_tells_more_with_it() {
    let place = tempfile::tempdir().unwrap();
    let port = free_port();
    let process = quiet(
        Command::new(program(&["redis-server", "valkey-server"], &USUAL))
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--requirepass",
                PASSWORD,
                "--port",
                &port.to_string(),
            ])
            .current_dir(place.path()),
    )
    .spawn()
    .unwrap();
    let server = Server { place, port, process };
    wait_until("Redis answers", || TcpStream::connect(("127.0.0.1", server.port)).is_ok());
    let plain = look(json!({"name": "r", "redis": {"host": "127.0.0.1", "port": port}}));
    assert_eq!(came(&plain), ("pass", "Passed"), "{plain}");
    fn with(port: u16, key: &str) -> Value {
        look(json!({"name": "r", "redis": {"host": "127.0.0.1", "port": port,
            "credentialsSecretRef": {"name": "login", "usernameKey": key}},
            "assert": [{"expr": "result.role == 'master' && result.usedMemoryBytes > 0"}]}))
    }
    // Without ACLs the only user is "default"; a name that is not known is refused.
    assert_eq!(came(&with(port, "username")), ("fail", "LoginRefused"));
}

#[test]
fn postgresql_is_alive_without_a_login_and_answers_queries_with_one() {
    let place = tempfile::tempdir_in("/tmp").unwrap();
    let data = place.path().join("data");
    fs::create_dir(&data).unwrap();
    let own = |path: &Path| {
        assert!(Command::new("chown").args(["-R", "postgres"]).arg(path).status().unwrap().success())
    };
    own(place.path());
    let beneath = ["/usr/lib/postgresql"];
    let word = place.path().join("word");
    fs::write(&word, PASSWORD).unwrap();
    own(&word);
    let as_postgres = |path: PathBuf| {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(path).current_dir("/tmp");
        command
    };
    let mut made = as_postgres(program(&["initdb"], &beneath));
    made.args(["-A", "scram-sha-256", "-U", "inspector"])
        .arg(format!("--pwfile={}", word.display()))
        .arg("-D")
        .arg(&data);
    assert!(quiet(&mut made).status().unwrap().success());
    let port = free_port();
    let mut started = as_postgres(program(&["postgres"], &beneath));
    started.arg("-D").arg(&data).args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k"]).arg(place.path());
    let process = quiet(&mut started).spawn().unwrap();
    let server = Server { place, port, process };
    let plain = || look(json!({"name": "r", "postgresql": {"host": "127.0.0.1", "port": server.port}}));
    wait_until("PostgreSQL answers", || came(&plain()) == ("pass", "Passed"));
    let rule = |query: &str, assert: &str| {
        look(json!({"name": "r", "postgresql": {"host": "127.0.0.1", "port": server.port, "query": query,
            "collect": ["Status", "Replica"], "credentialsSecretRef": {"name": "login"}}, "assert": [{"expr": assert}]}))
    };
    let fine = "result.rows[0].n == 3 && result.rows[0].half == 1.5 && result.role == 'primary' && result.maxConnections > 0";
    let seen = rule("SELECT 3 AS n, 1.5::numeric AS half;", fine);
    assert_eq!(came(&seen), ("pass", "Passed"), "{seen}");
    for query in [
        "CREATE TABLE t (n int)",
        "SELECT 1; CREATE TABLE t (n int)",
        "SELECT pg_notify('a', 'b')) x; DROP TABLE t; --",
    ] {
        let seen = rule(query, "result.rows.size() >= 0");
        assert_eq!(came(&seen), ("fail", "QueryFailed"), "{query}: {seen}");
    }
    let seen = rule("SELECT nextval('none')", "result.rows.size() >= 0");
    assert_eq!(came(&seen), ("fail", "QueryFailed"), "{seen}");
}
