{{/* Arguments that controller and node share. */}}
{{- define "kuration.nfsArgs" -}}
{{- range .Values.nfs.shares }}
- {{ printf "--share=%s" . | quote }}
{{- end }}
{{- with .Values.nfs.mountOptions }}
- {{ printf "--mount-options=%s" (join "," .) | quote }}
{{- end }}
{{- range .Values.nfs.allowedServers }}
- {{ printf "--allow-server=%s" . | quote }}
{{- end }}
{{- end -}}

{{/* The address of the node's port: its own, unless somebody scrapes it. */}}
{{- define "kuration.nodeAddress" -}}
{{- if or .Values.podMonitor.enabled .Values.serviceMonitor.enabled -}}[::]{{- else -}}127.0.0.1{{- end -}}
{{- end -}}
