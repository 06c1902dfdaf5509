package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRequestAsksTheAdminInterfaceOfThePod(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/nothing" {
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
		{"GET config_dump?include_eds", "GET /config_dump?include_eds", ""},
		{"get /stats", "GET /stats", ""},
		{"POST logging?level=debug", "POST /logging?level=debug", ""},
		{"GET nothing", "GET /nothing", "404 Not Found"},
		{"DELETE stats", "", "want GET or POST"},
		{"GET %zz", "", "want one of the admin interface"},
		{"GET", "", "accepts 2 arg(s)"},
		{"GET stats --debug-port 0", "", "want a port"},
	} {
		var out, errs bytes.Buffer
		c := rootCommand(&out, &errs, func(string) string { return "" })
		args := append([]string{"request", "--debug-port", port}, strings.Fields(tt.args)...)
		c.SetArgs(args)
		err := c.ExecuteContext(t.Context())
		if out.String() != tt.out || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %q, %v; want %q, %q", tt.args, out.String(), err, tt.out, tt.err)
		}
	}
}
