{{- define "vectord.name" -}}
{{- if contains "vectord" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-vectord" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "vectord.selector" -}}
app.kubernetes.io/name: vectord
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "vectord.labels" -}}
{{ include "vectord.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "vectord.secret" -}}
{{- default (include "vectord.name" .) .Values.secret.existing }}
{{- end }}

{{- /* The name of a node as the others reach it. */ -}}
{{- define "vectord.nodes" -}}
{{- $name := include "vectord.name" . }}
{{- range $i := until (int .Values.replicas) }}{{ if $i }} {{ end }}{{ $name }}-{{ $i }}.{{ $name }}-peers{{ end }}
{{- end }}
