package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"sigs.k8s.io/yaml"

	"weft.mesh/weft/control/convert"
)

func TestTheFilesAreUpToDate(t *testing.T) {
	files, err := generate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join("..", "crds", name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("deploy/crds/%s is not what make crds writes (%d bytes, want %d)", name, len(got), len(want))
		}
	}
}

// Every kind of Istio that Decode reads is there, in all its versions, with a
// schema, a status of its own and an Accepted column; no other kind is.
func TestIstiosKindsAreThoseThatAreRead(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "crds", "istio.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"AuthorizationPolicy", "DestinationRule", "Gateway", "PeerAuthentication", "ServiceEntry", "VirtualService", "WorkloadEntry"}
	for _, k := range want {
		if !slices.Contains(convert.Kinds(), k) {
			t.Errorf("%s is no longer read", k)
		}
	}
	var got []string
	for _, doc := range documents(b)[1:] {
		var crd struct {
			Spec struct {
				Names    struct{ Kind string }
				Versions []struct {
					Name         string
					Served       bool
					Schema       struct{ OpenAPIV3Schema map[string]any }
					Subresources struct{ Status *struct{} }
					Columns      []struct{ Name string } `json:"additionalPrinterColumns"`
				}
			}
		}
		if err := yaml.Unmarshal(doc, &crd); err != nil {
			t.Fatal(err)
		}
		kind := crd.Spec.Names.Kind
		got = append(got, kind)
		served := map[string]bool{}
		for _, v := range crd.Spec.Versions {
			served[v.Name] = v.Served
			if v.Schema.OpenAPIV3Schema["type"] != "object" || v.Subresources.Status == nil {
				t.Errorf("%s %s has no structural schema or no status", kind, v.Name)
			}
			names := []string{}
			for _, c := range v.Columns {
				names = append(names, c.Name)
			}
			if !slices.Contains(names, "Accepted") || names[len(names)-1] != "Age" {
				t.Errorf("%s %s: columns %v", kind, v.Name, names)
			}
		}
		if !served["v1"] || !served["v1beta1"] {
			t.Errorf("%s: served versions %v", kind, served)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("definitions of %v, want %v", got, want)
	}
}
