package cli

import (
	"context"

	"weft.mesh/weft/control/gatewayapi"
	"weft.mesh/weft/control/ingress"
	"weft.mesh/weft/control/kube"
	"weft.mesh/weft/control/kube/gateway"
)

// deployGateways runs what serves Gateways until ctx ends. Leader only.
func (r *replica) deployGateways(ctx context.Context) {
	gateway.New(gateway.Settings{
		Client: r.client, Log: r.log, Inject: r.webhooks.conf.Load,
		Wanted:  func() []gatewayapi.Deployment { return r.server.GatewayAPI().Deployments },
		Changed: r.server.GatewayAPIChanged,
		Mine: func(d gatewayapi.Deployment) bool {
			v, _ := r.source.Version(d.Gateway)
			return r.revisions.Mine(d.Namespace, v.Revision)
		},
		Moved:  r.revisions.Moved(),
		Report: r.server.SetGatewayInfrastructure,
	}).Run(ctx)
}

// followIngressAddresses knows where Ingresses are reached until ctx ends. Which Service that is may change with the MeshConfig. Leader only.
func (r *replica) followIngressAddresses(ctx context.Context) {
	(&kube.IngressAddresses{
		Client: r.client, Log: r.log,
		Service: func() (namespace, name string) { return ingress.ServiceOf(r.server.World().Mesh()) },
		Changed: r.server.Changed,
		Report:  func(addresses []string) { r.addresses.Store(&addresses) },
	}).Run(ctx)
}
