// Package rollout decides which pods of a Deployment to make and which to end.
//
// It is pure: the wanted state and the pods that exist in, the next steps out.
// Calling [Next] again after every change of a pod carries a rollout through:
// new pods first as far as the surge allows, old ones away as far as enough
// pods stay available.
package rollout

import (
	"cmp"
	"slices"
)

// Pod is what a decision needs to know of a pod.
type Pod struct {
	Name    string
	Hash    string // of the template it was made from
	Ready   bool
	Ending  bool   // told to end, still there
	Ordinal uint64 // grows with every pod made: a larger one is younger
}

// Want is the state to reach.
type Want struct {
	Hash           string
	Replicas       int
	Recreate       bool // end all old pods before new ones are made
	MaxSurge       int
	MaxUnavailable int
}

// Steps are what to do now.
type Steps struct {
	Create int      // pods to make from the wanted template
	End    []string // names of pods to end
}

// Done says that there is nothing to do now.
func (s Steps) Done() bool { return s.Create == 0 && len(s.End) == 0 }

// Done tells whether a rollout has ended: there are as many pods as wanted, all of the
// template and ready, and none that was told to end is left.
func Done(hash string, replicas int, pods []Pod) bool {
	for _, p := range pods {
		if p.Hash != hash || !p.Ready || p.Ending {
			return false
		}
	}
	return len(pods) == replicas
}

// Next says what to do now.
func Next(w Want, pods []Pod) Steps {
	var fresh, old []Pod
	ending := 0
	for _, p := range pods {
		switch {
		case p.Ending && p.Hash != w.Hash:
			ending++
		case p.Ending:
		case p.Hash == w.Hash:
			fresh = append(fresh, p)
		default:
			old = append(old, p)
		}
	}
	slices.SortFunc(fresh, endFirst)
	slices.SortFunc(old, endFirst)
	if w.Recreate {
		return recreate(w, fresh, old, ending)
	}
	var s Steps
	// Scaling down ends new pods only when there are too many of those alone.
	if over := len(fresh) - w.Replicas; over > 0 {
		s.end(fresh[:over])
		fresh = fresh[over:]
	}
	surge := w.Replicas + w.MaxSurge - len(fresh) - len(old)
	s.Create = max(0, min(w.Replicas-len(fresh), surge))
	s.endOld(w, fresh, old)
	return s
}

// endOld ends old pods: those that are not ready cost nothing, of the ready
// ones as many as may be missing.
func (s *Steps) endOld(w Want, fresh, old []Pod) {
	available := readyCount(fresh) + readyCount(old)
	spare := available - (w.Replicas - w.MaxUnavailable)
	for _, p := range old {
		switch {
		case !p.Ready:
			s.End = append(s.End, p.Name)
		case spare > 0:
			s.End = append(s.End, p.Name)
			spare--
		}
	}
}

func recreate(w Want, fresh, old []Pod, ending int) Steps {
	var s Steps
	s.end(old)
	if over := len(fresh) - w.Replicas; over > 0 {
		s.end(fresh[:over])
	}
	if len(old) == 0 && ending == 0 {
		s.Create = max(0, w.Replicas-len(fresh))
	}
	return s
}

func (s *Steps) end(pods []Pod) {
	for _, p := range pods {
		s.End = append(s.End, p.Name)
	}
}

func readyCount(pods []Pod) int {
	n := 0
	for _, p := range pods {
		if p.Ready {
			n++
		}
	}
	return n
}

// endFirst orders pods by who goes first: not ready before ready, young before old.
func endFirst(a, b Pod) int {
	if a.Ready != b.Ready {
		if b.Ready {
			return -1
		}
		return 1
	}
	return cmp.Compare(b.Ordinal, a.Ordinal)
}
