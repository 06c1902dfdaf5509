package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"weft.mesh/weft/cli/install"
	"weft.mesh/weft/cli/kube"
	"weft.mesh/weft/deploy/render"
	"weft.mesh/weft/internal/version"
)

// installOptions are the flags of install, upgrade, precheck and verify.
type installOptions struct {
	namespace string
	profile   string
	revision  string
	set       []string
	files     []string
	timeout   time.Duration
}

func (o *installOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", install.Namespace, "namespace of the control plane")
	f.StringVar(&o.profile, "profile", "", "minimal, default, demo or ha (default \"default\")")
	f.StringVar(&o.revision, "revision", "", "name of this control plane beside others (default \"default\")")
	f.StringArrayVar(&o.set, "set", nil, "a value of the chart: KEY=VALUE[,KEY=VALUE]; may be repeated")
	f.StringArrayVarP(&o.files, "values", "f", nil, "file with values of the chart; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("profile", cobra.FixedCompletions([]string{"minimal", "default", "demo", "ha"}, cobra.ShellCompDirectiveNoFileComp))
}

// values are those of the files, then of --set, then of --revision.
func (o *installOptions) values(under render.Values) (render.Values, error) {
	v := render.Merge(under, nil)
	for _, name := range o.files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := render.ParseYAML(name, b)
		if err != nil {
			return nil, err
		}
		v = render.Merge(v, f)
	}
	for _, s := range o.set {
		var err error
		if v, err = render.ParseSet(v, s); err != nil {
			return nil, &exitError{exitUsage, err}
		}
	}
	if o.revision != "" {
		v["revision"] = o.revision
	}
	return v, nil
}

// plan renders what the flags say, on top of what was recorded.
func (o *installOptions) plan(kubeVersion string, was *install.Recorded) (*install.Plan, error) {
	profile, under := o.profile, render.Values(nil)
	if was != nil {
		under = was.Values
		if profile == "" {
			profile = was.Profile
		}
	}
	v, err := o.values(under)
	if err != nil {
		return nil, err
	}
	p, err := install.NewPlan(install.Config{
		Namespace: o.namespace, Profile: profile, Values: v, Version: version.Version, KubeServer: kubeVersion,
	})
	if err != nil {
		return nil, &exitError{exitUsage, err}
	}
	return p, nil
}

// installer makes one for the cluster that the flags choose.
func (a *app) installer(timeout time.Duration) (*install.Installer, error) {
	c, err := a.cluster()
	if err != nil {
		return nil, err
	}
	return &install.Installer{
		Cluster: c, Timeout: timeout,
		Progress: func(line string) { fmt.Fprintln(a.env.Stderr, line) },
	}, nil
}

// recordedPlan is what the flags say on top of what the revision was installed with; was is nil where it was not.
func (a *app) recordedPlan(ctx context.Context, o *installOptions) (in *install.Installer, was *install.Recorded, p *install.Plan, err error) {
	if in, err = a.installer(time.Minute); err != nil {
		return nil, nil, nil, err
	}
	if was, err = in.Installed(ctx, o.namespace, o.revision); err != nil {
		return nil, nil, nil, kubeError(err)
	}
	p, err = o.plan("", was)
	return in, was, p, err
}

func (a *app) installCommand() *cobra.Command {
	var o installOptions
	var dry, wait, force bool
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install the mesh on a Kubernetes cluster; doing it again changes what differs",
		Long: `Install the control plane, its definitions and webhooks on the cluster of the
kubeconfig's current context, with the rights of its user.

What is in the way is found before anything is written (weft precheck shows the
same). Objects are applied on the server's side as field manager "weft":
definitions, namespace, control plane, and when it is ready the webhooks.`,
		Example: `  weft install
  weft install --profile demo --set meshConfig.accessLogFile=/dev/stdout
  weft install --revision canary             # beside the one that runs
  weft install --dry-run                     # the API server checks, nothing is stored
  weft install -o yaml > weft.yaml           # for kubectl apply --server-side -f`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if a.output != "" && a.output != "yaml" {
				return &exitError{exitUsage, fmt.Errorf("--output %q: want yaml", a.output)}
			}
			if a.output == "yaml" {
				p, err := o.plan("", nil)
				if err != nil {
					return err
				}
				b, err := p.YAML()
				if err != nil {
					return err
				}
				_, err = a.out().Write(b)
				return err
			}
			in, err := a.installer(o.timeout)
			if err != nil {
				return err
			}
			in.DryRun, in.Wait, in.Force = dry, wait, force
			return a.install(cmd.Context(), in, &o, nil)
		},
	}
	o.flags(cmd)
	a.clusterFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&dry, "dry-run", false, "let the API server check everything, and store nothing")
	f.BoolVar(&wait, "wait", true, "wait for the control plane before its webhooks are made, and for everything at the end")
	f.BoolVar(&force, "force-conflicts", false, "take over fields that others set")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait for each part")
	f.StringVarP(&a.output, "output", "o", "", "yaml: print the objects and do nothing")
	return cmd
}

// install runs a plan and says how it went.
func (a *app) install(ctx context.Context, in *install.Installer, o *installOptions, was *install.Recorded) error {
	v, err := in.Cluster.Version(ctx)
	if err != nil {
		return kubeError(err)
	}
	p, err := o.plan(v.GitVersion, was)
	if err != nil {
		return err
	}
	if p, err = a.yield(ctx, in, o, p, was); err != nil {
		return kubeError(err)
	}
	if err := in.Install(ctx, p); err != nil {
		return kubeError(err)
	}
	if in.DryRun {
		a.printf("revision %s: dry run, nothing was stored\n", p.Revision)
		return nil
	}
	a.printf("revision %s of weft %s is installed in %s\n", p.Revision, version.Version, o.namespace)
	if was == nil {
		label := "istio-injection=enabled"
		if p.Revision != "default" {
			label = "istio.io/rev=" + p.Revision
		}
		a.printf("next:  kubectl label namespace default %s, then restart its Deployments\n", label)
	}
	return nil
}

// yield leaves istio-injection=enabled to the revision that the tag default stands for.
func (a *app) yield(ctx context.Context, in *install.Installer, o *installOptions, p *install.Plan, was *install.Recorded) (*install.Plan, error) {
	if p.Revision != "default" {
		return p, nil
	}
	rev, err := in.DefaultElsewhere(ctx)
	if err != nil || rev == "" {
		return p, err
	}
	in.Progress("the tag default stands for revision " + rev + ": istio-injection=enabled stays its own")
	o.set = append(o.set, "injection.default=false")
	return o.plan(p.Config.KubeServer, was)
}

// kubeError gives errors of the cluster their advice.
func kubeError(err error) error {
	if f, ok := err.(*install.Finding); ok && f.Fix != "" {
		return withHint(errors.New(f.Message), f.Fix)
	}
	var e *kube.Error
	if errors.As(err, &e) && e.Fix != "" {
		return withHint(err, e.Fix)
	}
	return err
}

func (a *app) upgradeCommand() *cobra.Command {
	var o installOptions
	var dry, wait, force bool
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Bring an installed revision to this version, with the values that it has",
		Long: `Upgrade a revision in place: the values of weft install are kept, --set and
--values go on top. For a canary, install the new version as a revision beside
the old one instead, and move the tag: see weft tag.`,
		Example: `  weft upgrade
  weft upgrade --set controlPlane.replicas=3
  weft upgrade --revision canary --dry-run`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			in, err := a.installer(o.timeout)
			if err != nil {
				return err
			}
			in.DryRun, in.Wait, in.Force = dry, wait, force
			was, err := in.Recorded(cmd.Context(), o.namespace, o.revision)
			if err != nil {
				return kubeError(err)
			}
			if was == nil {
				return withHint(fmt.Errorf("no revision %s was installed in %s by weft install", orDefault(o.revision), o.namespace), "weft install; what Helm installed, helm upgrade upgrades")
			}
			a.printf("weft %s → %s\n", orDash(was.Version), version.Version)
			return a.install(cmd.Context(), in, &o, was)
		},
	}
	o.flags(cmd)
	a.clusterFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&dry, "dry-run", false, "let the API server check everything, and store nothing")
	f.BoolVar(&wait, "wait", true, "wait for the control plane before its webhooks are made, and for everything at the end")
	f.BoolVar(&force, "force-conflicts", false, "take over fields that others set")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait for each part")
	return cmd
}

func orDefault(revision string) string {
	if revision == "" {
		return "default"
	}
	return revision
}
