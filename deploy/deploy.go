// Package deploy holds what is installed on a cluster: the Helm chart and the
// custom resource definitions, as the files that Helm and kubectl take too.
//
// It owns no logic: deploy/render makes objects of the chart.
package deploy

import (
	"embed"
	"io/fs"
)

// all: because names of templates begin with an underscore.
//
//go:embed all:chart
var chart embed.FS

//go:embed crds/*.yaml
var crds embed.FS

// Chart is the chart's folder.
func Chart() fs.FS { return must(fs.Sub(chart, "chart")) }

// CRDs is the folder of definitions: istio.yaml and gateway-api.yaml.
func CRDs() fs.FS { return must(fs.Sub(crds, "crds")) }

// must is for names that are fixed when the program is built.
func must(f fs.FS, err error) fs.FS {
	if err != nil {
		panic(err)
	}
	return f
}
