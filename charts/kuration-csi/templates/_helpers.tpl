{{/* A name of this release's: kuration-nfs-node. */}}
{{- define "kuration.name" -}}
{{- printf "%s-%s" .root.Release.Name .part | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* A name of an object without a namespace: two releases in two namespaces must not share it. */}}
{{- define "kuration.clusterName" -}}
{{- printf "%s-%s-%s" .root.Release.Namespace .root.Release.Name .part -}}
{{- end -}}

{{- define "kuration.selector" -}}
app.kubernetes.io/name: kuration-csi
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{/* Labels: everybody's, an object's own (labels), and over both the chart's, by which selectors find pods. root, part, labels */}}
{{- define "kuration.labels" -}}
{{- $chart := dict
  "app.kubernetes.io/name" "kuration-csi"
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- with .part -}}{{- $_ := set $chart "app.kubernetes.io/component" . -}}{{- end -}}
{{- toYaml (mergeOverwrite (dict) (.root.Values.commonLabels | default dict) (.labels | default dict) $chart) -}}
{{- end -}}

{{/* What stands under metadata of an object in the release's namespace. root, part */}}
{{- define "kuration.metadata" -}}
name: {{ include "kuration.name" . }}
namespace: {{ .root.Release.Namespace | quote }}
labels:
  {{- include "kuration.labels" . | nindent 2 }}
{{- end -}}

{{/* root, part, values (the component's) */}}
{{- define "kuration.podMetadata" -}}
labels:
  {{- include "kuration.labels" (dict "root" .root "part" .part "labels" .values.podLabels) | nindent 2 }}
annotations:
  {{- toYaml (mergeOverwrite (dict "kubectl.kubernetes.io/default-container" "kuration") (.values.podAnnotations | default dict)) | nindent 2 }}
{{- end -}}

{{/* What every pod's spec begins with. root, part, values (the component's) */}}
{{- define "kuration.podHead" -}}
serviceAccountName: {{ include "kuration.name" . }}
priorityClassName: {{ .values.priorityClassName }}
terminationGracePeriodSeconds: 30
# A Service called kuration-… would set variables that the driver reads as its own.
enableServiceLinks: false
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
tolerations:
  {{- include "kuration.tolerations" (dict "root" .root "own" .values.tolerations) | nindent 2 }}
{{- end -}}

{{/* How pods are replaced: what belongs to a rolling update goes with it. */}}
{{- define "kuration.updateStrategy" -}}
type: {{ .type }}
{{- if and (eq .type "RollingUpdate") .rollingUpdate }}
rollingUpdate:
  {{- toYaml .rollingUpdate | nindent 2 }}
{{- end }}
{{- end -}}

{{/* image, root → registry/repository:tag or …@digest */}}
{{- define "kuration.image" -}}
{{- $global := .root.Values.global | default dict -}}
{{- $registry := .root.Values.imageRegistry | default $global.imageRegistry | default .image.registry -}}
{{- $name := printf "%s/%s" (trimSuffix "/" $registry) .image.repository -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Probes over HTTP. probes, port (a name or number), live, ready (a path or ""), host */}}
{{- define "kuration.probes" -}}
{{- $host := .host -}}
startupProbe:
  httpGet: {path: {{ .live }}, port: {{ .port }}{{ with $host }}, host: {{ . | quote }}{{ end }}}
  {{- toYaml .probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: {{ .live }}, port: {{ .port }}{{ with $host }}, host: {{ . | quote }}{{ end }}}
  {{- toYaml .probes.liveness | nindent 2 }}
{{- with .ready }}
readinessProbe:
  httpGet: {path: {{ . }}, port: {{ $.readyPort | default $.port }}{{ with $host }}, host: {{ . | quote }}{{ end }}}
  {{- toYaml $.probes.readiness | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Of those who mount for others. */}}
{{- define "kuration.privileged" -}}
securityContext:
  # The API server asks for this wherever a mount is to reach the node (Bidirectional). The program itself gives up every
  # capability but those that its work takes.
  privileged: true
  # The image's own user is nobody.
  runAsUser: 0
  readOnlyRootFilesystem: true
{{- end -}}

{{/* A sidecar talks to the driver's socket and the API server, and needs nothing of the machine. */}}
{{- define "kuration.confined" -}}
securityContext:
  # The driver's socket is root's.
  runAsUser: 0
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/*
Tolerations: a component's own, and the start-up taints'. Who takes the taints off must be able to start where all nodes have them, and
so must those whose start it waits for. root, own
*/}}
{{- define "kuration.tolerations" -}}
{{- $all := .own | default list -}}
{{- if .root.Values.startupTaint -}}
{{- range $driver := list .root.Values.nfs .root.Values.pool -}}
{{- if $driver.enabled -}}
{{- $all = append $all (dict "key" (printf "%s/agent-not-ready" $driver.driverName) "operator" "Exists") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{- define "kuration.env" -}}
- name: NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end -}}

{{/* What the driver's container begins with, up to the arguments that each role has. root, role, driver (its values), admin (an address) */}}
{{- define "kuration.driver" -}}
- name: kuration
  image: {{ include "kuration.image" (dict "root" .root "image" .root.Values.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - {{ .role }}
    - --endpoint=unix:///csi/csi.sock
    - --driver-name={{ .driver.driverName }}
    - --installation={{ .root.Values.installation }}
    - {{ printf "--admin=%s" .admin | quote }}
    - --v={{ .root.Values.logLevel }}
    - --operation-timeout={{ .driver.operationTimeout }}
{{- end -}}

{{/* root, driver (its values) */}}
{{- define "kuration.controllerArgs" -}}
- --trash-lifetime={{ .driver.trashLifetime }}
- --reap-interval={{ .driver.reapInterval }}
- --kubernetes
{{- if .root.Values.startupTaint }}
- --startup-taint
{{- end }}
{{- end -}}

{{/* root, driver (its values), node (the node's) */}}
{{- define "kuration.nodeArgs" -}}
- --node-id=$(NODE_NAME)
- --state-dir=/csi/state
{{- with int64 .node.maxVolumesPerNode }}
- --max-volumes-per-node={{ . }}
{{- end }}
{{- if eq .node.registrar "self" }}
- --kubelet-registration=/registration
- --kubelet-endpoint={{ .root.Values.kubeletDir }}/plugins/{{ .driver.driverName }}/csi.sock
{{- end }}
{{- end -}}

{{/* root, driver (its values) */}}
{{- define "kuration.kubeletVolumes" -}}
# Directory: where the kubelet has another directory, the pod says so instead of starting.
- {name: kubelet, hostPath: {path: {{ .root.Values.kubeletDir }}, type: Directory}}
- {name: registration, hostPath: {path: {{ .root.Values.kubeletDir }}/plugins_registry, type: Directory}}
- {name: socket, hostPath: {path: {{ .root.Values.kubeletDir }}/plugins/{{ .driver.driverName }}, type: DirectoryOrCreate}}
{{- end -}}

{{/* A sidecar of the controller. root, sidecar (its name in values), name, port, elect, args (a list) */}}
{{- define "kuration.sidecar" -}}
{{- $values := get .root.Values.sidecars .sidecar -}}
{{- $election := .root.Values.sidecars.leaderElection -}}
- name: {{ .sidecar }}
  image: {{ include "kuration.image" (dict "root" .root "image" $values.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --v={{ .root.Values.logLevel }}
    - --timeout={{ $values.timeout }}
    - --{{ .workers }}={{ int64 $values.workerThreads }}
    - --kube-api-qps={{ $values.kubeApiQps }}
    - --kube-api-burst={{ int64 $values.kubeApiBurst }}
    - --retry-interval-max={{ .root.Values.sidecars.retryIntervalMax }}
    - --http-endpoint=:{{ .port }}
    {{- if .elect }}
    - --leader-election
    - --leader-election-namespace=$(NAMESPACE)
    - --leader-election-lease-duration={{ $election.leaseDuration }}
    - --leader-election-renew-deadline={{ $election.renewDeadline }}
    - --leader-election-retry-period={{ $election.retryPeriod }}
    {{- end }}
    {{- range .args }}
    - {{ . }}
    {{- end }}
    {{- range $values.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  env:
    {{- include "kuration.env" .root | nindent 4 }}
  ports:
    - {name: {{ .sidecar }}, containerPort: {{ .port }}}
  {{- include "kuration.probes" (dict "probes" .root.Values.probes "port" .sidecar "live" (ternary "/healthz/leader-election" "/metrics" .elect)) | nindent 2 }}
  {{- include "kuration.confined" . | nindent 2 }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  volumeMounts:
    - {name: socket, mountPath: /csi}
{{- end -}}

{{/* node-driver-registrar and livenessprobe, where they are asked for. root, choice, driver, port */}}
{{- define "kuration.nodeSidecars" -}}
{{- if eq .choice.registrar "sidecar" }}
{{- $values := .root.Values.sidecars.registrar }}
- name: registrar
  image: {{ include "kuration.image" (dict "root" .root "image" $values.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --kubelet-registration-path={{ .root.Values.kubeletDir }}/plugins/{{ .driver }}/csi.sock
    - --v={{ .root.Values.logLevel }}
    - --timeout={{ $values.timeout }}
    - --http-endpoint={{ .address }}:{{ add .port 1 }}
    {{- range $values.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  {{- include "kuration.probes" (dict "probes" .root.Values.probes "port" (add .port 1) "live" "/healthz" "host" .address) | nindent 2 }}
  {{- include "kuration.confined" . | nindent 2 }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  volumeMounts:
    - {name: socket, mountPath: /csi}
    - {name: registration, mountPath: /registration}
{{- end }}
{{- if eq .choice.livenessProbe "sidecar" }}
{{- $values := .root.Values.sidecars.livenessprobe }}
- name: livenessprobe
  image: {{ include "kuration.image" (dict "root" .root "image" $values.image) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args:
    - --csi-address=/csi/csi.sock
    - --v={{ .root.Values.logLevel }}
    - --probe-timeout={{ $values.timeout }}
    - --http-endpoint={{ .address }}:{{ add .port 2 }}
    {{- range $values.extraArgs }}
    - {{ . | quote }}
    {{- end }}
  {{- include "kuration.confined" . | nindent 2 }}
  resources:
    {{- toYaml $values.resources | nindent 4 }}
  volumeMounts:
    - {name: socket, mountPath: /csi}
{{- end }}
{{- end -}}
