// Package gateway runs what serves Gateways of the Gateway API on Kubernetes: for
// each wanted deployment a Deployment, Service and ServiceAccount (with a
// HorizontalPodAutoscaler and a PodDisruptionBudget where parametersRef asks for
// them), applied on the server's side, and removed when the Gateway goes.
//
// It reports back what became of them: addresses, readiness, and what is wrong
// with the parameters. It decides nothing about Gateways: that is
// control/gatewayapi's. It touches no object that it did not make: one of the
// same name that is somebody else's is a problem that it reports. Run it on the
// leader only.
package gateway
