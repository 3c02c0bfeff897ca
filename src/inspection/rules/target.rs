//! What a task without rules does: the target decides. A Service must exist, have ready endpoints and answer on its ports;
//! other objects must be there and say of themselves that they are well.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value as Json, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::cluster::{Known, Which, named, subject, typed};
use super::database::millis;
use super::http::{Ask, Unanswered, exchange};
use super::place::Place;
use super::sight::{Blind, Finding, Seen, Sight, Verdict};
use super::wire::{self, Unconnected};
use super::{mysql, nodes, postgres, redis, workloads};
use crate::inspection::run::Subject;
use crate::inspection::task::cluster::{Namespaces, NamespacesWord, Node, WorkloadKind};

/// How long one port may take to answer, so that one that hangs leaves time to look at the others.
const PORT_LIMIT: Duration = Duration::from_secs(3);

/// How long a database may take: those that look up who asks wait for a name server that does not answer, and one that is
/// left before it has spoken counts that against us.
const DATABASE_LIMIT: Duration = Duration::from_secs(12);

/// How long a server that speaks first has for its first byte.
const SPEAKS_FIRST: Duration = Duration::from_millis(300);

/// Endpoints of a headless Service that are spoken to one by one.
const MOST_ENDPOINTS: usize = 10;

/// Looks at the task's target.
pub async fn look(place: &Place) -> Seen {
    match (place.target.service(), place.target.kind()) {
        (Some(name), _) => service(name, place).await,
        (None, "node" | "nodes" | "no") => {
            nodes::look(&Node { name: place.target.name().map(str::to_owned) }, place).await
        }
        (None, "pod" | "pods" | "po") if place.target.name().is_none() => {
            workloads::pods(&workloads::pods_of(Namespaces::Absent), place).await
        }
        _ => object(place).await,
    }
}

/// What is spoken at a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Mysql,
    Postgresql,
    Redis,
    Http,
    Https,
    Tls,
    Unknown,
}

/// The protocol that a port says it speaks, or is known for. The second is whether it says so itself.
fn protocol(port: &ServicePort, number: u16) -> (Protocol, bool) {
    let word = |text: &str| {
        let text = text.trim_start_matches("kubernetes.io/").to_ascii_lowercase();
        let first = text.split(['-', '_']).next().unwrap_or_default().to_owned();
        match first.as_str() {
            "mysql" | "mariadb" => Some(Protocol::Mysql),
            "postgres" | "postgresql" | "pg" | "pgsql" => Some(Protocol::Postgresql),
            "redis" | "valkey" => Some(Protocol::Redis),
            "http" | "web" => Some(Protocol::Http),
            "https" => Some(Protocol::Https),
            "tls" => Some(Protocol::Tls),
            // Both speak HTTP/2 without a request of version 1.
            "grpc" | "h2c" | "tcp" => Some(Protocol::Unknown),
            _ => None,
        }
    };
    let said = port.app_protocol.as_deref().and_then(word).or(port.name.as_deref().and_then(word));
    let known = match number {
        3306 => Protocol::Mysql,
        5432 => Protocol::Postgresql,
        6379 => Protocol::Redis,
        80 | 8080 => Protocol::Http,
        443 | 8443 => Protocol::Https,
        _ => Protocol::Unknown,
    };
    said.map_or((known, false), |said| (said, true))
}

/// A port of an endpoint, to be spoken to.
struct Spot {
    host: String,
    port: u16,
    protocol: Protocol,
    named: bool,
    subject: Subject,
}

async fn service(name: &str, place: &Place) -> Seen {
    let begun = Instant::now();
    let client = place.cluster().await?;
    let known = Known::of(&client, "v1", "Service").await?;
    let Some(found) = known.get(&client, &place.namespace, name).await? else {
        let verdict = Verdict::fail("NotFound", format!("there is no Service {}/{name}", place.namespace));
        return Ok(Sight::of(json!({"exists": false, "readyEndpoints": 0}), verdict));
    };
    let odd =
        |error: serde_json::Error| Blind::new("ApiRefused", format!("the Service can't be read: {error}"));
    let service: Service = serde_json::from_value(found).map_err(odd)?;
    let spec = service.spec.unwrap_or_default();
    let ports: Vec<ServicePort> = spec.ports.unwrap_or_default();
    let over_tcp = |port: &&ServicePort| port.protocol.as_deref().unwrap_or("TCP") == "TCP";
    let number = |port: i32| u16::try_from(port).unwrap_or(0);

    let mut result = json!({"exists": true, "type": spec.type_.clone().unwrap_or_default()});
    let mut spots = Vec::new();
    let mine = |message: String| named("v1", "Service", Some(&place.namespace), name, message);
    if spec.type_.as_deref() == Some("ExternalName") {
        let host = spec.external_name.unwrap_or_default();
        let addresses = wire::resolve(&host, 0).await?;
        result["addresses"] = addresses.len().into();
        for port in ports.iter().filter(over_tcp) {
            let (protocol, named) = protocol(port, number(port.port));
            let subject = mine(String::new());
            spots.push(Spot { host: host.clone(), port: number(port.port), protocol, named, subject });
        }
    } else {
        let selector = json!({"matchLabels": {"kubernetes.io/service-name": name}});
        let labels = serde_json::from_value(selector).map_err(odd)?;
        let own = Namespaces::Word(NamespacesWord::Own);
        let which = Which { namespaces: Some(&own), labels: Some(&labels), ..Which::default() };
        let slices: Vec<EndpointSlice> = typed(place, "discovery.k8s.io/v1", "EndpointSlice", &which).await?;
        let lenient = spec.publish_not_ready_addresses.unwrap_or(false);
        let ready = ready(&slices, lenient);
        result["readyEndpoints"] = ready.len().into();
        if ready.is_empty() {
            let why = format!("the Service {}/{name} has no ready endpoint", place.namespace);
            return Ok(Sight::of(result, Verdict::fail("NoReadyEndpoints", why)));
        }
        let headless = spec.cluster_ip.as_deref().is_none_or(|ip| ip.is_empty() || ip == "None");
        if headless {
            for (slice, address, target) in ready.iter().take(MOST_ENDPOINTS) {
                for theirs in slice.ports.iter().flatten() {
                    let tcp = theirs.protocol.as_deref().unwrap_or("TCP") == "TCP";
                    let Some(port) = theirs.port.filter(|_| tcp).map(number) else { continue };
                    let ours = ports.iter().find(|port| {
                        port.name.as_deref().unwrap_or("") == theirs.name.as_deref().unwrap_or("")
                    });
                    let (protocol, named) = protocol(&ours.cloned().unwrap_or_default(), port);
                    spots.push(Spot {
                        host: address.clone(),
                        port,
                        protocol,
                        named,
                        subject: target.clone(),
                    });
                }
            }
        } else {
            let host = spec.cluster_ip.unwrap_or_default();
            for port in ports.iter().filter(over_tcp) {
                let target = match &port.target_port {
                    Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(target)) => {
                        number(*target)
                    }
                    _ => 0,
                };
                let (mut protocol_, mut named) = protocol(port, number(port.port));
                if protocol_ == Protocol::Unknown && !named {
                    (protocol_, named) = protocol(port, target);
                }
                let subject = mine(String::new());
                spots.push(Spot {
                    host: host.clone(),
                    port: number(port.port),
                    protocol: protocol_,
                    named,
                    subject,
                });
            }
        }
    }
    let answers = futures::future::join_all(spots.iter().map(answers)).await;
    let (mut items, mut bad) = (Vec::new(), Vec::new());
    for (spot, answer) in spots.iter().zip(answers) {
        let answer = answer?;
        items.push(json!({
            "name": format!("{}:{}", spot.host, spot.port), "port": spot.port, "answers": answer.is_none(),
            "protocol": format!("{:?}", spot.protocol).to_lowercase(),
        }));
        if let Some(finding) = answer {
            let message = Some(format!("port {}: {}", spot.port, finding.message));
            bad.push((finding.reason, Subject { message, ..spot.subject.clone() }));
        }
    }
    result["ports"] = items.clone().into();
    result["durationMillis"] = millis(begun).into();
    let verdict = match bad.first() {
        None => Verdict::Pass,
        Some((reason, first)) => Verdict::Fail(Finding {
            reason: reason.clone(),
            message: first.message.clone().unwrap_or_default(),
            subjects: bad.iter().map(|(_, subject)| subject.clone()).collect(),
        }),
    };
    Ok(Sight { result, items, foreign: false, verdict })
}

/// Ready addresses, and what stands behind each. An endpoint that does not say is ready (the API's own words).
fn ready(slices: &[EndpointSlice], lenient: bool) -> Vec<(&EndpointSlice, String, Subject)> {
    let mut found = Vec::new();
    for slice in slices {
        for endpoint in &slice.endpoints {
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            if !lenient && conditions.ready == Some(false) {
                continue;
            }
            let Some(address) = endpoint.addresses.first() else { continue };
            let subject = match &endpoint.target_ref {
                Some(target) => named(
                    target.api_version.as_deref().unwrap_or("v1"),
                    target.kind.as_deref().unwrap_or_default(),
                    target.namespace.as_deref(),
                    target.name.as_deref().unwrap_or_default(),
                    String::new(),
                ),
                None => named("v1", "Endpoint", slice.metadata.namespace.as_deref(), address, String::new()),
            };
            found.push((slice, address.clone(), subject));
        }
    }
    found
}

/// Whether a port answers: `None` where it does.
async fn answers(spot: &Spot) -> Result<Option<Finding>, Blind> {
    let database = matches!(spot.protocol, Protocol::Mysql | Protocol::Postgresql | Protocol::Redis);
    let limit = if database { DATABASE_LIMIT } else { PORT_LIMIT };
    let hung = || {
        let (host, port, seconds) = (&spot.host, spot.port, limit.as_secs());
        let message = format!("{host}:{port} took the connection and said nothing within {seconds} s");
        // Where the protocol was only guessed from a number, silence proves nothing.
        (spot.named || database).then(|| Finding {
            reason: "NoAnswer".to_owned(),
            message,
            subjects: Vec::new(),
        })
    };
    let stream = match tokio::time::timeout(PORT_LIMIT, wire::connect(&spot.host, spot.port)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(Unconnected::Refused(finding))) => return Ok(Some(finding)),
        Ok(Err(Unconnected::Blind(blind))) => return Err(blind),
        Err(_) => {
            let message =
                format!("no connection to {}:{} within {} s", spot.host, spot.port, PORT_LIMIT.as_secs());
            return Err(Blind::new("Timeout", message));
        }
    };
    tokio::time::timeout(limit, speak(stream, spot)).await.unwrap_or_else(|_| Ok(hung()))
}

async fn speak(mut stream: TcpStream, spot: &Spot) -> Result<Option<Finding>, Blind> {
    // Whatever its number says: who greets as MySQL does counts connections that are left at that.
    let mut first = [0; 5];
    let greeted = match spot.protocol {
        Protocol::Unknown | Protocol::Mysql => {
            let peek = tokio::time::timeout(SPEAKS_FIRST, stream.peek(&mut first)).await;
            matches!(peek, Ok(Ok(5))) && first[3] == 0 && (first[4] == 10 || first[4] == 0xff)
        }
        _ => false,
    };
    let found = |verdict: Verdict| match verdict {
        Verdict::Fail(finding) => Some(finding),
        _ => None,
    };
    let broken = |error: &std::io::Error| found(wire::broken(&spot.host, spot.port, error));
    // A number alone does not make a protocol: what was only guessed and answers otherwise, answers.
    let lenient = |finding: Option<Finding>| finding.filter(|_| spot.named);
    Ok(match spot.protocol {
        Protocol::Mysql => match mysql::handshake(&mut stream).await {
            Ok(done) => found(done.verdict()),
            Err(error) => broken(&error),
        },
        Protocol::Unknown if greeted => match mysql::handshake(&mut stream).await {
            Ok(done) => found(done.verdict()),
            Err(_) => None,
        },
        Protocol::Postgresql => match postgres::handshake(&mut stream).await {
            Ok(sight) => found(sight.verdict),
            Err(error) => broken(&error),
        },
        Protocol::Redis => match redis::look(&mut stream, None).await {
            Ok(sight) => found(sight.verdict),
            Err(error) => broken(&error),
        },
        Protocol::Https | Protocol::Tls => match wire::tls(stream, &spot.host, None).await {
            Ok((mut stream, _)) => {
                // It was seen to answer; how it says good-bye changes nothing.
                stream.shutdown().await.ok();
                None
            }
            Err(error) => lenient(broken(&error)),
        },
        Protocol::Http => {
            drop(stream);
            let host = if spot.host.contains(':') { format!("[{}]", spot.host) } else { spot.host.clone() };
            let uri = format!("http://{host}:{}/", spot.port).parse();
            let uri = uri.map_err(|_| Blind::new("BadRule", format!("{host} is no host")))?;
            let mut ask = Ask::get(uri);
            ask.redirects = 0;
            ask.most = 1024;
            // Any status is an answer: whether it is the right one is for an http rule to say.
            match exchange(ask).await {
                Ok(_) => None,
                Err(Unanswered::Failed(verdict)) => lenient(found(verdict)),
                Err(Unanswered::Blind(blind)) => return Err(blind),
            }
        }
        Protocol::Unknown => {
            stream.shutdown().await.ok();
            None
        }
    })
}

/// Any other object: it must be there, and its conditions well.
async fn object(place: &Place) -> Seen {
    let client = place.cluster().await?;
    let known = Known::called(&client, place.target.kind()).await?;
    let items = match place.target.name() {
        Some(name) => {
            let Some(found) = known.get(&client, &place.namespace, name).await? else {
                let verdict = Verdict::fail("NotFound", format!("there is no {}", place.target));
                return Ok(Sight::of(json!({"exists": false}), verdict));
            };
            vec![found]
        }
        None => known.list(&client, place, &Which::default(), |_| Ok(true)).await?,
    };
    let bad: Vec<Subject> =
        items.iter().filter_map(|item| unwell(item, place).map(|why| subject(item, why))).collect();
    let result = json!({"exists": !items.is_empty(), "count": items.len()});
    let verdict = Verdict::unless_any("NotWell", "not well", bad);
    Ok(Sight { result, items, foreign: true, verdict })
}

/// What an object says is wrong with itself.
fn unwell(object: &Json, place: &Place) -> Option<String> {
    let kind = match object["kind"].as_str()? {
        "Deployment" => Some(WorkloadKind::Deployment),
        "StatefulSet" => Some(WorkloadKind::StatefulSet),
        "DaemonSet" => Some(WorkloadKind::DaemonSet),
        _ => None,
    };
    if let Some(kind) = kind {
        let item = workloads::rolled_out(object, kind, place.now);
        return (item["rolledOut"] != true).then(|| {
            let reason = item["reason"].as_str().unwrap_or_default();
            format!("{} of {} ready: {reason}", item["ready"], item["desired"])
        });
    }
    if object["kind"] == "Pod" {
        let pod: Pod = serde_json::from_value(object.clone()).ok()?;
        return match workloads::judged(&[pod], 300, place.now).verdict {
            Verdict::Fail(finding) => finding.subjects.first().and_then(|subject| subject.message.clone()),
            _ => None,
        };
    }
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    if matches!(phase, "Failed" | "Lost" | "Released" | "Terminating" | "Pending") {
        return Some(format!("phase {phase}"));
    }
    let conditions = object["status"]["conditions"].as_array()?;
    let not = conditions.iter().find(|one| {
        matches!(one["type"].as_str(), Some("Ready" | "Available" | "Healthy")) && one["status"] == "False"
    })?;
    let text = |json: &Json| json.as_str().unwrap_or_default().to_owned();
    Some(format!("{} is False: {} {}", text(&not["type"]), text(&not["reason"]), text(&not["message"])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_spoken_to_as_it_says_or_as_its_number_is_known() {
        let port = |name: &str, app: Option<&str>| ServicePort {
            name: Some(name.to_owned()),
            app_protocol: app.map(str::to_owned),
            ..ServicePort::default()
        };
        assert_eq!(protocol(&port("mysql", None), 13306), (Protocol::Mysql, true));
        assert_eq!(protocol(&port("db", None), 3306), (Protocol::Mysql, false));
        assert_eq!(protocol(&port("http-admin", None), 9000), (Protocol::Http, true));
        assert_eq!(protocol(&port("x", Some("https")), 80), (Protocol::Https, true));
        assert_eq!(protocol(&port("grpc", None), 80), (Protocol::Unknown, true));
        assert_eq!(protocol(&port("main", None), 4000), (Protocol::Unknown, false));
    }
}
