package http1

import (
	"fmt"
	"testing"

	"weft.mesh/weft/proxy/stream"
)

// FuzzNames: what is remembered of other heads changes nothing of how a head is understood.
func FuzzNames(f *testing.F) {
	for _, lines := range []string{
		"Host: a\r\nAccept: */*\r\nX-A: 1\r\n\r\n", "host: a\r\naccept:*/*\r\nx-a:  1 \r\n\r\n", "Host: a\r\nX-A: 1\x00\r\n\r\n", "Host: a\r\nX-A: 1\n\r\n",
		"Host: a\r\nX-A: \r\nX-A: \t1\r\n\r\n", "Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "Host: a\r\nX-A : 1\r\n\r\n", "Host: a\r\n X-A: 1\r\n\r\n",
		"Host: a\r\nX-A: 1\r\rX: 2\r\n\r\n", "Host: a\r\nX-A: 1", "Host: a\r\nX-A: 1\r", "Host: \r\n\r\n", "\r\n", "X-A: \x80\xff\x7f\r\n\r\n",
	} {
		f.Add("Host: a\r\nAccept: */*\r\nX-A: 1\r\n\r\n", lines)
		f.Add(lines, "Host: a\r\nAccept: */*\r\nX-A: 1\r\n\r\n")
	}
	f.Fuzz(func(t *testing.T, before, lines string) {
		var memo *names
		var ctl control
		if n, _, err := parseFields([]byte(before), &stream.Fields{}, &ctl, 100, nil); err == nil && n > 0 {
			memo = namesOf([]byte(before[:n]))
		}
		plain, withMemo := understood(lines, nil), understood(lines, memo)
		if plain != withMemo {
			t.Errorf("%q after %q:\n%s\nalone:\n%s", lines, before, withMemo, plain)
		}
	})
}

func understood(lines string, memo *names) string {
	var f stream.Fields
	var ctl control
	n, _, err := parseFields([]byte(lines), &f, &ctl, 4, memo)
	if err != nil {
		return fmt.Sprint(*err) // nobody looks at what came before
	}
	s := fmt.Sprintf("%d %+v", n, ctl)
	for _, l := range f.All() {
		s += fmt.Sprintf("\n%q %q %v", l.Name, l.Value, l.Checked())
	}
	return s
}

func TestNamesAreFoundAlsoWhenAFieldIsNewOrMissing(t *testing.T) {
	memo := namesOf([]byte("A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n"))
	for lines, want := range map[string]int{
		"A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n": 0, "A: 1\r\nNEW: 2\r\nB: 2\r\nC: 3\r\nD: 4\r\n\r\n": 1, "A: 1\r\nC: 3\r\nD: 4\r\n\r\n": 0, "E: 1\r\n\r\n": 1,
	} {
		var f stream.Fields
		var ctl control
		if n, strange, err := parseFields([]byte(lines), &f, &ctl, 100, memo); err != nil || n != len(lines) || strange != want {
			t.Errorf("%q: %d bytes, %d strange lines (want %d), %v", lines, n, strange, want, err)
		}
	}
}
