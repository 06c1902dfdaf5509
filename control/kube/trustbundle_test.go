package kube

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const bundles = "certificates.k8s.io/v1beta1/clustertrustbundles"

func TestTheTrustBundleFollowsTheRoots(t *testing.T) {
	s, c, log, text := start(t)
	var roots atomic.Pointer[[]byte]
	set := func(pem string) { b := []byte(pem); roots.Store(&b) }
	set("one")
	var wanted atomic.Bool
	changed := make(chan struct{}, 1)
	running(t, (&TrustBundle{Client: c, Roots: func() []byte { return *roots.Load() }, Wanted: wanted.Load, Changed: changed, Log: log, every: 20 * time.Millisecond}).Run)

	wanted.Store(true)
	eventually(t, "nobody says that the kind is not served", func() bool {
		return strings.Contains(text.String(), "global.clusterTrustBundle=false")
	})
	s.Install("certificates.k8s.io/v1beta1", "clustertrustbundles", "ClusterTrustBundle", false)
	is := func(want string) func() bool {
		return func() bool {
			spec, _ := s.Get(bundles, "", TrustBundleName)["spec"].(obj)
			return spec != nil && spec["trustBundle"] == want && spec["signerName"] == TrustBundleSigner
		}
	}
	eventually(t, "no bundle", is("one"))
	set("two")
	changed <- struct{}{}
	eventually(t, "the bundle does not follow", is("two"))
	u := s.Get(bundles, "", TrustBundleName)
	u["spec"].(obj)["trustBundle"] = "theirs"
	s.Put(bundles, u)
	eventually(t, "what others wrote stays", is("two"))
	s.Delete(bundles, "", TrustBundleName)
	eventually(t, "a bundle that was deleted stays away", is("two"))
}

func TestATrustBundleThatNobodyWantsIsNotWritten(t *testing.T) {
	s, c, log, _ := start(t)
	s.Install("certificates.k8s.io/v1beta1", "clustertrustbundles", "ClusterTrustBundle", false)
	var asked atomic.Int64
	running(t, (&TrustBundle{Client: c, Roots: func() []byte { return []byte("one") }, Log: log, every: time.Millisecond,
		Wanted: func() bool { asked.Add(1); return false }}).Run)
	eventually(t, "it never asks", func() bool { return asked.Load() > 3 })
	if w := s.Writes(); len(w) > 0 {
		t.Errorf("wrote %v", w)
	}
}
