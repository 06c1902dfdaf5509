package convert

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// TestEveryReachableMessageHasAnAllowList: a message that is reached through
// supported fields and is not listed would refuse all its fields; a listed
// field that the API does not have is a mistake.
func TestEveryReachableMessageHasAnAllowList(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	var visit func(d protoreflect.MessageDescriptor)
	visit = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] || d.ParentFile().Package() == "google.protobuf" {
			return
		}
		seen[d.FullName()] = true
		s := istioSupport(string(d.FullName()))
		if len(s.allowed) == 0 && d.Fields().Len() > 0 {
			t.Errorf("%s can be reached and has no allow-list", d.FullName())
		}
		known := map[string]bool{}
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			known[fd.JSONName()] = true
			if s.check(fd.JSONName()) != nil {
				continue
			}
			if fd.IsMap() {
				fd = fd.MapValue()
			}
			if fd.Message() != nil {
				visit(fd.Message())
			}
		}
		for _, names := range []map[string]bool{s.allowed, keys(s.hints), keys(s.gone)} {
			for n := range names {
				if !known[n] {
					t.Errorf("%s has no field %q", d.FullName(), n)
				}
			}
		}
	}
	for _, k := range kinds() {
		if v := k.new(); isIstio(v) {
			visit(v.(proto.Message).ProtoReflect().Descriptor())
		}
	}
	if len(seen) < 40 {
		t.Errorf("only %d messages were visited", len(seen))
	}
}

func keys(m map[string]string) map[string]bool {
	out := map[string]bool{}
	for k := range m {
		out[k] = true
	}
	return out
}

// TestDeprecatedAndHiddenFieldsAreNotAllowed uses the API's own marks.
func TestDeprecatedFieldsAreNotAllowed(t *testing.T) {
	seen := map[protoreflect.FullName]bool{}
	var visit func(d protoreflect.MessageDescriptor)
	visit = func(d protoreflect.MessageDescriptor) {
		if seen[d.FullName()] || d.ParentFile().Package() == "google.protobuf" {
			return
		}
		seen[d.FullName()] = true
		s := istioSupport(string(d.FullName()))
		for i := range d.Fields().Len() {
			fd := d.Fields().Get(i)
			if o, ok := fd.Options().(interface{ GetDeprecated() bool }); ok && o.GetDeprecated() && s.check(fd.JSONName()) == nil {
				t.Errorf("%s.%s is deprecated and allowed", d.FullName(), fd.JSONName())
			}
			if fd.IsMap() {
				fd = fd.MapValue()
			}
			if fd.Message() != nil {
				visit(fd.Message())
			}
		}
	}
	for _, k := range kinds() {
		if v := k.new(); isIstio(v) {
			visit(v.(proto.Message).ProtoReflect().Descriptor())
		}
	}
}

func TestNearestFindsWhatWasMeant(t *testing.T) {
	names := []string{"loadBalancer", "connectionPool", "outlierDetection", "tls", "v1", "v2"}
	for in, want := range map[string]string{
		"load_balancer": "loadBalancer", "LoadBalancer": "loadBalancer", "loadBalancr": "loadBalancer", "tsl": "", "tl": "tls", "v3": "v1", "whatever": "", "outlierdetection": "outlierDetection",
	} {
		if got := Nearest(in, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", in, got, want)
		}
	}
}
