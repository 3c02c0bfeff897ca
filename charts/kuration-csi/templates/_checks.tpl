{{/* What the schema can't say: values that contradict each other. */}}
{{- define "kuration.checks" -}}
{{- end -}}
