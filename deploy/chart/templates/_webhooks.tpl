{{/* One webhook of injection. Takes root, name, namespaces and objects (selectors). */}}
{{- define "weft.injector" -}}
- name: {{ .name }}.sidecar-injector.weft.mesh
  clientConfig:
    service:
      name: {{ include "weft.name" .root }}
      namespace: {{ .root.Release.Namespace }}
      path: /inject
      port: 443
  rules:
  - operations: [CREATE]
    apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
    scope: Namespaced
  sideEffects: None
  admissionReviewVersions: [v1]
  failurePolicy: {{ .root.Values.injection.failurePolicy }}
  timeoutSeconds: {{ .root.Values.injection.timeoutSeconds }}
  reinvocationPolicy: Never
  matchPolicy: Equivalent
  namespaceSelector:
    matchExpressions:
    {{- toYaml .namespaces | nindent 4 }}
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: {{ toJson .root.Values.injection.excludedNamespaces }}}
  objectSelector:
    matchExpressions:
    {{- toYaml .objects | nindent 4 }}
{{ end -}}

{{/* Webhooks for a label istio.io/rev=NAME. Takes root and rev. */}}
{{- define "weft.revInjectors" -}}
{{- $no := dict "key" "sidecar.istio.io/inject" "operator" "NotIn" "values" (list "false") }}
{{- $rev := dict "key" "istio.io/rev" "operator" "In" "values" (list .rev) }}
{{- $noRev := dict "key" "istio.io/rev" "operator" "DoesNotExist" }}
{{- $noLabel := dict "key" "istio-injection" "operator" "DoesNotExist" }}
{{- include "weft.injector" (dict "root" .root "name" "rev.namespace" "namespaces" (list $rev $noLabel) "objects" (list $no)) }}
{{- include "weft.injector" (dict "root" .root "name" "rev.object" "namespaces" (list $noRev $noLabel) "objects" (list $no $rev)) }}
{{- end -}}

{{/* Webhooks for istio-injection=enabled and pods that ask without naming a revision. Takes root. */}}
{{- define "weft.defaultInjectors" -}}
{{- $no := dict "key" "sidecar.istio.io/inject" "operator" "NotIn" "values" (list "false") }}
{{- $yes := dict "key" "sidecar.istio.io/inject" "operator" "In" "values" (list "true") }}
{{- $silent := dict "key" "sidecar.istio.io/inject" "operator" "DoesNotExist" }}
{{- $enabled := dict "key" "istio-injection" "operator" "In" "values" (list "enabled") }}
{{- $noRev := dict "key" "istio.io/rev" "operator" "DoesNotExist" }}
{{- $noLabel := dict "key" "istio-injection" "operator" "DoesNotExist" }}
{{- include "weft.injector" (dict "root" .root "name" "namespace" "namespaces" (list $enabled) "objects" (list $no)) }}
{{- include "weft.injector" (dict "root" .root "name" "object" "namespaces" (list $noLabel $noRev) "objects" (list $yes $noRev)) }}
{{- if .root.Values.injection.enableNamespacesByDefault }}
{{- $notOurs := dict "key" "kubernetes.io/metadata.name" "operator" "NotIn" "values" (list .root.Release.Namespace) }}
{{- include "weft.injector" (dict "root" .root "name" "auto" "namespaces" (list $noLabel $noRev $notOurs) "objects" (list $silent $noRev)) }}
{{- end }}
{{- end -}}

{{/* The mesh's kinds, as rules of a webhook. */}}
{{- define "weft.validatedKinds" -}}
rules:
- operations: [CREATE, UPDATE]
  apiGroups: [networking.istio.io]
  apiVersions: ["*"]
  resources: [virtualservices, destinationrules, gateways, serviceentries, workloadentries]
  scope: Namespaced
- operations: [CREATE, UPDATE]
  apiGroups: [security.istio.io]
  apiVersions: ["*"]
  resources: [peerauthentications, authorizationpolicies]
  scope: Namespaced
{{- end -}}

{{/*
The same question before the schema is looked at: a mutating webhook that changes nothing. An API server checks an object's
types, names and schema between its mutating and its validating webhooks. Takes root, name and objects (selector).
*/}}
{{- define "weft.earlyValidator" -}}
- name: {{ .name }}.early.validation.weft.mesh
  clientConfig:
    service:
      name: {{ include "weft.name" .root }}
      namespace: {{ .root.Release.Namespace }}
      path: /validate
      port: 443
  {{- include "weft.validatedKinds" . | nindent 2 }}
  sideEffects: None
  admissionReviewVersions: [v1]
  failurePolicy: Ignore
  timeoutSeconds: {{ min 5 .root.Values.validation.timeoutSeconds }}
  reinvocationPolicy: Never
  matchPolicy: Equivalent
  objectSelector:
    matchExpressions:
    {{- toYaml .objects | nindent 4 }}
{{ end -}}

{{/* One webhook of validation. Takes root, name and objects (selector). */}}
{{- define "weft.validator" -}}
- name: {{ .name }}.validation.weft.mesh
  clientConfig:
    service:
      name: {{ include "weft.name" .root }}
      namespace: {{ .root.Release.Namespace }}
      path: /validate
      port: 443
  {{- include "weft.validatedKinds" . | nindent 2 }}
  sideEffects: None
  admissionReviewVersions: [v1]
  failurePolicy: {{ .root.Values.validation.failurePolicy }}
  timeoutSeconds: {{ .root.Values.validation.timeoutSeconds }}
  matchPolicy: Equivalent
  objectSelector:
    matchExpressions:
    {{- toYaml .objects | nindent 4 }}
# Ingresses: other controllers serve some of them, and an API server has checked them all. They wait for nobody.
- name: {{ .name }}.ingress.validation.weft.mesh
  clientConfig:
    service:
      name: {{ include "weft.name" .root }}
      namespace: {{ .root.Release.Namespace }}
      path: /validate
      port: 443
  rules:
  - operations: [CREATE, UPDATE]
    apiGroups: [networking.k8s.io]
    apiVersions: [v1]
    resources: [ingresses]
    scope: Namespaced
  sideEffects: None
  admissionReviewVersions: [v1]
  failurePolicy: Ignore
  timeoutSeconds: {{ min 5 .root.Values.validation.timeoutSeconds }}
  matchPolicy: Equivalent
  objectSelector:
    matchExpressions:
    {{- toYaml .objects | nindent 4 }}
{{ end -}}
