// Package convert is the only way in for configuration: YAML or JSON text
// becomes typed API objects with positions ([Decode]), and typed API objects
// become values of package model ([ToModel]).
//
// It promises that nothing is silently ignored. A field that the API does not
// know, a field that the API knows and Weft does not do yet, a duplicate key,
// a wrong type and a value that Istio or Kubernetes would refuse are all
// reported with file, line, column, object, field path, value and a hint. An
// object with an error is never returned.
//
// It refuses to look at other objects: references (an unknown subset, a host
// that does not exist) are the business of control/analyze. It does no I/O and
// is safe for concurrent use.
package convert
