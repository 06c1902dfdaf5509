package fault

import (
	"strings"
	"testing"
	"time"

	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

func parse(t *testing.T, json string) (*Filter, error) {
	t.Helper()
	var c faultv3.HTTPFault
	if err := protojson.Unmarshal([]byte(json), &c); err != nil {
		t.Fatal(err)
	}
	return New(&c)
}

// meet runs a request through the filter and returns the verdict, the time slept and the flags.
func meet(t *testing.T, f *Filter, route *Filter, stay bool, headers ...string) (filter.Verdict, time.Duration, stream.Flags) {
	t.Helper()
	var slept time.Duration
	s := &filter.Stream{Req: &stream.Request{}, Info: &stream.Info{}, Sleep: func(d time.Duration) bool { slept += d; return stay }}
	for i := 0; i+1 < len(headers); i += 2 {
		s.Req.Fields.Add(headers[i], headers[i+1])
	}
	if route != nil {
		s.PerRoute = map[string]any{Name: route}
	}
	v := f.Request(s)
	return v, slept, s.Info.Flags
}

func TestFaults(t *testing.T) {
	empty, err := parse(t, `{}`)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		json    string
		headers []string
		left    bool // the client leaves during the delay
		status  int
		grpc    int
		slept   time.Duration
		flags   stream.Flags
	}{
		"a delay":                         {json: `{"delay":{"fixedDelay":"7s","percentage":{"numerator":100}}}`, slept: 7 * time.Second, flags: stream.FlagDelayInjected},
		"a delay for nobody":              {json: `{"delay":{"fixedDelay":"7s","percentage":{"numerator":0}}}`},
		"no percentage strikes nobody":    {json: `{"abort":{"httpStatus":500}}`},
		"an abort":                        {json: `{"abort":{"httpStatus":555,"percentage":{"numerator":1000000,"denominator":"MILLION"}}}`, status: 555},
		"an abort with a gRPC status":     {json: `{"abort":{"grpcStatus":14,"percentage":{"numerator":100}}}`, status: 503, grpc: 14},
		"a delay, then an abort":          {json: `{"delay":{"fixedDelay":"1s","percentage":{"numerator":100}},"abort":{"httpStatus":500,"percentage":{"numerator":100}}}`, status: 500, slept: time.Second, flags: stream.FlagDelayInjected},
		"a client that leaves is let go":  {json: `{"delay":{"fixedDelay":"1s","percentage":{"numerator":100}},"abort":{"httpStatus":500,"percentage":{"numerator":100}}}`, left: true, slept: time.Second, flags: stream.FlagDelayInjected},
		"only with the header":            {json: `{"headers":[{"name":"end-user","stringMatch":{"exact":"jason"}}],"abort":{"httpStatus":500,"percentage":{"numerator":100}}}`, headers: []string{"end-user", "bob"}},
		"with the header":                 {json: `{"headers":[{"name":"end-user","stringMatch":{"exact":"jason"}}],"abort":{"httpStatus":500,"percentage":{"numerator":100}}}`, headers: []string{"end-user", "jason"}, status: 500},
		"no more active faults than none": {json: `{"maxActiveFaults":0,"abort":{"httpStatus":500,"percentage":{"numerator":100}}}`},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := parse(t, c.json)
			if err != nil {
				t.Fatal(err)
			}
			v, slept, flags := meet(t, empty, f, !c.left, c.headers...)
			status, grpc := 0, 0
			if v.Reply != nil {
				status, grpc = v.Reply.Status, v.Reply.GRPCCode
				if string(v.Reply.Body) != "fault filter abort" || v.Reply.Details != "fault_filter_abort" || v.Reply.Flags != stream.FlagFaultInjected {
					t.Errorf("reply %+v", v.Reply)
				}
			}
			if status != c.status || grpc != c.grpc || slept != c.slept || flags != c.flags {
				t.Errorf("status %d grpc %d slept %v flags %v, want %d %d %v %v", status, grpc, slept, flags, c.status, c.grpc, c.slept, c.flags)
			}
		})
	}
}

func TestActiveFaultsAreBounded(t *testing.T) {
	f, err := parse(t, `{"maxActiveFaults":1,"delay":{"fixedDelay":"1s","percentage":{"numerator":100}}}`)
	if err != nil {
		t.Fatal(err)
	}
	inner := time.Duration(-1)
	s := &filter.Stream{Req: &stream.Request{}, Info: &stream.Info{}}
	s.Sleep = func(time.Duration) bool {
		_, inner, _ = meet(t, f, nil, true) // a second request while the first is delayed
		return true
	}
	f.Request(s)
	if inner != 0 {
		t.Errorf("the second request was delayed by %v, want not at all", inner)
	}
	if _, again, _ := meet(t, f, nil, true); again != time.Second {
		t.Error("the place was not given back")
	}
}

func TestSharesAreKept(t *testing.T) {
	f, err := parse(t, `{"abort":{"httpStatus":500,"percentage":{"numerator":25}}}`)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range 80000 {
		if v, _, _ := meet(t, f, nil, true); v.Reply != nil {
			n++
		}
	}
	if n < 19000 || n > 21000 { // by chance: 1,000 are more than eight standard deviations
		t.Errorf("%d of 80000 aborted, want about 20000", n)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct{ json, want string }{
		"a delay by header":   {`{"delay":{"headerDelay":{}}}`, "fixed_delay"},
		"an abort by header":  {`{"abort":{"headerAbort":{}}}`, "header_abort"},
		"a rate limit":        {`{"responseRateLimit":{}}`, "response_rate_limit"},
		"a runtime key":       {`{"delayPercentRuntime":"x"}`, "delay_percent_runtime"},
		"an upstream cluster": {`{"upstreamCluster":"x"}`, "upstream_cluster"},
		"a status of 100":     {`{"abort":{"httpStatus":100}}`, "http_status"},
		"a delay of nothing":  {`{"delay":{"fixedDelay":"0s"}}`, "positive"},
		"an abort of nothing": {`{"abort":{}}`, "want http_status"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse(t, c.json); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}
