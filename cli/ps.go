package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
)

func (a *app) psCommand() *cobra.Command {
	var ns string
	cmd := &cobra.Command{
		Use:     "ps",
		Short:   "List the pods of the local mesh",
		Example: "  weft ps\n  weft ps -n default -o json",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			pods, err := a.mesh().Pods(cmd.Context())
			if err != nil {
				return err
			}
			list := admin.PodList{Items: pods}
			if ns != "" {
				kept := list.Items[:0]
				for _, p := range list.Items {
					if p.Namespace == ns {
						kept = append(kept, p)
					}
				}
				list.Items = kept
			}
			return a.data(list, func() error { return a.showPods(list.Items) })
		},
	}
	a.namespaceFlag(cmd, &ns, "", "only this namespace (default all)")
	a.outputFlag(cmd)
	return a.eitherMesh(cmd)
}

// maxReason is how many characters of a reason weft ps shows; -o json has all of it.
const maxReason = 60

// shorten cuts a reason to one line of a table. The cause stands at the end of
// an error: what is left out is in the middle.
func shorten(reason string) string {
	r := []rune(strings.Join(strings.Fields(reason), " "))
	if len(r) <= maxReason {
		return string(r)
	}
	head, tail := maxReason/2-1, maxReason/2
	return strings.TrimSpace(string(r[:head])) + "…" + strings.TrimSpace(string(r[len(r)-tail:]))
}

func (a *app) showPods(pods []admin.Pod) error {
	if len(pods) == 0 {
		a.printf("no pods\n")
		return nil
	}
	c := a.colors(a.env.Stdout)
	t := newTable("NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "SIDECAR", "MEMORY")
	for _, p := range pods {
		ready, rss := 0, int64(0)
		for _, x := range p.Containers {
			if x.Ready {
				ready++
			}
			rss += x.RSSBytes
		}
		status := string(p.Phase)
		switch {
		case p.Ready:
			status = c.green(status)
		case p.Message != "":
			status = c.yellow(status + ": " + shorten(p.Message))
		default:
			status = c.yellow(status)
		}
		sidecar := "no"
		if p.Sidecar {
			sidecar = "yes"
		}
		t.add(p.Namespace, p.Name, fmt.Sprintf("%d/%d", ready, len(p.Containers)), status, fmt.Sprint(p.Restarts),
			age(p.Started), orDash(p.IP), sidecar, fmt.Sprintf("%d MiB", rss>>20))
	}
	return t.write(a.out(), c)
}
