package http2

import (
	"encoding/base64"
	"strings"
	"testing"

	msg "weft.mesh/weft/proxy/stream"
)

func TestSettingsOfAnUpgradeAreChecked(t *testing.T) {
	entry := func(id byte, v uint32) string {
		return string([]byte{0, id, byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	}
	r := &msg.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("a")}
	for name, tc := range map[string]struct {
		raw  string
		want bool
	}{
		"none":                      {"", true},
		"usual ones":                {entry(3, 100) + entry(4, 1<<20) + entry(2, 0), true},
		"an unknown one":            {entry(99, 1<<31), true},
		"push of two":               {entry(2, 2), false},
		"a window that overflows":   {entry(4, 1<<31), false},
		"frames too small":          {entry(5, 16383), false},
		"frames too large":          {entry(5, 1<<24), false},
		"CONNECT of two":            {entry(8, 2), false},
		"half an entry":             {entry(3, 1) + "abc", false},
		"more than anyone can mean": {strings.Repeat(entry(3, 1), 33), false},
	} {
		if got := NewUpgrade(r, []byte(base64.RawURLEncoding.EncodeToString([]byte(tc.raw)))) != nil; got != tc.want {
			t.Errorf("%s: taken %v, want %v", name, got, tc.want)
		}
	}
	for _, v := range []string{"AAMAAABkAAQ", "AAMAAAB+", "AAMA AABk", "AAMAAABk=", "AAMAAA\nBk", "%%%%"} {
		if NewUpgrade(r, []byte(v)) != nil {
			t.Errorf("%q was taken", v)
		}
	}
}

func TestAnUpgradesRequestIsCopied(t *testing.T) {
	r := &msg.Request{Method: []byte("GET"), Path: []byte("/p"), Authority: []byte("a"), Scheme: []byte("http"), TETrailers: true}
	name, value := []byte("X-Some"), []byte("Value")
	r.Fields.Append(name, value)
	u := NewUpgrade(r, nil)
	for _, b := range [][]byte{r.Method, r.Path, r.Authority, r.Scheme, name, value} {
		clear(b)
	}
	q := &u.req
	if string(q.Method) != "GET" || string(q.Path) != "/p" || string(q.Authority) != "a" || string(q.Scheme) != "http" || !q.TETrailers || q.Proto != msg.HTTP2 {
		t.Errorf("%+v", q)
	}
	if f := q.Fields.At(0); string(f.Name) != "x-some" || string(f.Value) != "Value" {
		t.Errorf("%q: %q", f.Name, f.Value)
	}
}
