package hotrestart

import (
	"encoding/json"
	"reflect"
	"testing"
)

// FuzzMessage: whatever comes, decode refuses it or gives a message within its bounds that
// says the same when it is sent on.
func FuzzMessage(f *testing.F) {
	for _, m := range []message{
		{Type: msgHello, Min: 1, Max: 1, Peer: self},
		{Type: msgWelcome, Version: 1, Peer: self, Epoch: 3, StartedMS: 1, Inherited: []uint16{80}},
		{Type: msgTake, Key: Key{Listener, "0.0.0.0:15001"}},
		{Type: msgServing, DrainMS: 45000, ShutdownMS: 60000},
		{Type: msgRefused, Reason: "no"}, {Type: msgSocket}, {Type: msgNone}, {Type: msgDraining},
	} {
		b, err := encode(&m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-1])
	}
	f.Add([]byte(`{"type":"take","kind":"listener","Kind":"admin","address":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		if !json.Valid(b) || len(b) > maxMessage {
			t.Fatalf("accepted %q", b)
		}
		if len(m.Address) > maxText || len(m.Reason) > maxText || len(m.Node) > maxText || m.Type == msgServing && m.ShutdownMS > maxDuration.Milliseconds() {
			t.Fatalf("out of bounds: %+v", m)
		}
		out, err := encode(m)
		if err != nil {
			return // escaped it may be longer than what came
		}
		again, err := decode(out)
		if err != nil {
			t.Fatalf("%+v is refused when sent on: %v", m, err)
		}
		if len(m.Inherited) == 0 {
			m.Inherited, again.Inherited = nil, nil
		}
		if !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v became %+v", m, again)
		}
	})
}
