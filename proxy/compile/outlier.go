package compile

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"weft.mesh/weft/proxy/config"
)

// Defaults of Envoy's OutlierDetection.
const (
	outlierConsecutive  = 5
	outlierInterval     = 10 * time.Second
	outlierBase         = 30 * time.Second
	outlierMaxTime      = 300 * time.Second
	outlierMaxPercent   = 10
	enforcingAlways     = 100
	enforcingDefaultOff = 0
)

// clusterOutlier reads outlier detection. Enforcement is all or nothing: percentages between 0 and
// 100 are refused, and so is success-rate ejection, which must be off (as Istio sends it).
func clusterOutlier(x *clusterv3.Cluster, k *cluster) error {
	o := x.GetOutlierDetection()
	if o == nil {
		return nil
	}
	out := &config.Outlier{SplitLocal: o.GetSplitExternalLocalOriginErrors(), MaxEjectionPercent: outlierMaxPercent}
	if p := o.GetMaxEjectionPercent(); p != nil {
		out.MaxEjectionPercent = p.GetValue()
	}
	var err error
	if out.Interval, err = duration("outlier_detection.interval", o.GetInterval(), outlierInterval); err != nil {
		return err
	}
	if out.BaseEjection, err = duration("outlier_detection.base_ejection_time", o.GetBaseEjectionTime(), outlierBase); err != nil {
		return err
	}
	if out.MaxEjection, err = duration("outlier_detection.max_ejection_time", o.GetMaxEjectionTime(), max(outlierMaxTime, out.BaseEjection)); err != nil {
		return err
	}
	if out.Interval == 0 || out.BaseEjection == 0 {
		return bad("outlier_detection.interval", 0, "want more than 0 for interval and base_ejection_time")
	}
	if o.GetEnforcingSuccessRate().GetValue() != 0 || o.GetEnforcingLocalOriginSuccessRate().GetValue() != 0 {
		return bad("outlier_detection.enforcing_success_rate", o.GetEnforcingSuccessRate().GetValue(), "ejection by success rate is not supported; set it to 0")
	}
	for _, d := range []struct {
		field          string
		to             *uint32
		count, enforce *wrapperspb.UInt32Value
		enforced       uint32
		on             bool
	}{
		{"consecutive_5xx", &out.Consecutive5xx, o.GetConsecutive_5Xx(), o.GetEnforcingConsecutive_5Xx(), enforcingAlways, true},
		{"consecutive_gateway_failure", &out.ConsecutiveGateway, o.GetConsecutiveGatewayFailure(), o.GetEnforcingConsecutiveGatewayFailure(), enforcingDefaultOff, true},
		{"consecutive_local_origin_failure", &out.ConsecutiveLocal, o.GetConsecutiveLocalOriginFailure(), o.GetEnforcingConsecutiveLocalOriginFailure(), enforcingAlways, out.SplitLocal},
	} {
		if !d.on {
			continue
		}
		n, enforce := uint32(outlierConsecutive), d.enforced
		if d.count != nil {
			n = d.count.GetValue()
		}
		if d.enforce != nil {
			enforce = d.enforce.GetValue()
		}
		switch enforce {
		case 0:
			n = 0
		case enforcingAlways:
		default:
			return bad("outlier_detection.enforcing_"+d.field, enforce, "want 0 or 100")
		}
		*d.to = n
	}
	k.base.Outlier = out
	// Istio's min_health_percent is common_lb_config.healthy_panic_threshold on the wire.
	return nil
}
