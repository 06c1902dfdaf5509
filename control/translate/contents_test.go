package translate

import (
	"fmt"
	"runtime"
	"testing"
	"weak"

	"weft.mesh/weft/xds"
)

func TestEqualContentIsOneResource(t *testing.T) {
	var c contents
	a := c.one(xds.NewResource("T", "a", []byte("x")))
	if b := c.one(xds.NewResource("T", "a", []byte("x"))); a != b {
		t.Error("the same content is two resources")
	}
	for _, other := range []*xds.Resource{xds.NewResource("T", "b", []byte("x")), xds.NewResource("U", "a", []byte("x")), xds.NewResource("T", "a", []byte("y"))} {
		if c.one(other) != other {
			t.Errorf("%+v is taken for %+v", other, a)
		}
	}
	runtime.KeepAlive(a)
}

// A change of a large mesh makes megabytes; what nobody has any more must not stay.
func TestContentThatNobodyHasIsForgotten(t *testing.T) {
	var c contents
	gone := weak.Make(c.one(xds.NewResource("T", "gone", make([]byte, 1<<20))))
	kept := c.one(xds.NewResource("T", "kept", []byte("x")))
	runtime.GC()
	runtime.GC()
	if gone.Value() != nil {
		t.Error("a resource that nobody has stays")
	}
	for i := range 2 * sweepSlack {
		c.one(xds.NewResource("T", fmt.Sprint(i), nil))
	}
	runtime.GC()
	c.sweep()
	if n := len(c.m); n > 2 { // the last one may still be on the stack
		t.Errorf("%d entries for one resource that somebody has", n)
	}
	if c.one(xds.NewResource("T", "kept", []byte("x"))) != kept {
		t.Error("a resource that somebody has was forgotten")
	}
}
