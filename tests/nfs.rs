//! The driver against a real NFS server.

mod common;

fn main() {}
