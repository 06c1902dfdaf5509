package hcm

import (
	"weft.mesh/weft/proxy/filter"
	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
)

// Admission bounds what runs at once; package overload has one. Both methods are called
// for every request, so they must be cheap.
type Admission interface {
	// Begin tells whether a request may run; End follows if so.
	Begin() bool
	End()
}

// replyOverload is Envoy's answer of an overloaded proxy, which says that the upstream had no part in it. x-envoy-overloaded
// tells a proxy in front not to try again.
var replyOverload = filter.Reply{
	Status: 503, Body: []byte("envoy overloaded"), Details: "overload", Flags: stream.FlagOverload,
	Headers: []filter.Header{{Name: "x-envoy-overloaded", Value: "true"}, {Name: "x-envoy-local-overloaded", Value: "true"}},
}

// shed turns a request away before anything was spent on it: no route, no filter's request side.
func (x *exchange) shed() {
	x.h.scan(&x.req.Fields)
	x.info.GRPC = route.IsGRPC(x.h.contentType)
	x.info.OrigPath = x.req.Path
	x.reply(&replyOverload)
}
