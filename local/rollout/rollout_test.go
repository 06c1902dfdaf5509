package rollout

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func pod(name, hash string, ready bool, n uint64) Pod {
	return Pod{Name: name, Hash: hash, Ready: ready, Ordinal: n}
}

func TestNext(t *testing.T) {
	ending := func(p Pod) Pod { p.Ending = true; return p }
	rolling := Want{Hash: "new", Replicas: 2, MaxSurge: 1}
	tests := []struct {
		name string
		want Want
		pods []Pod
		next Steps
	}{
		{"a new deployment makes all replicas at once", rolling, nil, Steps{Create: 2}},
		{"a complete deployment rests", rolling, []Pod{pod("a", "new", true, 1), pod("b", "new", true, 2)}, Steps{}},
		{"a pod that is not ready yet is waited for", rolling, []Pod{pod("a", "new", true, 1), pod("b", "new", false, 2)}, Steps{}},
		{"a pod that is ending is replaced at once", rolling, []Pod{pod("a", "new", true, 1), ending(pod("b", "new", true, 2))}, Steps{Create: 1}},
		{"a change makes one pod above the replicas first", rolling, []Pod{pod("a", "old", true, 1), pod("b", "old", true, 2)}, Steps{Create: 1}},
		{"old pods stay while the new one is not ready", rolling,
			[]Pod{pod("a", "old", true, 1), pod("b", "old", true, 2), pod("c", "new", false, 3)}, Steps{}},
		{"a ready new pod lets one old pod go", rolling,
			[]Pod{pod("a", "old", true, 1), pod("b", "old", true, 2), pod("c", "new", true, 3)}, Steps{End: []string{"b"}}},
		{"an old pod that is not ready goes at once", rolling,
			[]Pod{pod("a", "old", false, 1), pod("b", "old", true, 2), pod("c", "new", false, 3)}, Steps{End: []string{"a"}}},
		{"without surge a pod must go first", Want{Hash: "new", Replicas: 2, MaxUnavailable: 1},
			[]Pod{pod("a", "old", true, 1), pod("b", "old", true, 2)}, Steps{End: []string{"b"}}},
		{"scaling down ends pods that are not ready, then the youngest", Want{Hash: "new", Replicas: 1, MaxSurge: 1},
			[]Pod{pod("a", "new", true, 1), pod("b", "new", true, 2), pod("c", "new", false, 3)}, Steps{End: []string{"c", "b"}}},
		{"no replicas end everything", Want{Hash: "new"}, []Pod{pod("a", "new", true, 1), pod("b", "old", true, 2)}, Steps{End: []string{"a", "b"}}},
		{"recreate ends the old pods first", Want{Hash: "new", Replicas: 2, Recreate: true},
			[]Pod{pod("a", "old", true, 1), pod("b", "old", true, 2)}, Steps{End: []string{"b", "a"}}},
		{"recreate waits until old pods are gone", Want{Hash: "new", Replicas: 2, Recreate: true},
			[]Pod{ending(pod("a", "old", true, 1))}, Steps{}},
		{"recreate then makes all", Want{Hash: "new", Replicas: 2, Recreate: true}, nil, Steps{Create: 2}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if d := cmp.Diff(tt.next, Next(tt.want, tt.pods)); d != "" {
				t.Error(d)
			}
		})
	}
}

// Whatever happens to pods, the bounds of a rollout hold and it reaches its end.
func TestRandomRolloutsKeepTheirBoundsAndEnd(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := Want{Hash: "0", Replicas: 1 + r.IntN(6), MaxSurge: r.IntN(3), MaxUnavailable: r.IntN(2)}
		if w.MaxSurge+w.MaxUnavailable == 0 {
			w.MaxSurge = 1
		}
		var pods []Pod
		var n uint64
		reached := false
		for step := range 400 {
			if step > 0 && step%60 == 0 && step < 300 {
				w.Hash = fmt.Sprint(step)
			}
			before := readyCount(alive(pods))
			s := Next(w, pods)
			for range s.Create {
				n++
				pods = append(pods, pod(fmt.Sprint(n), w.Hash, false, n))
			}
			if live := len(alive(pods)); live > w.Replicas+w.MaxSurge && s.Create > 0 {
				t.Fatalf("seed %d: %d pods, want at most %d", seed, live, w.Replicas+w.MaxSurge)
			}
			for i := range pods {
				for _, name := range s.End {
					if pods[i].Name == name {
						pods[i].Ending = true
					}
				}
			}
			if after := readyCount(alive(pods)); after < before && after < w.Replicas-w.MaxUnavailable {
				t.Fatalf("seed %d: went from %d to %d available, want at least %d", seed, before, after, w.Replicas-w.MaxUnavailable)
			}
			// One pod makes progress.
			if len(pods) > 0 {
				i := r.IntN(len(pods))
				if pods[i].Ending {
					pods = append(pods[:i], pods[i+1:]...)
				} else {
					pods[i].Ready = true
				}
			}
			reached = s.Done() && len(pods) == w.Replicas && readyCount(pods) == w.Replicas
		}
		if !reached {
			t.Fatalf("seed %d: not done: want %+v, have %+v", seed, w, pods)
		}
	}
}

func alive(pods []Pod) []Pod {
	var out []Pod
	for _, p := range pods {
		if !p.Ending {
			out = append(out, p)
		}
	}
	return out
}

func TestDone(t *testing.T) {
	ending := pod("b", "new", true, 2)
	ending.Ending = true
	tests := []struct {
		name     string
		replicas int
		pods     []Pod
		want     bool
	}{
		{"all there", 1, []Pod{pod("a", "new", true, 1)}, true},
		{"none wanted", 0, nil, true},
		{"none made yet", 1, nil, false},
		{"not begun", 1, []Pod{pod("a", "old", true, 1)}, false},
		{"not ready", 1, []Pod{pod("a", "new", false, 1)}, false},
		{"the old one still serves", 1, []Pod{pod("a", "new", true, 2), pod("b", "old", true, 1)}, false},
		{"one ends", 1, []Pod{pod("a", "new", true, 1), ending}, false},
		{"one too few", 2, []Pod{pod("a", "new", true, 1)}, false},
	}
	for _, tt := range tests {
		if got := Done("new", tt.replicas, tt.pods); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}
