{{/* Objects of a test: made anew for each, in the order of their weights, and gone when it succeeded. */}}
{{- define "pdcluster.test.hook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
