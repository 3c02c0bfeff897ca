{{/*
What a schema can't say: values that contradict each other, or what the cluster has. Each ends in a sentence that says what to do.
What the cluster has is seen when there is one: 'helm template' sees nothing, and checks less.
*/}}
{{- define "kuration.checks" -}}
{{- $metrics := .Values.metrics -}}
{{- if and (or $metrics.serviceMonitor.enabled $metrics.alerts.enabled) (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
  {{- fail "metrics.serviceMonitor and metrics.alerts need the Prometheus operator's CRDs (monitoring.coreos.com/v1), which this cluster lacks: install the operator first, or set them to false." -}}
{{- end -}}
{{- $seen := dict -}}
{{- range .Values.report.namespaces -}}
  {{- $name := . -}}
  {{- if kindIs "map" . }}{{ $name = .name }}{{ end -}}
  {{- if hasKey $seen $name -}}
    {{- fail (printf "report.namespaces has %s twice: a namespace has one page, over one claim. Leave one away." $name) -}}
  {{- end -}}
  {{- $_ := set $seen $name true -}}
{{- end -}}
{{- /* Two controllers would tell everything twice, each with a lease of its own namespace. */ -}}
{{- $role := lookup "rbac.authorization.k8s.io/v1" "ClusterRole" "" "kuration-inspector-controller" | default dict -}}
{{- $marks := dig "metadata" "annotations" (dict) $role | default dict -}}
{{- $name := get $marks "meta.helm.sh/release-name" | default .Release.Name -}}
{{- $namespace := get $marks "meta.helm.sh/release-namespace" | default .Release.Namespace -}}
{{- if or (ne $name .Release.Name) (ne $namespace .Release.Namespace) -}}
  {{- fail (printf "The release %s in the namespace %s is this cluster's inspection controller, and one looks after the tasks of all namespaces: 'helm upgrade %s -n %s' changes it, 'helm uninstall %s -n %s' makes room for another." $name $namespace $name $namespace $name $namespace) -}}
{{- end -}}
{{- end -}}
