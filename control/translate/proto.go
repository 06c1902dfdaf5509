package translate

import (
	"math"
	"net/netip"
	"time"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"weft.mesh/weft/model"
)

// marshal is deterministic: equal messages are equal bytes.
func marshal(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // only invalid UTF-8 or a missing required field: convert lets neither pass
		panic("translate: marshal " + string(m.ProtoReflect().Descriptor().FullName()) + ": " + err.Error())
	}
	return b
}

func pack(m proto.Message) *anypb.Any {
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: marshal(m)}
}

// typedStruct carries the configuration of a filter whose protobuf is Istio's own.
func typedStruct(typeURL string, value map[string]any) *anypb.Any {
	s, err := structpb.NewStruct(value)
	if err != nil {
		panic("translate: struct of " + typeURL + ": " + err.Error())
	}
	return pack(&udpav1.TypedStruct{TypeUrl: typeURL, Value: s})
}

func u32(n uint32) *wrapperspb.UInt32Value          { return wrapperspb.UInt32(n) }
func boolean(b bool) *wrapperspb.BoolValue          { return wrapperspb.Bool(b) }
func duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

func u64(n uint64) *wrapperspb.UInt64Value { return wrapperspb.UInt64(n) }

// positive is nil for 0.
func positive(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		return nil
	}
	return u32(n)
}

// enforce is 100 percent of what is on, 0 of what is off.
func enforce(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		return u32(0)
	}
	return u32(100)
}

// u32or is n, or the largest number for 0: Istio's "no limit".
func u32or(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		return u32(math.MaxUint32)
	}
	return u32(n)
}

// optional is nil for 0.
func optional(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return duration(d)
}

func socketAddress(addr string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: addr, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func cidr(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: u32(uint32(p.Bits()))}
}

// ads says that a resource comes over this same stream; a listener waits for it without bound.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		InitialFetchTimeout:   duration(0),
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

func exact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func prefix(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}}
}

func suffix(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: s}}
}

func regex(s string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: s} }

func matchesRegex(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(s)}}
}

// fraction is a share in millionths.
func fraction(percent float64) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{
		Numerator:   uint32(math.Round(min(max(percent, 0), 100) * 10_000)),
		Denominator: typev3.FractionalPercent_MILLION,
	}
}

func runtimeFraction(percent float64) *corev3.RuntimeFractionalPercent {
	return &corev3.RuntimeFractionalPercent{DefaultValue: fraction(percent)}
}

func regexRewrite(r *model.RegexRewrite) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: regex(r.Match), Substitution: r.Rewrite}
}
