// Package ingress computes what the Ingresses of a mesh (networking.k8s.io/v1)
// mean, all of them together: model.Gateway and model.RouteSet values for the
// World, which of them are served, and what is wrong with those.
//
// [Compute] is a pure function of its [Input]; the order of the input's lists
// does not matter. [Computer] keeps the last result, so that what did not change
// keeps its pointers.
//
// It owns the choice by class, the merging of Ingresses that name the same
// host, the order of their paths, who wins of two that contradict each other (the
// older), and which Secret serves a host. It decides nothing about the wire.
//
// An Ingress of another controller has no effect, and nothing is said about it.
// Of ours, what cannot be followed is a [Finding]: a backend that cannot be had
// is answered 503, so that a less specific path does not take its requests; a path
// that cannot be matched is left out; a host whose Secret cannot be used is not
// served by TLS, while plain requests go on.
//
// It refuses by finding: backends that are resources, regular expressions
// in paths, tls without a Secret, and annotations of other ingress controllers.
package ingress
