// Package gatewayapi computes what the Gateway API objects of a mesh mean, all
// of them together: values of package model for the World, the status of every
// object, and the gateway deployments that are wanted.
//
// [Compute] is a pure function of its [Input]; the order of the input's lists
// does not matter. [Computer] keeps the last result, so that what did not
// change keeps its pointers, and knows the objects by key.
//
// It owns attachment (parents, sections, ports, namespaces, kinds), hostname
// intersection, ReferenceGrants, conflicts between listeners, routes and
// policies, and precedence. It decides nothing about the wire: that is
// control/translate's, which takes routes in the order that they have here.
//
// An object that breaks a rule gets a condition and has the least effect that
// is safe: a rule that cannot be followed, and a backend's share that cannot be
// resolved, are answered 500; a listener without its certificate, or
// without the roots that clients must be verified with, serves nothing; a
// backend whose TLS cannot be verified is not connected to.
//
// It refuses by condition (Accepted False, UnsupportedValue): filters
// ExtensionRef and ExternalAuth, session persistence, filters other than header modifiers
// at a backend, TLSRoutes with a Service as parent, listeners of protocol UDP.
package gatewayapi
