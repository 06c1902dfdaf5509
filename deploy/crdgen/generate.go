package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"weft.mesh/weft/control/convert"
)

// header of every file: what it is, whose, and that it is not to be edited.
const header = `# Made by "make crds" from %s. Do not edit.
# %s
`

// istioCRDs picks the kinds that Weft reads from Istio's published file.
func istioCRDs(module string) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(module, "kubernetes", "customresourcedefinitions.gen.yaml"))
	if err != nil {
		return nil, err
	}
	served := convert.Kinds()
	var out bytes.Buffer
	fmt.Fprintf(&out, header, "istio.io/api, kubernetes/customresourcedefinitions.gen.yaml", "Copyright Istio Authors, Apache License 2.0. The kinds that Weft reads; schemas unchanged.")
	for _, doc := range documents(b) {
		var crd map[string]any
		if err := yaml.Unmarshal(doc, &crd); err != nil {
			return nil, fmt.Errorf("istio.io/api: %w", err)
		}
		if len(crd) == 0 || !slices.Contains(served, kindOf(crd)) {
			continue
		}
		if err := dress(crd); err != nil {
			return nil, err
		}
		text, err := yaml.Marshal(crd)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&out, "---\n%s", text)
	}
	return out.Bytes(), nil
}

// gatewayCRDs joins the standard channel's files, as they are.
func gatewayCRDs(module string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(module, "config", "crd", "standard", "gateway.networking.k8s.io_*.yaml"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("gateway-api: no files of the standard channel: %v", err)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, header, "sigs.k8s.io/gateway-api, config/crd/standard", "Copyright The Kubernetes Authors, Apache License 2.0. Unchanged.")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		for _, doc := range documents(b) {
			if !bytes.Contains(doc, []byte("\nkind: CustomResourceDefinition")) {
				continue // the policy that forbids changes of the channel is the cluster's owner's to choose
			}
			fmt.Fprintf(&out, "---\n%s\n", bytes.TrimSpace(doc))
		}
	}
	return out.Bytes(), nil
}

// documents splits YAML at "---" lines; empty ones are left out.
func documents(b []byte) [][]byte {
	var out [][]byte
	for _, d := range strings.Split("\n"+string(b), "\n---") {
		if strings.TrimSpace(d) != "" {
			out = append(out, []byte(d))
		}
	}
	return out
}

func kindOf(crd map[string]any) string {
	spec, _ := crd["spec"].(map[string]any)
	names, _ := spec["names"].(map[string]any)
	kind, _ := names["kind"].(string)
	return kind
}

// dress replaces Istio's labels by ours and adds columns.
func dress(crd map[string]any) error {
	meta, _ := crd["metadata"].(map[string]any)
	spec, _ := crd["spec"].(map[string]any)
	versions, _ := spec["versions"].([]any)
	if meta == nil || len(versions) == 0 {
		return fmt.Errorf("istio.io/api: definition of %s has no metadata or versions", kindOf(crd))
	}
	meta["labels"] = map[string]any{
		"app.kubernetes.io/name": "weft", "app.kubernetes.io/part-of": "weft",
		"weft.mesh/crds": "istio",
	}
	for _, v := range versions {
		version, _ := v.(map[string]any)
		columns, _ := version["additionalPrinterColumns"].([]any)
		version["additionalPrinterColumns"] = withColumns(kindOf(crd), columns)
	}
	return nil
}

// withColumns puts ours before the age, which comes last for every kind.
func withColumns(kind string, columns []any) []any {
	columns = slices.DeleteFunc(columns, func(c any) bool {
		m, _ := c.(map[string]any)
		return m["name"] == "Age"
	})
	if kind == "Gateway" {
		columns = append(columns, map[string]any{
			"name": "Hosts", "type": "string", "description": "Hosts of all servers.", "jsonPath": ".spec.servers[*].hosts",
		})
	}
	return append(columns,
		map[string]any{
			"name": "Accepted", "type": "string",
			"description": "Whether the control plane took it; describe the object for the reason.",
			"jsonPath":    `.status.conditions[?(@.type=="Accepted")].status`,
		},
		map[string]any{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
}
