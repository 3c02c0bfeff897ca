//! What only the person's own server can tell: the NFS versions it offers, and who root is there.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::Trial;
use super::abilities::{Finding, judge};
use super::pod::Pod;
use super::show::Failed;
use crate::client::{Client, Life, Mounted, mounts_beneath};

/// Newest first, as the driver itself would try.
const VERSIONS: [&str; 4] = ["4.2", "4.1", "4.0", "3"];

/// How long a server may take to refuse a version.
const PATIENCE: Duration = Duration::from_secs(10);

impl Trial {
    /// Which versions the server offers: each is asked for by a class's mount options, as a person would.
    pub(super) async fn versions(&mut self, client: &Client) -> Result<(), Failed> {
        let Self { teller, life, order, kubelet, .. } = self;
        let asking = async {
            let mut offered = Vec::new();
            // Reasons, each with the versions it was given for.
            let mut refused: Vec<(String, Vec<&str>)> = Vec::new();
            for version in VERSIONS {
                let mut order = order.clone();
                // The person's own options stay; their vers= would contradict.
                order.mount_flags.retain(|flag| !is_version(flag));
                order.mount_flags.push(format!("vers={version}"));
                let life = life.insert(Life::new(client.clone(), kubelet.clone(), order));
                let tried = async {
                    life.create().await?;
                    life.publish().await?;
                    life.stage().await
                };
                let start = Instant::now();
                match tried.await {
                    Ok(()) => offered.push(version),
                    // A server that is not there is not asked four times.
                    Err(error) if start.elapsed() > PATIENCE => return Err(error.to_string()),
                    Err(error) => {
                        let why = error.to_string();
                        match refused.iter_mut().find(|(known, _)| *known == why) {
                            Some((_, versions)) => versions.push(version),
                            None => refused.push((why, vec![version])),
                        }
                    }
                }
                let undone = life.down().await;
                // What never had an id was refused, and there may be nothing to undo.
                if life.id().is_some() {
                    undone.map_err(|error| error.to_string())?;
                }
            }
            *life = None;
            let no: Vec<String> =
                refused.iter().map(|(why, versions)| format!("not {}: {why}", versions.join(", "))).collect();
            let no = no.join("\n");
            if offered.is_empty() { Err(no) } else { Ok(((), format!("{}\n{no}", offered.join(", ")))) }
        };
        teller.step("versions", asking).await
    }

    /// Whether the server takes root for root, by the owner of a file that root wrote, and what follows from it.
    pub(super) async fn squash(&mut self, first: &Pod) -> Result<(), Failed> {
        let asking = async {
            let (made, handed_over) = first.hand_over("whose").await.map_err(|error| error.to_string())?;
            let who = match made.uid() {
                0 => "root is root there (no_root_squash)".to_owned(),
                uid => format!("root becomes user {uid} there (root_squash)"),
            };
            let meaning = if handed_over {
                "owners can be given: the class's uid and gid, and a pod's fsGroup, work"
            } else {
                "owners can't be given: leave uid and gid out of the class, and set fsGroupPolicy None;\n\
                 pods can write because the directory's mode lets everybody (mountPermissions)"
            };
            Ok(((), format!("{who}\n{meaning}")))
        };
        self.teller.step("squash", asking).await
    }

    /// What the server can do, told with what it means; the findings are kept for machines. `theirs` was written by a pod
    /// that is not root.
    pub(super) async fn abilities(&mut self, root: &Pod, theirs: &'static str) -> Result<(), Failed> {
        let options = self.life.as_ref().and_then(mounted).map(|entry| entry.options).unwrap_or_default();
        let wanted = self.order.size;
        let looking = async {
            let seen = root.look(theirs).await.map_err(|error| error.to_string())?;
            let findings = judge(&seen, &options, wanted);
            let poor = findings.iter().filter(|finding| !finding.good).count();
            let mut lines = match poor {
                0 => "all one could wish for".to_owned(),
                poor => format!("{poor} of {} findings could be better", findings.len()),
            };
            for Finding { name, good, found, means, remedy } in &findings {
                let mark = if *good { '+' } else { '-' };
                lines.push_str(&format!("\n{mark} {name}: {found}\n  {means}"));
                remedy.iter().for_each(|remedy| lines.push_str(&format!("\n  remedy: {remedy}")));
            }
            Ok((findings, lines))
        };
        let findings = self.teller.step("abilities", looking).await?;
        self.teller.found(findings);
        Ok(())
    }

    /// As what the newest target is mounted.
    pub(super) fn mounted_as(life: &Life) -> String {
        let Some(entry) = mounted(life) else { return String::new() };
        let version = entry.options.split(',').find(|option| option.starts_with("vers="));
        format!("{}{}", entry.kind, version.map_or(String::new(), |version| format!(", {version}")))
    }
}

/// The mount at the newest target.
fn mounted(life: &Life) -> Option<Mounted> {
    mounts_beneath("self", life.targets().last()?).ok()?.pop()
}

fn is_version(flag: &str) -> bool {
    ["vers=", "nfsvers=", "minorversion="].iter().any(|key| flag.starts_with(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_names_a_version_gives_way() {
        assert!(is_version("vers=4.1") && is_version("nfsvers=3") && !is_version("soft"));
    }
}
