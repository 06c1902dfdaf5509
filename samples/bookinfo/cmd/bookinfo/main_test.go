package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/samples/bookinfo/internal/call"
)

// command runs the program with arguments and environment, until it ends.
func command(t *testing.T, vars map[string]string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), env{args, func(k string) string { return vars[k] }, &out, &err})
	return code, out.String(), err.String()
}

func TestUsage(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		vars   map[string]string
		code   int
		stderr string
	}{
		{"no command", nil, nil, exitUsage, "usage: bookinfo COMMAND"},
		{"an unknown command", []string{"review"}, nil, exitUsage, `unknown command "review"`},
		{"help", []string{"help"}, nil, 0, ""},
		{"an unknown flag", []string{"details", "-port", "1"}, nil, exitUsage, "flag provided but not defined: -port"},
		{"an argument too many", []string{"details", "9080"}, nil, exitUsage, `unexpected argument "9080"`},
		{"an unknown version", []string{"reviews"}, map[string]string{"SERVICE_VERSION": "v9"}, exitUsage, `SERVICE_VERSION: reviews: version "v9": want v1, v2 or v3`},
		{"a share that is no number", []string{"ratings"}, map[string]string{"FLAKY_PERCENT": "half"}, exitUsage, `FLAKY_PERCENT "half": want a number from 0 to 100`},
		{"a share above 100", []string{"ratings"}, map[string]string{"FLAKY_PERCENT": "101"}, exitUsage, `FLAKY_PERCENT "101"`},
		{"an address that is none", []string{"details", "-listen", "nowhere"}, nil, exitFailure, "nowhere"},
		{"client without a URL", []string{"client"}, nil, exitUsage, "give one URL, got 0"},
		{"client with a bad URL", []string{"client", "https://x/"}, nil, exitUsage, `URL "https://x/": want http://`},
		{"client with a bad output", []string{"client", "-o", "xml", "x"}, nil, exitUsage, `-o "xml": want body, status, summary or json`},
		{"client with a bad number", []string{"client", "-n", "0", "x"}, nil, exitUsage, "-n 0: want 1 to"},
		{"client with a bad header", []string{"client", "-H", "novalue", "x"}, nil, exitUsage, `header "novalue": want "name: value"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, _, stderr := command(t, tt.vars, tt.args...)
			if code != tt.code || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit code %d, stderr %q\nwant %d, %q", code, stderr, tt.code, tt.stderr)
			}
		})
	}
}

func TestServicesServeUntilTheSignal(t *testing.T) {
	for _, service := range []string{"details", "ratings", "reviews", "productpage"} {
		t.Run(service, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			lines := make(logLines, 100)
			ended := make(chan int, 1)
			go func() {
				ended <- run(ctx, env{[]string{service, "-listen", "127.0.0.1:0"}, func(string) string { return "" }, io.Discard, lines})
			}()
			address := lines.wait(t, "address=")
			if code, out, _ := command(t, nil, "client", address+"/health"); code != 0 || !strings.Contains(out, "is healthy") {
				t.Errorf("health: exit code %d, %q", code, out)
			}
			stop()
			if code := <-ended; code != 0 {
				t.Errorf("exit code %d after the signal", code)
			}
		})
	}
}

func TestSleepEndsWithTheSignal(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if code := run(ctx, env{args: []string{"sleep"}}); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestServicesAreBuiltFromTheEnvironment(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"id":0,"ratings":{"Reviewer1":2,"Reviewer2":2},"publisher":"from `+r.Host+`"}`)
	}))
	defer upstream.Close()
	host, port, err := net.SplitHostPort(upstream.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client := call.NewClient(nil)
	defer client.Close()
	get := func(vars map[string]string, service, path string) string {
		t.Helper()
		h, err := handler(env{args: []string{service}, getenv: func(k string) string { return vars[k] }}, client, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Body.String()
	}
	got := get(map[string]string{"SERVICE_VERSION": "v3", "HOSTNAME": "pod-7", "CLUSTER_NAME": "east", "RATINGS_HOSTNAME": host, "RATINGS_SERVICE_PORT": port}, "reviews", "/reviews/0")
	for _, want := range []string{`"podname":"pod-7","clustername":"east"`, `"rating":{"stars":2,"color":"red"}`} {
		if !strings.Contains(got, want) {
			t.Errorf("reviews %s\nhave no %s", got, want)
		}
	}
	for service, path := range map[string]string{"DETAILS": "", "RATINGS": "/ratings"} {
		vars := map[string]string{service + "_HOSTNAME": host, service + "_SERVICE_PORT": port}
		if got := get(vars, "productpage", "/api/v1/products/0"+path); !strings.Contains(got, "from "+host+":"+port) {
			t.Errorf("%s: answer %s", service, got)
		}
	}
	if got := get(map[string]string{"FLAKY_PERCENT": "100"}, "ratings", "/ratings/0"); !strings.Contains(got, "FLAKY_PERCENT") {
		t.Errorf("flaky ratings: %s", got)
	}
}

func TestClient(t *testing.T) {
	var requests atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := requests.Add(1)
		w.Header().Set("X-Host", r.Host)
		w.Header().Set("X-User", r.Header.Get("End-User"))
		w.Header()["Date"] = nil
		switch r.URL.Path {
		case "/half":
			if n%2 == 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		case "/hang":
			<-r.Context().Done()
		case "/cut":
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "part")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "/drop":
			panic(http.ErrAbortHandler)
		case "/echo":
			body, _ := io.ReadAll(r.Body)
			_, _ = io.WriteString(w, r.Method+" "+r.Header.Get("Content-Type")+" "+string(body))
		case "/missing":
			http.Error(w, "not here", http.StatusNotFound)
		default:
			_, _ = io.WriteString(w, "hello")
		}
	}))
	defer srv.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + closed.Addr().String()
	_ = closed.Close()
	tests := []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string // a part
	}{
		{"prints the body", []string{srv.URL}, 0, "hello\n", ""},
		{"adds the scheme", []string{strings.TrimPrefix(srv.URL, "http://")}, 0, "hello\n", ""},
		{"any answer is a success", []string{srv.URL + "/missing"}, 0, "not here\n", ""},
		{"prints the status", []string{"-o", "status", srv.URL + "/missing"}, 0, "404\n", ""},
		{"prints headers", []string{"-i", "-H", "host: reviews", "-H", "End-User:jason", srv.URL}, 0, "HTTP/1.1 200 OK\ncontent-length: 5\ncontent-type: text/plain; charset=utf-8\nx-host: reviews\nx-user: jason\n\nhello\n", ""},
		{"posts a form", []string{"-d", "a=b", srv.URL + "/echo"}, 0, "POST application/x-www-form-urlencoded a=b\n", ""},
		{"uses a method", []string{"-X", "DELETE", srv.URL + "/echo"}, 0, "DELETE  \n", ""},
		{"nobody listens", []string{refused}, exitNoAnswer, "", "connection refused"},
		{"nobody listens, status", []string{"-o", "status", refused}, exitNoAnswer, "000\n", "connection refused"},
		{"the connection breaks", []string{srv.URL + "/drop"}, exitNoAnswer, "", "EOF"},
		{"the answer breaks", []string{srv.URL + "/cut"}, exitNoAnswer, "part\n", "read the answer"},
		{"no answer in time", []string{"-timeout", "20ms", srv.URL + "/hang"}, exitTimeout, "", "deadline exceeded"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := command(t, nil, append([]string{"client"}, tt.args...)...)
			if code != tt.code || stdout != tt.stdout || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit code %d, stdout %q, stderr %q\nwant %d, %q, %q", code, stdout, stderr, tt.code, tt.stdout, tt.stderr)
			}
		})
	}
	t.Run("counts", func(t *testing.T) {
		requests.Store(0)
		code, stdout, _ := command(t, nil, "client", "-n", "20", "-c", "4", srv.URL+"/half")
		if code != 0 || !strings.Contains(stdout, "20 requests, 20 answered;") || !strings.Contains(stdout, "    10 × 200\n    10 × 503\n") {
			t.Errorf("exit code %d, stdout %q", code, stdout)
		}
		if n := requests.Load(); n != 20 {
			t.Errorf("the server saw %d requests, want 20", n)
		}
	})
	t.Run("prints JSON", func(t *testing.T) {
		code, stdout, _ := command(t, nil, "client", "-o", "json", "-n", "2", srv.URL+"/drop")
		var got summary
		if err := json.Unmarshal([]byte(stdout), &got); err != nil {
			t.Fatal(err)
		}
		cause := "connection closed before the answer was complete"
		if code != exitNoAnswer || got.Requests != 2 || got.Answered != 0 || got.Errors[cause] != 2 || len(got.Results) != 2 {
			t.Errorf("exit code %d, %s", code, stdout)
		}
	})
}

func TestExitCodeOfAnUnknownHost(t *testing.T) {
	err := &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}}
	if exitCode(err) != exitNoSuchHost || cause(err) != "no such host" {
		t.Errorf("exit code %d, cause %q", exitCode(err), cause(err))
	}
}

func TestQuantile(t *testing.T) {
	for _, tt := range []struct {
		sorted []float64
		q      float64
		want   float64
	}{
		{[]float64{1}, 0.5, 1}, {[]float64{1, 2}, 0.5, 1}, {[]float64{1, 2, 3, 4}, 0.99, 4}, {[]float64{1, 2, 3, 4}, 0.5, 2}, {[]float64{1, 2}, 0, 1},
	} {
		if got := quantile(tt.sorted, tt.q); got != tt.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", tt.sorted, tt.q, got, tt.want)
		}
	}
}

// logLines hands over what a service logs, line by line.
type logLines chan string

func (l logLines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default: // nobody reads that far
	}
	return len(p), nil
}

// wait returns the word after prefix in the log.
func (l logLines) wait(t *testing.T, prefix string) string {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case line := <-l:
			if _, after, ok := strings.Cut(line, prefix); ok {
				return strings.Fields(after)[0]
			}
		case <-timeout:
			t.Fatalf("no %q in the log", prefix)
		}
	}
}

// In a cluster a service goes on for a moment after it was told to stop; elsewhere it stops.
func TestAServiceInAClusterLingers(t *testing.T) {
	for _, inCluster := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			e := env{getenv: func(string) string {
				if inCluster {
					return "10.96.0.1"
				}
				return ""
			}}
			told, tell := context.WithCancel(t.Context())
			ctx, stop := e.linger(told)
			defer stop()
			tell()
			time.Sleep(lingerTime - time.Millisecond)
			if serving := ctx.Err() == nil; serving != inCluster {
				t.Errorf("in a cluster %v: serving %v just before the end", inCluster, serving)
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if ctx.Err() == nil {
				t.Error("still serving")
			}
		})
	}
}
