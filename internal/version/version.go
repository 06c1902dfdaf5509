// Package version says which build this is.
package version

import "runtime/debug"

// Version is set by the linker (make build); "devel" otherwise.
var Version = "devel"

// Info describes the build.
type Info struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	Commit  string `json:"commit,omitempty"`
}

// Get returns the build's description.
func Get() Info {
	i := Info{Version: Version}
	if b, ok := debug.ReadBuildInfo(); ok {
		i.Go = b.GoVersion
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				i.Commit = s.Value
			}
		}
	}
	return i
}
