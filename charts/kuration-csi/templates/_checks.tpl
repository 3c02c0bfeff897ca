{{/*
What a schema can't say: values that contradict each other, or what the cluster has. Each ends in a sentence that says what to do.
What the cluster has is seen when there is one: 'helm template' sees nothing, and checks less.
*/}}
{{- define "kuration.checks" -}}
{{- $v := .Values -}}
{{- if not (or $v.nfs.enabled $v.pool.enabled) -}}
  {{- fail "Neither driver is installed: set nfs.enabled or pool.enabled to true." -}}
{{- end -}}
{{- if and $v.nfs.enabled $v.pool.enabled (eq $v.nfs.driverName $v.pool.driverName) -}}
  {{- fail (printf "nfs.driverName and pool.driverName are both %s: two drivers need two names." $v.nfs.driverName) -}}
{{- end -}}
{{- if $v.nfs.enabled -}}
  {{- if and $v.nfs.inline.enabled (not $v.nfs.inline.share) -}}
    {{- fail "nfs.inline.enabled needs nfs.inline.share, the export that inline volumes live on, such as nfs.example:/scratch: a pod never names a server." -}}
  {{- end -}}
  {{- if and $v.nfs.inline.share (not $v.nfs.inline.enabled) -}}
    {{- fail "nfs.inline.share is set, but inline volumes are off: set nfs.inline.enabled to true, or leave the share away." -}}
  {{- end -}}
  {{- if and $v.nfs.controller.hostNetwork (not $v.nfs.controller.hostUsers) -}}
    {{- fail "nfs.controller.hostUsers=false and nfs.controller.hostNetwork=true exclude each other in Kubernetes: choose one." -}}
  {{- end -}}
{{- end -}}
{{- if $v.pool.enabled -}}
  {{- if not (or $v.pool.nodeName $v.pool.nodeSelector) -}}
    {{- fail "pool.enabled needs pool.nodeName, the name of the node whose directory the pool is ('kubectl get nodes' lists them), or pool.nodeSelector." -}}
  {{- end -}}
  {{- if and $v.pool.nodeName $v.pool.nodeSelector -}}
    {{- fail "pool.nodeName and pool.nodeSelector both say where the pool is: leave one away." -}}
  {{- end -}}
{{- end -}}
{{- if and $v.podMonitor.enabled $v.serviceMonitor.enabled -}}
  {{- fail "podMonitor.enabled and serviceMonitor.enabled would scrape everything twice: choose one." -}}
{{- end -}}
{{- if $v.snapshots.enabled -}}
  {{- fail "snapshots.enabled: version 0.1 has no snapshots, and csi-snapshotter would end beside it again and again: set it to false." -}}
{{- end -}}
{{- if $v.volumeSnapshotClasses -}}
  {{- fail "volumeSnapshotClasses: version 0.1 has no snapshots, and nobody would make those of a class: leave them away." -}}
{{- end -}}
{{- range $driver := list "nfs" "pool" -}}
  {{- $d := get $v $driver -}}
  {{- if and $d.enabled $d.nodeAllocatableUpdatePeriodSeconds -}}
    {{- if not (semverCompare ">=1.34.0-0" $.Capabilities.KubeVersion.Version) -}}
      {{- fail (printf "%s.nodeAllocatableUpdatePeriodSeconds needs Kubernetes 1.35 or newer, or 1.34 with the feature gate MutableCSINodeAllocatableCount, and this is %s: set it to 0." $driver $.Capabilities.KubeVersion.Version) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}

{{- range $field := list "storageClasses" "volumeSnapshotClasses" -}}
  {{- $names := dict -}}
  {{- $default := "" -}}
  {{- range get $v $field -}}
    {{- if hasKey $names .name -}}
      {{- fail (printf "%s has %s twice: each needs a name of its own." $field .name) -}}
    {{- end -}}
    {{- $_ := set $names .name true -}}
    {{- if .default -}}
      {{- if $default -}}
        {{- fail (printf "%s has two defaults, %s and %s: claims without a class would get either. Leave one." $field $default .name) -}}
      {{- end -}}
      {{- $default = .name -}}
    {{- end -}}
    {{- if not (get $v .driver).enabled -}}
      {{- fail (printf "%s %s is for the driver %s, which is not installed: set %s.enabled to true, or leave the class away." $field .name .driver .driver) -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- range $class := $v.storageClasses -}}
  {{- if eq .driver "nfs" -}}
    {{- if .allowedTopologies -}}
      {{- fail (printf "storageClasses: %s has allowedTopologies, which mean nothing for shares: a server is reached from every node. Leave them away." $class.name) -}}
    {{- end -}}
    {{- $keys := list -}}
    {{- range $key, $_ := .parameters | default dict -}}{{- $keys = append $keys (lower $key) -}}{{- end -}}
    {{- range $key := list "server" "share" -}}
      {{- if not (has $key $keys) -}}
        {{- fail (printf "storageClasses: %s has no parameters.%s. A class of the driver nfs names server and share, the export its volumes live on." $class.name $key) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
{{- end -}}
{{- include "kuration.liveChecks" . -}}
{{- end -}}

{{- define "kuration.liveChecks" -}}
{{- $v := .Values -}}
{{- if lookup "v1" "Namespace" "" "kube-system" -}}
  {{- range $driver := list "nfs" "pool" -}}
    {{- $d := get $v $driver -}}
    {{- $there := lookup "storage.k8s.io/v1" "CSIDriver" "" $d.driverName -}}
    {{- if and $d.enabled $there -}}
      {{- if ne (toString $there.spec.attachRequired) (toString $d.attachRequired) -}}
        {{- fail (printf "The CSIDriver %s exists with attachRequired=%v, which Kubernetes never changes: set %s.attachRequired=%v, or install under a new name by %s.driverName." $d.driverName $there.spec.attachRequired $driver $there.spec.attachRequired $driver) -}}
      {{- end -}}
      {{- if ne (join "," (sortAlpha $there.spec.volumeLifecycleModes)) "Ephemeral,Persistent" -}}
        {{- fail (printf "The CSIDriver %s exists with other volumeLifecycleModes, which Kubernetes never changes: install under a new name by %s.driverName, or delete that object while no pod uses its volumes." $d.driverName $driver) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- if and $v.pool.enabled $v.pool.nodeName -}}
    {{- if not (lookup "v1" "Node" "" $v.pool.nodeName) -}}
      {{- fail (printf "There is no node called %s (pool.nodeName): 'kubectl get nodes' lists them." $v.pool.nodeName) -}}
    {{- end -}}
  {{- end -}}
  {{- range $v.storageClasses -}}
    {{- $there := lookup "storage.k8s.io/v1" "StorageClass" "" .name -}}
    {{- if $there -}}
      {{- $differs := list -}}
      {{- if ne $there.provisioner (get $v .driver).driverName -}}{{- $differs = append $differs "provisioner" -}}{{- end -}}
      {{- if ne (toJson ($there.parameters | default dict)) (toJson (.parameters | default dict)) -}}{{- $differs = append $differs "parameters" -}}{{- end -}}
      {{- if ne $there.reclaimPolicy (.reclaimPolicy | default "Delete") -}}{{- $differs = append $differs "reclaimPolicy" -}}{{- end -}}
      {{- if ne $there.volumeBindingMode (include "kuration.bindingMode" .) -}}{{- $differs = append $differs "volumeBindingMode" -}}{{- end -}}
      {{- if $differs -}}
        {{- fail (printf "The StorageClass %s exists with other %s, which Kubernetes never changes: give the class a new name in storageClasses. Claims of the old one keep their volumes." .name (join ", " $differs)) -}}
      {{- end -}}
    {{- end -}}
  {{- end -}}
  {{- if and (or $v.podMonitor.enabled $v.serviceMonitor.enabled) (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
    {{- fail "podMonitor and serviceMonitor need the Prometheus operator's CRDs (monitoring.coreos.com/v1), which this cluster lacks: install the operator first, or set them to false." -}}
  {{- end -}}
  {{- if and $v.snapshots.enabled (not (.Capabilities.APIVersions.Has "snapshot.storage.k8s.io/v1")) -}}
    {{- fail "snapshots.enabled needs the CRDs of snapshot.storage.k8s.io/v1 and the snapshot-controller, which this cluster lacks: install external-snapshotter's first, or set it to false." -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{/* A pool is on one node: a claim waits for its pod, which is sent there. */}}
{{- define "kuration.bindingMode" -}}
{{- .volumeBindingMode | default (ternary "WaitForFirstConsumer" "Immediate" (eq .driver "pool")) -}}
{{- end -}}
