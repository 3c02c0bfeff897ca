//! What to do about a finding: what the task's author wrote, else what is known of the reason, else of the kind.

use maud::{Markup, html};

use super::words::{Text, said};
use crate::inspection::run::{Outcome, RuleResult};

/// What to do about what `rule` found, or could not look at.
pub fn of(rule: &RuleResult) -> Markup {
    match rule.remedy.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => html! { (text) },
        None => html! { (known(rule)) },
    }
}

/// The same, for machines: in English where it is not the author's.
pub fn text(rule: &RuleResult) -> String {
    match rule.remedy.as_deref().filter(|text| !text.is_empty()) {
        Some(text) => text.to_owned(),
        None => known(rule).en.into_owned(),
    }
}

/// What is known without its author.
pub fn known(rule: &RuleResult) -> Text {
    by_reason(&rule.reason).unwrap_or_else(|| match rule.result {
        Outcome::Error => said(
            "Find out why the inspection could not look; the log of its pod says more.",
            "请查明巡检为何无法执行；巡检 Pod 的日志中有更多信息。",
        ),
        _ => by_kind(&rule.kind),
    })
}

fn by_reason(reason: &str) -> Option<Text> {
    Some(match reason {
        "Timeout" => said(
            "Nothing answered in time. See whether the target is overloaded, or a network policy drops the packets. Raise timeoutSeconds only if it is slow by nature.",
            "目标未在期限内应答。请检查目标是否过载、网络策略是否丢弃了数据包。仅当目标本来就慢时才调大 timeoutSeconds。",
        ),
        "Forbidden" => said(
            "Give the task's service account the right that is missing, with a RoleBinding in this namespace, or name another account in serviceAccountName.",
            "请通过本命名空间的 RoleBinding 为任务的服务账号补足缺少的权限，或在 serviceAccountName 中指定其他账号。",
        ),
        "WaitForFirstConsumer" => said(
            "A claim of this class is bound only with a pod. Name a class that binds at once, or probe a claim of this class with mode Write and claimName.",
            "该 StorageClass 的 PVC 只有在被 Pod 使用时才会绑定。请改用立即绑定的 StorageClass，或用 mode: Write 和 claimName 探测该类的一个 PVC。",
        ),
        "Unresolvable" => said(
            "The name has no address. See whether it is spelled right, and whether the cluster's DNS answers.",
            "该名称没有对应的地址。请检查拼写是否正确，以及集群 DNS 是否应答。",
        ),
        "NodeNotInspected" => said(
            "No pod ran on this node. See whether it is ready, and whether a taint keeps the pods away (fanOut.tolerateAllTaints).",
            "该节点上没有运行巡检 Pod。请检查节点是否就绪，是否有污点阻止了 Pod（fanOut.tolerateAllTaints）。",
        ),
        "NotFound" => said(
            "There is no such object. See whether its name and namespace are right, and who deleted it.",
            "不存在该对象。请检查名称和命名空间是否正确，以及是否被删除。",
        ),
        _ => return None,
    })
}

fn by_kind(kind: &str) -> Text {
    match kind {
        "target" => said(
            "See whether the Service's pods are ready, and whether its selector and ports are those of the pods.",
            "请检查 Service 的 Pod 是否就绪，选择器和端口是否与 Pod 一致。",
        ),
        "tcp" | "http" | "grpc" => said(
            "See whether the pods behind it are ready and listen on this port, and what their logs say.",
            "请检查其后端 Pod 是否就绪并监听该端口，并查看其日志。",
        ),
        "dns" => said(
            "See whether the cluster's DNS pods are ready, and whether the record exists.",
            "请检查集群 DNS 的 Pod 是否就绪，以及该记录是否存在。",
        ),
        "tls" | "certificateSecrets" => said(
            "Renew the certificate. Where cert-manager issues it, look at its Certificate and CertificateRequest objects.",
            "请更新证书。若由 cert-manager 签发，请查看其 Certificate 和 CertificateRequest 对象。",
        ),
        "mysql" | "postgresql" | "redis" => said(
            "Look at the server's own log and its list of connections; of a replica, at its state too.",
            "请查看数据库服务器的日志和连接列表；若为副本，还应查看复制状态。",
        ),
        "workload" => said(
            "Look at the rollout: kubectl rollout status, then the events of its pods.",
            "请查看发布状态（kubectl rollout status）及其 Pod 的事件。",
        ),
        "pods" | "events" => said(
            "Look at the pods' events and at the log of the container that ended: kubectl describe pod, kubectl logs --previous.",
            "请查看 Pod 的事件和已退出容器的日志：kubectl describe pod、kubectl logs --previous。",
        ),
        "node" => said(
            "Look at the node's conditions and its kubelet's log; cordon it before you repair it.",
            "请查看节点状况和 kubelet 日志；修复前先将其隔离（cordon）。",
        ),
        "persistentVolumeClaims" => said(
            "Look at the claim's events: they name the StorageClass or the provisioner that is missing or failing.",
            "请查看 PVC 的事件：其中会指出缺失或出错的 StorageClass 或供应程序。",
        ),
        "volumeUsage" => said(
            "Expand the claim, or delete what is no longer needed on it.",
            "请扩容该 PVC，或清理其中不再需要的数据。",
        ),
        "volumeProbe" => said(
            "Look at the provisioner's log and the events of the claim that the probe made.",
            "请查看供应程序的日志，以及探测所建 PVC 的事件。",
        ),
        "nfs" => said(
            "See whether the NFS server is up, reachable on port 2049 from this node, and still exports this path.",
            "请检查 NFS 服务器是否在运行、本节点能否访问其 2049 端口，以及是否仍导出该路径。",
        ),
        "csiDriver" => said(
            "See whether the driver's node pods are ready on every node, and its controller pods too.",
            "请检查驱动的节点 Pod 在每个节点上是否就绪，控制器 Pod 是否就绪。",
        ),
        _ => said(
            "Look at what the rule asserts, and at the events and logs of its target.",
            "请查看该规则的断言，以及其目标的事件和日志。",
        ),
    }
}
