//! Questions to name servers, asked by ourselves: the system's resolver hides the answer code.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::sight::{Blind, Seen, Sight, Verdict};
use crate::inspection::task::probe::{self, Dns};

/// How long a server has for one answer before it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks for `name`, of `server` (an address, with or without a port), or of those in /etc/resolv.conf.
///
/// A name with a dot at its end, or one asked of a named server, is asked as it stands; else the search list applies as it
/// does for every program in the pod.
pub async fn look(rule: &Dns) -> Seen {
    let (name, server) = (rule.name.as_str(), rule.server.as_deref());
    let kind = match rule.record_type {
        probe::RecordType::A => RecordType::A,
        probe::RecordType::Aaaa => RecordType::AAAA,
        probe::RecordType::Cname => RecordType::CNAME,
        probe::RecordType::Mx => RecordType::MX,
        probe::RecordType::Ns => RecordType::NS,
        probe::RecordType::Ptr => RecordType::PTR,
        probe::RecordType::Soa => RecordType::SOA,
        probe::RecordType::Srv => RecordType::SRV,
        probe::RecordType::Txt => RecordType::TXT,
    };
    let system = Resolver::of_system();
    let servers = match server {
        Some(server) => vec![address(server).ok_or_else(|| {
            Blind::new("BadRule", format!("{server:?} is not the address of a name server"))
        })?],
        None => system.servers.clone(),
    };
    if servers.is_empty() {
        return Err(Blind::new("NoNameServer", "/etc/resolv.conf names no server"));
    }
    let candidates = match server {
        Some(_) => vec![name.to_owned()],
        None => system.candidates(name),
    };
    let begun = Instant::now();
    let mut last = None;
    for candidate in candidates {
        let answer = ask_any(&servers, &candidate, kind).await?;
        let found = answer.rcode == ResponseCode::NoError && !answer.answers.is_empty();
        last = Some((candidate, answer));
        if found {
            break;
        }
    }
    let Some((asked, answer)) = last else {
        return Err(Blind::new("BadRule", format!("{name:?} is no name")));
    };
    let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let rcode = code(answer.rcode);
    let verdict = match (rcode.as_str(), answer.answers.is_empty()) {
        ("NOERROR", false) => Verdict::Pass,
        ("NOERROR", true) => Verdict::fail("NoRecord", format!("{name} has no {kind} record")),
        ("NXDOMAIN", _) => Verdict::fail("NameNotFound", format!("{name} does not exist (NXDOMAIN)")),
        (code, _) => Verdict::fail("DnsFailed", format!("the name server answered {code} for {name}")),
    };
    let result = json!({
        "rcode": rcode, "answers": answer.answers, "durationMillis": millis, "name": asked,
        "server": answer.server.to_string(),
    });
    Ok(Sight::of(result, verdict))
}

struct Answer {
    rcode: ResponseCode,
    answers: Vec<String>,
    server: SocketAddr,
}

async fn ask_any(servers: &[SocketAddr], name: &str, kind: RecordType) -> Result<Answer, Blind> {
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for server in servers.iter().chain(servers) {
        match tokio::time::timeout(PATIENCE, ask(*server, name, kind)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                return Err(Blind::new("BadRule", format!("{name:?} is no name: {error}")));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    let asked: Vec<String> = servers.iter().map(ToString::to_string).collect();
    Err(Blind::new("NoNameServer", format!("no answer from {}: {last}", asked.join(", "))))
}

async fn ask(server: SocketAddr, name: &str, kind: RecordType) -> io::Result<Answer> {
    let mut name =
        Name::from_str(name).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    name.set_fqdn(true);
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    let mut message = Message::new(u16::from_be_bytes(id), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    let mut query = Query::query(name, kind);
    query.set_query_class(DNSClass::IN);
    message.add_query(query);
    let question = message.to_vec().map_err(io::Error::other)?;

    let any: IpAddr = match server {
        SocketAddr::V4(_) => IpAddr::from([0; 4]),
        SocketAddr::V6(_) => IpAddr::from([0; 16]),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut buffer = vec![0; 4096];
    let mut reply = loop {
        let length = socket.recv(&mut buffer).await?;
        // Whatever is not an answer to this question is someone else's, or an attack.
        match Message::from_vec(&buffer[..length]) {
            Ok(reply) if reply.metadata.id == message.metadata.id && reply.queries == message.queries => {
                break reply;
            }
            _ => {}
        }
    };
    if reply.metadata.truncation {
        let mut stream = TcpStream::connect(server).await?;
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &question].concat()).await?;
        let length = usize::from(stream.read_u16().await?);
        let mut whole = vec![0; length];
        stream.read_exact(&mut whole).await?;
        reply = Message::from_vec(&whole).map_err(io::Error::other)?;
    }
    let mut answers: Vec<String> = reply
        .answers
        .iter()
        .filter(|record| record.record_type() == kind)
        .map(|record| record.data.to_string())
        .collect();
    answers.sort();
    answers.truncate(100);
    Ok(Answer { rcode: reply.metadata.response_code, answers, server })
}

/// As dig prints it.
fn code(rcode: ResponseCode) -> String {
    match rcode {
        ResponseCode::NoError => "NOERROR".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::NXDomain => "NXDOMAIN".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        other => format!("RCODE{}", other.low()),
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(|ip| (ip, 53).into()))
}

/// What /etc/resolv.conf says (resolv.conf(5)).
#[derive(Debug, Default, PartialEq)]
struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    dots: usize,
}

impl Resolver {
    fn of_system() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut found = Self { dots: 1, ..Self::default() };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => found.servers.extend(words.next().and_then(address)),
                Some("search" | "domain") => found.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    let dots =
                        words.filter_map(|word| word.strip_prefix("ndots:")).find_map(|n| n.parse().ok());
                    found.dots = dots.unwrap_or(found.dots);
                }
                _ => {}
            }
        }
        found.servers.truncate(3);
        found
    }

    /// The names to ask for, in order.
    fn candidates(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let absolute = format!("{name}.");
        let searched = self.search.iter().map(|domain| format!("{name}.{}.", domain.trim_end_matches('.')));
        match name.matches('.').count() >= self.dots {
            true => [absolute].into_iter().chain(searched).collect(),
            false => searched.chain([absolute]).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_searched_for_first_as_in_any_pod() {
        let text =
            "nameserver 10.96.0.10\nsearch shop.svc.cluster.local svc.cluster.local\noptions ndots:5\n";
        let found = Resolver::parse(text);
        assert_eq!(found.servers, ["10.96.0.10:53".parse().unwrap_or_else(|_| unreachable!())]);
        assert_eq!(
            found.candidates("mysql"),
            ["mysql.shop.svc.cluster.local.", "mysql.svc.cluster.local.", "mysql."]
        );
        assert_eq!(found.candidates("example.com."), ["example.com."]);
        assert_eq!(Resolver::parse("search a.b").candidates("x.y"), ["x.y.", "x.y.a.b."]);
    }
}
