{{/* The operator's own names and labels. */}}
{{- define "pdcluster.operator.name" -}}
pdcluster-operator
{{- end }}

{{- define "pdcluster.operator.selector" -}}
app.kubernetes.io/name: {{ include "pdcluster.operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pdcluster.operator.labels" -}}
{{ include "pdcluster.operator.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: pdcluster
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* What the operator does in the namespaces that it watches, and no more. Creating a child by server-side apply
     needs create and patch; get tells whose an object at a child's name is. */}}
{{- define "pdcluster.operator.rules" -}}
- apiGroups: [pdcluster.dev]
  resources: [pdclusters]
  verbs: [list, watch]
- apiGroups: [pdcluster.dev]
  resources: [pdclusters/status, pdrolescalers/status]
  verbs: [patch]
- apiGroups: [pdcluster.dev]
  resources: [pdrolescalers]
  verbs: [get, list, watch, create, patch, delete]
# get stands here for the routers' Roles: nobody may grant what he has not. patch is for drains.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, patch]
- apiGroups: [""]
  resources: [serviceaccounts, services]
  verbs: [get, list, watch, create, patch, delete]
# get reads the Secrets that a spec names, and the operator's own ones when a certificate is issued.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [statefulsets, deployments, controllerrevisions]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [cert-manager.io]
  resources: [certificates]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, list]
{{- end }}
