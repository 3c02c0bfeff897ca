//! What flags mean, and which are refused.

use super::*;
use crate::args::{Args, Command};
use clap::Parser;

/// What `kuration LINE` means; the least flags are put in front.
fn settings(line: &str) -> Result<Settings, String> {
    let (role, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = vec!["kuration", role, "--endpoint", "unix:///run/csi.sock"];
    if role != "controller" {
        words.extend(["--node-id", "n1"]);
    }
    // A flag given twice is an error of clap's: the test's own one counts.
    words.retain(|w| *w != "--endpoint" && *w != "unix:///run/csi.sock" || !rest.contains("--endpoint"));
    words.retain(|w| *w != "--node-id" && *w != "n1" || !rest.contains("--node-id"));
    words.extend(rest.split(' ').filter(|w| !w.is_empty()));
    let args = Args::try_parse_from(words).map_err(|error| error.to_string())?;
    match args.command {
        Command::Controller(args) => Settings::controller(args),
        Command::Node(args) => Settings::node(args),
        Command::All(args) => Settings::all(args),
        other => panic!("{other:?}"),
    }
    .map_err(|error| error.to_string())
}

fn nodes(settings: &Settings) -> Option<Vec<&str>> {
    settings.known_nodes.as_ref().map(|nodes| nodes.iter().map(String::as_str).collect())
}

#[test]
fn each_command_is_the_role_it_is_named_after() {
    for (role, controller, node) in [("controller", true, false), ("node", false, true), ("all", true, true)]
    {
        let settings = settings(role).unwrap();
        assert_eq!((settings.controller, settings.node.is_some()), (controller, node), "{role}");
    }
}

#[test]
fn the_drivers_name_follows_from_where_the_volumes_live() {
    assert_eq!(settings("node").unwrap().driver_name, "nfs.csi.kuration.io");
    assert_eq!(settings("node --pool /p").unwrap().driver_name, "pool.csi.kuration.io");
    assert_eq!(settings("node --driver-name a.b").unwrap().driver_name, "a.b");
}

#[test]
fn a_pool_is_what_the_flags_say() {
    let all = settings("all --pool /p --pool-image 4GiB --pool-filesystem xfs --overcommit 1.5").unwrap();
    let (directory, filesystem) = (PathBuf::from("/p"), PoolFilesystem::Xfs);
    let pool = BackendSettings::Pool { directory, image: Some(4 << 30), filesystem, overcommit: 1.5 };
    assert_eq!(all.backend, pool);
}

#[test]
fn exports_bring_their_own_options() {
    let node =
        settings("node --share s:/a,vers=4.1,timeo=50 --share [fd00::1]:/b --mount-options nconnect=2")
            .unwrap();
    let BackendSettings::Share { exports } = node.backend else { panic!("a share") };
    let shown: Vec<String> = exports.iter().map(|(export, options)| format!("{export} {options}")).collect();
    assert_eq!(shown, ["s:/a vers=4.1,timeo=50", "[fd00::1]:/b "]);
    assert_eq!(node.mount_options.to_string(), "nconnect=2");
}

#[test]
fn one_machine_knows_its_own_node() {
    assert_eq!(nodes(&settings("controller").unwrap()), None);
    assert_eq!(nodes(&settings("controller --known-node a,b").unwrap()), Some(vec!["a", "b"]));
    assert_eq!(nodes(&settings("all").unwrap()), Some(vec!["n1"]));
    assert_eq!(nodes(&settings("all --known-node a").unwrap()), Some(vec!["a", "n1"]));
}

#[test]
fn no_limit_is_not_a_limit_of_none() {
    let limit = |line| settings(line).unwrap().node.unwrap().max_volumes;
    assert_eq!((limit("node"), limit("node --max-volumes-per-node 5")), (None, Some(5)));
}

#[test]
fn the_kubelet_is_told_the_endpoint_as_it_sees_it() {
    let registration = |line| settings(line).unwrap().node.unwrap().registration;
    let told = |endpoint: &str| {
        Some(RegistrationSettings { directory: "/registration".into(), endpoint: endpoint.into() })
    };
    assert_eq!(registration("node"), None);
    assert_eq!(registration("node --kubelet-registration /registration"), told("/run/csi.sock"));
    let line = "all --kubelet-registration /registration --kubelet-endpoint /k/csi.sock";
    assert_eq!(registration(line), told("/k/csi.sock"));
}

#[test]
fn inline_volumes_live_where_the_administrator_says() {
    let inline = |line| settings(line).unwrap().node.unwrap().inline;
    assert_eq!(inline("node"), None);
    let on = inline("node --inline-share s:/a,vers=4.1").unwrap();
    let (export, options) = on.share.unwrap();
    assert_eq!(
        (export.to_string(), options.to_string(), on.limit),
        ("s:/a".into(), "vers=4.1".into(), 1 << 30)
    );
    let pool = InlineSettings { share: None, limit: 5 << 20 };
    assert_eq!(inline("all --pool /p --inline-pool --inline-limit 5MiB"), Some(pool));
}

#[test]
fn what_makes_no_sense_is_refused_with_the_flag_and_the_reason() {
    let long_path = format!("all --endpoint unix:///{}", "x".repeat(107));
    let long_name = format!("all --driver-name {}", "x".repeat(64));
    let long_registry = format!("node --kubelet-registration /{}", "x".repeat(80));
    let long_node = format!("all --node-id {}", "x".repeat(257));
    for (line, flag, reason) in [
        ("all --endpoint /run/csi.sock", "endpoint", "unix://"),
        ("all --endpoint tcp://localhost:1", "endpoint", "unix://"),
        ("all --endpoint unix://run/csi.sock", "endpoint", "absolute"),
        ("all --endpoint unix:///run/", "endpoint", "name a file"),
        (&long_path, "endpoint", "107"),
        ("all --driver-name nfs4", "driver-name", "a letter first and last"),
        ("all --driver-name a_b", "driver-name", "letters, digits"),
        (&long_name, "driver-name", "63"),
        ("all --installation a/b", "installation", "1 to 63"),
        (&long_node, "node-id", "256"),
        ("all --node-id=", "node-id", "empty"),
        ("all --known-node a,,b", "known-node", "empty"),
        ("all --pool-image 4GiB", "pool-image", "needs --pool"),
        ("all --pool /p --pool-filesystem xfs", "pool-filesystem", "needs --pool-image"),
        ("all --overcommit 2", "overcommit", "needs --pool"),
        ("all --pool /p --overcommit 0.01", "overcommit", "0.1 or more"),
        ("all --pool /p --overcommit inf", "overcommit", "0.1 or more"),
        ("all --pool /p --overcommit NaN", "overcommit", "0.1 or more"),
        ("all --pool /p --share s:/a", "pool", "both"),
        ("all --pool /p --allow-server nas", "pool", "both"),
        ("all --allow-server nas,10.0.0.1/8", "allow-server", "10.0.0.0/8"),
        ("all --share s:a", "share", "server:/path"),
        ("all --share s:/a,nolocks", "share", "did you mean"),
        ("all --share s:/a --share s:/a/,hard", "share", "twice"),
        ("all --mount-options addr=1.2.3.4", "mount-options", "resolved"),
        ("all --topology Zone=a,zone=b", "topology", "twice"),
        ("all --topology UPPER.io/zone=a", "topology", "domain"),
        ("all --topology zone=-a", "topology", "1 to 63"),
        ("all --topology zone=", "topology", "1 to 63"),
        ("all --operation-timeout 5ms", "operation-timeout", "1s"),
        ("all --reap-interval 0", "reap-interval", "1s"),
        ("all --startup-taint", "startup-taint", "needs --kubernetes"),
        ("controller --lease a/b", "lease", "needs --kubernetes"),
        ("controller --kubernetes --lease reaper", "lease", "NAMESPACE/NAME"),
        ("controller --kubernetes --lease a/B", "lease", "NAMESPACE/NAME"),
        ("controller --kubernetes --lease a/b/c", "lease", "NAMESPACE/NAME"),
        ("all --v 11", "--v", "0..=10"),
        ("node --grace soon", "--grace", "30s"),
        ("node --kubelet-endpoint /run/csi.sock", "kubelet-endpoint", "needs --kubelet-registration"),
        ("node --kubelet-registration /r --kubelet-endpoint csi.sock", "kubelet-endpoint", "absolute"),
        ("node --inline-pool", "inline-pool", "needs --pool"),
        ("node --inline-limit 1GiB", "inline-limit", "needs --inline-share or --inline-pool"),
        ("node --inline-share s:a", "inline-share", "server:/path"),
        ("node --inline-share s:/a --inline-limit 0", "--inline-limit", "more than 0"),
        ("all --pool /p --inline-share s:/a", "inline-share", "both"),
        (&long_registry, "kubelet-registration", "107"),
    ] {
        let refusal = settings(line).expect_err(line);
        assert!(refusal.contains(flag) && refusal.contains(reason), "{line}: {refusal}");
    }
}

#[test]
fn without_an_endpoint_there_is_nothing_to_serve() {
    let Command::Node(mut args) = Args::parse_from(["kuration", "node", "--node-id", "n1"]).command else {
        panic!("a node")
    };
    (args.shared.endpoint, args.shared.csi_endpoint) = (None, None);
    assert!(Settings::node(args).unwrap_err().to_string().contains("--endpoint is missing"));
}
