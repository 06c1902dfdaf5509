package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
	"weft.mesh/weft/control/server"
	"weft.mesh/weft/xds"
)

// plane is a running control plane.
type plane struct {
	*client.Client
	dir string
	// Addresses of 15014, metrics and debug pages, of the same on loopback, of 15012 and of 15010.
	http, local, secure, plain string
	log                        *syncBuffer
	server                     *server.Server
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs a control plane on free ports and ends it with the test.
func start(t *testing.T, dir string, files ...string) *plane {
	t.Helper()
	return startWith(t, dir, func(s *server.Settings) { s.Files = files })
}

func startWith(t *testing.T, dir string, change func(*server.Settings)) *plane {
	t.Helper()
	p := &plane{dir: dir, log: &syncBuffer{}}
	var mu sync.Mutex
	set := server.Settings{
		StateDir: dir, Address: "127.0.0.1", Quiet: time.Millisecond, Log: slog.New(slog.NewTextHandler(p.log, nil)),
		Listen: func(network, address string) (net.Listener, error) {
			if network != "tcp" {
				return net.Listen(network, address)
			}
			l, err := net.Listen(network, "127.0.0.1:0")
			if err != nil {
				return nil, err
			}
			mu.Lock()
			defer mu.Unlock()
			for port, at := range map[string]*string{"15010": &p.plain, "15012": &p.secure, "15014": &p.http, "8080": &p.local} {
				if strings.HasSuffix(address, ":"+port) {
					*at = l.Addr().String()
				}
			}
			return l, nil
		},
	}
	change(&set)
	s, err := server.New(set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	p.Client, p.server = client.New(dir), s
	until(t, "the control plane answers", func() bool { return p.Reachable(t.Context()) })
	mu.Lock() // what Listen wrote is there to be read
	defer mu.Unlock()
	return p
}

// until waits for a condition: these tests run the real thing.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// stateDir is short: it holds sockets.
func stateDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "weft-cp-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

const app = `apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, name: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: x, command: [web]}]}
`

func route(timeout string) admin.ApplyRequest {
	return files(`apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{timeout: ` + timeout + `, route: [{destination: {host: web}}]}]}
`)
}

func files(text string) admin.ApplyRequest {
	return admin.ApplyRequest{Files: []admin.File{{Name: "in.yaml", Content: text}}}
}

// outcome is what a change came to, in short.
func outcome(r admin.ApplyResponse, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	var out []string
	for _, x := range r.Results {
		out = append(out, fmt.Sprintf("%s/%s %s", x.Kind, x.Name, x.Action))
	}
	for _, d := range r.Diagnostics {
		if d.Severity == admin.SeverityError {
			out = append(out, d.Code)
		}
	}
	return strings.Join(out, ", ")
}

func (p *plane) names(t *testing.T) string {
	t.Helper()
	objects, err := p.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, o := range objects {
		out = append(out, o.Kind+"/"+o.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestAChangeIsStoredWholeOrNotAtAll(t *testing.T) {
	dir := stateDir(t)
	p := start(t, dir)
	ctx := t.Context()
	dry := files(app)
	dry.DryRun = true
	for _, tt := range []struct {
		name string
		do   func() (admin.ApplyResponse, error)
		want string
		left string // what is stored then
	}{
		{"a dry run", func() (admin.ApplyResponse, error) { return p.Apply(ctx, dry) }, "Service/web created, Deployment/web created", ""},
		{"objects", func() (admin.ApplyResponse, error) { return p.Apply(ctx, files(app)) }, "Service/web created, Deployment/web created", "Deployment/web Service/web"},
		{"the same again", func() (admin.ApplyResponse, error) { return p.Apply(ctx, files(app)) }, "Service/web unchanged, Deployment/web unchanged", "Deployment/web Service/web"},
		{"one good and one bad", func() (admin.ApplyResponse, error) {
			return p.Apply(ctx, files(route("1s").Files[0].Content+"---\napiVersion: v1\nkind: Service\nmetadata: {name: bad}\nspec: {ports: [{port: 99999}]}\n"))
		}, "invalid-port", "Deployment/web Service/web"},
		{"a route", func() (admin.ApplyResponse, error) { return p.Apply(ctx, route("1s")) }, "VirtualService/web created", "Deployment/web Service/web VirtualService/web"},
		{"another", func() (admin.ApplyResponse, error) { return p.Apply(ctx, route("2s")) }, "VirtualService/web configured", "Deployment/web Service/web VirtualService/web"},
		{"scaling", func() (admin.ApplyResponse, error) {
			return p.Scale(ctx, admin.ScaleRequest{Namespace: "default", Name: "web", Replicas: 3})
		}, "Deployment/web configured", "Deployment/web Service/web VirtualService/web"},
		{"deleting by file", func() (admin.ApplyResponse, error) {
			return p.Delete(ctx, admin.DeleteRequest{Files: route("2s").Files})
		}, "VirtualService/web deleted", "Deployment/web Service/web"},
		{"deleting by name", func() (admin.ApplyResponse, error) {
			return p.Delete(ctx, admin.DeleteRequest{Refs: []admin.ObjectRef{{Kind: "Service", Namespace: "default", Name: "web"}}})
		}, "Service/web deleted", "Deployment/web"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := tt.do()
			if got := outcome(r, err); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if got := p.names(t); got != tt.left {
				t.Errorf("stored: %s; want %s", got, tt.left)
			}
		})
	}
	objects, err := p.Find(ctx, client.Find{Kind: "Deployment", Name: "web"})
	if err != nil || len(objects) != 1 || !strings.Contains(string(objects[0].Raw), `"replicas":3`) {
		t.Errorf("scaled: %+v, %v", objects, err)
	}
}

func TestTheStoreIsThereAfterARestart(t *testing.T) {
	dir := stateDir(t)
	t.Run("first", func(t *testing.T) {
		if got := outcome(start(t, dir).Apply(t.Context(), files(app))); !strings.Contains(got, "created") {
			t.Fatal(got)
		}
	})
	p := start(t, dir)
	if got := p.names(t); got != "Deployment/web Service/web" {
		t.Errorf("after a restart: %q", got)
	}
	until(t, "the World has the objects", func() bool { // which is published after the store was read
		st, err := p.Status(t.Context())
		return err == nil && st.Objects == 2 && st.Services == 1
	})
}

func TestDiffChangesNothing(t *testing.T) {
	p := start(t, stateDir(t))
	p.Apply(t.Context(), files(app+"---\n"+route("1s").Files[0].Content))
	d, err := p.Diff(t.Context(), route("5s"))
	if err != nil || len(d.Changes) != 1 || d.Changes[0].Action != admin.ActionConfigured ||
		!strings.Contains(d.Changes[0].Before, "timeout: 1s") || !strings.Contains(d.Changes[0].After, "timeout: 5s") {
		t.Errorf("diff %+v, %v", d, err)
	}
	if d, err = p.Diff(t.Context(), files("kind: Nothing\n")); err != nil || len(d.Diagnostics) == 0 {
		t.Errorf("diff of nonsense %+v, %v", d, err)
	}
	objects, _ := p.Find(t.Context(), client.Find{Kind: "VirtualService"})
	if len(objects) != 1 || !strings.Contains(string(objects[0].Raw), "1s") {
		t.Errorf("after the diff: %+v", objects)
	}
}

func TestWatchesBeginWithEverythingAndFollow(t *testing.T) {
	p := start(t, stateDir(t))
	p.Apply(t.Context(), files(app))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	seen, names := make(chan int, 100), make(chan admin.NameTable, 100)
	wg.Go(func() {
		p.WatchObjects(ctx, []string{"Service"}, func(o client.Objects) { seen <- len(o) }, nil)
	})
	wg.Go(func() { p.WatchNames(ctx, func(n admin.NameTable) { names <- n }, nil) })
	if n := <-seen; n != 1 {
		t.Errorf("first %d Services, want 1", n)
	}
	if n := <-names; len(n.Names["web.default.svc.cluster.local"]) != 1 || n.Domain != "cluster.local" {
		t.Errorf("names %+v", n)
	}
	p.Apply(t.Context(), files(`apiVersion: v1
kind: Service
metadata: {name: two}
spec: {ports: [{port: 80, name: http}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out}
spec: {hosts: [out.example.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
`))
	if n := <-seen; n != 2 {
		t.Errorf("then %d Services, want 2", n)
	}
	until(t, "the names of both", func() bool {
		n := <-names
		return len(n.Names["two.default.svc.cluster.local"]) == 1 && len(n.Auto["out.example.com"]) == 1 && n.Names["out.example.com"] == nil
	})
}

func TestTokensAndRoots(t *testing.T) {
	p := start(t, stateDir(t))
	for _, tt := range []struct {
		name string
		req  admin.TokenRequest
		want string // of the error
	}{
		{"the default life", admin.TokenRequest{Namespace: "shop", ServiceAccount: "web"}, ""},
		{"its own", admin.TokenRequest{Namespace: "shop", ServiceAccount: "web", TTL: time.Minute}, ""},
		{"too long", admin.TokenRequest{Namespace: "shop", ServiceAccount: "web", TTL: 48 * time.Hour}, "at most 24h"},
		{"nobody", admin.TokenRequest{Namespace: "shop"}, "namespace and service account are required"},
		{"no name", admin.TokenRequest{Namespace: "shop", ServiceAccount: "a/b"}, "join token:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := p.CreateToken(t.Context(), tt.req)
			if tt.want == "" && (err != nil || got.Token == "" || time.Until(got.Expires) <= 0) {
				t.Errorf("token %+v, %v", got, err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := p.Root(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is refused of a file is told with what serves instead: the last good
// version, or nothing when there never was one.
func TestARefusedFileIsLoggedWithWhatServesInstead(t *testing.T) {
	dir := stateDir(t)
	file := filepath.Join(dir, "app.yaml")
	write := func(text string) { // in one step: an empty file would be a version without objects
		t.Helper()
		next := filepath.Join(t.TempDir(), "next.yaml")
		if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, file); err != nil {
			t.Fatal(err)
		}
	}
	write("kind: [\n")
	p := start(t, dir, file)
	problems := func() int {
		st, err := p.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return len(st.Problems)
	}
	logged := func(text string) func() bool { // after it is a problem of the status
		return func() bool { return problems() > 0 && strings.Contains(p.log.String(), text) }
	}
	until(t, "the file is refused", logged("nothing of it serves"))
	if got := p.log.String(); strings.Contains(got, "last good") {
		t.Errorf("log: %s", got)
	}
	write(app)
	until(t, "the file is taken", func() bool { return p.names(t) == "Deployment/web Service/web" && problems() == 0 })
	write("kind: [\n")
	until(t, "the file is refused again", logged("its last good version serves"))
	if got := p.names(t); got != "Deployment/web Service/web" {
		t.Errorf("serving: %s", got)
	}
}

func TestBadRequestsOfTheSocket(t *testing.T) {
	p := start(t, stateDir(t))
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(p.dir, admin.SocketControl))
	}}}
	for _, tt := range []struct {
		name, method, path, body string
		code                     int
		want                     string
	}{
		{"no JSON", "POST", admin.PathApply, "what?", 400, "request body"},
		{"a field of another version", "POST", admin.PathApply, `{"filez":[]}`, 400, "filez"},
		{"another method", "PUT", admin.PathApply, `{}`, 405, ""},
		{"another path", "GET", "/v2/apply", "", 404, ""},
		{"an unknown Deployment", "POST", admin.PathScale, `{"namespace":"default","name":"no","replicas":1}`, 422, "no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), tt.method, "http://weft"+tt.path, strings.NewReader(tt.body))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tt.code || !strings.Contains(string(b), tt.want) {
				t.Errorf("%d %s; want %d %q", resp.StatusCode, b, tt.code, tt.want)
			}
		})
	}
}

func TestDebugPagesAreJSONAndForThisMachine(t *testing.T) {
	p := start(t, stateDir(t))
	p.Apply(t.Context(), files(app))
	get := func(host, path string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.http+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if host != "" {
			req.Host = host
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	for _, page := range []string{"syncz", "configz", "registryz", "endpointz"} {
		code, body := get("", "/debug/"+page)
		if code != 200 || !json.Valid([]byte(body)) {
			t.Errorf("%s: %d %.200s", page, code, body)
		}
	}
	for _, host := range []string{"evil.example.com", "127.evil.example.com", "127.0.0.1.evil.example.com:15014"} {
		for _, page := range []string{"/debug/configz", "/v1/status", "/v1/objects"} {
			if code, _ := get(host, page); code == 200 {
				t.Errorf("%s is answered to %s, a name of elsewhere", page, host)
			}
		}
	}
	if code, body := get("", "/metrics"); code != 200 || !strings.Contains(body, "pilot_") {
		t.Errorf("metrics: %d %.200s", code, body)
	}
	if code, _ := get("", "/ready"); code != 200 {
		t.Errorf("ready: %d", code)
	}
}

// A proxy that is told of a change and answers is in the histograms of 15014; what it got first is not in the convergence.
func TestAPushIsMeasured(t *testing.T) {
	p := start(t, stateDir(t))
	conn, err := grpc.NewClient(p.plain, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ads, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	say := func(r *discovery.DeltaDiscoveryRequest) {
		t.Helper()
		if err := ads.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	answer := func() {
		t.Helper()
		r, err := ads.Recv()
		if err != nil {
			t.Fatal(err)
		}
		say(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
	}
	metrics := func() string { return p.page(t, "/metrics") }
	say(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: "sidecar~10.0.0.1~a.default~default.svc.cluster.local"}, TypeUrl: xds.ClusterType})
	answer()
	until(t, "the proxy has what there is", func() bool {
		proxies := p.server.Proxies()
		return len(proxies) == 1 && proxies[0].World != ""
	})
	if m := metrics(); !strings.Contains(m, "\npilot_proxy_convergence_time_count 0\n") || !strings.Contains(m, `pilot_xds_push_time_count{type="cds"} 1`) {
		t.Errorf("after the first response:\n%s", m)
	}
	if _, err := p.Apply(t.Context(), files(app)); err != nil {
		t.Fatal(err)
	}
	var answers sync.WaitGroup
	defer answers.Wait()
	defer conn.Close()
	answers.Go(func() {
		for { // it may come as more than one World
			r, err := ads.Recv()
			if err != nil {
				return
			}
			_ = ads.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}) // its end is Recv's
		}
	})
	until(t, "the change is measured", func() bool {
		m := metrics()
		return strings.Contains(m, "\npilot_proxy_convergence_time_count ") && !strings.Contains(m, "\npilot_proxy_convergence_time_count 0\n")
	})
	m := metrics()
	for _, line := range []string{`pilot_xds_push_time_count{type="cds"} 1`, `pilot_xds_config_size_bytes_count{type="` + xds.ClusterType + `"} 1`, "pilot_proxy_queue_time_count 0", "pilot_debounce_time_count 0"} {
		if strings.Contains(m, line+"\n") {
			t.Errorf("nothing was added to %s in\n%s", line, m)
		}
	}
	if !strings.Contains(m, "pilot_proxy_queue_time_count ") || !strings.Contains(m, "pilot_debounce_time_count ") {
		t.Errorf("metrics:\n%s", m)
	}
}

func TestSettingsThatCannotWorkAreRefused(t *testing.T) {
	if _, err := server.New(server.Settings{StateDir: t.TempDir(), Address: "localhost"}); err == nil || !strings.Contains(err.Error(), `address "localhost"`) {
		t.Errorf("error %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := server.New(server.Settings{StateDir: filepath.Join(file, "x"), Address: "127.0.0.1"}); err == nil || !strings.Contains(err.Error(), "state directory") {
		t.Errorf("error %v", err)
	}
}
