//! What a driver process may do, cut down at its start to what its role needs.
//!
//! The API server lets a mount propagate from a container to the host only where the container is privileged, and `drop`
//! means nothing in a privileged container. So the process does it itself: what leaves the bounding set can be had by no
//! program that this one starts (capabilities(7)), its children included.

use std::io;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, capabilities, capability_is_in_bounding_set, remove_capability_from_bounding_set,
    set_capabilities,
};

/// What a role does that needs more than being root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Volumes are made and removed here, in a pool or on shares.
    pub volumes: bool,
    /// A pool's image gets a loop device.
    pub image: bool,
    /// A port below 1024 is served.
    pub low_port: bool,
}

impl Work {
    /// The capabilities that it takes.
    fn needs(self) -> CapabilitySet {
        // mount(2) and its kin, quotas, loop devices.
        let mut needs = CapabilitySet::SYS_ADMIN;
        if self.volumes {
            // A volume gets the owner and the mode of its class (setgid among them), and what is removed belongs to whoever
            // wrote it, in directories that let nobody else in.
            needs |= CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE;
            needs |= CapabilitySet::FOWNER | CapabilitySet::FSETID;
        }
        // A container's /dev lacks the loop devices that came after its start.
        needs.set(CapabilitySet::MKNOD, self.image);
        needs.set(CapabilitySet::NET_BIND_SERVICE, self.low_port);
        needs
    }
}

/// Gives up, for this process and all that it starts, what `work` does not need. Capabilities belong to threads: it must be
/// called before there is a second one.
///
/// `false` where the bounding set can't be changed, since the process has no CAP_SETPCAP: it is no container's root with all
/// powers then, and its own sets are cut down all the same.
pub fn confine(work: Work) -> io::Result<bool> {
    let kept = work.needs();
    let mut bounded = true;
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            Ok(held) if held && !kept.contains(one) => match remove_capability_from_bounding_set(one) {
                Err(Errno::PERM) => bounded = false,
                other => other?,
            },
            Ok(_) => {}
            // Past the last that this kernel knows.
            Err(Errno::INVAL) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut sets = capabilities(None)?;
    sets.effective &= kept;
    sets.permitted &= kept;
    sets.inheritable &= kept;
    set_capabilities(None, sets)?;
    Ok(bounded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_only_mounts_may_only_mount() {
        assert_eq!(Work::default().needs(), CapabilitySet::SYS_ADMIN);
    }

    #[test]
    fn nobody_keeps_what_would_give_all_back() {
        let all = Work { volumes: true, image: true, low_port: true }.needs();
        for power in [CapabilitySet::SETPCAP, CapabilitySet::SYS_MODULE, CapabilitySet::SYS_PTRACE] {
            assert!(!all.contains(power), "{power:?}");
        }
    }
}
