package server

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/snapshot"
	"weft.mesh/weft/control/status"
	"weft.mesh/weft/control/xdsserver"
	"weft.mesh/weft/model"
	"weft.mesh/weft/spiffe"
	"weft.mesh/weft/xds"
)

// retiring is a control plane with one pod and two connected proxies, one of them the pod's own.
func retiring(t *testing.T) (s *Server, gateway xdsserver.Witness, pod func(ready bool)) {
	t.Helper()
	s = &Server{store: snapshot.NewStore(snapshot.Settings{}), tracker: status.New()}
	pod = func(ready bool) {
		key := model.Key{Kind: model.KindPod, Namespace: "shop", Name: "web-1"}
		s.store.Apply(snapshot.Change{Key: key, Objects: []model.Object{&model.Workload{Meta: model.Meta{Key: key}, Ready: ready}}})
		s.store.Flush(nil)
	}
	pod(true)
	s.tracker.Connected(1, &xds.Node{ID: "sidecar~web-1", Namespace: "shop", Name: "web-1"}, spiffe.ID{})
	gateway = s.tracker.Connected(2, &xds.Node{ID: "router~gw-1", Namespace: "shop", Name: "gw-1"}, spiffe.ID{})
	gateway.Settled(s.world().Version())
	return s, gateway, pod
}

func ask(t *testing.T, s *Server) (out admin.Retired, took time.Duration) {
	t.Helper()
	start, w := time.Now(), httptest.NewRecorder()
	s.getRetired(w, httptest.NewRequest("GET", admin.PathRetired+"?namespace=shop&pod=web-1", nil))
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return out, time.Since(start)
}

func TestAPodIsRetiredWhenEveryProxyKnows(t *testing.T) {
	s, gateway, pod := retiring(t)
	if got, took := ask(t, s); got.Done || took < retiredWait {
		t.Errorf("a pod in service: %+v after %v", got, took)
	}
	pod(false)
	if got, _ := ask(t, s); got.Done || !cmp.Equal(got.Behind, []string{"router~gw-1"}) {
		t.Errorf("a pod that one proxy still sends to: %+v", got)
	}
	time.AfterFunc(5*time.Millisecond, func() { gateway.Settled(s.world().Version()) })
	if got, took := ask(t, s); !got.Done || took > retiredWait {
		t.Errorf("all proxies know: %+v after %v", got, took)
	}
	s.tracker.Connected(3, &xds.Node{ID: "sidecar~new", Namespace: "shop", Name: "new"}, spiffe.ID{})
	if got, _ := ask(t, s); got.Done {
		t.Error("a proxy that just came back may still have an old World")
	}
	s.tracker.Disconnected(3)
	if got, _ := ask(t, s); !got.Done {
		t.Errorf("a proxy that is gone is not waited for: %+v", got)
	}
}

func TestRetiredNeedsAPod(t *testing.T) {
	s, _, _ := retiring(t)
	w := httptest.NewRecorder()
	s.getRetired(w, httptest.NewRequest("GET", admin.PathRetired+"?namespace=shop", nil))
	if w.Code != 400 {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
