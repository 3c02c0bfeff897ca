//! An NFS server, asked without a mount: so nothing here can hang in the kernel, and no client state is left behind.
//!
//! NFSv4.1 and 4.2 (RFC 8881): NULL, a session of our own, the export looked up and its free room asked for, an OPEN of a
//! file that is not there (which a server in its grace period refuses as such), and the session taken down again. NFSv4.0:
//! NULL and the look-up, which need no state. NFSv3: NULL, and the list of exports of the mount daemon.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::cluster::{Known, named};
use super::place::Place;
use super::rpc::{Program, Reader, Words};
use super::sight::{Blind, Seen, Sight, Verdict};
use super::wire::{self, Unconnected};
use crate::inspection::task::probe::Nfs;

const NFS: u32 = 100_003;
const MOUNT: u32 = 100_005;
const PORTMAP: u32 = 100_000;
const PORT: u16 = 2049;

/// A server that has not answered after this is not reachable: the pods that use it wait just as long.
const LIMIT: Duration = Duration::from_secs(4);

// Operations and errors of NFSv4 (RFC 8881, sections 15 and 18).
const GETATTR: u32 = 9;
const LOOKUP: u32 = 15;
const OPEN: u32 = 18;
const PUTROOTFH: u32 = 24;
const EXCHANGE_ID: u32 = 42;
const CREATE_SESSION: u32 = 43;
const DESTROY_SESSION: u32 = 44;
const SEQUENCE: u32 = 53;
const DESTROY_CLIENTID: u32 = 57;
const RECLAIM_COMPLETE: u32 = 58;
const ERR_NOENT: u32 = 2;
const ERR_GRACE: u32 = 10_013;
const ERR_MINOR_VERSION: u32 = 10_021;

/// What was learnt of a server.
#[derive(Debug, Default, Clone)]
struct Server {
    version: String,
    in_grace: Option<bool>,
    export_found: Option<bool>,
    free_bytes: Option<u64>,
    total_bytes: Option<u64>,
}

/// Asks the server of the rule, or of a StorageClass.
pub async fn look(rule: &Nfs, place: &Place) -> Seen {
    let (server, export) = match (&rule.server, &rule.from_storage_class) {
        (Some(server), _) => (server.clone(), rule.export.clone()),
        (None, Some(class)) => of_class(class, place).await?,
        (None, None) => return Err(Blind::new("BadRule", "an nfs rule names a server or a StorageClass")),
    };
    let tries: Vec<&str> = match rule.versions.is_empty() {
        true => vec!["4.1", "4.0", "3"],
        false => rule.versions.iter().map(String::as_str).collect(),
    };
    let begun = Instant::now();
    let asked =
        tokio::time::timeout(LIMIT, ask(&server, export.as_deref(), &tries, !rule.versions.is_empty())).await;
    let mut item = json!({"name": server, "kind": "NFSServer", "reachable": false, "inGracePeriod": false,
                          "rttMillis": begun.elapsed().as_secs_f64() * 1000.0});
    if let Some(export) = &export {
        item["export"] = export.clone().into();
    }
    let verdict = match asked {
        Err(_) => {
            Verdict::fail("Unreachable", format!("{server} has not answered within {} s", LIMIT.as_secs()))
        }
        Ok(Err(Unconnected::Blind(blind))) if blind.reason == "Unresolvable" => return Err(blind),
        Ok(Err(Unconnected::Blind(blind))) => Verdict::fail("Unreachable", blind.message),
        Ok(Err(Unconnected::Refused(finding))) => Verdict::Fail(finding),
        Ok(Ok((rtt, found))) => {
            item["reachable"] = true.into();
            item["rttMillis"] = json!(rtt);
            item["version"] = found.version.clone().into();
            item["inGracePeriod"] = found.in_grace.unwrap_or(false).into();
            for (field, value) in [("freeBytes", found.free_bytes), ("totalBytes", found.total_bytes)] {
                if let Some(value) = value {
                    item[field] = value.into();
                }
            }
            if let Some(is_there) = found.export_found {
                item["exportFound"] = is_there.into();
            }
            match found.export_found {
                Some(false) => {
                    let export = export.unwrap_or_default();
                    Verdict::fail("ExportNotFound", format!("{server} has no export {export}"))
                }
                _ => Verdict::Pass,
            }
        }
    };
    let subject = |verdict: Verdict| match verdict {
        Verdict::Fail(mut finding) => {
            finding.subjects = vec![named("", "NFSServer", None, &server, finding.message.clone())];
            Verdict::Fail(finding)
        }
        other => other,
    };
    let verdict = subject(verdict);
    Ok(Sight { result: json!({"servers": [item.clone()]}), items: vec![item], foreign: false, verdict })
}

/// Server and export of a StorageClass's parameters.
async fn of_class(class: &str, place: &Place) -> Result<(String, Option<String>), Blind> {
    let client = place.cluster().await?;
    let known = Known::of(&client, "storage.k8s.io/v1", "StorageClass").await?;
    let found = known.get(&client, "", class).await?;
    let found = found.ok_or_else(|| Blind::new("NotFound", format!("there is no StorageClass {class}")))?;
    let parameter = |name: &str| found["parameters"][name].as_str().map(str::to_owned);
    let server = parameter("server");
    let missing = || {
        Blind::new("NoServer", format!("the StorageClass {class} names no server: its volumes are a pool's"))
    };
    Ok((server.ok_or_else(missing)?, parameter("share")))
}

/// Speaks to the server in the first version that it has: its round trip in milliseconds, and what was learnt.
async fn ask(
    server: &str,
    export: Option<&str>,
    versions: &[&str],
    strict: bool,
) -> Result<(f64, Server), Unconnected> {
    let failed = |error: io::Error| match wire::broken(server, PORT, &error) {
        Verdict::Fail(finding) => Unconnected::Refused(finding),
        _ => Unconnected::Blind(Blind::new("ConnectFailed", error.to_string())),
    };
    let mut last = io::Error::from(io::ErrorKind::Unsupported);
    for version in versions {
        let stream = wire::connect(server, PORT).await?;
        let minor = version.strip_prefix("4.").and_then(|minor| minor.parse::<u32>().ok());
        let mut program = Program::new(stream, NFS, if minor.is_some() { 4 } else { 3 });
        let begun = Instant::now();
        // NULL, the procedure that every program has.
        let learnt = match program.call(0, &Words::default()).await {
            Err(error) => Err(error),
            Ok(_) => {
                let rtt = begun.elapsed().as_secs_f64() * 1000.0;
                let learnt = match minor {
                    Some(0) => stateless(&mut program, export).await,
                    Some(minor) => session(&mut program, minor, export).await,
                    None => exports(server, export).await,
                };
                learnt.map(|found| (rtt, Server { version: (*version).to_owned(), ..found }))
            }
        };
        match learnt {
            Ok(found) => return Ok(found),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => last = error,
            Err(error) => return Err(failed(error)),
        }
    }
    let message = match strict {
        true => format!("{server} does not speak NFS {}: {last}", versions.join(", ")),
        false => format!("{server} speaks no NFS that is known here: {last}"),
    };
    match Verdict::fail("VersionNotOffered", message) {
        Verdict::Fail(finding) => Err(Unconnected::Refused(finding)),
        _ => Err(failed(last)),
    }
}

/// The operations of one COMPOUND, in order.
struct Compound {
    minor: u32,
    count: u32,
    operations: Words,
}

impl Compound {
    fn new(minor: u32) -> Self {
        Self { minor, count: 0, operations: Words::default() }
    }

    fn add(mut self, operation: u32, arguments: &Words) -> Self {
        self.count += 1;
        self.operations = self.operations.word(operation).then(arguments);
        self
    }

    /// The way from the root to a path, step by step.
    fn descend(self, path: &str) -> Self {
        let steps = path.split('/').filter(|step| !step.is_empty());
        steps.fold(self.add(PUTROOTFH, &Words::default()), |compound, step| {
            compound.add(LOOKUP, &Words::default().opaque(step.as_bytes()))
        })
    }

    /// space_avail (42) and space_total (44): both in the second word of the mask.
    fn space(self) -> Self {
        self.add(GETATTR, &Words::default().word(2).word(0).word(1 << 10 | 1 << 12))
    }

    async fn send(self, program: &mut Program) -> io::Result<Answered> {
        let head = Words::default().opaque(b"kuration").word(self.minor).word(self.count);
        let answer = program.call(1, &head.then(&self.operations)).await?;
        let mut reader = Reader::new(&answer);
        let status = reader.word()?;
        if status == ERR_MINOR_VERSION {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the server has no such minor version"));
        }
        reader.opaque()?;
        let count = reader.word()?;
        let at = answer.len() - reader.left();
        Ok(Answered { status, count, rest: answer[at..].to_vec() })
    }
}

struct Answered {
    status: u32,
    count: u32,
    rest: Vec<u8>,
}

/// The status of the operation, which stands behind its number.
fn operation(reader: &mut Reader<'_>, wanted: u32) -> io::Result<u32> {
    if reader.word()? != wanted {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the server answers another operation"));
    }
    reader.word()
}

/// What GETATTR says, after the operations before it, of which each says its number and status alone.
fn space(reader: &mut Reader<'_>, before: u32) -> io::Result<(Option<u64>, Option<u64>)> {
    for _ in 0..before {
        reader.word()?;
        reader.word()?;
    }
    if operation(reader, GETATTR)? != 0 {
        return Ok((None, None));
    }
    let words = reader.word()?;
    let mask: Vec<u32> = (0..words).map(|_| reader.word()).collect::<io::Result<_>>()?;
    let mut values = Reader::new(reader.opaque()?);
    let has = |bit: u32| mask.get(1).is_some_and(|mask| mask & bit != 0);
    let free = if has(1 << 10) { Some(values.long()?) } else { None };
    let total = if has(1 << 12) { Some(values.long()?) } else { None };
    Ok((free, total))
}

fn steps(path: &str) -> u32 {
    u32::try_from(path.split('/').filter(|step| !step.is_empty()).count()).unwrap_or(0)
}

/// What a compound that descends and asks for room says.
fn learnt(answered: &Answered, export: Option<&str>, sequenced: bool) -> io::Result<Server> {
    let mut found = Server::default();
    let mut reader = Reader::new(&answered.rest);
    if sequenced && operation(&mut reader, SEQUENCE)? == 0 {
        // Session, sequence, slot, highest slots, flags.
        reader.fixed(16 + 5 * 4)?;
    }
    let path = export.unwrap_or("/");
    match answered.status {
        0 => {
            (found.free_bytes, found.total_bytes) = space(&mut reader, 1 + steps(path))?;
            found.export_found = export.map(|_| true);
        }
        ERR_NOENT => found.export_found = export.map(|_| false),
        // Whether it is there can't be told by one who may not look: WRONGSEC, ACCESS, PERM.
        _ => {}
    }
    Ok(found)
}

async fn stateless(program: &mut Program, export: Option<&str>) -> io::Result<Server> {
    let answered = Compound::new(0).descend(export.unwrap_or("/")).space().send(program).await?;
    learnt(&answered, export, false)
}

async fn session(program: &mut Program, minor: u32, export: Option<&str>) -> io::Result<Server> {
    let mut verifier = [0; 8];
    rustix::rand::getrandom(&mut verifier, rustix::rand::GetRandomFlags::empty())?;
    let odd = |what: &str, status: u32| io::Error::other(format!("{what} is refused: NFS error {status}"));
    // An owner of its own for each look, no flags, no state protection, no implementation id.
    let owner = format!("kuration-inspector-{:016x}", u64::from_be_bytes(verifier));
    let who = Words::default().fixed(&verifier).opaque(owner.as_bytes()).word(0).word(0).word(0);
    let answered = Compound::new(minor).add(EXCHANGE_ID, &who).send(program).await?;
    let mut reader = Reader::new(&answered.rest);
    if answered.count == 0 || operation(&mut reader, EXCHANGE_ID)? != 0 {
        return Err(odd("a client", answered.status));
    }
    let (client, sequence) = (reader.long()?, reader.word()?);

    let channel = Words::default().word(0).word(8192).word(8192).word(8192).word(32).word(1).word(0);
    let back = Words::default().word(0).word(4096).word(4096).word(4096).word(2).word(1).word(0);
    let wanted = Words::default().long(client).word(sequence).word(0).then(&channel).then(&back);
    // The back channel is never used: a program number, and no security for it.
    let wanted = wanted.word(0x4000_0000).word(1).word(0);
    let answered = Compound::new(minor).add(CREATE_SESSION, &wanted).send(program).await?;
    let mut reader = Reader::new(&answered.rest);
    if answered.count == 0 || operation(&mut reader, CREATE_SESSION)? != 0 {
        return Err(odd("a session", answered.status));
    }
    let id: [u8; 16] = reader.fixed(16)?.try_into().map_err(io::Error::other)?;

    let in_session = async {
        let turn = |number: u32| {
            let turn = Words::default().fixed(&id).word(number).word(0).word(0).word(0);
            Compound::new(minor).add(SEQUENCE, &turn)
        };
        let whole = Words::default().word(0);
        turn(1).add(RECLAIM_COMPLETE, &whole).send(program).await?;
        let path = export.unwrap_or("/");
        let answered = turn(2).descend(path).space().send(program).await?;
        let mut found = learnt(&answered, export, true)?;
        // Sequence, share for reading without a delegation, deny none, owner; no creation; by name.
        let absent = format!(".kuration-absent-{:016x}", client);
        let open =
            Words::default().word(0).word(1 | 0x400).word(0).long(client).opaque(owner.as_bytes()).word(0);
        let open = open.word(0).opaque(absent.as_bytes());
        let answered = turn(3).descend(path).add(OPEN, &open).send(program).await?;
        found.in_grace = Some(answered.status == ERR_GRACE);
        Ok::<Server, io::Error>(found)
    };
    let found = in_session.await;
    // What is not taken down expires with its lease; the look itself is done.
    let session = Words::default().fixed(&id);
    if Compound::new(minor).add(DESTROY_SESSION, &session).send(program).await.is_ok() {
        Compound::new(minor).add(DESTROY_CLIENTID, &Words::default().long(client)).send(program).await.ok();
    }
    found
}

/// The exports that the mount daemon lists (MOUNTPROC3_EXPORT), found through the portmapper.
async fn exports(server: &str, export: Option<&str>) -> io::Result<Server> {
    let gone = |error: Unconnected| match error {
        Unconnected::Refused(finding) => io::Error::other(finding.message),
        Unconnected::Blind(blind) => io::Error::other(blind.message),
    };
    let Some(wanted) = export else { return Ok(Server::default()) };
    let mut portmap = Program::new(wire::connect(server, 111).await.map_err(gone)?, PORTMAP, 2);
    let mapping = Words::default().word(MOUNT).word(3).word(6).word(0);
    let port = Reader::new(&portmap.call(3, &mapping).await?).word()?;
    let port = u16::try_from(port).ok().filter(|port| *port != 0);
    let port = port.ok_or_else(|| io::Error::other("the server has no mount daemon"))?;
    let mut mount = Program::new(wire::connect(server, port).await.map_err(gone)?, MOUNT, 3);
    let answer = mount.call(5, &Words::default()).await?;
    let mut reader = Reader::new(&answer);
    let mut is_there = false;
    while reader.word()? == 1 {
        let path = String::from_utf8_lossy(reader.opaque()?).into_owned();
        let within = wanted
            .strip_prefix(path.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_there |= within;
        while reader.word()? == 1 {
            reader.opaque()?;
        }
    }
    Ok(Server { export_found: Some(is_there), ..Server::default() })
}
