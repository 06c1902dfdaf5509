package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"time"

	"github.com/spf13/cobra"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/api/admin/client"
	"weft.mesh/weft/cli/kube"
	"weft.mesh/weft/cli/kubemesh"
	"weft.mesh/weft/internal/version"
)

// Bounds of a report.
const (
	reportLines = 2000     // of each log
	reportLog   = 16 << 20 // bytes of each log
	reportEach  = 30 * time.Second
)

// report is an archive that is being written.
type report struct {
	app    *app
	tar    *tar.Writer
	now    time.Time
	missed []string // what could not be had, and why
}

func (a *app) bugReportCommand() *cobra.Command {
	var file, ns string
	var most int
	cmd := &cobra.Command{
		Use:   "bug-report",
		Short: "Collect state, configuration and logs of the mesh in an archive",
		Long: `Write an archive with the mesh's status, its objects (Secrets without values), the
pods, and for each pod with a proxy its configuration, metrics and log; of a
mesh on a cluster the control plane's pages and logs too. What cannot be had is
listed in missed.txt. Keys are never in it; logs and objects are yours to read
before you pass them on.`,
		Example: "  weft bug-report\n  weft bug-report -n shop --file report.tgz",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now().UTC()
			if file == "" {
				file = "weft-bug-report-" + now.Format("20060102-150405") + ".tgz"
			}
			// First of all: is there a mesh to report on?
			st, err := a.mesh().Status(cmd.Context())
			if errors.Is(err, client.ErrNotRunning) {
				return err
			}
			f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
			if err != nil {
				return err
			}
			z := gzip.NewWriter(f)
			r := &report{app: a, tar: tar.NewWriter(z), now: now}
			r.json("status.json", st, err)
			err = r.collect(cmd.Context(), ns, most)
			if err = errors.Join(err, r.tar.Close(), z.Close(), f.Close()); err != nil {
				return fmt.Errorf("bug report %s: %w", file, err)
			}
			a.printf("%s (%s missing)\n", file, plural(len(r.missed), "part"))
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "where to write (default weft-bug-report-TIME.tgz)")
	cmd.Flags().IntVar(&most, "max-proxies", 50, "how many proxies at most")
	a.namespaceFlag(cmd, &ns, "", "only proxies of this namespace (default all)")
	return a.eitherMesh(cmd)
}

// add writes one file, or notes why there is none. Only errors of the archive itself are returned.
func (r *report) add(name string, b []byte, err error) error {
	if err != nil {
		r.missed = append(r.missed, fmt.Sprintf("%s: %v", name, err))
		return nil
	}
	h := &tar.Header{Name: path.Join("weft-bug-report", name), Mode: 0o600, Size: int64(len(b)), ModTime: r.now}
	if err := r.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err = r.tar.Write(b)
	return err
}

func (r *report) json(name string, v any, err error) error {
	if err != nil {
		return r.add(name, nil, err)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	return r.add(name, b, err)
}

// collect writes everything but the status.
func (r *report) collect(ctx context.Context, ns string, most int) error {
	m := r.app.mesh()
	objects, err := m.Objects(ctx)
	for i := range objects {
		if objects[i].Kind == "Secret" { // a local mesh's socket shows all
			objects[i].Raw = nil
		}
	}
	errs := []error{r.json("version.json", version.Get(), nil), r.json("objects.json", objects, err)}
	pods, err := m.Pods(ctx)
	errs = append(errs, r.json("pods.json", pods, err))
	n := 0
	for _, p := range pods {
		if !p.Sidecar && !isGateway(p) || ns != "" && p.Namespace != ns {
			continue
		}
		if n++; n > most {
			r.missed = append(r.missed, fmt.Sprintf("proxies beyond the first %d: see --max-proxies", most))
			break
		}
		errs = append(errs, r.proxy(ctx, p))
	}
	if r.app.onCluster != nil {
		errs = append(errs, r.planes(ctx, r.app.onCluster))
	}
	var missed bytes.Buffer
	for _, line := range r.missed {
		fmt.Fprintln(&missed, line)
	}
	return errors.Join(append(errs, r.add("missed.txt", missed.Bytes(), nil))...)
}

func isGateway(p admin.Pod) bool {
	return len(p.Containers) == 1 && p.Containers[0].Name == "istio-proxy"
}

// proxy takes what one proxy does and says.
func (r *report) proxy(ctx context.Context, p admin.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, reportEach)
	defer cancel()
	dir := path.Join("proxies", p.Namespace, p.Name)
	var errs []error
	for page, name := range map[string]string{"/config_dump?include_eds=true": "config_dump.json", "/clusters?format=json": "clusters.json", "/certs": "certs.json", "/stats/prometheus": "metrics.txt"} {
		b, err := r.app.mesh().AdminPage(ctx, p.Namespace, p.Name, http.MethodGet, page)
		errs = append(errs, r.add(path.Join(dir, name), b, err))
	}
	var log bytes.Buffer
	err := r.app.mesh().Logs(ctx, client.LogOptions{Namespace: p.Namespace, Pod: p.Name, Container: "istio-proxy", Tail: reportLines}, &bounded{&log, reportLog})
	return errors.Join(append(errs, r.add(path.Join(dir, "log.txt"), log.Bytes(), err))...)
}

// planes takes the pages and logs of the control plane's pods.
func (r *report) planes(ctx context.Context, m *kubemesh.Mesh) error {
	pods, err := m.Planes(ctx)
	if err != nil {
		return r.add("control-plane", nil, err)
	}
	var errs []error
	for _, p := range pods {
		dir := path.Join("control-plane", p.Name)
		for page, name := range kubemesh.Pages {
			b, err := m.Ask(ctx, p.Name, page, nil)
			errs = append(errs, r.add(path.Join(dir, name), b, err))
		}
		part, cancel := context.WithTimeout(ctx, reportEach)
		var log bytes.Buffer
		body, err := m.Cluster.Logs(part, p.Namespace, p.Name, kube.LogOptions{Container: p.Spec.Containers[0].Name, Tail: reportLines})
		if err == nil {
			_, err = io.Copy(&log, io.LimitReader(body, reportLog))
			body.Close()
		}
		cancel()
		errs = append(errs, r.add(path.Join(dir, "log.txt"), log.Bytes(), err))
	}
	return errors.Join(errs...)
}

// bounded drops what is beyond n bytes.
type bounded struct {
	w io.Writer
	n int
}

func (b *bounded) Write(p []byte) (int, error) {
	if k := min(len(p), b.n); k > 0 {
		b.n -= k
		if _, err := b.w.Write(p[:k]); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}
