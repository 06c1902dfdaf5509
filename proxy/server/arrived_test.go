package server

import (
	"testing"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/xds"
)

// What keeps a pod up that ends: at a sidecar calls to its workload, at a gateway requests and TCP connections, and not that
// somebody looks whether a port is open.
func TestWhatCountsAsArrived(t *testing.T) {
	for role, want := range map[xds.NodeType]map[string]bool{
		xds.Sidecar: {"open port": false, "inbound connection": true, "tcp": false, "request": false},
		xds.Router:  {"open port": false, "inbound connection": false, "tcp": true, "request": true},
	} {
		s := testServer(t, role)
		outbound := s.servers.manager(&config.HTTPManager{}, nil) // no listener to the workload has it
		for what, happen := range map[string]func(){
			"open port":          func() { s.listeners.Stats().Total.Add(1) },
			"inbound connection": func() { s.listeners.Stats().Inbound.Add(1) },
			"tcp":                func() { s.listeners.Stats().TCP.Add(1) },
			"request":            func() { outbound.Stats.RqTotal.Add(1) },
		} {
			before := s.arrived()
			happen()
			if got := s.arrived() != before; got != want[what] {
				t.Errorf("%s: %s arrived: %t, want %t", role, what, got, want[what])
			}
		}
	}
}
