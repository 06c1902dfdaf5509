// Package kube reaches a cluster for the command line, with the rights of the
// person who runs it: it reads a kubeconfig, asks the API server, and opens
// connections into pods through it (port-forward).
//
// It promises that every wait is bounded by the caller's context and that an
// error names the context, the verb and the resource. It reads no environment:
// the caller passes $KUBECONFIG and $HOME on. It starts nothing before it is used.
package kube

import (
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Options say which cluster. The zero value with Home is kubectl's choice.
type Options struct {
	File    string // a kubeconfig; default Env's files, or ~/.kube/config
	Context string // default the current context
	Env     string // what $KUBECONFIG says
	Home    string // what $HOME says
}

// Cluster is a way to one cluster. Safe for concurrent use.
type Cluster struct {
	Context   string // name of the kubeconfig's context
	Namespace string // its default namespace
	Config    *rest.Config
	Dynamic   dynamic.Interface
}

// rules are where clientcmd looks for files.
func (o Options) rules() *clientcmd.ClientConfigLoadingRules {
	r := &clientcmd.ClientConfigLoadingRules{WarnIfAllMissing: false}
	switch {
	case o.File != "":
		r.ExplicitPath = o.File
	case o.Env != "":
		r.Precedence = filepath.SplitList(o.Env)
	case o.Home != "":
		r.Precedence = []string{filepath.Join(o.Home, ".kube", "config")}
	}
	return r
}

// Exists tells whether there is a kubeconfig with a context to use.
func (o Options) Exists() bool {
	raw, err := o.rules().Load()
	if err != nil {
		return o.File != ""
	}
	name := o.Context
	if name == "" {
		name = raw.CurrentContext
	}
	return raw.Contexts[name] != nil
}

// Open reads the kubeconfig. It does not connect.
func Open(o Options) (*Cluster, error) {
	if o.File != "" {
		if _, err := os.Stat(o.File); err != nil {
			return nil, fmt.Errorf("kubeconfig: %w", err)
		}
	}
	cc := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(o.rules(), &clientcmd.ConfigOverrides{CurrentContext: o.Context})
	raw, err := cc.RawConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	name := o.Context
	if name == "" {
		name = raw.CurrentContext
	}
	if raw.Contexts[name] == nil {
		if name == "" {
			return nil, fmt.Errorf("kubeconfig: no current context")
		}
		return nil, fmt.Errorf("kubeconfig: there is no context %q", name)
	}
	cfg, err := cc.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: context %q: %w", name, err)
	}
	ns, _, err := cc.Namespace()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: context %q: %w", name, err)
	}
	return New(name, ns, cfg)
}

// New makes a cluster of a client configuration.
func New(name, namespace string, cfg *rest.Config) (*Cluster, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.UserAgent = "weft"
	cfg.QPS = -1 // the API server's own fairness bounds us; an install sends some hundred requests
	cfg.WarningHandler = rest.NoWarnings{}
	d, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("context %q: %w", name, err)
	}
	return &Cluster{Context: name, Namespace: namespace, Config: cfg, Dynamic: d}, nil
}
