//! What the flags of `kuration try` and `kuration bench` mean.

use super::{SettingsError, refuse};
use crate::args::{BenchArgs, Pair, TryArgs};
use crate::bench::BenchOptions;
use crate::trial::{Standing, TryOptions};
use crate::volume::{Export, MountOptions};

impl TryArgs {
    /// What to try, by one who is what `standing` says.
    pub fn options(self, standing: Standing) -> Result<TryOptions, SettingsError> {
        let Self { server, share, mount_options, json, log } = self;
        let server = match (server, share) {
            (Some(server), Some(share)) => {
                Some(Export::new(&server, &share).map_err(|why| refuse("server", &server, why))?)
            }
            _ => None,
        };
        let given = mount_options.unwrap_or_default();
        let mount_flags =
            MountOptions::parse([&given]).map_err(|why| refuse("mount-options", &given, why))?.into();
        Ok(TryOptions { standing, server, mount_flags, json, log })
    }
}

/// Life cycles that go before those that are measured: they start the children and mount the export.
const WARMUP: usize = 5;

impl From<BenchArgs> for BenchOptions {
    fn from(args: BenchArgs) -> Self {
        let BenchArgs { endpoint, count, concurrency, size, parameter, secret, mount_flag, raw, json } = args;
        let map = |pairs: Vec<Pair>| pairs.into_iter().map(|pair| (pair.key, pair.value)).collect();
        Self {
            endpoint,
            count: count as usize,
            concurrency: concurrency as usize,
            warmup: WARMUP,
            parameters: map(parameter),
            secrets: map(secret),
            mount_flags: mount_flag,
            size,
            json,
            raw,
            root: None,
        }
    }
}
