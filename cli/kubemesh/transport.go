package kubemesh

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"weft.mesh/weft/api/admin"
)

// handlerTransport answers requests by a handler in this process.
type handlerTransport struct{ http.Handler }

// RoundTrip implements http.RoundTripper. The handler's goroutine ends with
// the request's context, or when it has answered.
func (t handlerTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	pr, pw := io.Pipe()
	w := &pipeWriter{header: http.Header{}, pipe: pw, begun: make(chan struct{})}
	go func() {
		t.ServeHTTP(w, r)
		w.WriteHeader(http.StatusOK)
		pw.Close()
	}()
	select {
	case <-w.begun:
	case <-r.Context().Done():
		pr.CloseWithError(r.Context().Err())
		return nil, r.Context().Err()
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: pr, ContentLength: -1, Request: r,
	}, nil
}

// pipeWriter is the handler's side.
type pipeWriter struct {
	header http.Header
	pipe   *io.PipeWriter
	status int // set before begun is closed
	begun  chan struct{}
}

func (w *pipeWriter) Header() http.Header { return w.header }

func (w *pipeWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
		close(w.begun)
	}
}

func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(p)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("content-type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a pipe: who does not read it wants nothing
}

func writeError(w http.ResponseWriter, status int, msg, hint string) {
	w.Header().Set("content-type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(admin.Error{Message: msg, Hint: hint})
}

// fail answers with an error and, where it has one, its advice.
func fail(w http.ResponseWriter, err error) {
	status, hint := http.StatusBadGateway, ""
	var fixer interface{ FixText() string }
	if errors.As(err, &fixer) {
		hint = fixer.FixText()
	}
	if apierrors.IsForbidden(err) {
		status = http.StatusForbidden
	}
	writeError(w, status, err.Error(), hint)
}
