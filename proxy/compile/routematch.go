package compile

import (
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"weft.mesh/weft/proxy/filter/matcher"
	"weft.mesh/weft/proxy/route"
)

func routeMatch(x *routev3.RouteMatch) (route.Match, error) {
	var m route.Match
	if x == nil {
		return m, missing("path_specifier", "want prefix, path, safe_regex or path_separated_prefix")
	}
	ignoreCase := x.GetCaseSensitive() != nil && !x.GetCaseSensitive().GetValue()
	m.Path.IgnoreCase = ignoreCase
	switch p := x.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		m.Path.Kind, m.Path.Value = route.PathPrefix, p.Prefix
		if p.Prefix == "" {
			m.Path.Kind = route.PathAny
		}
	case *routev3.RouteMatch_Path:
		m.Path.Kind, m.Path.Value = route.PathExact, p.Path
	case *routev3.RouteMatch_PathSeparatedPrefix:
		m.Path.Kind, m.Path.Value = route.PathSeparatedPrefix, p.PathSeparatedPrefix
	case *routev3.RouteMatch_SafeRegex:
		re, err := route.FullRegexp(p.SafeRegex.GetRegex())
		if err != nil {
			return m, at("safe_regex.regex", err)
		}
		m.Path = route.Path{Kind: route.PathRegex, Value: p.SafeRegex.GetRegex(), Regex: re}
	case *routev3.RouteMatch_ConnectMatcher_:
		m.Path.Kind = route.PathConnect
	default:
		return m, missing("path_specifier", "want prefix, path, safe_regex or path_separated_prefix")
	}
	for i, h := range x.GetHeaders() {
		o, err := matcher.Header(h)
		if err != nil {
			return m, index("headers", i, err)
		}
		m.Headers = append(m.Headers, o)
	}
	for i, q := range x.GetQueryParameters() {
		o, err := queryMatch(q)
		if err != nil {
			return m, index("query_parameters", i, err)
		}
		m.Query = append(m.Query, o)
	}
	m.GRPC = x.GetGrpc() != nil
	var err error
	m.Fraction, err = fraction("runtime_fraction", x.GetRuntimeFraction())
	return m, err
}

func queryMatch(x *routev3.QueryParameterMatcher) (route.QueryMatch, error) {
	q := route.QueryMatch{Name: x.GetName()}
	var err error
	switch s := x.GetQueryParameterMatchSpecifier().(type) {
	case nil:
	case *routev3.QueryParameterMatcher_PresentMatch:
		if !s.PresentMatch {
			err = bad("present_match", false, "want true; a parameter that must be absent is not supported")
		}
	case *routev3.QueryParameterMatcher_StringMatch:
		q.Match, err = stringMatch("string_match", s.StringMatch)
	default:
		err = bad("query_parameter_match_specifier", fmt.Sprintf("%T", s), "not supported")
	}
	return q, err
}
