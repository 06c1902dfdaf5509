package hcm

import (
	"fmt"
	"math"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
)

func TestGRPCTimeoutsAreRead(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1H": time.Hour, "2M": 2 * time.Minute, "3S": 3 * time.Second, "4m": 4 * time.Millisecond, "5u": 5 * time.Microsecond, "6n": 6,
		"0m": 0, "00000001S": time.Second, "99999999n": 99999999, "99999999S": 99999999 * time.Second,
		"2562047H": 2562047 * time.Hour, "99999999H": math.MaxInt64, // longer than a Duration
	} {
		if got, ok := grpcTimeout([]byte(text)); !ok || got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "S", "1", "1s", "1h", "100000000S", "-1S", "+1S", "1.5S", " 1S", "1S ", "1 S", "0x1S", "S1", "1_0S"} {
		if got, ok := grpcTimeout([]byte(text)); ok {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// TestAGRPCDeadlineReachesTheUpstream: the caller's deadline counts within the route's bound, and the
// upstream is told of what counts. Who is past its own deadline is told DEADLINE_EXCEEDED, others UNAVAILABLE.
func TestAGRPCDeadlineReachesTheUpstream(t *testing.T) {
	for name, tc := range map[string]struct {
		header     string
		route, max time.Duration
		told       string
		ends       time.Duration // 0: when the upstream answers, after 10 s
		code       string
	}{
		"the caller's":                         {"2S", 5 * time.Second, 0, "2000m", 2 * time.Second, "4"},
		"the caller's, longer than the route":  {"8S", 5 * time.Second, 0, "8000m", 8 * time.Second, "4"},
		"less than the smallest we can tell":   {"1n", 0, 0, "1m", 1, "4"},
		"what we tell is not less":             {"2000001u", 0, 0, "2001m", 2000001 * time.Microsecond, "4"},
		"the bound, if it is shorter":          {"8S", 0, 3 * time.Second, "3000m", 3 * time.Second, "14"},
		"the bound, if the caller's is over":   {"0S", 0, 3 * time.Second, "3000m", 3 * time.Second, "4"}, // as Envoy takes it
		"the route's, if the caller is silent": {"", 5 * time.Second, 0, "5000m", 5 * time.Second, "14"},
		"the route's, if the caller errs":      {"soon", 5 * time.Second, 0, "5000m", 5 * time.Second, "14"},
		"a bound of days, if it is shorter":    {"99999999S", 0, 48 * time.Hour, "172800S", 0, "0"},
		"nobody's":                             {"", 0, 0, "", 0, "0"},
		"one that never comes":                 {"99999999H", 5 * time.Second, 0, "99999999H", 0, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, always(answer{status: 200, headers: []string{"content-type", "application/grpc", "grpc-status", "0"}, delay: 10 * time.Second}))
				f := h.forward()
				f.Timeout, f.UseGRPC, f.MaxGRPC = tc.route, true, tc.max
				s := newServer("POST", "/s/m", "content-type", "application/grpc")
				if tc.header != "" {
					s.req.Fields.Add("grpc-timeout", tc.header)
				}
				i := run(t, h, s)
				ends, code := tc.ends, tc.code
				if ends == 0 {
					ends = 10 * time.Second
				}
				if i.Duration != ends || s.head["grpc-status"] != code || strconv.Itoa(i.GRPCCode) != code {
					t.Errorf("ended after %v with %q (%d), want %v with %s", i.Duration, s.head["grpc-status"], i.GRPCCode, ends, code)
				}
				if got := h.backend.requests[0].headers["grpc-timeout"]; got != tc.told {
					t.Errorf("the upstream was told %q, want %q", got, tc.told)
				}
			})
		})
	}
}

// TestAServersResetIsToldAsWhatItIs: a server that resets a call whose deadline is over does so for that.
func TestAServersResetIsToldAsWhatItIs(t *testing.T) {
	for name, tc := range map[string]struct{ deadline, code string }{
		"the deadline is over":    {"2S", "4"},
		"it is not":               {"2000001u", "14"},
		"there is none":           {"", "14"},
		"it is none that we know": {"2s", "14"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHarness(t, always(answer{err: errReset, delay: 2 * time.Second}))
				s := newServer("POST", "/s/m", "content-type", "application/grpc")
				if tc.deadline != "" {
					s.req.Fields.Add("grpc-timeout", tc.deadline)
				}
				i := run(t, h, s)
				if s.head["grpc-status"] != tc.code || i.Flags.String() != "UC" {
					t.Errorf("status %s, flags %v; want %s, UC", s.head["grpc-status"], i.Flags, tc.code)
				}
			})
		})
	}
}

// TestAConfiguredGRPCStatusIsToldAsItIs: whoever has a fault abort with UNAVAILABLE gets that, also if a fault delay took all the caller's time.
func TestAConfiguredGRPCStatusIsToldAsItIs(t *testing.T) {
	for code, want := range map[int]string{14: "14", 0: "4"} { // 0: what fits 503
		synctest.Test(t, func(t *testing.T) {
			h := newHarness(t, always(answer{status: 200}))
			h.cfg.Filters = []filter.HTTP{&filterFunc{request: func(*filter.Stream) filter.Verdict {
				time.Sleep(3 * time.Second) // of fake time
				return filter.End(&filter.Reply{Status: 503, GRPCCode: code})
			}}}
			s := newServer("POST", "/s/m", "content-type", "application/grpc", "grpc-timeout", "2S")
			if run(t, h, s); s.head["grpc-status"] != want {
				t.Errorf("status %s, want %s", s.head["grpc-status"], want)
			}
		})
	}
}

// TestEachGRPCStatusIsRetriedOnlyWhereThePolicySaysSo: five conditions, all 17 statuses, in the head as servers send them when they have nothing else to say.
func TestEachGRPCStatusIsRetriedOnlyWhereThePolicySaysSo(t *testing.T) {
	for on, want := range map[route.RetryOn]int{
		route.RetryGRPCCancelled: 1, route.RetryGRPCDeadlineExceeded: 4, route.RetryGRPCResourceExhausted: 8, route.RetryGRPCInternal: 13, route.RetryGRPCUnavailable: 14,
	} {
		for code := range 17 {
			t.Run(fmt.Sprintf("on %d, status %d", want, code), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHarness(t, inTurn(
						answer{status: 200, headers: []string{"content-type", "application/grpc", "grpc-status", strconv.Itoa(code)}},
						answer{status: 200, headers: []string{"content-type", "application/grpc", "grpc-status", "0"}}))
					h.forward().Retry = &route.Retry{On: on, Attempts: 1}
					s := newServer("POST", "/s/m", "content-type", "application/grpc").withBody("\x00\x00\x00\x00\x01a")
					i := run(t, h, s)
					tries, final := 1, strconv.Itoa(code)
					if code == want {
						tries, final = 2, "0"
					}
					if i.Attempts != tries || s.head["grpc-status"] != final {
						t.Errorf("%d tries, status %s; want %d, %s", i.Attempts, s.head["grpc-status"], tries, final)
					}
					for _, r := range h.backend.requests {
						if r.body != "\x00\x00\x00\x00\x01a" {
							t.Errorf("a try had the body %q", r.body)
						}
					}
				})
			})
		}
	}
}

// TestWhatHasBegunIsNotRetried: a status in trailers comes too late.
func TestWhatHasBegunIsNotRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, always(answer{status: 200, headers: []string{"content-type", "application/grpc"}, body: []string{"\x00\x00\x00\x00\x01a"}, trailers: []string{"grpc-status", "14"}}))
		h.forward().Retry = &route.Retry{On: route.RetryGRPCUnavailable, Attempts: 3}
		s := newServer("POST", "/s/m", "content-type", "application/grpc", "te", "trailers")
		if i := run(t, h, s); i.Attempts != 1 || i.GRPCCode != 14 || s.trailers["grpc-status"] != "14" {
			t.Errorf("%d tries, code %d, %v", i.Attempts, i.GRPCCode, s.trailers)
		}
	})
}
