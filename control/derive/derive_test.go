package derive_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/control/derive"
	"weft.mesh/weft/model"
)

func key(kind model.Kind, name string) model.Key {
	return model.Key{Kind: kind, Namespace: "shop", Name: name}
}

func TestInputsNoteWhatChanges(t *testing.T) {
	in := derive.NewInputs[string](func(k model.Kind) bool { return k == model.KindIngress })
	a, svc := key(model.KindIngress, "a"), key(model.KindService, "a")
	setting := 1
	steps := []struct {
		name             string
		do               func()
		changed, leading bool
	}{
		{"nothing yet", func() {}, false, false},
		{"an object that does not lead", func() { in.Put(svc, "v1") }, true, false},
		{"one that leads", func() { in.Put(a, "v1") }, true, true},
		{"the same again", func() { in.Put(a, "v1") }, false, true},
		{"another value", func() { in.Put(a, "v2") }, true, true},
		{"the same setting", func() { derive.Replace(in, &setting, 1) }, false, true},
		{"another setting", func() { derive.Replace(in, &setting, 2) }, true, true},
		{"one that was never there goes", func() { in.Delete(key(model.KindIngress, "b")) }, false, true},
		{"the leading one goes", func() { in.Delete(a) }, true, false},
		{"and again", func() { in.Delete(a) }, false, false},
	}
	for _, s := range steps {
		s.do()
		if got := in.Changed(); got != s.changed {
			t.Errorf("%s: changed %t", s.name, got)
		}
		if in.Changed() {
			t.Errorf("%s: changed twice", s.name)
		}
		if got := in.Leading(); got != s.leading {
			t.Errorf("%s: leading %t", s.name, got)
		}
	}
	if setting != 2 || in.Get(svc) != "v1" || in.Get(a) != "" {
		t.Errorf("setting %d, Service %q, Ingress %q", setting, in.Get(svc), in.Get(a))
	}
}

func TestInputsComeInOneOrder(t *testing.T) {
	in := derive.NewInputs[int](func(model.Kind) bool { return false })
	for i, k := range []model.Key{key(model.KindService, "b"), key(model.KindIngress, "z"), key(model.KindService, "a")} {
		in.Put(k, i)
	}
	var got []model.Key
	for k := range in.All() {
		got = append(got, k)
	}
	if want := []model.Key{key(model.KindIngress, "z"), key(model.KindService, "a"), key(model.KindService, "b")}; !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

func TestChangesAreWhatDiffers(t *testing.T) {
	object := func(name, host string) []model.Object {
		k := key(model.KindService, name)
		return []model.Object{&model.Service{Meta: model.Meta{Key: k}, Host: host}}
	}
	same, other, gone, made := key(model.KindService, "same"), key(model.KindService, "other"), key(model.KindService, "gone"), key(model.KindService, "made")
	last := map[model.Key][]model.Object{same: object("same", "1"), other: object("other", "1"), gone: object("gone", "1")}
	next := map[model.Key][]model.Object{same: object("same", "1"), other: object("other", "2"), made: object("made", "1")}
	fresh := maps.Clone(next)
	want := []derive.Change{{Key: gone}, {Key: made, Objects: fresh[made]}, {Key: other, Objects: fresh[other]}}
	got := derive.Changes(last, next)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if next[same][0] != last[same][0] || next[other][0] != fresh[other][0] {
		t.Error("a value that is equal has another pointer, or one that is not has the old one")
	}
	if again := derive.Changes(next, maps.Clone(next)); again != nil {
		t.Errorf("nothing differs: %v", again)
	}
}
