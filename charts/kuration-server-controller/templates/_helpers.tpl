{{/* By these the controller's pods are found. root, part (controller, report) */}}
{{- define "kuration.selector" -}}
app.kubernetes.io/name: {{ ternary "kuration-inspection-report" "kuration-inspector-controller" (eq .part "report") }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- end -}}

{{/* Labels: everybody's, an object's own (labels), and over both the chart's, by which selectors find pods. root, part, labels */}}
{{- define "kuration.labels" -}}
{{- $chart := include "kuration.selector" . | fromYaml -}}
{{- $chart = mergeOverwrite $chart (dict
  "app.kubernetes.io/component" .part
  "app.kubernetes.io/part-of" "kuration"
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_")) -}}
{{- toYaml (mergeOverwrite (dict) (.root.Values.commonLabels | default dict) (.labels | default dict) $chart) -}}
{{- end -}}

{{/* The program's image: registry/repository:tag or …@digest. root */}}
{{- define "kuration.image" -}}
{{- $global := .Values.global | default dict -}}
{{- $registry := .Values.imageRegistry | default $global.imageRegistry | default .Values.image.registry -}}
{{- $name := printf "%s/%s" (trimSuffix "/" $registry) .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* Nothing of the machine, and nobody's rights: what a namespace with pod-security.kubernetes.io/enforce: restricted asks for. */}}
{{- define "kuration.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "kuration.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Probes over HTTP. root, port, ready (a path) */}}
{{- define "kuration.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: {{ .port }}}
  {{- toYaml .root.Values.probes.startup | nindent 2 }}
livenessProbe:
  httpGet: {path: /livez, port: {{ .port }}}
  {{- toYaml .root.Values.probes.liveness | nindent 2 }}
readinessProbe:
  httpGet: {path: {{ .ready }}, port: {{ .port }}}
  {{- toYaml .root.Values.probes.readiness | nindent 2 }}
{{- end -}}
