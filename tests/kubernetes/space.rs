//! A case's own namespace: what it makes there, what it waits for, and what is looked at when it fails.

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use k8s_openapi::api::core::v1::{Event, Namespace, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{AttachParams, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::sync::RwLock;

use super::driver::Driver;
use super::objects;
use super::site::Site;

mod end;

/// How long anything may take. Seen: a second or two, and a hundred times that on a machine that has too much to do.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Held by every case, and by one alone where it breaks what the others stand on.
static FLOOR: RwLock<()> = RwLock::const_new(());

/// A case's namespace on the cluster.
pub struct Space {
    pub client: Client,
    pub site: Site,
    pub driver: Driver,
    pub name: String,
}

/// Runs a case beside others.
pub fn run(driver: Driver, case: impl AsyncFnOnce(&Space)) {
    on_the_floor(async {
        let _floor = FLOOR.read().await;
        within_a_space(driver, case).await;
    });
}

/// Runs a case alone.
pub fn run_alone(driver: Driver, case: impl AsyncFnOnce(&Space)) {
    on_the_floor(async {
        let _floor = FLOOR.write().await;
        within_a_space(driver, case).await;
    });
}

fn on_the_floor(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work);
}

async fn within_a_space(driver: Driver, case: impl AsyncFnOnce(&Space)) {
    let client = Client::try_default().await.expect("KUBECONFIG must name a cluster");
    let site = Site::ready(&client).await;
    let space = Space::open(client, site, driver).await;
    let outcome = AssertUnwindSafe(async {
        case(&space).await;
        space.empty().await;
    });
    if let Err(cause) = outcome.catch_unwind().await {
        space.tell().await;
        space.close().await;
        std::panic::resume_unwind(cause);
    }
    space.close().await;
}

/// An error as a message.
fn words(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// An object as it stands, for a message.
async fn found<K>(api: &Api<K>, name: &str) -> String
where
    K: Clone + Debug + DeserializeOwned + Serialize + Resource<DynamicType = ()>,
{
    let mut object = api.get_opt(name).await.ok().flatten();
    if let Some(object) = &mut object {
        object.meta_mut().managed_fields = None;
    }
    serde_json::to_string(&object).unwrap_or_default()
}

impl Space {
    async fn open(client: Client, site: Site, driver: Driver) -> Self {
        let case = std::thread::current().name().unwrap_or("case").to_owned();
        let namespace = objects::typed(json!({
            "metadata": { "generateName": "case-", "annotations": { "kuration.io/case": case } },
        }));
        let namespaces = Api::<Namespace>::all(client.clone());
        let name = namespaces.create(&Default::default(), &namespace).await.expect("a namespace").name_any();
        Self { client, site, driver, name }
    }

    /// A second namespace for this case.
    pub async fn beside(&self) -> Self {
        Self::open(self.client.clone(), self.site.clone(), self.driver).await
    }

    /// The objects of a kind in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// The objects of a kind that belong to no namespace.
    pub fn all<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::ClusterResourceScope, DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    /// The node that pods of this driver's volumes run on.
    pub fn node(&self) -> &str {
        self.site.node(self.driver)
    }

    // --- what is made ------------------------------------------------------------------------------------------------

    /// Makes an object in this namespace.
    pub async fn make<K>(&self, document: Value) -> K
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let object: K = objects::typed(document);
        self.api()
            .create(&Default::default(), &object)
            .await
            .unwrap_or_else(|error| panic!("{object:?}: {error}"))
    }

    /// A StorageClass of this case's own, named after its namespace and `name`; `more` is laid over the driver's.
    pub async fn class(&self, name: &str, more: Value) -> String {
        let name = format!("{}-{name}", self.name);
        let class = self.driver.storage_class(&self.site, &name, more);
        self.all().create(&Default::default(), &class).await.expect("a class");
        name
    }

    /// A claim of the driver's class; `more` is laid over it.
    pub async fn claim(&self, name: &str, more: Value) -> PersistentVolumeClaim {
        let mut claim = objects::claim(name, self.driver.class());
        objects::lay_over(&mut claim, more);
        self.make(claim).await
    }

    /// A claim of a class.
    pub async fn claim_of(&self, name: &str, class: &str) -> PersistentVolumeClaim {
        self.claim(name, json!({ "spec": { "storageClassName": class } })).await
    }

    /// A pod on the driver's node with a claim at /data; `more` is laid over it.
    pub async fn pod(&self, name: &str, claim: &str, more: Value) -> Pod {
        let mut pod = objects::pod(name, self.node(), objects::claimed(claim));
        objects::lay_over(&mut pod, more);
        self.make(pod).await
    }

    /// A claim, and a pod that has it and runs.
    pub async fn claim_in_pod(&self, claim: &str, pod: &str) {
        self.claim(claim, json!({})).await;
        self.pod(pod, claim, json!({})).await;
        self.running(pod).await;
    }

    /// A volume made by hand of the whole export, as an administrator would give it to a pod, and a claim `name` that has it. It
    /// goes with its claim; `more` is laid over its spec.
    pub async fn export(&self, name: &str, more: Value) -> String {
        let volume = format!("{}-{name}", self.name);
        let mut spec = json!({
            "accessModes": ["ReadWriteMany"],
            "capacity": { "storage": "1Gi" },
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": "",
            "csi": {
                "driver": self.driver.name(),
                "volumeHandle": format!("of our own choice / {volume}"),
                "volumeAttributes": { "server": self.site.nfs_server, "share": self.site.nfs_share },
            },
        });
        objects::lay_over(&mut spec, more);
        let made = json!({
            "metadata": { "name": volume, "annotations": { "pv.kubernetes.io/provisioned-by": self.driver.name() } },
            "spec": spec,
        });
        self.all::<PersistentVolume>()
            .create(&Default::default(), &objects::typed(made))
            .await
            .expect("a volume");
        let wanted = json!({ "spec": {
            "volumeName": volume, "storageClassName": "", "resources": { "requests": { "storage": "1Gi" } },
        } });
        self.claim(name, wanted).await;
        volume
    }

    /// Changes an object (a merge patch).
    pub async fn change<K>(&self, api: Api<K>, name: &str, change: Value) -> K
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let patch = Patch::Merge(&change);
        api.patch(name, &PatchParams::default(), &patch)
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Changes an object as it is found, again where somebody else changed it meanwhile: nothing of theirs is lost.
    pub async fn amend<K>(&self, api: Api<K>, name: &str, change: impl Fn(&mut K))
    where
        K: Clone + Debug + DeserializeOwned + Serialize,
    {
        loop {
            let mut object = api.get(name).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            change(&mut object);
            match api.replace(name, &Default::default(), &object).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.is_conflict() => {}
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }

    /// Asks for another size of a claim.
    pub async fn resize(&self, claim: &str, size: &str) {
        let change = json!({ "spec": { "resources": { "requests": { "storage": size } } } });
        self.change(self.api::<PersistentVolumeClaim>(), claim, change).await;
    }

    // --- what is waited for ------------------------------------------------------------------------------------------

    /// Waits until an object is as it should be.
    pub async fn until<K>(&self, api: Api<K>, name: &str, what: &str, so: impl Fn(&K) -> bool) -> K
    where
        K: Clone + Debug + Send + DeserializeOwned + Serialize + Resource<DynamicType = ()> + 'static,
    {
        self.until_within(PATIENCE, api, name, what, so).await
    }

    /// The same, with a patience of its own.
    pub async fn until_within<K>(
        &self,
        patience: Duration,
        api: Api<K>,
        name: &str,
        what: &str,
        so: impl Fn(&K) -> bool,
    ) -> K
    where
        K: Clone + Debug + Send + DeserializeOwned + Serialize + Resource<DynamicType = ()> + 'static,
    {
        let so = |object: Option<&K>| object.is_some_and(&so);
        let waited = tokio::time::timeout(patience, async {
            loop {
                // A watch may break at any time: the server ends each after some minutes.
                match await_condition(api.clone(), name, so).await {
                    Ok(object) => return object.expect("what is so is there"),
                    Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
                }
            }
        });
        match waited.await {
            Ok(object) => object,
            Err(_) => panic!(
                "not in {} s: {} {name} {what}; it is {}",
                patience.as_secs(),
                K::kind(&()),
                found(&api, name).await
            ),
        }
    }

    /// Waits until an object is gone, one made anew under its name or not.
    pub async fn gone<K>(&self, api: Api<K>, name: &str, uid: &str)
    where
        K: Clone + Debug + Send + DeserializeOwned + Serialize + Resource<DynamicType = ()> + 'static,
    {
        let waited = tokio::time::timeout(PATIENCE, async {
            // A watch may break at any time, as above.
            while await_condition(api.clone(), name, conditions::is_deleted(uid)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        if waited.await.is_err() {
            panic!("{} {name} is still there: {}", K::kind(&()), found(&api, name).await);
        }
    }

    /// Waits until a claim is bound: its volume.
    pub async fn bound(&self, claim: &str) -> PersistentVolume {
        let claim = self
            .until(self.api::<PersistentVolumeClaim>(), claim, "is Bound", |claim| phase(claim) == "Bound")
            .await;
        let volume = claim.spec.and_then(|spec| spec.volume_name).expect("a bound claim names its volume");
        self.all().get(&volume).await.expect("the volume of a bound claim")
    }

    /// Waits until a pod is ready.
    pub async fn running(&self, pod: &str) -> Pod {
        self.until(self.api::<Pod>(), pod, "is Ready", ready).await
    }

    /// Waits for an event about an object whose message holds each of `words`.
    pub async fn event(&self, kind: &str, name: &str, words: &[&str]) -> Event {
        let fields = format!("involvedObject.kind={kind},involvedObject.name={name}");
        // Events of what belongs to no namespace are in this one.
        let events = if kind == "PersistentVolume" || kind == "Node" {
            Api::<Event>::namespaced(self.client.clone(), "default")
        } else {
            self.api()
        };
        let mut said = Vec::new();
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let found = events.list(&ListParams::default().fields(&fields)).await.expect("events").items;
            said = found.iter().map(|event| event.message.clone().unwrap_or_default()).collect();
            for event in found {
                let message = event.message.as_deref().unwrap_or_default();
                if words.iter().all(|word| message.contains(word)) {
                    return event;
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("no event of {kind} {name} says all of {words:?}; they say {said:#?}");
    }

    // --- what goes ---------------------------------------------------------------------------------------------------

    /// Deletes an object and waits until it is gone.
    pub async fn delete<K>(&self, api: Api<K>, name: &str)
    where
        K: Clone + Debug + Send + DeserializeOwned + Serialize + Resource<DynamicType = ()> + 'static,
    {
        let uid = api.get(name).await.unwrap_or_else(|error| panic!("{name}: {error}")).uid().expect("a uid");
        api.delete(name, &DeleteParams::default()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        self.gone(api, name, &uid).await;
    }

    /// Deletes a pod and waits until it is gone.
    pub async fn end(&self, pod: &str) {
        self.delete(self.api::<Pod>(), pod).await;
    }

    // --- what happens in pods ----------------------------------------------------------------------------------------

    /// What a shell in a pod prints; the words of a script that fails.
    pub async fn try_sh(&self, pod: &str, script: &str) -> Result<String, String> {
        let call = AttachParams::default().stdin(false).stdout(true).stderr(true);
        let (mut printed, mut complained) = (String::new(), String::new());
        let called = async {
            let mut shell =
                self.api::<Pod>().exec(pod, ["/bin/sh", "-c", script], &call).await.map_err(words)?;
            let status = shell.take_status().expect("the status of a call");
            let (mut stdout, mut stderr) = (shell.stdout().expect("stdout"), shell.stderr().expect("stderr"));
            tokio::try_join!(stdout.read_to_string(&mut printed), stderr.read_to_string(&mut complained))
                .map_err(words)?;
            Ok(status.await)
        };
        let status = tokio::time::timeout(PATIENCE, called)
            .await
            .unwrap_or_else(|_| Err(format!("{script:?} in {pod} did not end")))?;
        match status {
            Some(status) if status.status.as_deref() == Some("Success") => Ok(printed.trim_end().to_owned()),
            _ => Err(format!("{script:?} in {pod}: {} {}", printed.trim(), complained.trim())),
        }
    }

    /// What a shell in a pod prints.
    pub async fn sh(&self, pod: &str, script: &str) -> String {
        self.try_sh(pod, script).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// What a shell prints that has all of the pool, or the whole export, at /data.
    pub async fn oversee(&self, script: &str) -> String {
        let pod = "oversees";
        if self.driver.is_pool() {
            let directory =
                json!({ "hostPath": { "path": self.site.pool_directory(), "type": "Directory" } });
            self.make::<Pod>(objects::pod(pod, self.node(), directory)).await;
            self.running(pod).await;
            let printed = self.sh(pod, script).await;
            self.end(pod).await;
            return printed;
        }
        // What others change there is seen at once.
        let volume = self.export(pod, json!({ "mountOptions": ["actimeo=0"] })).await;
        let uid = self.all::<PersistentVolume>().get(&volume).await.expect("just made").uid().expect("a uid");
        self.pod(pod, pod, json!({})).await;
        self.running(pod).await;
        let printed = self.sh(pod, script).await;
        self.end(pod).await;
        self.delete(self.api::<PersistentVolumeClaim>(), pod).await;
        self.gone(self.all::<PersistentVolume>(), &volume, &uid).await;
        printed
    }
}

/// A claim's phase.
pub fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether a pod is ready.
pub fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let running = pod.metadata.deletion_timestamp.is_none();
    running && conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
}
