//! ONC RPC over TCP (RFC 5531), as little of it as an NFS server has to be asked: calls with AUTH_SYS, one at a time.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::wire::MOST;

/// Words and opaque bytes of a call (XDR, RFC 4506).
#[derive(Debug, Default, Clone)]
pub struct Words(Vec<u8>);

impl Words {
    /// A number of 32 bits.
    pub fn word(mut self, word: u32) -> Self {
        self.0.extend(word.to_be_bytes());
        self
    }

    /// A number of 64 bits.
    pub fn long(mut self, long: u64) -> Self {
        self.0.extend(long.to_be_bytes());
        self
    }

    /// Bytes of a length that both sides know.
    pub fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Bytes with their length before them.
    pub fn opaque(self, bytes: &[u8]) -> Self {
        self.word(u32::try_from(bytes.len()).unwrap_or(u32::MAX)).fixed(bytes)
    }

    /// What was put together elsewhere.
    pub fn then(mut self, other: &Words) -> Self {
        self.0.extend(&other.0);
        self
    }
}

/// An answer, read from its beginning.
#[derive(Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let short = || io::Error::new(io::ErrorKind::InvalidData, "the server's answer is too short");
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(short)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of 32 bits.
    pub fn word(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4)?);
        Ok(u32::from_be_bytes(bytes))
    }

    /// A number of 64 bits.
    pub fn long(&mut self) -> io::Result<u64> {
        Ok(u64::from(self.word()?) << 32 | u64::from(self.word()?))
    }

    /// Bytes of a known length.
    pub fn fixed(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let taken = self.take(count)?;
        self.take(count.next_multiple_of(4) - count)?;
        Ok(taken)
    }

    /// Bytes with their length before them.
    pub fn opaque(&mut self) -> io::Result<&'a [u8]> {
        let count = self.word()? as usize;
        if count > MOST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the server's answer has a length that can't be",
            ));
        }
        self.fixed(count)
    }
}

/// A connection to one program.
pub struct Program {
    stream: TcpStream,
    program: u32,
    version: u32,
    xid: u32,
}

impl Program {
    /// Over a stream to its port.
    pub fn new(stream: TcpStream, program: u32, version: u32) -> Self {
        Self { stream, program, version, xid: 0x6b75_0000 }
    }

    /// Calls a procedure; what it answers.
    ///
    /// # Errors
    /// `Unsupported` where the server has no such program or version; `PermissionDenied` where it refuses who asks.
    pub async fn call(&mut self, procedure: u32, arguments: &Words) -> io::Result<Vec<u8>> {
        self.xid += 1;
        let call = Words::default().word(self.xid).word(0).word(2).word(self.program).word(self.version);
        // AUTH_SYS: stamp, machine, user and group nobody, no further groups. Then no verifier.
        let who = Words::default().word(0).opaque(b"kuration").word(65_534).word(65_534).word(0);
        let call = call.word(procedure).word(1).opaque(&who.0).word(0).word(0).then(arguments);
        let mark = 0x8000_0000 | u32::try_from(call.0.len()).map_err(io::Error::other)?;
        self.stream.write_all(&Words::default().word(mark).then(&call).0).await?;
        let mut answer = Vec::new();
        loop {
            let mark = self.stream.read_u32().await?;
            let length = (mark & 0x7fff_ffff) as usize;
            if answer.len() + length > MOST {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "this is no NFS server: its answer is too long",
                ));
            }
            let start = answer.len();
            answer.resize(start + length, 0);
            self.stream.read_exact(&mut answer[start..]).await?;
            if mark & 0x8000_0000 != 0 {
                break;
            }
        }
        let odd = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut reader = Reader::new(&answer);
        if reader.word()? != self.xid || reader.word()? != 1 {
            return Err(odd("this is no NFS server: it answers something else"));
        }
        if reader.word()? != 0 {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the server refuses the call"));
        }
        reader.word()?;
        reader.opaque()?;
        match reader.word()? {
            0 => Ok(reader.0.to_vec()),
            1 | 2 => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "the server has no such program or version"))
            }
            other => Err(odd(&format!("the server refuses the call: accept status {other}"))),
        }
    }
}
