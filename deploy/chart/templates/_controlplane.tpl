{{/* The command line of the control plane. */}}
{{- define "weft.controlPlaneArgs" -}}
- control-plane
- --kubernetes
- --state-dir=/var/lib/weft
- --revision={{ include "weft.revision" . }}
- --log-level={{ .Values.controlPlane.logLevel }}
{{- if .Values.istioCompatible }}
- --istio-gateway-class
{{- end }}
{{- if .Values.controlPlane.plaintextXDS }}
- --plaintext-xds
{{- end }}
{{- if and .Values.cni.enabled .Values.cni.taint.enabled }}
- --untaint-nodes={{ .Values.cni.namespace }}
{{- end }}
{{- with .Values.controlPlane.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}
