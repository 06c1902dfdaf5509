{{/* "" for the revision default, -REVISION for others. */}}
{{- define "weft.suffix" -}}
{{- if and .Values.revision (ne .Values.revision "default") -}}-{{ .Values.revision }}{{- end -}}
{{- end -}}

{{- define "weft.revision" -}}
{{- .Values.revision | default "default" -}}
{{- end -}}

{{/* Name of the ConfigMap: Istio's, because istioctl and Kiali read the mesh's settings there. */}}
{{- define "weft.configMap" -}}
istio{{ include "weft.suffix" . }}
{{- end -}}

{{/* Name of the Deployment, Service, ServiceAccount. */}}
{{- define "weft.name" -}}
weft{{ include "weft.suffix" . }}
{{- end -}}

{{- define "weft.tag" -}}
{{- .Values.global.tag | default .Chart.AppVersion -}}
{{- end -}}

{{/* What pods of the control plane are selected by; a Deployment cannot change it. */}}
{{- define "weft.selector" -}}
app.kubernetes.io/name: weft
weft.mesh/revision: {{ include "weft.revision" . | quote }}
{{- end -}}

{{/* Labels of objects that all revisions share. */}}
{{- define "weft.sharedLabels" -}}
app.kubernetes.io/name: weft
app.kubernetes.io/part-of: weft
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
weft.mesh/shared: "true"
{{- end -}}

{{/* Labels of the node agent's objects. */}}
{{- define "weft.cniLabels" -}}
{{ include "weft.sharedLabels" . }}
app.kubernetes.io/component: cni
{{- end -}}

{{/* Labels of objects of one revision. */}}
{{- define "weft.labels" -}}
{{ include "weft.selector" . }}
istio.io/rev: {{ include "weft.revision" . | quote }}
app.kubernetes.io/part-of: weft
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Container settings that the restricted Pod Security standard asks for. */}}
{{- define "weft.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "weft.pullSecrets" -}}
{{- with .Values.global.imagePullSecrets }}
imagePullSecrets:
{{- range . }}
- name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}
