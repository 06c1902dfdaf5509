package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"weft.mesh/weft/local/podspec"
)

var errSick = errors.New("sick")

func TestTracker(t *testing.T) {
	tests := []struct {
		name             string
		success, failure int
		checks           string // + and -
		want             Result
	}{
		{"nothing was checked", 1, 3, "", Unknown},
		{"one success is enough", 1, 3, "+", Success},
		{"two successes are needed", 2, 3, "+", Unknown},
		{"two successes in a row are enough", 2, 3, "-++", Success},
		{"two failures of three change nothing", 1, 3, "+--", Success},
		{"three failures in a row are enough", 1, 3, "+---", Failure},
		{"a success in between begins anew", 1, 3, "--+--", Success},
		{"failures before any success", 1, 2, "--", Failure},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := Tracker{SuccessThreshold: tt.success, FailureThreshold: tt.failure}
			got := Unknown
			for _, c := range tt.checks {
				got = tr.Add(c == '+')
			}
			if got != tt.want {
				t.Errorf("%s: got %v, want %v", tt.checks, got, tt.want)
			}
		})
	}
}

// schedule runs a probe for a while and lists when it checked and what came of it.
func schedule(t *testing.T, p podspec.Probe, eager bool, healthy func(time.Duration) bool, until time.Duration) []string {
	var out []string
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), until)
		defer cancel()
		Run(ctx, &p, eager, func(context.Context) error {
			if healthy(time.Since(began)) {
				return nil
			}
			return errSick
		}, func(r Result, err error) bool {
			out = append(out, fmt.Sprint(time.Since(began), " ", r))
			return r != Failure
		})
	})
	return out
}

func TestRunKeepsTheSchedule(t *testing.T) {
	p := podspec.Probe{InitialDelay: 2 * time.Second, Period: 5 * time.Second, Timeout: time.Second, SuccessThreshold: 1, FailureThreshold: 2}
	got := schedule(t, p, false, func(d time.Duration) bool { return d < 10*time.Second }, time.Minute)
	if d := cmp.Diff([]string{"2s 1", "7s 1", "12s 1", "17s 2"}, got); d != "" {
		t.Error(d)
	}
}

func TestAnEagerProbeSeesReadinessSoonButCountsFailuresByPeriod(t *testing.T) {
	p := podspec.Probe{Period: 10 * time.Second, Timeout: time.Second, SuccessThreshold: 1, FailureThreshold: 3}
	got := schedule(t, p, true, func(d time.Duration) bool { return d >= 250*time.Millisecond }, 11*time.Second)
	if d := cmp.Diff([]string{"0s 0", "100ms 0", "200ms 0", "300ms 1", "10.3s 1"}, got); d != "" {
		t.Error(d)
	}
	sick := schedule(t, p, true, func(time.Duration) bool { return false }, time.Minute)
	if n := len(sick); n != 201 || sick[n-1] != "20s 2" {
		t.Errorf("%d checks, the last %s: want the third failure to count after two periods", n, sick[n-1])
	}
}

func TestACheckIsCutAtItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := podspec.Probe{Period: time.Minute, Timeout: 3 * time.Second, FailureThreshold: 1}
		began := time.Now()
		Run(t.Context(), &p, false, func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}, func(r Result, err error) bool {
			if r != Failure || time.Since(began) != 3*time.Second {
				t.Errorf("%v after %s: %v", r, time.Since(began), err)
			}
			return false
		})
	})
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

func TestChecks(t *testing.T) {
	var seen *http.Request
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r
		switch r.URL.Path {
		case "/sick":
			w.WriteHeader(503)
		case "/moved":
			w.Header().Set("Location", "http://192.0.2.1/")
			w.WriteHeader(302)
		}
	}))
	defer web.Close()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv, hs := grpc.NewServer(), health.NewServer()
	hs.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(srv, hs)
	go srv.Serve(ln)
	defer srv.Stop()

	port := func(a string) uint16 { return netip.MustParseAddrPort(a).Port() }
	webPort, tlsPort, grpcPort := port(web.Listener.Addr().String()), port(tls.Listener.Addr().String()), port(ln.Addr().String())
	target := Target{IP: netip.MustParseAddr("127.0.0.1"), Dial: dial, Exec: func(_ context.Context, argv []string) error {
		if argv[0] == "false" {
			return errSick
		}
		return nil
	}}
	tests := []struct {
		name string
		p    podspec.Probe
		want string // "" means success
	}{
		{"http 200", podspec.Probe{HTTP: &podspec.HTTPProbe{Port: webPort, Path: "/ok?x=1", Headers: [][2]string{{"Host", "a.example"}, {"X-A", "b"}}}}, ""},
		{"http 302 is good and not followed", podspec.Probe{HTTP: &podspec.HTTPProbe{Port: webPort, Path: "/moved", Host: "localhost"}}, ""},
		{"http 503", podspec.Probe{HTTP: &podspec.HTTPProbe{Port: webPort, Path: "/sick"}}, "status 503"},
		{"https takes any certificate", podspec.Probe{HTTP: &podspec.HTTPProbe{Port: tlsPort, Path: "/", HTTPS: true}}, "status 404"},
		{"http to a closed port", podspec.Probe{HTTP: &podspec.HTTPProbe{Port: 1, Path: "/"}}, "connection refused"},
		{"tcp", podspec.Probe{TCP: &podspec.TCPProbe{Port: webPort}}, ""},
		{"tcp to a closed port", podspec.Probe{TCP: &podspec.TCPProbe{Port: 1}}, "connection refused"},
		{"grpc serving", podspec.Probe{GRPC: &podspec.GRPCProbe{Port: grpcPort}}, ""},
		{"grpc not serving", podspec.Probe{GRPC: &podspec.GRPCProbe{Port: grpcPort, Service: "down"}}, "NOT_SERVING"},
		{"grpc of an unknown service", podspec.Probe{GRPC: &podspec.GRPCProbe{Port: grpcPort, Service: "nobody"}}, "unknown service"},
		{"a command that succeeds", podspec.Probe{Command: []string{"true"}}, ""},
		{"a command that fails", podspec.Probe{Command: []string{"false"}}, "sick"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			err := target.Check(ctx, &tt.p)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	target.Check(t.Context(), &tests[0].p)
	if seen.Host != "a.example" || seen.Header.Get("X-A") != "b" || seen.URL.RawQuery != "x=1" || !strings.HasPrefix(seen.UserAgent(), "kube-probe/") {
		t.Errorf("request: %+v", seen)
	}
}
