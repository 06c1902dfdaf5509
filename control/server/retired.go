package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/snapshot"
)

const (
	retiredWait = time.Second           // bounds how long an answer waits for Done
	retiredLook = 10 * time.Millisecond // between two looks at what proxies have acknowledged
)

// getRetired waits until a pod gets no new requests: it is out of service in
// the World, and every connected proxy has that World.
func (s *Server) getRetired(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	namespace, pod := q.Get("namespace"), q.Get("pod")
	if namespace == "" || pod == "" {
		writeError(w, http.StatusBadRequest, "retired: namespace and pod are required", "ask for ?namespace=NAMESPACE&pod=POD")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), retiredWait)
	defer cancel()
	look := time.NewTicker(retiredLook)
	defer look.Stop()
	var out uint64 // the first World seen without the pod
	for {
		answer := admin.Retired{}
		if world := s.world(); out > 0 || !serving(world, namespace, pod) {
			if out == 0 {
				out = max(world.Sequence(), 1)
			}
			answer.Behind = behind(s.tracker.Proxies(), out, namespace, pod)
			answer.Done = len(answer.Behind) == 0
		}
		if answer.Done || !waitFor(ctx, look.C) {
			writeJSON(w, http.StatusOK, answer)
			return
		}
	}
}

// serving tells whether a pod is given requests in a World.
func serving(w *snapshot.World, namespace, pod string) bool {
	x := w.Pod(namespace, pod)
	return x != nil && x.Ready && !x.Terminating
}

// behind lists the connected proxies, but not the pod's own, that do not have a World yet.
func behind(proxies []admin.ProxyStatus, world uint64, namespace, pod string) []string {
	var ids []string
	for _, p := range proxies {
		if p.Lost == nil && sequenceOf(p.World) < world && (p.Namespace != namespace || p.Pod != pod) {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// sequenceOf reads the sequence out of a World's version; 0 if there is none yet.
func sequenceOf(version string) uint64 {
	n, err := strconv.ParseUint(version[strings.LastIndexByte(version, '/')+1:], 10, 64)
	if err != nil {
		return 0
	}
	return n
}
