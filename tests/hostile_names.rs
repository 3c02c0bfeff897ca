//! Whatever a request names, nothing outside of what is Kuration's own is made, changed or removed: hostile text through the
//! porch and the real store, on a real directory with something precious beside it.

// clippy lets tests unwrap, but not what tests call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use kuration::backend::pool::fs::Plain;
use kuration::backend::store::{FileSystem, Store};
use kuration::backend::{Answer, Ask, Job, Reaped};
use kuration::csi::ask::Create;
use kuration::csi::proto::CreateVolumeRequest;
use kuration::volume::{Directory, Kind, VolumeId};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// An export with strangers' files and ways out in it, and what those ways lead to.
struct World {
    outer: tempfile::TempDir,
    store: Store,
    before: Vec<(String, String)>,
}

const NOW: u64 = 2_000_000_000;

/// Everything beneath `root` that Kuration did not make: names, and what they hold or lead to.
fn precious(root: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for path in [
        "canary",
        "canary/file",
        "canary/empty",
        "export/link",
        "export/deep/link",
        "export/deep/er/absolute",
        "export/stranger",
        "export/stranger/file",
        "export/file",
    ] {
        let at = root.join(path);
        let kind = at.symlink_metadata().map(|found| found.file_type());
        let holds = match kind {
            Ok(kind) if kind.is_symlink() => std::fs::read_link(&at).unwrap().display().to_string(),
            Ok(kind) if kind.is_dir() => {
                let mode = std::os::unix::fs::PermissionsExt::mode(&at.metadata().unwrap().permissions());
                // A class may put volumes into a directory that is there, so of those only the owner's things count.
                let names = if path.starts_with("canary") { common::listing(&at) } else { Vec::new() };
                format!("{names:?} {mode:o}")
            }
            Ok(_) => std::fs::read_to_string(&at).unwrap(),
            Err(error) => error.to_string(),
        };
        found.push((path.to_owned(), holds));
    }
    found.push(("all".to_owned(), format!("{:?}", common::listing(root))));
    found
}

impl World {
    fn new(kind: Kind) -> Self {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path();
        for directory in ["canary/empty", "export/deep/er", "export/stranger"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        for file in ["canary/file", "export/stranger/file", "export/file"] {
            std::fs::write(root.join(file), "precious").unwrap();
        }
        let link = |to: &Path, at: &str| std::os::unix::fs::symlink(to, root.join(at)).unwrap();
        link(Path::new("../canary"), "export/link");
        link(Path::new("../../canary"), "export/deep/link");
        link(&root.join("canary"), "export/deep/er/absolute");
        let export: OwnedFd = std::fs::File::open(root.join("export")).unwrap().into();
        let (file_system, promises): (Box<dyn FileSystem>, _) = match kind {
            Kind::Share => (Box::new(Plain::nfs()), None),
            Kind::Pool => (Box::new(Plain::local()), Some(1.0)),
        };
        let store = Store::new(export, "the export".into(), "default".into(), file_system, promises);
        let before = precious(root);
        Self { outer, store, before }
    }

    fn ask(&self, job: Job) -> Answer {
        self.store.answer(Ask { identity: None, job })
    }

    /// Makes a volume, if it can be; its directory.
    fn make(&self, create: &Create) -> Option<Directory> {
        match self.ask(Job::Create(Box::new(create.wanted.clone()))) {
            Answer::Create(Ok((_, volume))) => Some(volume.record.directory),
            Answer::Create(Err(_)) => None,
            other => panic!("{other:?}"),
        }
    }

    /// What a consumer may do to confuse the reaper: ways out of its volume.
    fn fill(&self, directory: &Directory) {
        let at: PathBuf = self.outer.path().join("export").join(directory.as_str());
        if !common::listing(&at).is_empty() {
            // One that was there before, and is used as it is.
            return;
        }
        std::fs::create_dir(at.join("sub")).unwrap();
        for (name, to) in
            [("way", self.outer.path().join("canary")), ("sub/up", "../..".into()), ("root", "/".into())]
        {
            std::os::unix::fs::symlink(to, at.join(name)).unwrap();
        }
        std::fs::hard_link(self.outer.path().join("canary/file"), at.join("sub/same")).unwrap();
    }

    fn untouched(&self) {
        assert_eq!(precious(self.outer.path()), self.before);
    }
}

/// A CreateVolume request as a hostile claim and a careless class might bring it about.
fn request(kind: Kind, name: &str, sub_dir: Option<&str>, claim: &str, retain: bool) -> CreateVolumeRequest {
    let mut request = common::create(name, 4096, &[("csi.storage.k8s.io/pvc/name", claim)]);
    if kind == Kind::Share {
        request.parameters.extend(common::map(&[("server", "h"), ("share", "/a")]));
        if let Some(sub_dir) = sub_dir {
            request.parameters.insert("subDir".into(), sub_dir.into());
        }
    }
    request.parameters.insert("mountPermissions".into(), "0700".into());
    if retain {
        request.parameters.insert("onDelete".into(), "retain".into());
    }
    request
}

/// One volume's life; whatever comes of it, nothing else may be touched.
fn live(kind: Kind, request: &CreateVolumeRequest) {
    let world = World::new(kind);
    // A volume that is in order, before, and left alone.
    let good = Create::parse(&self::request(kind, "good", None, "claim", false), kind, "default", NOW);
    let good = world.make(&good.unwrap_or_else(|status| panic!("{status:?}"))).unwrap();
    world.fill(&good);
    let kept = common::listing(&world.outer.path().join("export").join(good.as_str()));
    if let Ok(create) = Create::parse(request, kind, "default", NOW) {
        let made = world.make(&create);
        world.untouched();
        if let Some(directory) = made {
            assert_eq!(world.make(&create).as_ref(), Some(&directory), "the retry finds the volume");
            if create.wanted.name != "good" {
                world.fill(&directory);
            }
        }
        if create.wanted.name != "good" {
            let key = create.wanted.key;
            assert!(matches!(world.ask(Job::Delete { key }), Answer::Delete(Ok(()))));
            world.untouched();
        }
    }
    // Long after, when all that was abandoned and thrown away goes for good.
    let reserved = world.outer.path().join("export/.kuration/installations/default/reserved");
    for name in common::listing(&reserved) {
        let file = std::fs::File::open(reserved.join(name)).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    let reaped = world.ask(Job::Reap { lifetime: Some(0) });
    assert!(matches!(reaped, Answer::Reap(Ok(Reaped { trouble: None, .. }))), "{reaped:?}");
    world.untouched();
    assert_eq!(common::listing(&world.outer.path().join("export").join(good.as_str())), kept);
}

/// Names that lead somewhere, and pieces of them.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        proptest::sample::select(vec![
            "..",
            ".",
            "",
            "link",
            "deep",
            "er",
            "absolute",
            "stranger",
            "file",
            ".kuration",
            "trash",
            "volumes",
            "id",
            "good",
            "canary",
            "etc",
            "~",
            "%2e%2e",
            "\\..",
            "a",
            "b",
            "${pvc.metadata.name}",
            "${pv.metadata.name}",
            "${",
            "-rf",
            "ü",
            " ",
            "...",
            "default",
            "installations",
            "lock",
        ])
        .prop_map(str::to_owned),
        "\\PC{0,12}",
        "[./\\\\]{1,6}",
    ]
}

fn path() -> impl Strategy<Value = String> {
    (proptest::collection::vec(piece(), 0..6), any::<bool>())
        .prop_map(|(pieces, rooted)| format!("{}{}", if rooted { "/" } else { "" }, pieces.join("/")))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_share_is_left_by_no_name_sub_dir_or_claim(
        name in path(), sub_dir in proptest::option::of(path()), claim in piece(), retain in any::<bool>()
    ) {
        live(Kind::Share, &request(Kind::Share, &name, sub_dir.as_deref(), &claim, retain));
    }

    #[test]
    fn a_pool_is_left_by_no_name(name in path(), retain in any::<bool>()) {
        live(Kind::Pool, &request(Kind::Pool, &name, None, "claim", retain));
    }
}

#[test]
fn no_id_reaches_a_file() {
    let forms = "(nfs1~|pool1~|nfs1~#|h#|)";
    let tails = "(~[0-9a-f]{40}|#u#delete|##|~\\*~[0-9a-f]{40}|)";
    // An id says a key and nothing else to the store, so the same world will do for all.
    let world = World::new(Kind::Share);
    let config = ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
    let done = TestRunner::new(config).run(&(forms, path(), tails), |(form, path, tail)| {
        if let Ok(id) = format!("{form}{path}{tail}").parse::<VolumeId>() {
            let ask = |job| world.store.answer(Ask { identity: id.identity(), job });
            ask(Job::Delete { key: id.key() });
            ask(Job::Unpublish { key: id.key(), node: None });
            ask(Job::Expand { key: id.key(), required: 1, limit: 0 });
            world.untouched();
        }
        Ok(())
    });
    done.unwrap();
}

/// The ways that are known to have worked elsewhere (CVE-2026-3864), one by one.
#[test]
fn the_known_ways_out_lead_nowhere() {
    for sub_dir in [
        "../canary",
        "..",
        "a/../../canary",
        "link",
        "link/x",
        "deep/link",
        "deep/link/x",
        "deep/er/absolute/x",
        "stranger",
        "stranger/file",
        "stranger/file/x",
        "file",
        ".kuration",
        ".kuration/id",
        ".kuration/installations/default/trash",
        "good",
        "good/sub",
        "good/way/x",
        "/",
        "",
        "${pvc.metadata.name}",
        "x/${pvc.metadata.name}/../..",
    ] {
        for claim in ["..", "../canary", ".", "link", "/etc", ".kuration", "claim"] {
            for retain in [false, true] {
                live(Kind::Share, &request(Kind::Share, "pvc-1", Some(sub_dir), claim, retain));
            }
        }
    }
}
