package telemetry_test

import (
	"context"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/identity/identitytest"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/telemetry"
)

var update = flag.Bool("update", false, "rewrite golden files")

func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// request is a finished exchange as an outbound sidecar sees it.
func request() *stream.Info {
	req := &stream.Request{
		Proto: stream.HTTP11, Method: []byte("GET"), Scheme: []byte("http"), Authority: []byte("reviews:9080"), Path: []byte("/reviews/0?x=1"),
	}
	req.Fields.Add("User-Agent", "curl/8.5.0")
	req.Fields.Add("x-request-id", "4c6ad0b2-6e1f-9f4a-8a3e-0d5c3e1f9a10")
	resp := &stream.Response{Proto: stream.HTTP11, Status: 200}
	resp.Fields.Add("x-envoy-upstream-service-time", "7")
	return &stream.Info{
		Conn: &stream.ConnInfo{
			ID: 42, Direction: stream.Outbound, Listener: "0.0.0.0_9080", Local: addr("10.96.0.12:9080"), Remote: addr("10.1.0.5:41234"),
		},
		Start: time.Date(2026, 11, 21, 9, 8, 7, 65_432_100, time.UTC), Duration: 8_900 * time.Microsecond,
		Req: req, Resp: resp, Status: 200, GRPCCode: -1, RouteName: "default", Cluster: "outbound|9080|v1|reviews.default.svc.cluster.local",
		Service:  stream.Service{Host: "reviews.default.svc.cluster.local", Name: "reviews", Namespace: "default"},
		Upstream: addr("10.1.0.9:9080"), UpLocal: addr("10.1.0.5:50001"), Details: "via_upstream", BytesOut: 295, Attempts: 1, ServiceTime: 7 * time.Millisecond,
		Peer: &stream.Workload{Name: "reviews-v1", Namespace: "default", App: "reviews", Version: "v1", CanonicalName: "reviews", CanonicalRevision: "v1", Cluster: "Kubernetes"},
	}
}

func inboundRequest(t *testing.T) *stream.Info {
	i := request()
	i.Conn.Direction, i.Conn.TLS, i.Conn.SNI = stream.Inbound, true, "outbound_.9080_._.reviews.default.svc.cluster.local"
	i.Conn.PeerID = identitytest.ID(t, "spiffe://cluster.local/ns/default/sa/bookinfo-productpage")
	i.Conn.LocalID = identitytest.ID(t, "spiffe://cluster.local/ns/default/sa/bookinfo-reviews")
	i.Req.Fields.Add("x-forwarded-for", "10.0.0.1,10.0.0.2")
	i.OrigPath = []byte("/original")
	i.Cluster = "inbound|9080||"
	i.UpLocal = addr("127.0.0.6:50001")
	i.Peer = &stream.Workload{Name: "productpage-v1", Namespace: "default", App: "productpage", Version: "v1", CanonicalName: "productpage", CanonicalRevision: "v1", Cluster: "Kubernetes"}
	return i
}

func failed() *stream.Info {
	i := request()
	i.Resp, i.Status, i.Flags = nil, 503, stream.FlagUpstreamConnectFailure|stream.FlagUpstreamRetryLimit
	i.Details = "upstream_reset_before_response_started{remote_connection_failure|delayed connect error: Connection refused}"
	i.UpFailure, i.ServiceTime, i.UpLocal = "delayed connect error: Connection refused", -1, netip.AddrPort{}
	return i
}

func tcpEnd() *stream.Info {
	i := request()
	i.Req, i.Resp, i.Status, i.Details, i.RouteName, i.Duration, i.ServiceTime = nil, nil, 0, "", "", 90*time.Second, -1
	i.Cluster, i.BytesIn, i.Termination = "PassthroughCluster", 1234567, "tcp_session_idle_timeout"
	return i
}

func hostile() *stream.Info {
	i := request()
	i.Req.Path = []byte("/a\" 200 - forged\r\n[2026-01-01T00:00:00.000Z] \"GET /b")
	i.Req.Fields.Set("user-agent", "x\x00\x1b[31m\\\xff\"é")
	i.Req.Authority = []byte("h\tost")
	return i
}

func nothing() *stream.Info { return &stream.Info{ServiceTime: -1, GRPCCode: -1} }

func cases(t *testing.T) map[string]*stream.Info {
	grpc := inboundRequest(t)
	grpc.Req.Proto, grpc.GRPC, grpc.GRPCCode = stream.HTTP2, true, 7
	return map[string]*stream.Info{
		"outbound": request(), "inbound": inboundRequest(t), "failed": failed(), "tcp": tcpEnd(), "hostile": hostile(), "nothing": nothing(), "grpc": grpc,
	}
}

// write runs a log of that configuration over one exchange and returns the file's content.
func write(t *testing.T, cfg telemetry.AccessLogConfig, i *stream.Info) string {
	t.Helper()
	cfg.Path = filepath.Join(t.TempDir(), "access.log")
	logs := telemetry.NewAccessLogs(telemetry.NewRegistry(), nil)
	l, err := logs.NewAccessLog(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.Log(i)
	logs.Flush()
	b, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

func TestDefaultFormats(t *testing.T) {
	for name, i := range cases(t) {
		t.Run(name, func(t *testing.T) {
			text := write(t, telemetry.AccessLogConfig{}, i)
			golden(t, name+".txt", text)
			line := write(t, telemetry.AccessLogConfig{JSON: telemetry.DefaultJSON()}, i)
			golden(t, name+".json", line)
			if strings.Count(text, "\n") != 1 || strings.Count(line, "\n") != 1 {
				t.Error("not exactly one line")
			}
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil || len(m) != 24 {
				t.Errorf("%d members (%v), want Istio's 24", len(m), err)
			}
		})
	}
}

func TestOperators(t *testing.T) {
	i := inboundRequest(t)
	i.GRPC, i.GRPCCode = true, 14
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for format, want := range map[string]string{
		"%START_TIME(%Y/%m/%d %H:%M:%S.%6f %z)%":                   "2026/11/21 09:08:07.065432 +0000",
		"%START_TIME(%s.%3f)%":                                     "1795252087.065",
		"%START_TIME%":                                             "2026-11-21T09:08:07.065Z",
		"%REQ(USER-AGENT):4%":                                      "curl",
		"%REQ(X-NONE?USER-AGENT)%":                                 "curl/8.5.0",
		"%REQ(X-NONE?X-NONE-EITHER)%":                              "-",
		"%REQ(:SCHEME)%://%REQ(:AUTHORITY)%":                       "http://reviews:9080",
		"%REQ_WITHOUT_QUERY(:PATH)%":                               "/reviews/0",
		"%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%":                    "7",
		"100%%":                                                    "100%",
		"%PROTOCOL:4%":                                             "HTTP",
		"%UPSTREAM_HOST% %UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%":   "10.1.0.9:9080 10.1.0.9",
		"%UPSTREAM_REMOTE_PORT%":                                   "9080",
		"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%":                 "10.1.0.5",
		"%DOWNSTREAM_LOCAL_PORT%":                                  "9080",
		"%CONNECTION_ID%":                                          "42",
		"%DOWNSTREAM_PEER_URI_SAN%":                                "spiffe://cluster.local/ns/default/sa/bookinfo-productpage",
		"%GRPC_STATUS% %GRPC_STATUS(NUMBER)% %GRPC_STATUS_NUMBER%": "Unavailable 14 14",
		"%HOSTNAME%":                                               host,
		"%UPSTREAM_REQUEST_ATTEMPT_COUNT%":                         "1",
	} {
		if got := write(t, telemetry.AccessLogConfig{Text: format}, i); got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
}

func TestOwnJSONFormats(t *testing.T) {
	format := map[string]any{
		"b": "%RESPONSE_CODE%", "a": map[string]any{"z": "%REQ(X-NONE)%", "y": "code %RESPONSE_CODE% \"%REQ(X-NONE)%\""},
		"list": []any{"%DURATION%", true, nil, 1.5}, "const": "text",
	}
	if got, want := write(t, telemetry.AccessLogConfig{JSON: format}, request()),
		`{"a":{"y":"code 200 \"-\"","z":null},"b":200,"const":"text","list":[8,true,null,1.5]}`+"\n"; got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	if got, want := write(t, telemetry.AccessLogConfig{JSON: format, OmitEmpty: true}, request()),
		`{"a":{"y":"code 200 \"-\""},"b":200,"const":"text","list":[8,true,null,1.5]}`+"\n"; got != want {
		t.Errorf("got  %swant %s", got, want)
	}
}

func TestFormatsThatAreRefused(t *testing.T) {
	logs := telemetry.NewAccessLogs(telemetry.NewRegistry(), nil)
	path := filepath.Join(t.TempDir(), "log")
	deep := map[string]any{}
	for range 20 {
		deep = map[string]any{"x": deep}
	}
	for name, tt := range map[string]struct {
		cfg  telemetry.AccessLogConfig
		want string
	}{
		"an operator that we do not have": {telemetry.AccessLogConfig{Path: path, Text: "%DYNAMIC_METADATA(x)%"}, `operator "DYNAMIC_METADATA" is not supported; supported are BYTES_RECEIVED`},
		"the same in JSON":                {telemetry.AccessLogConfig{Path: path, JSON: map[string]any{"k": "%CEL(x)%"}}, `"k"`},
		"no end":                          {telemetry.AccessLogConfig{Path: path, Text: "%REQ(X"}, "no closing"},
		"no length":                       {telemetry.AccessLogConfig{Path: path, Text: "%REQ(X):y%"}, "LENGTH"},
		"arguments where there are none":  {telemetry.AccessLogConfig{Path: path, Text: "%DURATION(x)%"}, "takes no arguments"},
		"a header without a name":         {telemetry.AccessLogConfig{Path: path, Text: "%REQ()%"}, "header name"},
		"a time we cannot write":          {telemetry.AccessLogConfig{Path: path, Text: "%START_TIME(%A)%"}, "time format"},
		"no path":                         {telemetry.AccessLogConfig{}, "no path"},
		"a directory that is not there":   {telemetry.AccessLogConfig{Path: path + "/none/log"}, "no such file"},
		"two formats":                     {telemetry.AccessLogConfig{Path: path, Text: "x", JSON: map[string]any{}}, "both"},
		"JSON without end":                {telemetry.AccessLogConfig{Path: path, JSON: deep}, "nested deeper"},
	} {
		if _, err := logs.NewAccessLog(tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tt.want)
		}
	}
}

func TestLinesAreWrittenWithinASecondAndAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := telemetry.NewAccessLogs(telemetry.NewRegistry(), nil)
		path := filepath.Join(t.TempDir(), "log")
		l := newLog(t, logs, telemetry.AccessLogConfig{Path: path, Text: "%RESPONSE_CODE%\n"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- logs.Run(ctx) }()
		l.Log(request())
		if got := read(t, path); got != "" {
			t.Errorf("written at once: %q", got)
		}
		time.Sleep(1100 * time.Millisecond)
		if got := read(t, path); got != "200\n" {
			t.Errorf("after a second: %q", got)
		}
		l.Log(request())
		cancel()
		<-done
		if got := read(t, path); got != "200\n200\n" {
			t.Errorf("at the end: %q", got)
		}
	})
}

func TestALargeBacklogIsWrittenEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		logs := telemetry.NewAccessLogs(telemetry.NewRegistry(), nil)
		path := filepath.Join(t.TempDir(), "log")
		l := newLog(t, logs, telemetry.AccessLogConfig{Path: path, Text: strings.Repeat("x", 999) + "\n"})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- logs.Run(ctx) }()
		for range 70 {
			l.Log(request())
		}
		synctest.Wait() // no time passes
		if got := len(read(t, path)); got < 64<<10 {
			t.Errorf("%d bytes written, want at least 64 KiB", got)
		}
		cancel()
		<-done
	})
}

func TestASlowFileDropsLinesAndCountsThem(t *testing.T) {
	reg := telemetry.NewRegistry()
	logs := telemetry.NewAccessLogs(reg, nil)
	path := filepath.Join(t.TempDir(), "log")
	l := newLog(t, logs, telemetry.AccessLogConfig{Path: path, Text: strings.Repeat("x", 1023) + "\n"})
	for range 1100 { // nobody writes
		l.Log(request())
	}
	logs.Flush()
	if n := len(read(t, path)); n != 1<<20 {
		t.Errorf("%d bytes kept, want 1 MiB", n)
	}
	if n := reg.Counter("weft_proxy_access_log_dropped_total", "").Value(); n != 1100-1024 {
		t.Errorf("%d lines counted as dropped, want 76", n)
	}
}

func TestRotatedFilesAreOpenedAgain(t *testing.T) {
	logs := telemetry.NewAccessLogs(telemetry.NewRegistry(), nil)
	path := filepath.Join(t.TempDir(), "log")
	l := newLog(t, logs, telemetry.AccessLogConfig{Path: path, Text: "%RESPONSE_CODE%\n"})
	log := func() { l.Log(request()); logs.Flush() }
	log()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	log() // noticed without a signal
	if a, b := read(t, path+".1"), read(t, path); a != "200\n" || b != "200\n" {
		t.Errorf("old file %q, new file %q", a, b)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	logs.Reopen()
	logs.Flush()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("after Reopen: %v", err)
	}
}

func newLog(t *testing.T, logs *telemetry.AccessLogs, cfg telemetry.AccessLogConfig) *config.AccessLog {
	t.Helper()
	l, err := logs.NewAccessLog(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestLoggingDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's pools drop memory on purpose")
	}
	for name, cfg := range map[string]telemetry.AccessLogConfig{"text": {}, "json": {JSON: telemetry.DefaultJSON()}} {
		logs := telemetry.NewAccessLogs(telemetry.NewRegistry(), nil)
		cfg.Path = "/dev/null"
		l, i := newLog(t, logs, cfg), request()
		for range 2000 {
			l.Log(i)
		}
		logs.Flush()
		for range 2000 {
			l.Log(i)
		}
		logs.Flush()
		if n := testing.AllocsPerRun(200, func() { l.Log(i) }); n != 0 {
			t.Errorf("%s: allocs per line = %v, want 0", name, n)
		}
	}
}

func FuzzParseFormat(f *testing.F) {
	f.Add(telemetry.DefaultText)
	f.Add("%REQ(X?Y):10% %%")
	f.Add("%START_TIME(%Y%m%d)%")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := telemetry.ParseFormat(s)
		if err != nil {
			return
		}
		_ = p.Append(nil, nothing())
		_ = p.Append(nil, request())
	})
}

func BenchmarkAccessLog(b *testing.B) {
	for name, cfg := range map[string]telemetry.AccessLogConfig{"text": {Path: "/dev/null"}, "json": {Path: "/dev/null", JSON: telemetry.DefaultJSON()}} {
		b.Run(name, func(b *testing.B) {
			logs := telemetry.NewAccessLogs(telemetry.NewRegistry(), nil)
			l, err := logs.NewAccessLog(cfg)
			if err != nil {
				b.Fatal(err)
			}
			i := request()
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				l.Log(i)
				if n%1000 == 0 {
					logs.Flush()
				}
			}
		})
	}
}
