//! Whether rpc.statd runs on this host: one question to the local rpcbind, in its version 2 (RFC 1833, section 3).
//!
//! The kernel's NFSv3 client mounts happily without statd, and the first lock of a user then fails.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const RPCBIND: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 111));

/// On loopback an answer takes microseconds; a second means there is none.
const LIMIT: Duration = Duration::from_secs(1);

/// `Ok` where rpcbind knows the program "status" (100024, version 1, over TCP); else what was found instead.
pub fn statd_is_there() -> Result<(), String> {
    match port_of(100_024, 1) {
        Ok(0) => Err("the local rpcbind does not know it".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("no rpcbind on 127.0.0.1:111: {error}")),
    }
}

/// PMAPPROC_GETPORT: the port of a program, 0 where it is not registered.
fn port_of(program: u32, version: u32) -> std::io::Result<u32> {
    let mut stream = TcpStream::connect_timeout(&RPCBIND, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    const XID: u32 = 0x6b75_7261;
    const TCP: u32 = 6;
    // A call of RPC version 2 to program 100000 version 2 procedure 3, without credentials; then the mapping asked for.
    let call = [XID, 0, 2, 100_000, 2, 3, 0, 0, 0, 0, program, version, TCP, 0];
    let mut message = (0x8000_0000 | u32::try_from(call.len() * 4).unwrap_or(0)).to_be_bytes().to_vec();
    message.extend(call.iter().flat_map(|word| word.to_be_bytes()));
    stream.write_all(&message)?;
    // Record mark, xid, REPLY, accepted, no verifier (2 words), success, port.
    let mut reply = [0; 32];
    stream.read_exact(&mut reply)?;
    let word = |at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&reply[at * 4..at * 4 + 4]);
        u32::from_be_bytes(bytes)
    };
    if word(1) != XID || word(2) != 1 || word(3) != 0 || word(6) != 0 {
        return Err(std::io::Error::other("rpcbind refused the question"));
    }
    Ok(word(7))
}
