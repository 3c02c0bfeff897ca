//! Whether an NFS server answers, without a mount of it: the NULL call, which every RPC program has (RFC 5531, section 12.1).
//!
//! A plain unmount takes a mount out of the table first and then sends what was written and not yet sent. While it does that
//! there is no path left by which the server could be asked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::table::Entry;

/// The port of NFS (RFC 7530, section 3.1), and of whatever mount says no other.
const NFS: u16 = 2049;

/// Whether the server behind `entry` answers within `limit`.
pub async fn answers(entry: &Entry, limit: Duration) -> bool {
    let Some(address) = address(entry) else { return false };
    let version = if entry.kind == "nfs" { 3 } else { 4 };
    matches!(tokio::time::timeout(limit, call(address, version)).await, Ok(Ok(())))
}

/// The address in the superblock's options, which the kernel shows for every NFS mount.
fn address(entry: &Entry) -> Option<SocketAddr> {
    let option = |name: &str| {
        let mut options = entry.options.split(',').filter_map(|option| option.split_once('='));
        options.find(|(known, _)| *known == name).map(|(_, value)| value)
    };
    let address: IpAddr = option("addr")?.parse().ok()?;
    let port = option("port").and_then(|port| port.parse().ok()).filter(|&port| port != 0);
    Some(SocketAddr::new(address, port.unwrap_or(NFS)))
}

/// Any reply will do, a refusal too.
async fn call(address: SocketAddr, version: u32) -> std::io::Result<()> {
    const XID: u32 = 0x6b75_7262;
    let mut stream = TcpStream::connect(address).await?;
    // The record's mark; a call of RPC version 2 to procedure 0 of program 100003, without credentials.
    let message = [0x8000_0028, XID, 0, 2, 100_003, version, 0, 0, 0, 0, 0];
    stream.write_all(&message.map(u32::to_be_bytes).concat()).await?;
    stream.read_u32().await?;
    if stream.read_u32().await? == XID { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::table;

    fn entry(options: &str) -> Entry {
        let line = format!("2 1 0:9 / /mnt rw - nfs4 h:/a rw,{options}\n");
        table::parse(line.as_bytes()).remove(0)
    }

    #[test]
    fn the_address_is_that_of_the_mount() {
        let of = |options: &str| address(&entry(options)).map(|address| address.to_string());
        assert_eq!(of("vers=4.2,addr=192.0.2.1"), Some("192.0.2.1:2049".into()));
        assert_eq!(of("port=20049,clientaddr=::,addr=fd00::1"), Some("[fd00::1]:20049".into()));
        assert_eq!(of("vers=4.2"), None);
    }

    #[tokio::test]
    async fn a_server_answers_and_a_silent_one_does_not() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let entry = entry(&format!("port={port},addr=127.0.0.1"));
        // It accepts, as a kernel does for a server whose threads all hang.
        assert!(!answers(&entry, Duration::from_millis(100)).await);
        let server = async {
            // The first one is the call that was given up.
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut called = [0; 44];
                stream.read_exact(&mut called).await.unwrap();
                let reply = [0x8000_0018_u32.to_be_bytes().as_slice(), &called[4..8], &[0; 20]].concat();
                stream.write_all(&reply).await.ok();
            }
        };
        let (answered, ()) = tokio::join!(answers(&entry, Duration::from_secs(10)), server);
        assert!(answered);
        drop(listener);
        assert!(!answers(&entry, Duration::from_secs(10)).await);
    }
}
