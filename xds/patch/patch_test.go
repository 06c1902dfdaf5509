package patch_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"weft.mesh/weft/xds"
	"weft.mesh/weft/xds/patch"
)

// table is a message with a name and one field for each host.
func table(hosts ...string) *xds.Resource {
	b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "80")
	for _, h := range hosts {
		b = protowire.AppendString(protowire.AppendTag(b, 2, protowire.BytesType), h)
	}
	b = protowire.AppendVarint(protowire.AppendTag(b, 7, protowire.VarintType), 1)
	return xds.NewResource(xds.RouteType, "80", b)
}

func hosts(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("host-%d %s", i, strings.Repeat("x", 100))
	}
	return out
}

func TestAPatchIsAsLargeAsTheChange(t *testing.T) {
	old := hosts(1000)
	for _, tc := range []struct {
		name   string
		change func([]string) []string
		most   int
	}{
		{"one is another", func(h []string) []string { h[500] = "other"; return h }, 60},
		{"three are others", func(h []string) []string { h[0], h[500], h[999] = "a", "b", "c"; return h }, 90},
		{"one is new", func(h []string) []string { return append(h[:300:300], append([]string{"new"}, h[300:]...)...) }, 60},
		{"one is gone", func(h []string) []string { return append(h[:300:300], h[301:]...) }, 60},
		{"two changed places", func(h []string) []string { h[10], h[900] = h[900], h[10]; return h }, 90},
		{"two are alike", func(h []string) []string { h[10] = h[900]; return h }, 160},
		{"nothing", func(h []string) []string { return h }, 40},
	} {
		t.Run(tc.name, func(t *testing.T) {
			from, to := table(old...), table(tc.change(append([]string(nil), old...))...)
			p := patch.Make(from, to)
			if p == nil || len(p) > tc.most {
				t.Fatalf("a patch of %d bytes, want at most %d", len(p), tc.most)
			}
			got, err := patch.Apply(from, p, to.Version)
			if err != nil || !bytes.Equal(got, to.Body) {
				t.Fatalf("applied: the same %v, error %v", bytes.Equal(got, to.Body), err)
			}
		})
	}
}

func TestWhatIsMostlyNewIsNoPatch(t *testing.T) {
	if p := patch.Make(table(hosts(4)...), table("a", "b", "c")); p != nil {
		t.Errorf("a patch of %d bytes for a table that is all new", len(p))
	}
	if p := patch.Make(xds.NewResource(xds.RouteType, "80", []byte("\xff")), table(hosts(4)...)); p != nil {
		t.Error("a patch from what is no message")
	}
}

func TestRandomChanges(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	list := hosts(60)
	from := table(list...)
	made := 0
	for i := range 500 {
		for range r.IntN(4) {
			switch k := r.IntN(len(list)); r.IntN(4) {
			case 0:
				list = append(list[:k:k], append([]string{fmt.Sprint("new ", i)}, list[k:]...)...)
			case 1:
				if len(list) > 20 {
					list = append(list[:k:k], list[k+1:]...)
				}
			case 2:
				list[k] = fmt.Sprint("changed ", i)
			case 3:
				list[0], list[k] = list[k], list[0]
			}
		}
		to := table(list...)
		if p := patch.Make(from, to); p != nil {
			made++
			if got, err := patch.Apply(from, p, to.Version); err != nil || !bytes.Equal(got, to.Body) {
				t.Fatalf("change %d: the same %v, error %v", i, bytes.Equal(got, to.Body), err)
			}
		}
		from = to
	}
	if made < 400 {
		t.Errorf("%d patches for 500 changes", made)
	}
}

func TestPatchesThatAreRefused(t *testing.T) {
	from := table(hosts(10)...)
	to := table(append(hosts(10), "new")...)
	good := patch.Make(from, to)
	copyOf := func(offset, n uint64) []byte {
		b := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), from.Version)
		return protowire.AppendBytes(protowire.AppendTag(b, 3, protowire.BytesType), protowire.AppendVarint(protowire.AppendVarint(nil, offset), n))
	}
	many := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), from.Version)
	for range patch.MaxBytes/len(from.Body) + 1 {
		many = append(many, copyOf(0, uint64(len(from.Body)))[len(protowire.AppendString([]byte{0}, from.Version)):]...)
	}
	for _, tc := range []struct {
		name  string
		patch []byte
		want  string
	}{
		{"empty", nil, "must begin with the version"},
		{"cut off", good[:len(good)-1], "patch:"},
		{"behind the end", copyOf(uint64(len(from.Body))+1, 0), "copy of"},
		{"longer than there is", copyOf(1, uint64(len(from.Body))), "copy of"},
		{"overflow", copyOf(1, 1<<64-1), "copy of"},
		{"another result", copyOf(0, 2), "leads to version"},
		{"too large", many, "more than"},
		{"an unknown field", append(append([]byte(nil), good...), 0x22, 0), "unknown field 4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := patch.Apply(from, tc.patch, to.Version); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q", err, tc.want)
			}
		})
	}
	if _, err := patch.Apply(to, good, to.Version); !errors.Is(err, patch.ErrBase) {
		t.Errorf("applied to another version: %v", err)
	}
	if _, err := patch.Apply(nil, good, to.Version); !errors.Is(err, patch.ErrBase) {
		t.Errorf("applied to nothing: %v", err)
	}
}

func FuzzApply(f *testing.F) {
	from, to := table(hosts(10)...), table(append(hosts(10), "new")...)
	f.Add(patch.Make(from, to))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, p []byte) {
		if got, err := patch.Apply(from, p, to.Version); err == nil && !bytes.Equal(got, to.Body) {
			t.Error("other bytes than the version says")
		}
	})
}

func BenchmarkMake(b *testing.B) {
	list := hosts(1000)
	from := table(list...)
	list[500] = "other"
	to := table(list...)
	b.ReportAllocs()
	for b.Loop() {
		patch.Make(from, to)
	}
}
