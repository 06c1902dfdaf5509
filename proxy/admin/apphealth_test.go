package admin

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// probes serves the pages for the probes of text and calls one.
func probes(t *testing.T, text string) func(method, path string) (int, string) {
	t.Helper()
	list, err := ParseAppProbes(text)
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{set: Settings{AppProbes: list, AppIP: netip.MustParseAddr("127.0.0.1")}}
	h := s.statusPages()
	return func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, path, nil)
		r.Header.Set("User-Agent", "kube-probe/1.34")
		h.ServeHTTP(w, r)
		if l := w.Header().Get("Location"); l != "" {
			t.Errorf("%s: Location %q would lead the kubelet past the proxy", path, l)
		}
		b, _ := io.ReadAll(w.Result().Body)
		return w.Code, string(b)
	}
}

func portOf(addr net.Addr) int { return addr.(*net.TCPAddr).Port }

// app is an application that tells what it was asked.
func app(t *testing.T, https bool) int {
	t.Helper()
	m := http.NewServeMux()
	m.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "from %s host %s agent %s token %q query %q", host, r.Host, r.UserAgent(), r.Header.Values("X-Token"), r.URL.RawQuery)
	})
	m.HandleFunc("/sick", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "sick", http.StatusInternalServerError) })
	m.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	m.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	m.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
	})
	m.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	m.HandleFunc("/long", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 1<<20)) })
	s := httptest.NewUnstartedServer(m)
	if https {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return portOf(s.Listener.Addr())
}

// oddApp answers with a status that is none.
func oddApp(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 000 Nothing\r\nContent-Length: 0\r\n\r\n")
			}
			c.Close()
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return portOf(ln.Addr())
}

func TestHTTPProbesAreAnsweredAsTheApplicationDoes(t *testing.T) {
	port, tls := app(t, false), app(t, true)
	odd := oddApp(t)
	probe := func(name, rest string, port int) string {
		return fmt.Sprintf(`"/app-health/%s/livez":{"httpGet":{"port":%d,%s`, name, port, rest)
	}
	call := probes(t, "{"+strings.Join([]string{
		probe("ok", `"path":"/ok?a=b","scheme":"HTTP","httpHeaders":[{"name":"Host","value":"shop"},{"name":"x-token","value":"1"},{"name":"x-token","value":"2"}]},"timeoutSeconds":60}`, port),
		probe("https", `"path":"/ok","scheme":"HTTPS"},"timeoutSeconds":60}`, tls),
		probe("sick", `"path":"/sick"},"timeoutSeconds":60}`, port),
		probe("here", `"path":"/here"},"timeoutSeconds":60}`, port),
		probe("loop", `"path":"/loop"},"timeoutSeconds":60}`, port),
		probe("away", `"path":"/away"},"timeoutSeconds":60}`, port),
		probe("slow", `"path":"/slow"}}`, port),
		probe("long", `"path":"/long"},"timeoutSeconds":60}`, port),
		probe("odd", `"path":"/"},"timeoutSeconds":60}`, odd),
		probe("closed", `"path":"/"},"timeoutSeconds":60}`, 1),
		`"/app-lifecycle/ok/prestopz":{"httpGet":{"path":"/ok","port":"` + strconv.Itoa(port) + `","host":"localhost"}}`,
	}, ",")+"}")
	for _, tt := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/app-health/ok/livez", 200, `from 127.0.0.6 host shop agent kube-probe/1.34 token ["1" "2"] query "a=b"`},
		{"HEAD", "/app-health/ok/livez", 200, ""},
		{"GET", "/app-health/https/livez", 200, "from 127.0.0.6"},
		{"GET", "/app-lifecycle/ok/prestopz", 200, "from 127.0.0.6"},
		{"GET", "/app-health/sick/livez", 500, "sick"},
		{"GET", "/app-health/here/livez", 200, "from 127.0.0.6"},
		{"GET", "/app-health/loop/livez", 503, "too many redirects"},
		{"GET", "/app-health/away/livez", 200, ""},
		{"GET", "/app-health/slow/livez", 503, "no answer within 1s"},
		{"GET", "/app-health/long/livez", 200, "x"},
		{"GET", "/app-health/odd/livez", 503, "status 0"},
		{"GET", "/app-health/closed/livez", 503, "connection refused"},
		{"POST", "/app-health/ok/livez", 405, "use GET"},
		{"GET", "/app-health/ok/readyz", 404, ""},
		{"GET", "/app-health/other/livez", 404, ""},
	} {
		status, body := call(tt.method, tt.path)
		if status != tt.status || !strings.Contains(body, tt.body) || len(body) > maxProbeBody {
			t.Errorf("%s %s = %d %.100q, want %d with %q", tt.method, tt.path, status, body, tt.status, tt.body)
		}
	}
}

func TestTCPAndGRPCProbes(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, hs := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(srv, hs)
	hs.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	defer wg.Wait()
	defer srv.Stop()
	port := portOf(ln.Addr())
	call := probes(t, fmt.Sprintf(`{"/app-health/tcp/readyz":{"tcpSocket":{"port":%d},"timeoutSeconds":60},
		"/app-health/grpc/readyz":{"grpc":{"port":%[1]d,"service":null},"timeoutSeconds":60},
		"/app-health/sick/readyz":{"grpc":{"port":%[1]d,"service":"sick"},"timeoutSeconds":60},
		"/app-health/none/readyz":{"grpc":{"port":%[1]d,"service":"none"},"timeoutSeconds":60},
		"/app-health/gone/readyz":{"tcpSocket":{"port":1},"timeoutSeconds":60}}`, port))
	for path, want := range map[string]string{
		"/app-health/tcp/readyz": "200 ", "/app-health/grpc/readyz": "200 ", "/app-health/sick/readyz": `503 service "sick" is NOT_SERVING`,
		"/app-health/none/readyz": "503 rpc error: code = NotFound", "/app-health/gone/readyz": "503 dial tcp",
	} {
		if status, body := call("GET", path); !strings.HasPrefix(fmt.Sprint(status, " ", body), want) {
			t.Errorf("%s = %d %q, want %q", path, status, body, want)
		}
	}
}

func TestProbesAreBoundedInNumber(t *testing.T) {
	entered, leave := make(chan struct{}, maxProbesAtOnce), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { entered <- struct{}{}; <-leave }))
	defer s.Close()
	call := probes(t, fmt.Sprintf(`{"/app-lifecycle/a/prestopz":{"httpGet":{"path":"/","port":%d}}}`, portOf(s.Listener.Addr())))
	var wg sync.WaitGroup
	for range maxProbesAtOnce {
		wg.Go(func() { call("GET", "/app-lifecycle/a/prestopz") })
	}
	for range maxProbesAtOnce {
		<-entered
	}
	if status, body := call("GET", "/app-lifecycle/a/prestopz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "too many") {
		t.Errorf("one more = %d %q", status, body)
	}
	close(leave)
	wg.Wait()
	if status, _ := call("GET", "/app-lifecycle/a/prestopz"); status != http.StatusOK {
		t.Errorf("afterwards = %d", status)
	}
}

func TestParseAppProbesRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"no JSON", `{`, "app probes"},
		{"another path", `{"/stats/prometheus":{"tcpSocket":{"port":80}}}`, `path "/stats/prometheus"`},
		{"a path out of the folder", `{"/app-health/../readyz":{"tcpSocket":{"port":80}}}`, "want /app-health/CONTAINER"},
		{"a pattern", `{"/app-health/{x}/readyz":{"tcpSocket":{"port":80}}}`, "want /app-health/CONTAINER"},
		{"nothing to do", `{"/app-health/a/readyz":{}}`, "exactly one"},
		{"two things", `{"/app-health/a/readyz":{"tcpSocket":{"port":80},"grpc":{"port":80}}}`, "exactly one"},
		{"no port", `{"/app-health/a/readyz":{"tcpSocket":{}}}`, "want a number"},
		{"a name for a port", `{"/app-health/a/readyz":{"httpGet":{"port":"http"}}}`, "want a number"},
		{"another host", `{"/app-health/a/readyz":{"httpGet":{"port":80,"host":"10.0.0.9"}}}`, "only the pod itself"},
		{"a host by name", `{"/app-health/a/readyz":{"tcpSocket":{"port":80,"host":"metadata.internal"}}}`, "only the pod itself"},
		{"a scheme", `{"/app-health/a/readyz":{"httpGet":{"port":80,"scheme":"FTP"}}}`, "want HTTP or HTTPS"},
		{"a command", `{"/app-health/a/readyz":{"exec":{"command":["true"]}}}`, "unknown field"},
		{"a timeout before now", `{"/app-health/a/readyz":{"tcpSocket":{"port":80},"timeoutSeconds":-1}}`, "want 0 or more"},
		{"two objects", `{} {}`, "something follows"},
		{"a brace too many", `{}}`, "something follows"},
		{"too much", strings.Repeat(" ", maxAppProbesBytes+1), "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseAppProbes(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want one with %q", err, tt.want)
			}
		})
	}
}
