package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"weft.mesh/weft/xds/nds"
)

// proxyName is one name that a proxy answers its pod's DNS queries from.
type proxyName struct {
	Name string `json:"name"`
	nds.Info
}

func (a *app) pcNames(ctx context.Context, p podRef) error {
	b, err := a.adminGet(ctx, p, "/debug/ndsz")
	if err != nil {
		return err
	}
	names, err := readNames(b)
	if err != nil {
		return fmt.Errorf("names of %s: %w", p, err)
	}
	return a.data(names, func() error {
		t := newTable("NAME", "ADDRESSES", "REGISTRY", "SHORT NAME")
		for _, n := range names {
			t.add(n.Name, shortList(n.IPs), cmp.Or(n.Registry, "-"), cmp.Or(n.Shortname, "-"))
		}
		return t.write(a.out(), a.colors(a.env.Stdout))
	})
}

// readNames takes a page of names apart, and sorts them.
func readNames(page []byte) ([]proxyName, error) {
	var d struct {
		Table map[string]nds.Info `json:"table"`
	}
	if err := json.Unmarshal(page, &d); err != nil {
		return nil, err
	}
	names := []proxyName{}
	for _, name := range slices.Sorted(maps.Keys(d.Table)) {
		names = append(names, proxyName{name, d.Table[name]})
	}
	return names, nil
}
