package xdsclient

import (
	"context"
	"os"
	"testing"
	"time"

	"weft.mesh/weft/xds"
)

func TestFlushWritesAtOnceAndRetireWritesNoMore(t *testing.T) {
	r := newRig(t)
	r.fake.Set(res(xds.ClusterType, "c", "e"), res(xds.EndpointType, "e", "1"))
	stop := r.start(t)
	r.sink.until(t, "endpoints", func() bool { return r.sink.has(xds.EndpointType, "e", "1") })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	r.client.Flush(ctx)
	held, err := loadFile(r.set.File, node.GetId())
	if err != nil || len(held) != 2 {
		t.Fatalf("after Flush the file holds %d resources, %v", len(held), err)
	}
	r.client.Retire()
	r.fake.Set(res(xds.EndpointType, "e", "2"))
	r.sink.until(t, "new endpoints", func() bool { return r.sink.has(xds.EndpointType, "e", "2") })
	if err := os.Remove(r.set.File); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := os.Stat(r.set.File); err == nil {
		t.Error("a retired client writes")
	}
}

func TestFlushOfAClientThatDoesNotRunGivesUp(t *testing.T) {
	r := newRig(t)
	c, err := New(r.set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	c.Flush(ctx)
}
