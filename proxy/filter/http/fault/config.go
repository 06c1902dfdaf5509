package fault

import (
	"fmt"
	"math"
	"sync/atomic"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"

	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/filter/matcher"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// New compiles a configuration, of the filter or of a route.
func New(c *faultv3.HTTPFault) (*Filter, error) {
	f, err := compile(c)
	if err != nil {
		return nil, fmt.Errorf("fault: %w", err)
	}
	return f, nil
}

func compile(c *faultv3.HTTPFault) (*Filter, error) {
	if err := matcher.Known(c); err != nil {
		return nil, err
	}
	// disable_downstream_cluster_stats has no effect on traffic.
	if err := matcher.Only(c, "delay", "abort", "headers", "max_active_faults", "disable_downstream_cluster_stats"); err != nil {
		return nil, err
	}
	f := &Filter{active: new(atomic.Int64)}
	if m := c.GetMaxActiveFaults(); m != nil {
		f.limit = int64(m.GetValue())
		if f.limit == 0 {
			return f, nil // no fault may ever be active
		}
	}
	for _, h := range c.GetHeaders() {
		m, err := matcher.Header(h)
		if err != nil {
			return nil, err
		}
		f.headers = append(f.headers, m)
	}
	if err := f.compileDelay(c.GetDelay()); err != nil {
		return nil, err
	}
	return f, f.compileAbort(c.GetAbort())
}

func (f *Filter) compileDelay(d *commonv3.FaultDelay) error {
	if d == nil {
		return nil
	}
	fixed, ok := d.GetFaultDelaySecifier().(*commonv3.FaultDelay_FixedDelay)
	if !ok {
		return fmt.Errorf("delay: only fixed_delay is supported")
	}
	if err := fixed.FixedDelay.CheckValid(); err != nil || fixed.FixedDelay.AsDuration() <= 0 {
		return fmt.Errorf("delay.fixed_delay: %v: want a positive duration", fixed.FixedDelay)
	}
	f.delay = fixed.FixedDelay.AsDuration()
	share, err := share(matcher.Fraction(d.GetPercentage()))
	f.delayShare = share
	return err
}

func (f *Filter) compileAbort(a *faultv3.FaultAbort) error {
	if a == nil {
		return nil
	}
	if err := matcher.Only(a, "http_status", "grpc_status", "percentage"); err != nil {
		return err
	}
	r := &filter.Reply{Body: []byte("fault filter abort"), Details: "fault_filter_abort", Flags: stream.FlagFaultInjected}
	switch e := a.GetErrorType().(type) {
	case *faultv3.FaultAbort_HttpStatus:
		if e.HttpStatus < 200 || e.HttpStatus > 599 {
			return fmt.Errorf("abort.http_status: %d: want 200 to 599", e.HttpStatus)
		}
		r.Status = int(e.HttpStatus)
	case *faultv3.FaultAbort_GrpcStatus:
		if e.GrpcStatus > math.MaxInt16 {
			return fmt.Errorf("abort.grpc_status: %d: not a gRPC status", e.GrpcStatus)
		}
		r.GRPCCode = int(e.GrpcStatus)
		r.Status = httpOf(r.GRPCCode)
	default:
		return fmt.Errorf("abort: want http_status or grpc_status")
	}
	f.reply = r
	share, err := share(matcher.Fraction(a.GetPercentage()))
	f.abortShare = share
	return err
}

// share of requests; a fault without a percentage strikes none (Envoy).
func share(f *route.Fraction, err error) (route.Fraction, error) {
	if err != nil {
		return route.Fraction{}, err
	}
	if f == nil {
		return route.Fraction{Numerator: 0, Denominator: 100}, nil
	}
	return *f, nil
}

// httpOf maps a gRPC status to HTTP for callers that do not speak gRPC (Envoy's mapping).
func httpOf(code int) int {
	switch code {
	case 0:
		return 200
	case 1:
		return 499
	case 3, 9, 11:
		return 400
	case 4:
		return 504
	case 5:
		return 404
	case 6, 10:
		return 409
	case 7:
		return 403
	case 8:
		return 429
	case 12:
		return 501
	case 14:
		return 503
	case 16:
		return 401
	}
	return 500
}
