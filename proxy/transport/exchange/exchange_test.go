package exchange_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"weft.mesh/weft/proxy/stream"
	"weft.mesh/weft/proxy/transport/exchange"
)

func TestPreambleOnTheWire(t *testing.T) {
	n, err := exchange.NewNode("node", &stream.Workload{Name: "reviews-v1"})
	if err != nil {
		t.Fatal(err)
	}
	p := n.Preamble()
	if binary.BigEndian.Uint32(p) != 0x3D230467 || int(binary.BigEndian.Uint32(p[4:])) != len(p)-8 {
		t.Errorf("header % x, want the magic number and %d", p[:8], len(p)-8)
	}
	for _, s := range []string{"type.googleapis.com/google.protobuf.Struct", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id", "WORKLOAD_NAME", "reviews-v1"} {
		if !bytes.Contains(p, []byte(s)) {
			t.Errorf("%q is not in the preamble", s)
		}
	}
}

func TestReadLeavesWhatFollows(t *testing.T) {
	n, err := exchange.NewNode("node", &stream.Workload{Name: "a", Namespace: "b"})
	if err != nil {
		t.Fatal(err)
	}
	r := strings.NewReader(string(n.Preamble()) + "data")
	w, err := exchange.Read(r)
	if err != nil || *w != (stream.Workload{Name: "a", Namespace: "b"}) {
		t.Fatalf("Read = %+v, %v", w, err)
	}
	if r.Len() != len("data") {
		t.Errorf("%d bytes left, want 4", r.Len())
	}
}

func TestBadPreamblesAreRefused(t *testing.T) {
	n, err := exchange.NewNode("node", &stream.Workload{})
	if err != nil {
		t.Fatal(err)
	}
	good := n.Preamble()
	tests := map[string]struct {
		in   []byte
		want string
	}{
		"another protocol": {[]byte("GET / HTTP/1.1\r\n"), "begins with"},
		"too long":         {binary.BigEndian.AppendUint32(append([]byte(nil), good[:4]...), exchange.MaxSize+1), "at most"},
		"cut off":          {good[:len(good)-1], "unexpected EOF"},
		"no protobuf":      {append(binary.BigEndian.AppendUint32(append([]byte(nil), good[:4]...), 3), 0xff, 0xff, 0xff), "preamble"},
	}
	for name, tt := range tests {
		if _, err := exchange.Read(bytes.NewReader(tt.in)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error with %q", name, err, tt.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	n, err := exchange.NewNode("node", &stream.Workload{Name: "a"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(n.Preamble())
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := exchange.Read(bytes.NewReader(b))
		if err == nil && w != nil && len(w.Name) > 256 {
			t.Errorf("name of %d bytes", len(w.Name))
		}
	})
}
