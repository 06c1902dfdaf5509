package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"weft.mesh/weft/cli/install"
	"weft.mesh/weft/control/inject"
)

// injectOptions are the flags of inject.
type injectOptions struct {
	file, out, namespace   string
	system, revision       string
	values, mesh, discover string
}

func (a *app) injectCommand() *cobra.Command {
	var o injectOptions
	cmd := &cobra.Command{
		Use:   "inject -f FILE",
		Short: "Put sidecars into the workloads of a file",
		Long: `Put sidecars into the Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs,
CronJobs and Pods of a file, as the webhook does with pods in a namespace that is
labelled for it. Everything else in the file stays as it is.

What sidecars are made with is read from the cluster's control plane, or from
--values and --mesh-config (the keys values and mesh of its ConfigMap).`,
		Example: `  weft inject -f deployment.yaml | kubectl apply -f -
  weft inject -f - -o injected.yaml < deployment.yaml
  weft inject -f deployment.yaml --values values.yaml`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.inject(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "filename", "f", "", "file of YAML or JSON documents; - is standard input")
	f.StringVarP(&o.out, "output", "o", "", "file to write; default standard output")
	f.StringVarP(&o.namespace, "namespace", "n", "default", "namespace of workloads that name none")
	f.StringVar(&o.system, "system-namespace", install.Namespace, "namespace of the control plane")
	f.StringVar(&o.revision, "revision", "", "control plane to take the settings of (default \"default\")")
	f.StringVar(&o.values, "values", "", "file with the injection values, instead of the cluster's")
	f.StringVar(&o.mesh, "mesh-config", "", "file with the MeshConfig, with --values")
	f.StringVar(&o.discover, "discovery-address", "", "control plane for the sidecars, host:port (default its Service)")
	a.clusterFlags(cmd)
	_ = cmd.MarkFlagRequired("filename")
	return cmd
}

func (a *app) inject(ctx context.Context, o injectOptions) error {
	if o.mesh != "" && o.values == "" {
		return &exitError{exitUsage, errors.New("--mesh-config needs --values")}
	}
	text, err := a.readInput(o.file)
	if err != nil {
		return err
	}
	conf, err := a.injection(ctx, o)
	if err != nil {
		return err
	}
	out, all, err := conf.Manifest(text, o.namespace)
	if err != nil {
		return fmt.Errorf("%s: %w", o.file, err)
	}
	for _, w := range all {
		what := fmt.Sprintf("%s %s/%s", w.Kind, w.Namespace, w.Name)
		if !w.Injected {
			fmt.Fprintf(a.env.Stderr, "%s: left as it is: %s\n", what, w.Why)
		}
		for _, warning := range w.Warnings {
			fmt.Fprintf(a.env.Stderr, "%s: warning: %s\n", what, warning)
		}
	}
	if len(all) == 0 {
		fmt.Fprintf(a.env.Stderr, "%s: there is no workload in it\n", o.file)
	}
	if o.out == "" {
		_, err = a.env.Stdout.Write(out)
		return err
	}
	return os.WriteFile(o.out, out, 0o644)
}

// readInput reads a file, or standard input for "-", within bounds.
func (a *app) readInput(name string) ([]byte, error) {
	var r io.Reader = a.env.Stdin
	if name != "-" {
		f, err := os.Open(filepath.Clean(name))
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, inject.MaxManifest+1))
	if err == nil && len(b) > inject.MaxManifest {
		err = fmt.Errorf("%s: more than %d bytes", name, inject.MaxManifest)
	}
	return b, err
}

// injection is what sidecars are made with: the cluster's ConfigMap, or files.
func (a *app) injection(ctx context.Context, o injectOptions) (*inject.Config, error) {
	name := configMap
	if o.revision != "" && o.revision != inject.DefaultRevision {
		name += "-" + o.revision
	}
	var values, mesh string
	var err error
	if o.values == "" {
		values, mesh, err = a.clusterInjection(ctx, o.system, name)
	} else {
		values, mesh, err = injectionFiles(o)
	}
	if err != nil {
		return nil, err
	}
	c, _, err := inject.ParseConfig(values, mesh)
	if err != nil {
		return nil, err
	}
	if o.values != "" && o.revision != "" {
		c.Revision = o.revision
	}
	if c.DiscoveryAddress = o.discover; c.DiscoveryAddress == "" {
		c.DiscoveryAddress = name + "." + o.system + ".svc:15012"
	}
	return c, nil
}

func injectionFiles(o injectOptions) (values, mesh string, err error) {
	v, err := os.ReadFile(o.values)
	if err != nil || o.mesh == "" {
		return string(v), "", err
	}
	m, err := os.ReadFile(o.mesh)
	return string(v), string(m), err
}

// clusterInjection reads the control plane's ConfigMap.
func (a *app) clusterInjection(ctx context.Context, namespace, name string) (values, mesh string, err error) {
	c, err := a.cluster()
	if err != nil {
		return "", "", withHint(err, "name a cluster with --kubeconfig or --context, or give the values in a file with --values")
	}
	u, err := c.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", "", withHint(fmt.Errorf("context %q: get configmap %s/%s: %w", c.Context, namespace, name, err), "is Weft installed there (weft verify)? Or give the values in a file with --values")
	}
	values, _, _ = unstructured.NestedString(u.Object, "data", "values")
	mesh, _, _ = unstructured.NestedString(u.Object, "data", "mesh")
	return values, mesh, nil
}
