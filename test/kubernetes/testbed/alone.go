package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"
)

// APIServer is an API server with its etcd, without nodes and controllers: no
// EndpointSlices from Services, no pods from Deployments, no end of namespaces;
// whoever uses it writes those objects. It needs no root.
type APIServer struct {
	URL        string // https://127.0.0.1:port
	Kubeconfig string // file, as administrator
	Client     *Client

	dir       string
	processes []*exec.Cmd
}

// StartAPIServer starts one on free ports of loopback, with its files in dir
// (which it does not remove), and returns when it is ready.
func (b *Bed) StartAPIServer(ctx context.Context, dir string) (*APIServer, error) {
	if err := b.Missing(); err != nil {
		return nil, err
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	local := func(scheme string, port int) string { return fmt.Sprintf("%s://127.0.0.1:%d", scheme, port) }
	s := &APIServer{URL: local("https", ports[2]), dir: dir}
	pki := filepath.Join(dir, "pki")
	if _, err := controlPKI(pki, "127.0.0.1", s.URL); err != nil {
		return nil, err
	}
	s.Kubeconfig = filepath.Join(pki, "admin.kubeconfig")
	if s.Client, err = NewClient(s.URL, pki); err != nil {
		return nil, err
	}
	etcd := local("http", ports[0])
	args := apiServer{etcd: etcd, bind: "127.0.0.1", advertise: "127.0.0.1", pki: pki, dir: dir, port: ports[2]}.args()
	err = s.start(b.Bin("etcd"), etcdArgs(dir, etcd, local("http", ports[1]))...)
	if err == nil {
		err = s.start(b.Bin("kube-apiserver"), append(args, "--endpoint-reconciler-type=none")...) // no node has its address
	}
	if err == nil {
		wait, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not ready after a minute"))
		defer cancel()
		err = s.Client.Ready(wait)
	}
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, s.Tail("kube-apiserver"))
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// start starts a program that dies with this process.
func (s *APIServer) start(program string, args ...string) error {
	log, err := os.Create(filepath.Join(s.dir, filepath.Base(program)+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	c := exec.Command(program, args...)
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		return err
	}
	s.processes = append(s.processes, c)
	return nil
}

// Stop ends both programs. What they had is lost.
func (s *APIServer) Stop() error {
	for _, c := range s.processes {
		c.Process.Kill()
		c.Wait()
	}
	s.processes = nil
	return nil
}

// Pause and Resume stop and continue the API server's process: a server that
// accepts connections and does not answer.
func (s *APIServer) Pause() error  { return s.processes[1].Process.Signal(syscall.SIGSTOP) }
func (s *APIServer) Resume() error { return s.processes[1].Process.Signal(syscall.SIGCONT) }

// Tail is the end of a program's log.
func (s *APIServer) Tail(program string) string {
	text, _ := os.ReadFile(filepath.Join(s.dir, program+".log"))
	return string(text[max(0, len(text)-2000):])
}

// The API server takes YAML as it is; only the kind must be known here.
var isDefinition = regexp.MustCompile(`(?m)^kind: CustomResourceDefinition\s*$`)

// InstallCRDs creates the definitions of the checkout (deploy/crds: Istio's and the Gateway API's) and waits until
// they are served.
func (b *Bed) InstallCRDs(ctx context.Context, c *Client) error {
	files, err := filepath.Glob(filepath.Join(b.Module, "deploy/crds/*.yaml"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no definitions in %s/deploy/crds: %v", b.Module, err)
	}
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		for doc := range strings.SplitSeq("\n"+string(text), "\n---") {
			if !isDefinition.MatchString(doc) {
				continue
			}
			wg.Go(func() {
				if err := c.Do(ctx, http.MethodPost, path, "application/yaml", []byte(doc), nil); err != nil {
					mu.Lock()
					defer mu.Unlock()
					errs = append(errs, fmt.Errorf("%s: %w", f, err))
				}
			})
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return c.until(ctx, func() error { return established(ctx, c, path) })
}

func established(ctx context.Context, c *Client, path string) error {
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Conditions []struct{ Type, Status string }
			}
		}
	}
	if err := c.Do(ctx, http.MethodGet, path, "", nil, &list); err != nil {
		return err
	}
	for _, i := range list.Items {
		ok := false
		for _, cond := range i.Status.Conditions {
			ok = ok || cond.Type == "Established" && cond.Status == "True"
		}
		if !ok {
			return fmt.Errorf("%s is not served yet", i.Metadata.Name)
		}
	}
	return nil
}

// freePorts are ports of loopback that nobody had a moment ago, all different.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // held until all are known
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
