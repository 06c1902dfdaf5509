package hcm

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

func ok(int, *seen) answer { return answer{status: 200, body: []string{"hello"}} }

func always(a answer) func(int, *seen) answer { return func(int, *seen) answer { return a } }

// inTurn answers the n-th request with the n-th answer, the last one from then on.
func inTurn(as ...answer) func(int, *seen) answer {
	return func(n int, _ *seen) answer { return as[min(max(n, 1), len(as))-1] }
}

var (
	errReset   = &stream.Error{Side: stream.Upstream, Op: "read head", Flag: stream.FlagUpstreamTermination, Reset: true, Details: "upstream_reset_before_response_started{connection_termination}", Err: errors.New("EOF")}
	errRefused = &stream.Error{Side: stream.Upstream, Op: "read head", Flag: stream.FlagUpstreamReset, Refused: true, Unsent: true, Details: "upstream_reset_before_response_started{remote_refused_stream_reset}", Err: errors.New("refused")}
	errProto   = &stream.Error{Side: stream.Upstream, Op: "read head", Flag: stream.FlagUpstreamProtocolErr, Details: "upstream_reset_before_response_started{protocol_error}", Err: errors.New("bad")}
)

// outcomeOf is what a client saw and what was logged.
type outcomeOf struct {
	Status   int
	Body     string
	Flags    string
	Details  string
	Attempts int
}

func summary(s *fakeServer, i *stream.Info) outcomeOf {
	return outcomeOf{s.status, s.body.String(), i.Flags.String(), i.Details, i.Attempts}
}

// run serves one exchange in fake time.
func run(t *testing.T, h *harness, s *fakeServer) *stream.Info {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h.start(ctx)
	return h.serve(s)
}

func TestAPlainRequestIsProxied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 200, headers: []string{"content-type", "text/plain", "server", "python"}, body: []string{"hello"}, delay: 7 * time.Millisecond}))
		s := newServer("GET", "/x?y=1", "user-agent", "curl")
		i := run(t, h, s)
		if diff := cmp.Diff(outcomeOf{200, "hello", "-", "via_upstream", 1}, summary(s, i)); diff != "" {
			t.Error(diff)
		}
		if s.head["server"] != "istio-envoy" || s.head["x-envoy-upstream-service-time"] != "7" || s.head["date"] == "" {
			t.Errorf("response head %v", s.head)
		}
		got := h.backend.requests[0]
		if got.path != "/x?y=1" || got.authority != "reviews" || got.headers["x-forwarded-proto"] != "http" || len(got.headers["x-request-id"]) != 36 || got.headers["user-agent"] != "curl" {
			t.Errorf("upstream got %+v", got)
		}
		if i.Cluster != "reviews" || i.RouteName != "default" || i.BytesOut != 5 || i.Duration != 7*time.Millisecond || i.ServiceTime != 7*time.Millisecond || !i.Upstream.IsValid() || i.Service.Name != "reviews" {
			t.Errorf("logged %+v", i)
		}
	})
}

func TestLocalReplies(t *testing.T) {
	up := "upstream connect error or disconnect/reset before headers. reset reason: "
	for name, c := range map[string]struct {
		setup func(h *harness)
		s     *fakeServer
		want  outcomeOf
		head  map[string]string
	}{
		"no route":       {func(h *harness) { h.view.Routes["80"].VirtualHosts[0].Routes = nil }, newServer("GET", "/"), outcomeOf{404, "", "NR", "route_not_found", 0}, nil},
		"no route table": {func(h *harness) { h.cfg.RouteName = "81" }, newServer("GET", "/"), outcomeOf{404, "", "NR", "route_not_found", 0}, nil},
		"no cluster":     {func(h *harness) { h.forward().Cluster = "none" }, newServer("GET", "/"), outcomeOf{503, "", "NC", "cluster_not_found", 0}, nil},
		"no endpoint": {func(h *harness) { h.cluster(cluster("reviews")) }, newServer("GET", "/"), outcomeOf{503, "no healthy upstream", "UH", "no_healthy_upstream", 1},
			map[string]string{"content-type": "text/plain", "server": "istio-envoy"}},
		"a draining endpoint only": {func(h *harness) {
			c := cluster("reviews", "10.1.0.1:1")
			c.Endpoints[0].Health = config.Draining
			h.cluster(c)
		}, newServer("GET", "/"), outcomeOf{503, "no healthy upstream", "UH", "no_healthy_upstream", 1}, nil},
		"the breaker is open": {func(h *harness) { h.view.Clusters["reviews"].Breakers.MaxRequests = 0 }, newServer("GET", "/"),
			outcomeOf{503, up + "overflow", "UO", "upstream_reset_before_response_started{overflow}", 1}, map[string]string{"x-envoy-overloaded": "true"}},
		"the upstream closes": {func(h *harness) { h.backend.handle = always(answer{err: errReset}) }, newServer("GET", "/"),
			outcomeOf{503, up + "connection termination", "UC", "upstream_reset_before_response_started{connection_termination}", 1}, nil},
		"the upstream speaks no HTTP": {func(h *harness) { h.backend.handle = always(answer{err: errProto}) }, newServer("GET", "/"),
			outcomeOf{502, up + "protocol error", "UPE", "upstream_reset_before_response_started{protocol_error}", 1}, nil},
		"HTTP/1.0":                     {nil, func() *fakeServer { s := newServer("GET", "/"); s.req.Proto = stream.HTTP10; return s }(), outcomeOf{426, "", "-", "low_version", 0}, nil},
		"no host":                      {nil, newServer("GET", "/", ":authority", ""), outcomeOf{400, "", "-", "missing_host_header", 0}, nil},
		"a host with user information": {nil, newServer("GET", "/", ":authority", "a@b"), outcomeOf{400, "", "DPE", "invalid_authority", 0}, nil},
		"a path with a zero byte":      {nil, newServer("GET", "/a%00"), outcomeOf{400, "", "-", "path_normalization_failed", 0}, nil},
		"CONNECT":                      {nil, newServer("CONNECT", "", ":authority", "a:80"), outcomeOf{403, "", "-", "upgrade_failed", 0}, nil},
		"an upgrade that is not allowed": {nil, func() *fakeServer {
			s := newServer("GET", "/")
			s.req.Upgrade = []byte("websocket")
			return s
		}(), outcomeOf{403, "", "-", "upgrade_failed", 0}, nil},
		"a direct response": {func(h *harness) {
			h.routes(&route.Route{Name: "d", Direct: &route.Direct{Status: 503, Body: []byte("closed")}})
		},
			newServer("GET", "/"), outcomeOf{503, "closed", "-", "direct_response", 0}, map[string]string{"content-type": "text/plain"}},
		"HEAD gets no body": {func(h *harness) { h.routes(&route.Route{Direct: &route.Direct{Status: 200, Body: []byte("x")}}) },
			newServer("HEAD", "/"), outcomeOf{200, "", "-", "direct_response", 0}, nil},
		"a filter's reply": {func(h *harness) {
			h.cfg.Filters = []filter.HTTP{&filterFunc{request: func(*filter.Stream) filter.Verdict {
				return filter.End(&filter.Reply{Status: 403, Body: []byte("RBAC: access denied"), Details: "rbac_access_denied_matched_policy[none]"})
			}}}
		}, newServer("GET", "/"), outcomeOf{403, "RBAC: access denied", "-", "rbac_access_denied_matched_policy[none]", 0}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, ok)
				if c.setup != nil {
					c.setup(h)
				}
				c.s.abortC = make(chan struct{}) // of this bubble
				i := run(t, h, c.s)
				if diff := cmp.Diff(c.want, summary(c.s, i)); diff != "" {
					t.Error(diff)
				}
				for k, v := range c.head {
					if c.s.head[k] != v {
						t.Errorf("header %s = %q, want %q", k, c.s.head[k], v)
					}
				}
				if !c.s.ended {
					t.Error("the response has no end")
				}
			})
		})
	}
}

func TestGRPCRepliesAreInTheHead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, ok)
		h.cluster(cluster("reviews"))
		s := newServer("POST", "/p.S/M", "content-type", "application/grpc")
		i := run(t, h, s)
		want := map[string]string{"content-type": "application/grpc", "grpc-status": "14", "grpc-message": "no healthy upstream", "server": "istio-envoy", "date": s.head["date"]}
		if diff := cmp.Diff(want, s.head); diff != "" || s.status != 200 || s.body.Len() != 0 || i.GRPCCode != 14 {
			t.Errorf("status %d, body %q, code %d, head: %s", s.status, s.body.String(), i.GRPCCode, diff)
		}
	})
}

func TestGRPCStatusComesFromTrailers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 200, headers: []string{"content-type", "application/grpc"}, body: []string{"\x00\x00\x00\x00\x01a"}, trailers: []string{"grpc-status", "5", "grpc-message", "no"}}))
		s := newServer("POST", "/p.S/M", "content-type", "application/grpc", "te", "trailers")
		i := run(t, h, s)
		if i.GRPCCode != 5 || s.trailers["grpc-status"] != "5" || !i.GRPC {
			t.Errorf("code %d, trailers %v", i.GRPCCode, s.trailers)
		}
	})
}

func TestRetries(t *testing.T) {
	refused := answer{err: errRefused}
	reset := answer{err: errReset}
	status := func(n int, h ...string) answer { return answer{status: n, headers: h, body: []string{"b"}} }
	good := status(200)
	for name, c := range map[string]struct {
		on      route.RetryOn
		codes   []int
		max     uint32
		answers []answer
		s       *fakeServer
		want    outcomeOf
	}{
		"5xx":                               {route.Retry5xx, nil, 2, []answer{status(500), status(503), good}, nil, outcomeOf{200, "b", "-", "via_upstream", 3}},
		"5xx and a reset":                   {route.Retry5xx, nil, 2, []answer{reset, good}, nil, outcomeOf{200, "b", "-", "via_upstream", 2}},
		"no retry without a policy":         {0, nil, 0, []answer{status(503), good}, nil, outcomeOf{503, "b", "-", "via_upstream", 1}},
		"the limit is reached":              {route.Retry5xx, nil, 2, []answer{status(503)}, nil, outcomeOf{503, "b", "URX", "via_upstream", 3}},
		"the limit is reached by resets":    {route.RetryReset, nil, 1, []answer{reset}, nil, outcomeOf{503, "upstream connect error or disconnect/reset before headers. retried and the latest reset reason: connection termination", "URX,UC", "upstream_reset_before_response_started{connection_termination}", 2}},
		"a 500 is no gateway error":         {route.RetryGatewayError, nil, 2, []answer{status(500), good}, nil, outcomeOf{500, "b", "-", "via_upstream", 1}},
		"a 504 is a gateway error":          {route.RetryGatewayError, nil, 2, []answer{status(504), good}, nil, outcomeOf{200, "b", "-", "via_upstream", 2}},
		"a reset is no connect failure":     {route.RetryConnectFailure, nil, 2, []answer{reset, good}, nil, outcomeOf{503, "upstream connect error or disconnect/reset before headers. reset reason: connection termination", "UC", "upstream_reset_before_response_started{connection_termination}", 1}},
		"a refused stream":                  {route.RetryRefusedStream, nil, 2, []answer{refused, good}, nil, outcomeOf{200, "b", "-", "via_upstream", 2}},
		"a reset before the request":        {route.RetryResetBeforeRequest, nil, 2, []answer{refused, good}, nil, outcomeOf{200, "b", "-", "via_upstream", 2}},
		"retriable-4xx is 409":              {route.RetryRetriable4xx, nil, 2, []answer{status(409), good}, nil, outcomeOf{200, "b", "-", "via_upstream", 2}},
		"retriable-4xx is not 429":          {route.RetryRetriable4xx, nil, 2, []answer{status(429), good}, nil, outcomeOf{429, "b", "-", "via_upstream", 1}},
		"listed codes":                      {route.RetryRetriableStatusCodes, []int{418}, 2, []answer{status(418), good}, nil, outcomeOf{200, "b", "-", "via_upstream", 2}},
		"an overloaded upstream is let be":  {route.Retry5xx, nil, 2, []answer{status(503, "x-envoy-overloaded", "true"), good}, nil, outcomeOf{503, "b", "-", "via_upstream", 1}},
		"gRPC unavailable":                  {route.RetryGRPCUnavailable, nil, 2, []answer{status(200, "grpc-status", "14"), good}, newServer("POST", "/s/m", "content-type", "application/grpc"), outcomeOf{200, "b", "-", "via_upstream", 2}},
		"gRPC cancelled is not unavailable": {route.RetryGRPCUnavailable, nil, 2, []answer{status(200, "grpc-status", "1"), good}, newServer("POST", "/s/m", "content-type", "application/grpc"), outcomeOf{200, "b", "-", "via_upstream", 1}},
		"a buffered body is sent again":     {route.Retry5xx, nil, 2, []answer{status(503), good}, newServer("POST", "/").withBody("data"), outcomeOf{200, "b", "-", "via_upstream", 2}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, inTurn(c.answers...))
				h.forward().Retry = &route.Retry{On: c.on, Attempts: c.max, StatusCodes: c.codes}
				s := c.s
				if s == nil {
					s = newServer("GET", "/")
				}
				s.abortC = make(chan struct{})
				i := run(t, h, s)
				if diff := cmp.Diff(c.want, summary(s, i)); diff != "" {
					t.Error(diff)
				}
				for _, r := range h.backend.requests {
					if r.body != string(s.buffered) {
						t.Errorf("upstream got body %q, want %q", r.body, s.buffered)
					}
				}
				if st := h.ups.Cluster("reviews").Snapshot(); st.Requests != 0 || st.Retries != 0 || st.Pending != 0 {
					t.Errorf("breakers are not back at zero: %+v", st)
				}
			})
		})
	}
}

func TestBackOffStaysInItsRange(t *testing.T) {
	r := &route.Retry{}
	for n, want := range map[uint32]time.Duration{1: 25 * time.Millisecond, 2: 75 * time.Millisecond, 3: 175 * time.Millisecond, 4: 250 * time.Millisecond, 40: 250 * time.Millisecond} {
		if got := backOffRange(r, n); got != want {
			t.Errorf("retry %d: up to %v, want %v", n, got, want)
		}
	}
	if got := backOffRange(&route.Retry{BaseInterval: time.Second, MaxInterval: 2 * time.Second}, 5); got != 2*time.Second {
		t.Errorf("bounded back-off %v, want 2s", got)
	}
}

func TestRetriesAvoidPreviousHosts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, inTurn(answer{status: 503}, answer{status: 200}))
		h.forward().Retry = &route.Retry{On: route.Retry5xx, Attempts: 2, AvoidPrevious: true, HostAttempts: 50}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		h.start(ctx)
		for range 20 {
			h.backend.requests = nil
			h.serve(newServer("GET", "/"))
			if a, b := h.backend.requests[0].addr, h.backend.requests[1].addr; a == b {
				t.Fatalf("both tries went to %v", a)
			}
		}
	})
}

func TestFiltersSeeOnWhichConnectionTheResponseCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, inTurn(answer{status: 503}, answer{status: 200}, answer{err: errRefused}))
		h.forward().Retry = &route.Retry{On: route.Retry5xx, Attempts: 1, AvoidPrevious: true, HostAttempts: 50}
		var before, came *stream.ConnInfo
		h.cfg.Filters = []filter.HTTP{&filterFunc{
			request:  func(s *filter.Stream) filter.Verdict { before = s.Upstream; return filter.Continue },
			response: func(s *filter.Stream) { came = s.Upstream },
		}}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		h.start(ctx)
		h.serve(newServer("GET", "/"))
		if last := h.backend.requests[1].addr; before != nil || came == nil || came.Remote != last {
			t.Errorf("before the first attempt %v, with the response %v, want none and %v", before, came, last)
		}
		h.serve(newServer("GET", "/"))
		if before != nil {
			t.Error("the next exchange sees the connection of the one before")
		}
	})
}

func TestRetryBudgetEndsRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 503}))
		h.view.Clusters["reviews"].Breakers.MaxRetries = 0
		h.forward().Retry = &route.Retry{On: route.Retry5xx, Attempts: 2}
		s := newServer("GET", "/")
		if got := summary(s, run(t, h, s)); got.Attempts != 1 || got.Flags != "UO" {
			t.Errorf("%+v, want one attempt and UO", got)
		}
	})
}

func TestTimeouts(t *testing.T) {
	slow := answer{status: 200, body: []string{"late"}, delay: 10 * time.Second}
	for name, c := range map[string]struct {
		timeout, perTry time.Duration
		retries         uint32
		answers         []answer
		s               *fakeServer
		want            outcomeOf
		took            time.Duration
	}{
		"the route's":              {3 * time.Second, 0, 0, []answer{slow}, nil, outcomeOf{504, "upstream request timeout", "UT", "response_timeout", 1}, 3 * time.Second},
		"one try's":                {0, 2 * time.Second, 0, []answer{slow}, nil, outcomeOf{504, "upstream request timeout", "UT", "upstream_per_try_timeout", 1}, 2 * time.Second},
		"none":                     {0, 0, 0, []answer{slow}, nil, outcomeOf{200, "late", "-", "via_upstream", 1}, 10 * time.Second},
		"a try is sent again":      {30 * time.Second, 2 * time.Second, 1, []answer{slow, {status: 200, body: []string{"ok"}}}, nil, outcomeOf{200, "ok", "-", "via_upstream", 2}, 2 * time.Second},
		"the route's ends all":     {3 * time.Second, 2 * time.Second, 5, []answer{slow}, nil, outcomeOf{504, "upstream request timeout", "UT", "response_timeout", 2}, 3 * time.Second},
		"a body counts too":        {3 * time.Second, 0, 0, []answer{{status: 200, body: []string{"a", "b", "c"}, bodyDelay: 2 * time.Second}}, nil, outcomeOf{200, "a", "UT", "response_timeout", 1}, 3 * time.Second},
		"a try ends with the head": {0, 2 * time.Second, 0, []answer{{status: 200, delay: time.Second, body: []string{"a", "b", "c"}, bodyDelay: 1500 * time.Millisecond}}, nil, outcomeOf{200, "abc", "-", "via_upstream", 1}, 5500 * time.Millisecond},
		"gRPC's own":               {0, 0, 0, []answer{slow}, newServer("POST", "/s/m", "content-type", "application/grpc", "grpc-timeout", "1500m"), outcomeOf{200, "", "UT", "response_timeout", 1}, 1500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, inTurn(c.answers...))
				f := h.forward()
				f.Timeout, f.UseGRPC = c.timeout, true
				f.Retry = &route.Retry{On: route.Retry5xx, Attempts: c.retries, PerTryTimeout: c.perTry, BaseInterval: time.Nanosecond, MaxInterval: time.Nanosecond}
				s := c.s
				if s == nil {
					s = newServer("GET", "/")
				}
				s.abortC = make(chan struct{})
				i := run(t, h, s)
				got := summary(s, i)
				got.Flags = strings.TrimPrefix(got.Flags, "URX,")
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Error(diff)
				}
				if d := i.Duration - c.took; d < 0 || d > time.Millisecond {
					t.Errorf("took %v, want %v", i.Duration, c.took)
				}
			})
		})
	}
}

func TestTheClockStartsWhenTheRequestIsComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 200, body: []string{"ok"}, delay: 2 * time.Second}))
		h.forward().Timeout = 3 * time.Second
		s := newServer("POST", "/").streaming()
		go func() {
			for range 5 {
				time.Sleep(time.Second)
				s.pieces <- []byte("piece")
			}
			close(s.pieces)
		}()
		i := run(t, h, s)
		if diff := cmp.Diff(outcomeOf{200, "ok", "-", "via_upstream", 1}, summary(s, i)); diff != "" {
			t.Error(diff)
		}
		if i.BytesIn != 25 || i.ServiceTime != 2*time.Second || h.backend.requests[0].body != "piecepiecepiecepiecepiece" {
			t.Errorf("%d bytes in, service time %v, upstream got %q", i.BytesIn, i.ServiceTime, h.backend.requests[0].body)
		}
	})
}

func TestAStreamedBodyIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, inTurn(answer{status: 503}, answer{status: 200, body: []string{"ok"}}))
		h.forward().Retry = &route.Retry{On: route.Retry5xx, Attempts: 2}
		s := newServer("POST", "/").streaming()
		s.pieces <- []byte("one")
		s.pieces <- []byte("two")
		close(s.pieces)
		i := run(t, h, s)
		if got := summary(s, i); got.Status != 200 || got.Attempts != 2 {
			t.Errorf("%+v", got)
		}
		for _, r := range h.backend.requests {
			if r.body != "onetwo" {
				t.Errorf("upstream got %q", r.body)
			}
		}
	})
}

func TestABodyTooLargeToKeepIsNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, inTurn(answer{status: 503}, answer{status: 200}))
		h.forward().Retry = &route.Retry{On: route.Retry5xx, Attempts: 2}
		s := newServer("POST", "/").streaming()
		for range 3 {
			s.pieces <- make([]byte, 30<<10)
		}
		close(s.pieces)
		i := run(t, h, s)
		if got := summary(s, i); got.Status != 503 || got.Attempts != 1 {
			t.Errorf("%+v", got)
		}
		if n := len(h.backend.requests[0].body); n != 90<<10 {
			t.Errorf("upstream got %d bytes", n)
		}
	})
}

func TestAnEarlyResponseEndsTheUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 413, early: true, body: []string{"too large"}}))
		s := newServer("POST", "/").streaming()
		s.pieces <- []byte("begin") // and never an end
		i := run(t, h, s)
		if got := summary(s, i); got.Status != 413 || got.Body != "too large" || !s.aborted {
			t.Errorf("%+v, aborted %v", got, s.aborted)
		}
	})
}

func TestAClientThatLeavesCancelsTheUpstream(t *testing.T) {
	for name, c := range map[string]struct {
		a      answer
		status int
	}{
		"before the head": {answer{status: 200, delay: time.Hour}, 0},
		"in the body":     {answer{status: 200, body: []string{"a", "b"}, bodyDelay: time.Hour}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, always(c.a))
				s := newServer("GET", "/")
				go func() {
					time.Sleep(5 * time.Second)
					s.leave()
				}()
				i := run(t, h, s)
				if got := summary(s, i); got.Flags != "DC" || got.Details != "downstream_remote_disconnect" || got.Status != c.status {
					t.Errorf("%+v", got)
				}
				if i.Duration < 5*time.Second || i.Duration > 5300*time.Millisecond {
					t.Errorf("noticed after %v, want within 300 ms of 5s", i.Duration)
				}
				if st := h.ups.Cluster("reviews").Snapshot(); st.Requests != 0 {
					t.Errorf("%d requests still counted", st.Requests)
				}
			})
		})
	}
}

func TestAClientThatLeavesEndsAFaultDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, ok)
		stayed := true
		h.cfg.Filters = []filter.HTTP{&filterFunc{request: func(s *filter.Stream) filter.Verdict {
			stayed = s.Sleep(time.Hour)
			return filter.Continue
		}}}
		s := newServer("GET", "/")
		go func() {
			time.Sleep(time.Second)
			s.leave()
		}()
		i := run(t, h, s)
		if stayed || i.Flags.String() != "DC" || len(h.backend.requests) != 0 {
			t.Errorf("stayed %v, flags %v, %d requests", stayed, i.Flags, len(h.backend.requests))
		}
	})
}

func TestIdleStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 200, delay: time.Hour}))
		h.cfg.StreamIdleTimeout = 5 * time.Second
		s := newServer("GET", "/")
		i := run(t, h, s)
		if diff := cmp.Diff(outcomeOf{504, "stream timeout", "SI", "stream_idle_timeout", 1}, summary(s, i)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAStreamThatMovesIsNotIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pieces := []string{"a", "b", "c", "d", "e"}
		h := newHarness(t, always(answer{status: 200, body: pieces, bodyDelay: 3 * time.Second}))
		h.cfg.StreamIdleTimeout = 5 * time.Second
		s := newServer("GET", "/")
		if got := summary(s, run(t, h, s)); got.Body != "abcde" || got.Flags != "-" {
			t.Errorf("%+v", got)
		}
		if s.flushes < len(pieces) {
			t.Errorf("%d flushes for %d slow pieces: they were held back", s.flushes, len(pieces))
		}
	})
}

func TestStreamsHaveALongestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 200, delay: time.Hour}))
		h.cfg.MaxStreamDuration = 7 * time.Second
		s := newServer("GET", "/")
		if got := summary(s, run(t, h, s)); got.Flags != "DT" || got.Details != "max_duration_timeout" {
			t.Errorf("%+v", got)
		}
	})
}

func TestARoutesOwnLongestTimeCountsInstead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 200, delay: 30 * time.Second}))
		h.cfg.MaxStreamDuration = time.Hour
		h.forward().MaxStreamDuration = 7 * time.Second
		s := newServer("GET", "/")
		start := time.Now()
		if got := summary(s, run(t, h, s)); got.Flags != "DT" || time.Since(start) > 8*time.Second {
			t.Errorf("%+v after %s", got, time.Since(start))
		}
	})
}

func TestABrokenBodyIsShownToTheClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		after := &stream.Error{Side: stream.Upstream, Op: "read body", Flag: stream.FlagUpstreamTermination, Reset: true, Details: "upstream_reset_after_response_started{connection_termination}", Err: errors.New("EOF")}
		h := newHarness(t, always(answer{status: 200, body: []string{"half"}, bodyErr: after}))
		h.forward().Retry = &route.Retry{On: route.Retry5xx, Attempts: 2}
		s := newServer("GET", "/")
		got := summary(s, run(t, h, s))
		if diff := cmp.Diff(outcomeOf{200, "half", "UC", after.Details, 1}, got); diff != "" || !s.aborted || s.ended {
			t.Errorf("aborted %v, ended %v: %s", s.aborted, s.ended, diff)
		}
	})
}

func TestAStaleConnectionIsReplacedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, ok)
		h.cluster(cluster("reviews", "10.1.0.1:9080"))
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		h.start(ctx)
		h.serve(newServer("GET", "/")) // leaves an idle connection
		h.backend.handle = func(n int, _ *seen) answer {
			if n == 2 {
				return answer{err: errReset}
			}
			return answer{status: 200, body: []string{"ok"}}
		}
		s := newServer("GET", "/")
		if got := summary(s, h.serve(s)); got.Status != 200 || h.backend.dials != 2 {
			t.Errorf("%+v after %d dials, want 200 on a second connection", got, h.backend.dials)
		}
		h.backend.handle = func(int, *seen) answer { return answer{err: errReset} }
		s = newServer("POST", "/").withBody("x")
		if got := summary(s, h.serve(s)); got.Status != 503 || got.Attempts != 1 {
			t.Errorf("POST: %+v, want 503 at once: it may have been processed", got)
		}
	})
}

func TestInformationalResponsesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 200, infos: []int{103, 102}, body: []string{"x"}}))
		s := newServer("GET", "/")
		run(t, h, s)
		if diff := cmp.Diff([]int{103, 102}, s.infos); diff != "" || s.status != 200 {
			t.Error(s.status, diff)
		}
	})
}

func TestMirrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(_ int, s *seen) answer {
			if s != nil && s.cluster == "shadow" {
				return answer{status: 500, delay: time.Second}
			}
			return answer{status: 200, body: []string{"ok"}}
		})
		h.cluster(cluster("shadow", "10.2.0.1:80"))
		h.forward().Mirrors = []route.Mirror{{Cluster: "shadow", DisableShadow: true}, {Cluster: "none"}, {Cluster: "shadow", Fraction: &route.Fraction{Denominator: 100}}}
		for _, s := range []*fakeServer{newServer("POST", "/a").withBody("data"), newServer("POST", "/b").streaming()} {
			if s.pieces != nil {
				s.pieces <- []byte("data")
				close(s.pieces)
			}
			h.backend.requests = nil
			i := run(t, h, s)
			if i.Duration >= time.Second {
				t.Errorf("the client waited %v for the mirror", i.Duration)
			}
			var got *seen
			for k := range h.backend.requests {
				if h.backend.requests[k].cluster == "shadow" {
					got = &h.backend.requests[k]
				}
			}
			if len(h.backend.requests) != 2 || got == nil {
				t.Fatalf("%d requests, want one and its copy", len(h.backend.requests))
			}
			if got.body != "data" || got.authority != "reviews" || got.headers["x-forwarded-for"] != "10.0.0.1" || got.path != string(s.req.Path) {
				t.Errorf("mirror got %+v", got)
			}
		}
		if n := h.m.Stats.MirrorDropped.Load(); n != 1 {
			t.Errorf("%d mirrors dropped, want one for the missing cluster", n)
		}
	})
}

func TestWeightedClustersAndTheirHeaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, ok)
		h.cluster(cluster("v1", "10.1.0.1:1"))
		h.cluster(cluster("v2", "10.1.0.2:1"))
		set := func(v string) route.HeaderOps {
			ops := route.Ops{Mutations: []route.Mutation{{Name: "x-order", Value: v}}}
			return route.HeaderOps{Request: ops, Response: ops}
		}
		h.routes(&route.Route{Headers: set("route"), Forward: &route.Forward{Weighted: []route.WeightedCluster{
			{Cluster: "v1", Weight: 75, Headers: set("v1")}, {Cluster: "v2", Weight: 25, Headers: set("v2")}}}})
		h.view.Routes["80"].VirtualHosts[0].Headers = set("host")
		h.view.Routes["80"].Headers = set("table")
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		h.start(ctx)
		n := map[string]int{}
		for range 2000 {
			s := newServer("GET", "/")
			i := h.serve(s)
			n[i.Cluster]++
			if want := i.Cluster + "|route|host|table"; s.head["x-order"] != want || h.backend.requests[len(h.backend.requests)-1].headers["x-order"] != want {
				t.Fatalf("order of header operations %q, want %q", s.head["x-order"], want)
			}
		}
		if n["v1"] < 1400 || n["v1"] > 1600 {
			t.Errorf("%v, want three to one", n)
		}
	})
}

func TestFiltersRunInOrderAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, ok)
		var order []string
		f := func(name string) filter.HTTP {
			return &filterFunc{
				request:  func(*filter.Stream) filter.Verdict { order = append(order, name); return filter.Continue },
				response: func(*filter.Stream) { order = append(order, "-"+name) },
			}
		}
		h.cfg.Filters = []filter.HTTP{f("a"), f("b"), f("c")}
		run(t, h, newServer("GET", "/"))
		if got := strings.Join(order, " "); got != "a b c -c -b -a" {
			t.Error(got)
		}
	})
}

func TestUpgradesPassBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 101, early: true, body: []string{"ping", "pong"}, bodyDelay: time.Second}))
		h.cfg.Upgrades = []string{"websocket"}
		h.forward().Timeout = time.Millisecond // does not bound an upgraded stream
		s := newServer("GET", "/chat").streaming()
		s.req.Upgrade = []byte("WebSocket")
		s.pieces <- []byte("hello")
		go func() {
			time.Sleep(3 * time.Second)
			close(s.pieces)
		}()
		i := run(t, h, s)
		if got := summary(s, i); got.Status != 101 || got.Body != "pingpong" || !i.Upgrade || i.BytesIn != 5 {
			t.Errorf("%+v, %d bytes in", got, i.BytesIn)
		}
	})
}

// TestATunnelThatBeginsUnderTheSweepersEyesLives: the sweeper sees an exchange that waits for its upstream, and is held up before it
// looks at the client. Then the tunnel begins, and the client, who has said all, ends its side: that is no client who has gone.
func TestATunnelThatBeginsUnderTheSweepersEyesLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 101, early: true, delay: 500 * time.Millisecond, body: []string{"ping", "pong"}, bodyDelay: time.Second}))
		h.cfg.Upgrades = []string{"websocket"}
		s := newServer("GET", "/chat").streaming()
		s.req.Upgrade = []byte("WebSocket")
		looks := 0
		s.look = func() bool {
			if looks++; looks > 1 {
				return true
			}
			time.Sleep(time.Second) // the head comes meanwhile
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.status != 101 {
				t.Errorf("status %d while the sweeper looks, want 101", s.status)
			}
			close(s.pieces)
			return true
		}
		i := run(t, h, s)
		if got := summary(s, i); got.Status != 101 || got.Body != "pingpong" || got.Details != "via_upstream" || s.aborted || looks != 1 {
			t.Errorf("%+v, aborted: %t, the sweeper looked %d times", got, s.aborted, looks)
		}
	})
}

func TestConnectionsHaveALongestTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, ok)
		h.cfg.MaxConnectionDuration = time.Minute
		h.start(nil)
		early := make(chan struct{})
		h.m.deps.Drain = early
		drain, stop := h.m.drainOf()
		start := time.Now()
		<-drain
		if d := time.Since(start); d != time.Minute {
			t.Errorf("drained after %v, want 1m", d)
		}
		stop()
		drain, stop = h.m.drainOf()
		close(early)
		<-drain // the manager's drain comes first
		stop()
		h.m.deps.Drain = nil
		_, stop = h.m.drainOf()
		stop() // leaves nothing running, or the bubble would not end
	})
}

func TestConnectFailureWordsItsCause(t *testing.T) {
	e := &stream.Error{Side: stream.Upstream, Op: "connect", Flag: stream.FlagUpstreamConnectFailure, Err: syscall.ECONNREFUSED,
		Details: "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"}
	var info stream.Info
	r := resetReply(e, &info, false)
	want := "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure"
	if string(r.Body) != want || info.UpFailure != "delayed connect error: Connection refused" || r.Status != 503 {
		t.Errorf("%d %q, failure %q", r.Status, r.Body, info.UpFailure)
	}
}

func TestAPlainRequestAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	h := newHarness(t, ok)
	h.logFn = func(*stream.Info) {}
	h.start(nil)
	conn := h.m.connection(context.Background(), h.info)
	s := newServer("GET", "/reviews/1", "user-agent", "curl", "accept", "*/*")
	srv := &quietServer{fakeServer: s}
	client := &quietBackend{}
	h.backend.handle = ok
	h.ups = nil
	m := New(h.cfg, Deps{Live: h.m.deps.Live, Upstreams: client.manager(h.view), Sweeper: NewSweeper()})
	conn.m = m
	fields := append([]stream.Field(nil), s.req.Fields.All()...)
	once := func() {
		s.req.Fields.Reset()
		for _, f := range fields {
			s.req.Fields.Append(f.Name, f.Value)
		}
		s.req.Path, s.req.Authority = srv.path, srv.authority
		conn.handle(context.Background(), srv)
		if srv.status != 200 {
			t.Fatalf("status %d", srv.status)
		}
	}
	srv.path, srv.authority = s.req.Path, s.req.Authority
	once()
	if n := testing.AllocsPerRun(2000, once); n > 0.1 {
		t.Errorf("allocs per request = %v, want at most 0.1", n)
	}
}
