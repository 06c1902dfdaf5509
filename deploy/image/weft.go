package image

import (
	"fmt"
	"path"
	"runtime"
	"strings"
)

// Users of the images, also by number in the chart: Kubernetes' runAsNonRoot
// can only judge a number.
const (
	ControlUser = 65532
	ProxyUser   = 1337 // Istio's: capture rules leave its traffic alone
)

// Spec is one image of the project: which programs it has and how it starts.
type Spec struct {
	Name     string   // without registry and tag: "weft/weft"
	Tag      string   // empty: that of the build
	Programs []string // Go packages below the module, in the order of Dirs
	Dir      string   // where the programs are in the image
	// Also are further names of the first program, in Dir.
	Also     []string
	Entry    []string // entrypoint; empty: none, manifests say the command
	User     int
	Home     string
	Writable []string // directories that belong to the user
}

// Specs are the images of this repository: three products and the sample.
func Specs() []Spec {
	return []Spec{
		// pilot-discovery: what Istio's users call in the control plane ("pilot-discovery request GET /debug/syncz").
		{Name: "weft/weft", Programs: []string{"cmd/weft"}, Dir: "/usr/local/bin", Also: []string{"pilot-discovery"},
			Entry: []string{"/usr/local/bin/weft"}, User: ControlUser, Home: "/var/lib/weft", Writable: []string{"/var/lib/weft"}},
		// pilot-agent: the same for a sidecar ("pilot-agent request GET stats").
		{Name: "weft/proxy", Programs: []string{"cmd/weft-proxy", "cmd/weft-node"}, Dir: "/usr/local/bin", Also: []string{"pilot-agent"},
			Entry: []string{"/usr/local/bin/weft-proxy"}, User: ProxyUser, Home: "/var/lib/weft-proxy", Writable: []string{"/var/lib/weft-proxy"}},
		// The node agent writes into the node's folders, as root; weft-node is the plugin that it copies there.
		{Name: "weft/cni", Programs: []string{"cmd/weft-cni", "cmd/weft-node"}, Dir: "/usr/local/bin",
			Entry: []string{"/usr/local/bin/weft-cni"}, User: 0, Home: "/"},
		// As the sample's manifests name it.
		{Name: "weft.mesh/bookinfo", Tag: "latest", Programs: []string{"samples/bookinfo/cmd/bookinfo"}, Dir: "/usr/local/bin", User: ControlUser, Home: "/"},
	}
}

// Reference is the image's full name for a registry (may be empty) and a tag.
func (s Spec) Reference(registry, tag string) string {
	if s.Tag != "" {
		return s.Name + ":" + s.Tag // the sample keeps the name that its manifests have
	}
	return strings.TrimPrefix(path.Join(registry, s.Name)+":"+tag, "/")
}

// FileName is the archive's name.
func (s Spec) FileName() string { return strings.ReplaceAll(s.Name, "/", "-") + ".tar" }

// Platform is the image's content for one architecture. binaries has the
// built file of each program; certificates is a PEM file, or empty for none.
func (s Spec) Platform(arch string, binaries []string, certificates string) Platform {
	p := Platform{Architecture: arch, Entrypoint: s.Entry, User: fmt.Sprint(s.User), WorkingDir: "/"}
	for i, b := range binaries {
		p.Files = append(p.Files, File{Path: path.Join(s.Dir, path.Base(s.Programs[i])), Mode: 0o755, Source: b})
	}
	for _, also := range s.Also {
		p.Files = append(p.Files, File{Path: path.Join(s.Dir, also), Kind: Symlink, Link: path.Base(s.Programs[0])})
	}
	name := path.Base(s.Name)
	p.Files = append(p.Files,
		File{Path: "/etc/passwd", Data: fmt.Appendf(nil, "root:x:0:0:root:/:/sbin/nologin\n%s:x:%d:%d::%s:/sbin/nologin\n", name, s.User, s.User, s.Home)},
		File{Path: "/etc/group", Data: fmt.Appendf(nil, "root:x:0:\n%s:x:%d:\n", name, s.User)},
		File{Path: "/etc/nsswitch.conf", Data: []byte("hosts: files dns\n")},
		File{Path: "/tmp", Kind: Directory, Mode: 0o1777},
	)
	for _, d := range s.Writable {
		p.Files = append(p.Files, File{Path: d, Kind: Directory, Mode: 0o700, UID: s.User})
	}
	if certificates != "" {
		p.Files = append(p.Files, File{Path: "/etc/ssl/certs/ca-certificates.crt", Source: certificates})
	}
	return p
}

// Host is an image of one static program for the architecture of this
// machine: what tests need.
func Host(binary, at string) Platform {
	return Platform{Architecture: runtime.GOARCH, Entrypoint: []string{at}, Files: []File{
		{Path: at, Mode: 0o755, Source: binary},
		{Path: "/tmp", Kind: Directory, Mode: 0o1777},
	}}
}

// HostArchitecture is that of this machine, as images name it.
const HostArchitecture = runtime.GOARCH
