package compile

import (
	"fmt"
	"strings"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/stream"
)

// FilterConfig is what a filter is made from.
type FilterConfig struct {
	// TypeURL of the configuration: the Any's, or for a TypedStruct the one it carries.
	TypeURL string
	// Any is the typed_config as it came.
	Any *anypb.Any
	// Struct is the value of a TypedStruct; nil for other types.
	Struct *structpb.Struct
	// Direction of the listener the filter is on.
	Direction stream.Direction
	// TCP tells that the filter is on a TCP chain.
	TCP bool
}

// HTTPFilter says how one kind of HTTP filter is made. The list is Settings.HTTPFilters.
type HTTPFilter struct {
	Name    string // Envoy's name, the key of typed_per_filter_config
	TypeURL string // of its configuration
	New     func(FilterConfig) (filter.HTTP, error)
	// Route compiles per-route configuration; nil: there is none.
	Route func(*anypb.Any) (any, error)
}

// NetworkFilter says how one kind of network filter is made. Connection and
// End may both be set; a nil result of either adds nothing.
type NetworkFilter struct {
	Name       string
	TypeURL    string
	Connection func(FilterConfig) (filter.Network, error)
	// End observes finished TCP connections.
	End func(FilterConfig) (func(*stream.Info), error)
}

// AccessLog is one access log as configured.
type AccessLog struct {
	Name string
	Path string // file; "/dev/stdout" and "/dev/stderr" for those
	// Text is the format; "" with nil JSON: the default text.
	Text      string
	JSON      *structpb.Struct
	OmitEmpty bool
	TCP       bool // on a TCP chain
}

// NewAccessLog makes a sink; it refuses formats with operators it does not know.
type NewAccessLog func(AccessLog) (*config.AccessLog, error)

const typePrefix = "type.googleapis.com/"

// Types of Istio's own filters, carried as TypedStruct.
const (
	typeMetadataExchangeTCP = typePrefix + "envoy.tcp.metadataexchange.config.MetadataExchange"
)

// filterConfig opens a typed_config as far as needed to know what it is.
func filterConfig(a *anypb.Any) (FilterConfig, error) {
	if a == nil {
		return FilterConfig{}, missing("typed_config", "want a typed configuration")
	}
	url, s, err := typedStruct(a)
	return FilterConfig{TypeURL: url, Any: a, Struct: s}, err
}

// typedStruct returns the type URL and value inside a TypedStruct, or the Any's own URL and nil.
func typedStruct(a *anypb.Any) (string, *structpb.Struct, error) {
	var ts interface {
		proto.Message
		GetTypeUrl() string
		GetValue() *structpb.Struct
	}
	switch a.MessageName() {
	case "udpa.type.v1.TypedStruct":
		ts = new(udpav1.TypedStruct)
	case "xds.type.v3.TypedStruct":
		ts = new(xdsv3.TypedStruct)
	default:
		return a.GetTypeUrl(), nil, nil
	}
	if err := proto.Unmarshal(a.GetValue(), ts); err != nil {
		return "", nil, at("typed_config", fmt.Errorf("not a TypedStruct: %w", err))
	}
	if len(ts.ProtoReflect().GetUnknown()) > 0 {
		return "", nil, bad("typed_config", a.GetTypeUrl(), "unknown fields")
	}
	v := ts.GetValue()
	if v == nil {
		v = &structpb.Struct{}
	}
	return ts.GetTypeUrl(), v, nil
}

func (c *Compiler) httpFilter(fc FilterConfig) (filter.HTTP, error) {
	for _, f := range c.set.HTTPFilters {
		if f.TypeURL == fc.TypeURL {
			return f.New(fc)
		}
	}
	return nil, errUnknownFilter
}

func (c *Compiler) networkFilter(fc FilterConfig) (NetworkFilter, bool) {
	for _, f := range c.set.NetworkFilters {
		if f.TypeURL == fc.TypeURL {
			return f, true
		}
	}
	return NetworkFilter{}, false
}

var errUnknownFilter = fmt.Errorf("filter type not supported")

// known lists what is supported, for a refusal's text.
func known[T any](list []T, url func(T) string) string {
	var b strings.Builder
	for i, f := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strings.TrimPrefix(url(f), typePrefix))
	}
	return b.String()
}
