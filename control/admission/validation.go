package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/analyze"
	"weft.mesh/weft/control/convert"
)

// references are errors about something else that is not there. In a cluster objects come one by one and in any
// order, so they are warnings here; weft apply, which sees all of them together, refuses.
var references = map[string]bool{
	analyze.CodeUnknownHost: true, analyze.CodeUnknownSubset: true, analyze.CodeUnknownPort: true, analyze.CodeAmbiguousPort: true,
	analyze.CodeUnknownGateway: true, analyze.CodeGatewayHost: true, analyze.CodeHostNoService: true, analyze.CodeUnknownPrincipal: true,
	analyze.CodeMissingNamespace: true,
}

// validate answers /validate: what weft apply would say.
func (h *Handler) validate(ctx context.Context, req *admissionv1.AdmissionRequest, _ string) *admissionv1.AdmissionResponse {
	if req.Operation != admissionv1.Create && req.Operation != admissionv1.Update || req.SubResource != "" || unchanged(req) {
		return allowed()
	}
	obj, ds := convert.DecodeStored(withoutServers(req.Object.Raw), "", convert.Options{Namespace: req.Namespace})
	if convert.HasErrors(ds) && obeys(req.Kind) {
		return allowed() // of a newer API: whose it is cannot be told, and others serve such objects too
	}
	if !convert.HasErrors(ds) {
		found, err := h.set.Check(ctx, []convert.Object{obj})
		if err != nil {
			return denied(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "validation: "+err.Error())
		}
		ds = append(ds, found...)
	}
	var warnings []string
	for i := range ds {
		d := &ds[i]
		if references[d.Code] {
			d.Severity = admin.SeverityWarning
		}
		if d.Severity != admin.SeverityError && d.Code != convert.CodeServerField { // which the API server writes
			warnings = append(warnings, strings.TrimSpace(d.Field+": "+d.Message+" ["+d.Code+"]"))
		}
	}
	if !convert.HasErrors(ds) {
		return allowed(warnings...)
	}
	h.set.Log.Info("validation: an object is refused", "kind", req.Kind.Kind, "namespace", req.Namespace, "name", req.Name)
	return denied(http.StatusUnprocessableEntity, metav1.StatusReasonInvalid, Text(ds), warnings...)
}

// obeys tells the kinds that an API server checks itself, and that are not the mesh's alone.
func obeys(k metav1.GroupVersionKind) bool { return k.Group == networkingv1.GroupName }

// withoutServers leaves out metadata that an API server understands and the mesh has no use for.
func withoutServers(raw []byte) []byte {
	var o map[string]json.RawMessage
	var meta map[string]json.RawMessage
	if json.Unmarshal(raw, &o) != nil || json.Unmarshal(o["metadata"], &meta) != nil {
		return raw
	}
	delete(meta, "finalizers")
	if meta["name"] != nil { // without it, that is what is wrong
		delete(meta, "generateName")
	}
	text, err := json.Marshal(meta)
	if err != nil {
		return raw
	}
	o["metadata"] = text
	if out, err := json.Marshal(o); err == nil {
		return out
	}
	return raw
}

// unchanged tells whether an update leaves what is checked as it is, or the object is about to go: neither must
// be held up by an error that was there before.
func unchanged(req *admissionv1.AdmissionRequest) bool {
	if req.Operation != admissionv1.Update {
		return false
	}
	type object struct {
		APIVersion string            `json:"apiVersion"`
		Metadata   metav1.ObjectMeta `json:"metadata"`
		Spec       json.RawMessage   `json:"spec"`
	}
	var old, now object
	if json.Unmarshal(req.OldObject.Raw, &old) != nil || json.Unmarshal(req.Object.Raw, &now) != nil {
		return false
	}
	return now.Metadata.DeletionTimestamp != nil || old.APIVersion == now.APIVersion && bytes.Equal(old.Spec, now.Spec)
}

// Text is what is said about errors, in the words and the form of weft apply.
func Text(ds []admin.Diagnostic) string {
	var b strings.Builder
	for _, d := range ds {
		if d.Severity != admin.SeverityError {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "error: %s [%s]", d.Message, d.Code)
		if d.Object != "" || d.Field != "" {
			fmt.Fprintf(&b, "\n    at   %s", strings.TrimSpace(d.Object+"  "+d.Field))
		}
		if d.Value != "" {
			fmt.Fprintf(&b, "\n    got  %s", d.Value)
		}
		if d.Hint != "" {
			fmt.Fprintf(&b, "\n    fix  %s", d.Hint)
		}
	}
	return b.String()
}
