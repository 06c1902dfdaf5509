package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"weft.mesh/weft/control/kube/kubeclient"
	"weft.mesh/weft/internal/version"
	"weft.mesh/weft/node/cni"
	"weft.mesh/weft/node/cni/agent"
	"weft.mesh/weft/node/cni/chain"
)

// stopLimit bounds what is done after SIGTERM.
const stopLimit = 15 * time.Second

// leaver tells whether the agent goes for good.
type leaver interface {
	Leaving(ctx context.Context, namespace, daemonSet string) bool
}

// nodeAgent is the program.
type nodeAgent struct {
	o        options
	log      *slog.Logger
	registry *prometheus.Registry
	metrics  *agent.Metrics
	chain    *chain.Chain
	judge    *agent.Judge
	repair   *agent.Repair // nil: none
	follow   func(context.Context, *agent.Repair)
	leaver   leaver
	state    atomic.Pointer[error] // of the installation; nil: not tried yet
}

// newNodeAgent wires an agent to the cluster that the options name.
func newNodeAgent(o options, log *slog.Logger) (*nodeAgent, error) {
	mode, err := o.mode()
	switch {
	case err != nil:
		return nil, err
	case o.node == "":
		return nil, errors.New("--node: say which node this is (in a pod: NODE_NAME from spec.nodeName)")
	case o.namespace == "":
		return nil, errors.New("--namespace: say which namespace the agent is in (in a pod: POD_NAMESPACE from metadata.namespace)")
	}
	cfg, err := restConfig(o.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	client, err := kubeclient.New(cfg, "weft-cni/"+version.Version)
	if err != nil {
		return nil, err
	}
	api, err := agent.NewAPI(client)
	if err != nil {
		return nil, err
	}
	a := assemble(o, log)
	a.judge.Pods, a.leaver = api, api
	if mode != agent.ModeNone {
		doctor := &agent.Doctor{API: api, Proc: o.proc, LabelKey: o.labelKey, LabelValue: o.labelValue}
		a.repair = agent.NewRepair(mode, doctor, o.exclude, a.metrics, log)
		a.follow = func(ctx context.Context, r *agent.Repair) { api.Follow(ctx, o.node, r, log) }
	}
	return a, nil
}

func restConfig(file string) (*rest.Config, error) {
	if file == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", file)
}

// assemble is what needs no cluster.
func assemble(o options, log *slog.Logger) *nodeAgent {
	a := &nodeAgent{o: o, log: log, registry: prometheus.NewRegistry()}
	a.metrics = agent.NewMetrics(a.registry)
	a.judge = &agent.Judge{Metrics: a.metrics, Log: log}
	a.chain = &chain.Chain{Program: o.plugin, BinDir: o.binDir, ConfDir: o.confDir, ConfFile: o.confFile, Type: cni.Type,
		Entry: cni.Entry{Type: cni.Type, Socket: o.socket, ExcludeNamespaces: o.exclude, AgentNamespace: o.namespace, AgentPrefix: o.daemonSet + "-"}}
	return a
}

// run serves until ctx ends or something without which it is no use fails. The plugin is called only
// after the agent answers, and as long as it does.
func (a *nodeAgent) run(ctx context.Context) error {
	l, err := cni.Listen(a.o.socket)
	if err != nil {
		return err
	}
	servers, err := a.listen()
	if err != nil {
		l.Close()
		return err
	}
	var wg sync.WaitGroup
	answering, silence := context.WithCancel(context.WithoutCancel(ctx))
	working, cancel := context.WithCancelCause(ctx)
	defer wg.Wait()
	defer silence()
	defer cancel(nil)
	wg.Go(func() { cancel(cni.Serve(answering, l, a.judge.Answer)) })
	for _, s := range servers {
		wg.Go(func() { cancel(s(answering)) })
	}
	if a.repair != nil {
		wg.Go(func() { a.follow(working, a.repair) })
		wg.Go(func() { a.repair.Run(working) })
	}
	err = a.chain.Keep(working, a.installed)
	if cause := context.Cause(working); err == nil && ctx.Err() == nil {
		err = cause
	}
	if err != nil {
		return err // started again at once: the plugin stays
	}
	return a.leave()
}

// installed hears of every installation.
func (a *nodeAgent) installed(changed bool, err error) {
	a.metrics.Installed(changed, err)
	a.state.Store(&err)
	switch {
	case errors.Is(err, chain.ErrNoNetwork):
		a.log.Warn("waiting for the node's network plugin", "error", err)
	case err != nil:
		a.log.Error("the plugin cannot be installed; trying again", "error", err)
	case changed:
		a.log.Info("the plugin is installed", "node", a.o.node, "folder", a.o.confDir)
	}
}

// leave takes the plugin away if no agent will come after this one.
func (a *nodeAgent) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	if !a.leaver.Leaving(ctx, a.o.namespace, a.o.daemonSet) {
		a.log.Info("stopping; the plugin stays, and pods wait for the next agent")
		return nil
	}
	if err := a.chain.Uninstall(); err != nil {
		return fmt.Errorf("take the plugin away: %w; remove the entry %s from %s by hand", err, cni.Type, a.o.confDir)
	}
	if err := os.Remove(a.o.socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		a.log.Warn("the plugin's socket stays", "error", err)
	}
	a.log.Info("the plugin is taken away")
	return nil
}

// listen opens the HTTP ports; each function serves one until its context ends.
func (a *nodeAgent) listen() ([]func(context.Context) error, error) {
	health, metrics := http.NewServeMux(), http.NewServeMux()
	health.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	health.HandleFunc("GET /readyz", a.ready)
	metrics.Handle("GET /metrics", promhttp.HandlerFor(a.registry, promhttp.HandlerOpts{}))
	var out []func(context.Context) error
	for _, x := range []struct {
		address string
		handler http.Handler
	}{{a.o.health, health}, {a.o.metrics, metrics}} {
		l, err := net.Listen("tcp", x.address)
		if err != nil {
			return nil, err
		}
		s := &http.Server{Handler: x.handler, ReadHeaderTimeout: 5 * time.Second, WriteTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
		out = append(out, func(ctx context.Context) error {
			defer context.AfterFunc(ctx, func() { s.Close() })()
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	return out, nil
}

// ready is 200 while the plugin is installed.
func (a *nodeAgent) ready(w http.ResponseWriter, _ *http.Request) {
	switch err := a.state.Load(); {
	case err == nil:
		http.Error(w, "not installed yet in "+filepath.Clean(a.o.confDir), http.StatusServiceUnavailable)
	case *err != nil:
		http.Error(w, (*err).Error(), http.StatusServiceUnavailable)
	}
}
