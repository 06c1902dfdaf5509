package cli

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRequestAsksTheControlPlaneOfThePod(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/debug/nothing" {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprintf(w, "%s %s", r.Method, r.URL.RequestURI())
	}))
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, out, err string }{
		{"GET /debug/config_dump?proxyID=a.b", "GET /debug/config_dump?proxyID=a.b", ""},
		{"GET metrics", "GET /metrics", ""},
		{"GET debug/nothing", "GET /debug/nothing", "404 Not Found"},
		{"PUT metrics", "", "want GET or POST"},
		{"GET", "", "accepts 2 arg(s)"},
		{"GET metrics --port 70000", "", "--port 70000: want a port"},
	} {
		var out bytes.Buffer
		root := (&app{env: Environ{Getenv: func(string) string { return "" }}}).root()
		root.SetOut(&out)
		root.SetArgs(append([]string{"request", "--port", port}, strings.Fields(tt.args)...))
		err := root.ExecuteContext(t.Context())
		if out.String() != tt.out || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v; want %q, %q", tt.args, out.String(), err, tt.out, tt.err)
		}
	}
}
