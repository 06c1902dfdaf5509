package admission

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// answer is what a webhook says to a request; path is what follows its name in the URL.
type answer func(ctx context.Context, req *admissionv1.AdmissionRequest, path string) *admissionv1.AdmissionResponse

const apiVersion = "admission.k8s.io/v1"

// review reads a request, has it answered and writes the response.
func (h *Handler) review(a answer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		in, status, err := h.read(w, r)
		if err != nil {
			h.metrics.httpErrors.WithLabelValues(strconv.Itoa(status)).Inc()
			http.Error(w, err.Error(), status)
			return
		}
		select {
		case h.running <- struct{}{}:
			defer func() { <-h.running }()
		case <-r.Context().Done():
			return
		}
		out := admissionv1.AdmissionReview{TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: "AdmissionReview"}}
		out.Response = a(r.Context(), in.Request, r.URL.Path)
		out.Response.UID = in.Request.UID
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the API server went away
	}
}

func (h *Handler) read(w http.ResponseWriter, r *http.Request) (in admissionv1.AdmissionReview, status int, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return in, http.StatusMethodNotAllowed, errors.New("use POST")
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return in, http.StatusUnsupportedMediaType, fmt.Errorf("content type %q: want application/json", r.Header.Get("Content-Type"))
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return in, http.StatusRequestEntityTooLarge, fmt.Errorf("review of more than %d bytes", maxBody)
	case err != nil:
		return in, http.StatusBadRequest, err
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return in, http.StatusBadRequest, fmt.Errorf("no AdmissionReview: %w", err)
	}
	if in.APIVersion != apiVersion || in.Kind != "AdmissionReview" {
		return in, http.StatusBadRequest, fmt.Errorf("%q %q: want an AdmissionReview of %s", in.APIVersion, in.Kind, apiVersion)
	}
	if in.Request == nil {
		return in, http.StatusBadRequest, errors.New("an AdmissionReview without a request")
	}
	return in, 0, nil
}

func allowed(warnings ...string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Allowed: true, Warnings: warnings}
}

func denied(code int32, reason metav1.StatusReason, message string, warnings ...string) *admissionv1.AdmissionResponse {
	return &admissionv1.AdmissionResponse{Warnings: warnings, Result: &metav1.Status{Status: metav1.StatusFailure, Code: code, Reason: reason, Message: message}}
}
