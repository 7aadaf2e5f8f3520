{{/* Whom operator and adapter both may reach: DNS and the API server, on its usual ports and those of the values. */}}
{{- define "pdcluster.policies.everywhere" -}}
- ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end }}

{{/* The pods of PDClusters, in the namespaces that are watched. */}}
{{- define "pdcluster.policies.workers" -}}
- podSelector:
    matchLabels: {app.kubernetes.io/managed-by: pdcluster-operator}
  {{- with .Values.watchNamespaces }}
  namespaceSelector:
    matchExpressions:
      - {key: kubernetes.io/metadata.name, operator: In, values: {{ toJson . }}}
  {{- else }}
  namespaceSelector: {}
  {{- end }}
{{- end }}
