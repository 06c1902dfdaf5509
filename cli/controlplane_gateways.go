package cli

import (
	"context"

	"weft.mesh/weft/control/gatewayapi"
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
