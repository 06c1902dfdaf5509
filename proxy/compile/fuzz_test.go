package compile

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"weft.mesh/weft/proxy/route"
	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/xds"
)

// FuzzCompile gives a resource of any content to the compiler and holds it to what it
// promises: no panic; what it takes, protobuf's own decoder reads without an unknown field; what it refuses
// changes nothing and is told in bounded words; the same bytes give the same verdict, in any
// encoding of the same message; a route table that it takes routes any request without a panic.
func FuzzCompile(f *testing.F) {
	types := xds.PushOrder
	for _, file := range []string{"testdata/sidecar.yaml"} {
		for typeURL, rs := range load(f, file) {
			for _, r := range rs {
				for i, u := range types {
					if u == typeURL {
						f.Add(uint8(i), r.Body)
					}
				}
			}
		}
	}
	now := time.Unix(1e9, 0)
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		typeURL := types[int(kind)%len(types)]
		err := compileAlone(New(Settings{}), typeURL, body)
		if err != nil && (err.Error() == "" || len(err.Error()) > maxReason) {
			t.Fatalf("a reason of %d bytes", len(err.Error()))
		}
		m, name := messageOf(typeURL)
		if perr := proto.Unmarshal(body, m); perr != nil {
			if err == nil {
				t.Fatalf("took what protobuf cannot read: %v", perr)
			}
			return
		}
		if n := unknownBytes(m.ProtoReflect()); n > 0 && err == nil {
			t.Fatalf("took %d bytes of unknown fields", n)
		}
		again, merr := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if merr != nil {
			t.Fatal(merr)
		}
		if e := compileAlone(New(Settings{}), typeURL, again); (e == nil) != (err == nil) {
			t.Fatalf("one encoding: %v; another: %v", err, e)
		}
		c := New(Settings{})
		before := c.View()
		v, refused := c.Apply(Update{TypeURL: typeURL, Set: []*xds.Resource{xds.NewResource(typeURL, name(), body)}}, now)
		if (len(refused) > 0) != (err != nil) {
			t.Fatalf("alone: %v; applied: %v", err, refused)
		}
		if len(refused) > 0 && (v != before || len(NACK(refused)) > maxNACK+100 || strings.Contains(refused[0].Reason, "internal error")) {
			t.Fatalf("refused, but View %d, with %.300s", v.Version, NACK(refused))
		}
		for _, table := range v.Routes {
			routeAll(table)
		}
	})
}

// maxReason is what one refusal may take: it names paths and values, each of which is bounded.
const maxReason = 64 << 10

// compileAlone calls the compile functions themselves: Apply turns a panic into a refusal.
func compileAlone(c *Compiler, typeURL string, body []byte) error {
	switch typeURL {
	case xds.ClusterType:
		k, err := c.cluster(body)
		if err == nil {
			k.resolve(nil, true, nil)
		}
		return err
	case xds.EndpointType:
		_, err := c.endpoints(body)
		return err
	case xds.ListenerType:
		l, err := c.listener(body)
		if err == nil {
			l.resolve(nil)
		}
		return err
	case xds.RouteType:
		_, err := c.routes(body)
		return err
	}
	_, err := c.secret(body)
	return err
}

func messageOf(typeURL string) (proto.Message, func() string) {
	switch typeURL {
	case xds.ClusterType:
		m := &clusterv3.Cluster{}
		return m, m.GetName
	case xds.EndpointType:
		m := &endpointv3.ClusterLoadAssignment{}
		return m, m.GetClusterName
	case xds.ListenerType:
		m := &listenerv3.Listener{}
		return m, m.GetName
	case xds.RouteType:
		m := &routev3.RouteConfiguration{}
		return m, m.GetName
	}
	m := &tlsv3.Secret{}
	return m, m.GetName
}

// unknownBytes counts what no schema knows, at any depth but inside Any and google.protobuf.
func unknownBytes(m protoreflect.Message) int {
	n := len(m.GetUnknown())
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if d := f.MapValue().Message(); d != nil && d.ParentFile().Package() != "google.protobuf" {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { n += unknownBytes(v.Message()); return true })
			}
		case f.Message() == nil || f.Message().ParentFile().Package() == "google.protobuf":
		case f.IsList():
			for i := range v.List().Len() {
				n += unknownBytes(v.List().Get(i).Message())
			}
		default:
			n += unknownBytes(v.Message())
		}
		return true
	})
	return n
}

func routeAll(table *route.Table) {
	for _, authority := range []string{"", "reviews:9080", "*", "a.b.c", "[::1]:80"} {
		for _, path := range []string{"/", "", "/a/b?x=y#z", "*", "/a//../%2e"} {
			for _, method := range []string{"GET", "CONNECT"} {
				req := &stream.Request{Method: []byte(method), Authority: []byte(authority), Path: []byte(path)}
				req.Fields.Add("content-type", "application/grpc")
				table.Match(req, netip.Addr{}, 17)
			}
		}
	}
}
