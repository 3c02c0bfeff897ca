{{- define "kuration.selector" -}}
app.kubernetes.io/name: kuration-inspector-controller
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kuration.labels" -}}
{{ include "kuration.selector" . }}
app.kubernetes.io/part-of: kuration
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
