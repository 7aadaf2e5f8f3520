{{/* The metrics adapter's own names and labels. */}}
{{- define "pdcluster.adapter.name" -}}
pdcluster-metrics-adapter
{{- end }}

{{- define "pdcluster.adapter.selector" -}}
app.kubernetes.io/name: {{ include "pdcluster.adapter.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pdcluster.adapter.labels" -}}
{{ include "pdcluster.adapter.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: pdcluster
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Stops an installation beside another adapter: the API server passes external metrics on to one only. */}}
{{- define "pdcluster.adapter.checkOwner" -}}
{{- $found := lookup "apiregistration.k8s.io/v1" "APIService" "" "v1beta1.external.metrics.k8s.io" }}
{{- if $found }}
{{- $service := dig "spec" "service" dict $found | default dict }}
{{- if or (ne (dig "namespace" "" $service) .Release.Namespace) (ne (dig "name" "" $service) (include "pdcluster.adapter.name" .)) }}
{{- fail (printf "metricsAdapter.enabled: APIService v1beta1.external.metrics.k8s.io belongs to Service %s/%s already, and only one adapter can serve external metrics: leave metricsAdapter.enabled false and use that one (docs/autoscaling.md)" (dig "namespace" "" $service) (dig "name" "" $service)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The operator's image has the adapter in it; metricsAdapter.image stands in for it. */}}
{{- define "pdcluster.adapter.image" -}}
{{- $own := .Values.metricsAdapter.image }}
{{- printf "%s:%s" ($own.repository | default .Values.image.repository) ($own.tag | default .Values.image.tag | default .Chart.AppVersion) | quote }}
{{- end }}
