package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/internal/version"
)

// statusTypes are the columns of weft status: NDS only where a proxy answers names.
func statusTypes(proxies []admin.ProxyStatus) []string {
	types := []string{"CDS", "LDS", "EDS", "RDS", "SDS"}
	for _, p := range proxies {
		if _, ok := p.Types["NDS"]; ok {
			return append(types, "NDS")
		}
	}
	return types
}

func (a *app) statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "status",
		Aliases: []string{"proxy-status"},
		Short:   "Show the control plane, every proxy's sync state and what it refused",
		Example: `  weft status
  weft status -o json | jq '.proxies[] | select(.types.LDS.state=="REFUSED")'`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			st, err := a.mesh().Status(cmd.Context())
			if err != nil {
				return err
			}
			return a.data(st, func() error { return a.showStatus(*st) })
		},
	}
	a.outputFlag(cmd)
	return a.eitherMesh(cmd)
}

func (a *app) showStatus(st admin.ControlStatus) error {
	c := a.colors(a.env.Stdout)
	if m := a.onCluster; m != nil {
		a.printf("Mesh           context %s, namespace %s\n", m.Cluster.Context, m.Namespace)
	}
	a.printf("Control plane  %s, up %s, config %s: %s, %s\n\n", st.Version, age(st.Started), st.World,
		plural(st.Objects, "object"), plural(st.Services, "service"))
	types := statusTypes(st.Proxies)
	t := newTable(append([]string{"PROXY", "TYPE", "VERSION", "CONNECTED", "IDENTITY"}, types...)...)
	for _, p := range st.Proxies {
		conn := age(p.Connected)
		if p.Lost != nil {
			conn = c.red("lost " + age(*p.Lost))
		}
		row := []string{p.Pod + "." + p.Namespace, p.Type, orDash(p.Version), conn, strings.TrimPrefix(p.Identity, "spiffe://")}
		for _, typ := range types {
			row = append(row, syncState(c, p.Types[typ]))
		}
		t.add(row...)
	}
	if err := t.write(a.out(), c); err != nil {
		return err
	}
	for _, p := range st.Proxies {
		for _, typ := range types {
			if n := p.Types[typ].LastNack; n != nil {
				state := c.red("refused")
				if n.Cleared {
					state = c.dim("refused earlier, since accepted a newer one")
				}
				a.printf("\n%s.%s %s %s %s ago (version %s):\n  %s\n", p.Pod, p.Namespace, typ, state, age(n.Time), n.Version, n.Reason)
			}
		}
	}
	if len(st.Problems) > 0 {
		a.printf("\n%s\n", c.yellow("Problems of the configuration (what an error refuses, is served as it was before):"))
		a.diagnostics(a.env.Stdout, st.Problems)
	}
	return nil
}

func syncState(c colors, t admin.TypeStatus) string {
	switch t.State {
	case admin.SyncSynced:
		return c.green(t.State)
	case admin.SyncRefused:
		return c.red(t.State)
	case admin.SyncStale:
		return c.yellow(t.State)
	case "":
		return c.dim(admin.SyncNotSent)
	}
	return c.dim(t.State)
}

func (a *app) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Show the version of this command and of the mesh that runs here",
		Example: "  weft version\n  weft version -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := struct {
				Client       version.Info   `json:"client"`
				ControlPlane string         `json:"controlPlane,omitempty"`
				DataPlane    map[string]int `json:"dataPlane,omitempty"`
			}{Client: version.Get()}
			if st, err := a.mesh().Status(cmd.Context()); err == nil {
				out.ControlPlane = st.Version
				out.DataPlane = map[string]int{}
				for _, p := range st.Proxies {
					if p.Lost == nil {
						out.DataPlane[p.Version]++
					}
				}
			}
			return a.data(out, func() error {
				a.printf("client version: %s (%s)\n", out.Client.Version, out.Client.Go)
				if out.ControlPlane != "" {
					a.printf("control plane version: %s\n", out.ControlPlane)
				}
				for v, n := range out.DataPlane {
					a.printf("data plane version: %s (%s)\n", v, fmt.Sprintf("%d proxies", n))
				}
				return nil
			})
		},
	}
	a.outputFlag(cmd)
	return a.eitherMesh(cmd)
}
