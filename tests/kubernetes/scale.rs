//! Many claims at once.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use tokio::time::{Duration, Instant};

use super::objects;
use super::space::{self, Space};

const CLAIMS: usize = 300;

crate::alone!(pool: Pool; three_hundred_claims_at_once_are_bound_and_gone);
crate::alone!(share: Share; three_hundred_claims_at_once_are_bound_and_gone);

async fn three_hundred_claims_at_once_are_bound_and_gone(space: &Space) {
    let began = Instant::now();
    let claims = space.api::<PersistentVolumeClaim>();
    // All of the pool's are small enough to fit together.
    let of = |number: usize| {
        let mut claim = objects::claim(&format!("data-{number}"), space.driver.class());
        objects::lay_over(
            &mut claim,
            json!({ "spec": { "resources": { "requests": { "storage": "1Mi" } } } }),
        );
        objects::typed::<PersistentVolumeClaim>(claim)
    };
    let made = futures::future::join_all(
        (0..CLAIMS).map(async |number| claims.create(&Default::default(), &of(number)).await),
    );
    for claim in made.await {
        claim.expect("a claim");
    }
    let bound = async || {
        let claims = claims.list(&ListParams::default()).await.expect("claims").items;
        claims.iter().filter(|claim| space::phase(claim) == "Bound").count()
    };
    // At its own rate of 20 requests/s the controller-manager alone takes 45 s; a busy machine takes longer.
    let deadline = Instant::now() + Duration::from_secs(300);
    while bound().await < CLAIMS {
        assert!(Instant::now() < deadline, "{} of {CLAIMS} are bound", bound().await);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let volumes = space.volumes().await;
    let mut handles: Vec<&str> = volumes.iter().map(handle).collect();
    handles.sort_unstable();
    handles.dedup();
    assert_eq!((volumes.len(), handles.len()), (CLAIMS, CLAIMS), "a volume for each claim");
    println!("{CLAIMS} claims bound in {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    claims.delete_collection(&DeleteParams::default(), &ListParams::default()).await.expect("deleted");
    while !space.volumes().await.is_empty() {
        assert!(
            Instant::now() < deadline + Duration::from_secs(300),
            "{} are left",
            space.volumes().await.len()
        );
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    println!("and gone in {:.1} s", began.elapsed().as_secs_f64());
}

fn handle(volume: &PersistentVolume) -> &str {
    let csi = volume.spec.as_ref().and_then(|spec| spec.csi.as_ref());
    csi.map_or("", |csi| csi.volume_handle.as_str())
}
