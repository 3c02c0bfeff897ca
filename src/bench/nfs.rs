//! How many NFS calls this machine's client made, from /proc/net/rpc/nfs.

use std::collections::BTreeMap;
use std::fs;

/// Counters of the kernel's NFS client in this network namespace: every mount's calls together, so only a quiet machine
/// tells what one driver causes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NfsCalls {
    /// All calls.
    pub calls: u64,
    /// Calls sent again because no answer came.
    pub retransmitted: u64,
    /// Calls by protocol and procedure, as in `v4 OPEN`.
    pub procedures: BTreeMap<String, u64>,
}

/// The client's procedures in the order of the kernel's table (`nfs4_procedures` in fs/nfs/nfs4xdr.c).
const V4: &str = "NULL READ WRITE COMMIT OPEN OPEN_CONFIRM OPEN_NOATTR OPEN_DOWNGRADE CLOSE SETATTR FSINFO RENEW \
    SETCLIENTID SETCLIENTID_CONFIRM LOCK LOCKT LOCKU ACCESS GETATTR LOOKUP LOOKUP_ROOT REMOVE RENAME LINK SYMLINK \
    CREATE PATHCONF STATFS READLINK READDIR SERVER_CAPS DELEGRETURN GETACL SETACL FS_LOCATIONS RELEASE_LOCKOWNER \
    SECINFO FSID_PRESENT EXCHANGE_ID CREATE_SESSION DESTROY_SESSION SEQUENCE GET_LEASE_TIME RECLAIM_COMPLETE \
    LAYOUTGET GETDEVICEINFO LAYOUTCOMMIT LAYOUTRETURN SECINFO_NO_NAME TEST_STATEID FREE_STATEID GETDEVICELIST \
    BIND_CONN_TO_SESSION DESTROY_CLIENTID SEEK ALLOCATE DEALLOCATE LAYOUTSTATS CLONE COPY OFFLOAD_CANCEL LOOKUPP \
    LAYOUTERROR COPY_NOTIFY GETXATTR SETXATTR LISTXATTRS REMOVEXATTR READ_PLUS";

/// RFC 1813's procedures, in its order.
const V3: &str = "NULL GETATTR SETATTR LOOKUP ACCESS READLINK READ WRITE CREATE MKDIR SYMLINK MKNOD REMOVE RMDIR RENAME \
    LINK READDIR READDIRPLUS FSSTAT FSINFO PATHCONF COMMIT";

impl NfsCalls {
    /// The counters now; `None` where the kernel has no NFS client.
    pub fn read() -> Option<Self> {
        fs::read_to_string("/proc/net/rpc/nfs").ok().map(|text| Self::parse(&text))
    }

    /// `rpc CALLS RETRANSMITTED …`, and `proc3` and `proc4` with the length of the list before it.
    fn parse(text: &str) -> Self {
        let mut counters = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let title = words.next();
            let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
            let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
            let (version, names) = match title {
                Some("rpc") => {
                    (counters.calls, counters.retransmitted) = (number(0), number(1));
                    continue;
                }
                Some("proc3") => ("v3", V3),
                Some("proc4") => ("v4", V4),
                _ => continue,
            };
            let mut names = names.split_ascii_whitespace();
            for (at, count) in numbers.iter().skip(1).enumerate() {
                // A newer kernel has more procedures than are known here.
                let name = names.next().map_or_else(|| format!("#{at}"), str::to_owned);
                if *count > 0 {
                    counters.procedures.insert(format!("{version} {name}"), *count);
                }
            }
        }
        counters
    }

    /// What was added since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let added = self.procedures.iter().map(|(name, count)| {
            let earlier = before.procedures.get(name).copied().unwrap_or(0);
            (name.clone(), count.saturating_sub(earlier))
        });
        Self {
            calls: self.calls.saturating_sub(before.calls),
            retransmitted: self.retransmitted.saturating_sub(before.retransmitted),
            procedures: added.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "net 0 0 0 0\nrpc 100 1 100\nproc3 22 0 1 0 2\nproc4 5 0 0 3 0 7\n";
    const AFTER: &str = "net 0 0 0 0\nrpc 130 1 130\nproc3 22 0 1 0 2\nproc4 5 0 0 13 0 27\n";

    #[test]
    fn counters_are_named_and_subtracted() {
        let before = NfsCalls::parse(BEFORE);
        assert_eq!((before.calls, before.retransmitted), (100, 1));
        assert_eq!(before.procedures["v3 LOOKUP"], 2);
        let added = NfsCalls::parse(AFTER).since(&before);
        assert_eq!(added.calls, 30);
        let procedures: Vec<_> = added.procedures.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(procedures, [("v4 OPEN", 20), ("v4 WRITE", 10)]);
    }

    #[test]
    fn the_names_stand_where_the_kernel_counts() {
        let at = |name| V4.split_ascii_whitespace().position(|n| n == name);
        assert_eq!(at("SECINFO_NO_NAME"), Some(48));
        assert_eq!(at("READ_PLUS"), Some(68));
        assert_eq!(V3.split_ascii_whitespace().count(), 22);
    }
}
