//! The drivers under test, and the StorageClasses that every case may use.

use k8s_openapi::api::storage::v1::StorageClass;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::objects;
use super::site::Site;

/// Whose volumes a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// A pool, on one node.
    Pool,
    /// A share, over NFS as the server and the client agree (4.2 where both are new).
    Share,
    /// The same over NFS 3.
    Share3,
}

impl Driver {
    /// As CSI names it.
    pub fn name(self) -> &'static str {
        if self.is_pool() { "pool.csi.kuration.io" } else { "nfs.csi.kuration.io" }
    }

    pub fn is_pool(self) -> bool {
        self == Self::Pool
    }

    /// The StorageClass of cases that need none of their own.
    pub fn class(self) -> &'static str {
        match self {
            Self::Pool => "e2e-pool",
            Self::Share => "e2e-share",
            Self::Share3 => "e2e-share3",
        }
    }

    /// The parameters of its classes.
    pub fn parameters(self, site: &Site) -> Value {
        if self.is_pool() {
            return json!({});
        }
        json!({ "server": site.nfs_server, "share": site.nfs_share })
    }

    /// A class of this name; `more` is laid over it.
    pub fn storage_class(self, site: &Site, name: &str, more: Value) -> StorageClass {
        let mut class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
            "metadata": { "name": name },
            "provisioner": self.name(),
            "parameters": self.parameters(site),
            "allowVolumeExpansion": true,
        });
        if self == Self::Share3 {
            class["mountOptions"] = json!(["vers=3", "nolock"]);
        }
        objects::lay_over(&mut class, more);
        objects::typed(class)
    }
}

/// The classes that all cases share, once made, are left: they are no case's.
pub async fn make_classes(client: &Client, site: &Site) {
    let classes = Api::<StorageClass>::all(client.clone());
    for driver in [Driver::Pool, Driver::Share, Driver::Share3] {
        let class = driver.storage_class(site, driver.class(), json!({}));
        match classes.create(&Default::default(), &class).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_already_exists() => {}
            Err(error) => panic!("class {}: {error}", driver.class()),
        }
    }
}

/// Makes each case a test for the pool and for shares, in a module that names the driver; then more for one of them alone. What is
/// tested over NFS 3 too is named by `share3`, where `..` stands for the cases of both drivers.
#[macro_export]
macro_rules! for_every_driver {
    ($($case:ident),* $(,)?) => {
        $crate::for_every_driver!($($case),*; pool: ; share: );
    };
    ($($case:ident),*; pool: $($pool:ident),*; share: $($share:ident),*) => {
        $crate::for_driver!(pool: Pool; $($case,)* $($pool),*);
        $crate::for_driver!(share: Share; $($case,)* $($share),*);
    };
    ($($case:ident),*; pool: $($pool:ident),*; share: $($share:ident),*; share3: .. $(, $share3:ident)*) => {
        $crate::for_every_driver!($($case),*; pool: $($pool),*; share: $($share),*; share3: $($case,)* $($share3),*);
    };
    ($($case:ident),*; pool: $($pool:ident),*; share: $($share:ident),*; share3: $($share3:ident),* $(,)?) => {
        $crate::for_every_driver!($($case),*; pool: $($pool),*; share: $($share),*);
        $crate::for_driver!(share3: Share3; $($share3),*);
    };
}

/// Makes each case a test for one driver.
#[macro_export]
macro_rules! for_driver {
    ($($cases:tt)*) => { $crate::cases!(run; $($cases)*); };
}

/// Makes each case a test for one driver that runs alone.
#[macro_export]
macro_rules! alone {
    ($($cases:tt)*) => { $crate::cases!(run_alone; $($cases)*); };
}

/// Makes each case a test for one driver by one of the functions that run cases.
#[macro_export]
macro_rules! cases {
    ($run:ident; $module:ident: $driver:ident; $($case:ident),* $(,)?) => {
        mod $module {
            $(
                #[test]
                fn $case() {
                    $crate::kubernetes::space::$run($crate::kubernetes::driver::Driver::$driver, super::$case);
                }
            )*
        }
    };
}
