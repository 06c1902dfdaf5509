package main

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"unique"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/fields"
	"weft.mesh/weft/xds/patch"
)

// response is a DeltaDiscoveryResponse as far as a simulated proxy reads it.
type response struct {
	typeURL, nonce string
	resources      []resource
	removed        []string
}

type resource struct {
	name, version string
	refs          []string // what it makes the proxy subscribe to
}

// codec reads responses without making messages of them: a thousand proxies in one process have little time for each.
type codec struct{}

func (codec) Name() string { return "proto" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("cannot send %T", v)
	}
	b, err := proto.Marshal(m)
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*response)
	if !ok {
		return fmt.Errorf("cannot read into %T", v)
	}
	b := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer b.Free()
	have, err := parsed.of(b.ReadOnlyData(), func() (*response, error) {
		x := &response{}
		return x, x.read(b.ReadOnlyData())
	})
	if err == nil {
		*r = *have // which nobody changes
	}
	return err
}

// intern keeps one copy of a name for all proxies.
func intern(b []byte) string { return unique.Make(string(b)).Value() }

func (r *response) read(b []byte) error {
	return fields.Each(b, func(n protowire.Number, v []byte) error {
		switch n {
		case 2:
			x, err := readResource(v)
			if err != nil {
				return err
			}
			r.resources = append(r.resources, x)
		case 4:
			r.typeURL = intern(v)
		case 5:
			r.nonce = string(v)
		case 6:
			r.removed = append(r.removed, intern(v))
		}
		return nil
	})
}

func readResource(b []byte) (resource, error) {
	var x resource
	var typeURL string
	var body []byte
	err := fields.Each(b, func(n protowire.Number, v []byte) error {
		switch n {
		case 1:
			x.version = intern(v)
		case 2:
			return fields.Each(v, func(n protowire.Number, v []byte) error {
				if n == 1 {
					typeURL = intern(v)
				} else if n == 2 {
					body = v
				}
				return nil
			})
		case 3:
			x.name = intern(v)
		}
		return nil
	})
	if err == nil && (x.name == "" || x.version == "" || typeURL == "") {
		err = errors.New("a resource without name, version or type")
	}
	switch {
	case err != nil:
	case typeURL == patch.Type:
		err = applied(x, body)
	case typeURL == xds.RouteType:
		tables.Store(refKey{typeURL, x.name, x.version}, &xds.Resource{Name: x.name, Version: x.version, TypeURL: typeURL, Body: bytes.Clone(body)})
	default:
		x.refs, err = refsOf(typeURL, x, body)
	}
	return x, err
}

type refKey struct{ typeURL, name, version string }

// refs are worked out once for each version of a resource, and tables are kept by version: to be patched.
var refs, tables sync.Map

// applied checks that a patch makes of some table that was sent before the version that it says.
func applied(x resource, p []byte) error {
	if _, ok := tables.Load(refKey{xds.RouteType, x.name, x.version}); ok {
		return nil // others got it before
	}
	err := patch.ErrBase
	tables.Range(func(_, v any) bool {
		old := v.(*xds.Resource)
		if old.Name != x.name {
			return true
		}
		var body []byte
		if body, err = patch.Apply(old, p, x.version); err == nil {
			tables.Store(refKey{old.TypeURL, x.name, x.version}, &xds.Resource{Name: x.name, Version: x.version, TypeURL: old.TypeURL, Body: body})
			tables.CompareAndDelete(refKey{old.TypeURL, x.name, old.Version}, v)
		}
		return errors.Is(err, patch.ErrBase)
	})
	return err
}

// refsOf is what a cluster or listener makes a proxy ask for.
func refsOf(typeURL string, x resource, body []byte) ([]string, error) {
	if typeURL != xds.ClusterType && typeURL != xds.ListenerType {
		return nil, nil
	}
	k := refKey{typeURL, x.name, x.version}
	if v, ok := refs.Load(k); ok {
		return v.([]string), nil
	}
	var out []string
	var err error
	if typeURL == xds.ClusterType {
		out, err = clusterRefs(body)
	} else {
		out, err = listenerRefs(body)
	}
	if err == nil {
		refs.Store(k, out)
	}
	return out, err
}

func clusterRefs(body []byte) ([]string, error) {
	var c clusterv3.Cluster
	if err := proto.Unmarshal(body, &c); err != nil || c.GetType() != clusterv3.Cluster_EDS {
		return nil, err
	}
	if s := c.GetEdsClusterConfig().GetServiceName(); s != "" {
		return []string{intern([]byte(s))}, nil
	}
	return []string{intern([]byte(c.GetName()))}, nil
}

func listenerRefs(body []byte) ([]string, error) {
	var l listenerv3.Listener
	if err := proto.Unmarshal(body, &l); err != nil {
		return nil, err
	}
	var out []string
	for _, fc := range append(l.GetFilterChains(), l.GetDefaultFilterChain()) {
		for _, f := range fc.GetFilters() {
			var m hcmv3.HttpConnectionManager
			if !f.GetTypedConfig().MessageIs(&m) {
				continue
			}
			if err := f.GetTypedConfig().UnmarshalTo(&m); err != nil {
				return nil, err
			}
			if n := m.GetRds().GetRouteConfigName(); n != "" {
				out = append(out, intern([]byte(n)))
			}
		}
	}
	return out, nil
}
