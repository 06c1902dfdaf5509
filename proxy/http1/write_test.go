package http1

import (
	"testing"

	"weft.mesh/weft/proxy/stream"
)

// Lines that are copied as they stand in the buffer must read as those that are written one by one.
func TestLinesInOneCopyReadAsSingleOnes(t *testing.T) {
	for _, head := range []string{
		"A: 1\r\nB: 2\r\nC: 3\r\n\r\n",
		"A: 1\r\nContent-Length: 0\r\nB: 2\r\n\r\n",
		"A: 1\r\nTransfer-Encoding: chunked\r\nB: 2\r\nC: 3\r\n\r\n",
		"A:1\r\nB:\t2\r\nC:  3\r\nD: 4 \r\nE: 5\t\r\nF: 6\r\nG: 7\r\n\r\n",
		"A:\r\nB: \r\nC: 3\r\nD:\r\nE: x y\tz\r\n\r\n",
		"Host: a\r\nA: 1\r\nConnection: close\r\nB: 2\r\n\r\n",
		"Connection: B\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n",
		"A: 1\r\n\r\n",
		"\r\n",
	} {
		for _, memo := range []*names{nil, namesOf([]byte(head)), namesOf([]byte("A: 1\r\nX: 1\r\nB: 2\r\n\r\n"))} {
			for i, change := range []func(f *stream.Fields){
				func(*stream.Fields) {},
				func(f *stream.Fields) { f.Del("b") },
				func(f *stream.Fields) { f.Set("B", "new") },
				func(f *stream.Fields) { f.Add("x-more", "v"); f.Set("a", "") },
			} {
				fast := parsed(t, head, memo)
				var slow stream.Fields
				for _, l := range fast.All() {
					slow.Append(l.Name, l.Value)
				}
				change(fast)
				change(&slow)
				if got, want := written(t, fast), written(t, &slow); got != want {
					t.Errorf("%q, change %d: wrote %q, want %q", head, i, got, want)
				}
			}
		}
	}
}

func parsed(t *testing.T, head string, memo *names) *stream.Fields {
	t.Helper()
	f, ctl := &stream.Fields{}, control{}
	n, _, perr := parseFields([]byte(head), f, &ctl, 100, memo)
	if perr != nil || n != len(head) {
		t.Fatalf("%q: %d, %v", head, n, perr)
	}
	if ctl.listed {
		dropListed([]byte(head[:n-2]), f)
	}
	return f
}

// Fields that another codec has checked lie anywhere; the race detector's build finds a look behind their memory.
func TestCheckedFieldsMayLieAnywhere(t *testing.T) {
	arena := append(make([]byte, 0, 64), "onetwo"...)
	var f stream.Fields
	f.AppendChecked([]byte("a"), []byte("b"))
	f.AppendChecked(arena[:3:3], arena[3:6:6])
	f.AppendChecked(arena[:3], arena[3:6])
	whole := []byte("x: y\r\nz: v\r\n")
	f.AppendChecked(whole[:1:4], whole[3:4])
	f.AppendChecked(whole[6:7], whole[9:10])
	f.AppendChecked(stringBytes("static"), nil)
	if got, want := written(t, &f), "a: b\r\none: two\r\none: two\r\nx: y\r\nz: v\r\nstatic: \r\n"; got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
}

func written(t *testing.T, f *stream.Fields) string {
	t.Helper()
	var w writer
	defer w.release()
	if !w.fields(f) {
		t.Fatal("refused")
	}
	if w.mem == nil {
		return ""
	}
	return string(w.mem[:w.n])
}

// What is set after a codec has checked a field is looked at before it is sent.
func TestAValueSetLaterIsChecked(t *testing.T) {
	for _, set := range []func(f *stream.Fields){
		func(f *stream.Fields) { f.Set("a", "1\r\nevil: 2") },
		func(f *stream.Fields) { f.SetAt(0, []byte("1\nx")) },
		func(f *stream.Fields) { f.Add("b\r\nevil", "2") },
	} {
		var f stream.Fields
		var ctl control
		if _, _, perr := parseFields([]byte("A: 1\r\nB: 2\r\n\r\n"), &f, &ctl, 100, nil); perr != nil {
			t.Fatal(perr)
		}
		set(&f)
		var w writer
		if w.fields(&f) {
			t.Errorf("wrote %q", w.mem[:w.n])
		}
		w.release()
	}
}
