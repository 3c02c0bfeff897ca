//! A place of one's own, in which mounting is allowed and harms nobody.

use std::fs;
use std::io;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

/// Who runs the trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Root, in a mount namespace of its own.
    Root,
    /// Somebody else, who is root only within a user namespace.
    User {
        /// Who it is outside.
        uid: u32,
    },
}

/// Why there is no such place.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {error}\n{advice}")]
pub struct NamespaceError {
    what: &'static str,
    error: io::Error,
    advice: String,
}

/// Moves this process into a mount namespace of its own, so that whatever is mounted here is gone when the process and its
/// children are, however they end. Who is not root moves into a user namespace as well, and is root there.
///
/// To be called before any thread is started: a process of several can't change its user namespace.
pub fn enter_namespace() -> Result<Standing, NamespaceError> {
    let (uid, gid) = (geteuid(), getegid());
    let fail = |what| move |error: io::Error| NamespaceError { what, error, advice: advice(uid.is_root()) };
    let system = |what| move |errno: Errno| fail(what)(errno.into());
    if uid.is_root() {
        unshare(CloneFlags::CLONE_NEWNS).map_err(system("a mount namespace can't be made"))?;
    } else {
        let both = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS;
        unshare(both).map_err(system("a user namespace can't be made"))?;
        let map = fail("the user namespace can't be given its user");
        // One's own group may be mapped only after setgroups(2) is given up (user_namespaces(7)).
        fs::write("/proc/self/setgroups", "deny")
            .and_then(|()| fs::write("/proc/self/uid_map", format!("0 {uid} 1")))
            .and_then(|()| fs::write("/proc/self/gid_map", format!("0 {gid} 1")))
            .map_err(map)?;
    }
    // Else what is mounted here would appear outside too, on a machine whose root is shared (systemd makes it so).
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
        .map_err(system("mounts can't be kept from the rest of the machine"))?;
    Ok(if uid.is_root() { Standing::Root } else { Standing::User { uid: uid.as_raw() } })
}

/// What the person can do about it, by what this machine says of itself.
fn advice(root: bool) -> String {
    if root {
        return "You are root, but without CAP_SYS_ADMIN, as in a plain container. Give it that: docker run --privileged, \
                or --cap-add SYS_ADMIN --security-opt apparmor=unconfined."
            .to_owned();
    }
    // Debian's own switch, everybody's limit, and Ubuntu's.
    let switches = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "1000"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    let off = switches.iter().find(|(name, off, _)| {
        let value = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/")));
        value.is_ok_and(|value| value.trim() == *off)
    });
    match off {
        Some((name, off, on)) => format!(
            "This machine lets only root make user namespaces ({name} is {off}). Run `sudo kuration try`, or allow it: \
             `sudo sysctl {name}={on}`."
        ),
        None => {
            "Run `sudo kuration try`: root needs no user namespace. In a container, give it --privileged."
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_a_command() {
        assert!(advice(true).contains("--privileged"));
        assert!(advice(false).contains("sudo kuration try"));
    }
}
