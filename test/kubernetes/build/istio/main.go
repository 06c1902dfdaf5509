// Command istio is Istio's own control plane and the agent of its sidecars, all of both, from Istio's Go module: the tests walk the migration
// with them beside us. It is the one of the two by whose name it is called, as Istio's images have them: pilot-discovery or pilot-agent.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	meshconfig "istio.io/api/mesh/v1alpha1"
	agent "istio.io/istio/pilot/cmd/pilot-agent/app"
	discovery "istio.io/istio/pilot/cmd/pilot-discovery/app"
	istioagent "istio.io/istio/pkg/istio-agent"
	"istio.io/istio/pkg/log"
	"istio.io/istio/pkg/security"
	"istio.io/istio/security/pkg/nodeagent/sds"
)

func main() {
	var command *cobra.Command
	switch name := filepath.Base(os.Args[0]); name {
	case "pilot-discovery":
		command = discovery.NewRootCommand()
	case "pilot-agent":
		command = agent.NewRootCommand(secrets)
	default:
		fmt.Fprintf(os.Stderr, "%s: want to be called pilot-discovery or pilot-agent\n", name)
		os.Exit(2)
	}
	log.EnableKlogWithCobra()
	if err := command.Execute(); err != nil {
		log.Error(err)
		os.Exit(1)
	}
}

// secrets is how the agent gives its Envoy certificates.
func secrets(options *security.Options, cache security.SecretManager, provider *meshconfig.PrivateKeyProvider) istioagent.SDSService {
	return sds.NewServer(options, cache, provider)
}
