package fields

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

func message() []byte {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "one")
	b = protowire.AppendVarint(protowire.AppendTag(b, 2, protowire.VarintType), 300)
	b = protowire.AppendFixed64(protowire.AppendTag(b, 3, protowire.Fixed64Type), 7)
	return protowire.AppendString(protowire.AppendTag(b, 1, protowire.BytesType), "")
}

func TestFieldsWithALengthAreVisited(t *testing.T) {
	var got []string
	if err := Each(message(), func(n protowire.Number, v []byte) error { got = append(got, fmt.Sprintf("%d=%s", n, v)); return nil }); err != nil {
		t.Fatal(err)
	}
	if s := strings.Join(got, " "); s != "1=one 1=" {
		t.Errorf("visited %q", s)
	}
}

func TestWhatIsCutOffIsAnError(t *testing.T) {
	whole := message()
	ends := map[int]bool{0: true, 5: true, 8: true, 17: true, len(whole): true} // between two fields
	for n := range whole {
		if err := Each(whole[:n], func(protowire.Number, []byte) error { return nil }); (err == nil) != ends[n] {
			t.Errorf("%d of %d bytes: error %v", n, len(whole), err)
		}
	}
	stop := errors.New("stop")
	if err := Each(whole, func(protowire.Number, []byte) error { return stop }); err != stop {
		t.Errorf("error %v, want the visitor's", err)
	}
}
