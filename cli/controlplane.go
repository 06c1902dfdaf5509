package cli

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/server"
	"weft.mesh/weft/local/podspec"
)

func (a *app) controlPlaneCommand() *cobra.Command {
	var o meshOptions
	var address string
	var files []string
	var pods bool
	var store string
	var k kubernetesOptions
	cmd := &cobra.Command{
		Use:   "control-plane",
		Short: "Run only the control plane",
		Long: `Run the control plane: xDS and certificates over TLS on 15012, xDS for programs
on this machine on 127.0.0.1:15010, metrics and debug pages on 15014, and the
Unix socket that weft apply and weft status use, in the state folder.

With --kubernetes the API server is the source: Services, EndpointSlices and
pods, the kinds of Istio and the Gateway API. Identities are proved by projected
tokens, the CA's key is in the Secret cacerts or weft-ca-secret, settings are in
the ConfigMap istio; of several replicas one writes. In a pod it finds its API
server by itself, and listens on all addresses.`,
		Example: `  weft control-plane --config ./manifests
  weft control-plane --address 10.0.0.5 --state-dir /var/lib/weft
  weft control-plane --kubernetes --kubeconfig admin.conf --address 127.0.0.1`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := netip.ParseAddr(address); err != nil {
				return &exitError{exitUsage, fmt.Errorf("--address %q: want an IP address", address)}
			}
			if err := o.load(); err != nil {
				return err
			}
			log, err := a.logger(o.logLevel)
			if err != nil {
				return err
			}
			paths, err := absolute(files)
			if err != nil {
				return err
			}
			state, err := filepath.Abs(a.stateDir)
			if err != nil {
				return err
			}
			set := o.controlPlane(state, address, paths, log)
			set.Pods, set.Store = pods, store
			if k.on {
				if !cmd.Flags().Changed("address") {
					set.Address = a.podAddress()
				}
				return a.runKubernetes(cmd.Context(), &k, o.mesh, set)
			}
			s, err := server.New(set)
			if err != nil {
				return err
			}
			return s.Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "127.0.0.1", "IP address for 15012 and 15014")
	f.StringVar(&store, "store", admin.FileStore, "file of the object store in the state folder")
	f.StringSliceVar(&files, "config", nil, "file or folder to watch; may be repeated")
	f.BoolVar(&pods, "pods", false, "take pods from the local runtime (folder pods in the state folder)")
	f.BoolVar(&o.accessLog, "access-log", false, "sidecars write Istio's access log to their standard output")
	f.BoolVar(&o.registryOnly, "registry-only", false, "outbound traffic to hosts that the mesh does not know is refused")
	o.meshConfigFlag(cmd)
	k.flags(cmd)
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// checkDeployment refuses what the local runtime cannot do.
func checkDeployment(d *appsv1.Deployment) []convert.FieldProblem {
	var out []convert.FieldProblem
	for _, p := range podspec.Validate(d) {
		out = append(out, convert.FieldProblem{Field: p.Field, Value: p.Value, Message: p.Message, Hint: p.Hint})
	}
	return out
}
