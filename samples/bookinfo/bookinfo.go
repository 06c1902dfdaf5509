// Package bookinfo holds the manifests of the Bookinfo sample, for programs that
// apply them.
//
// The application itself is the command in cmd/bookinfo; it knows nothing of a mesh.
package bookinfo

import "embed"

// Manifests has the files of platform (services, accounts, deployments) and
// networking (routes, rules and policies for the tasks), by their paths here.
//
//go:embed platform/*.yaml networking/*.yaml
var Manifests embed.FS
