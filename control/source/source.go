// Package source is the contract by which configuration reaches the control
// plane: a [Source] delivers whole objects by key to a [Sink], first everything
// that it holds, then every change.
//
// Files, the embedded store and (later) Kubernetes are sources; package
// sourcetest is the suite that each of them passes. The package holds the
// contract only.
package source

import (
	"context"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/model"
)

// Sink takes what a source delivers. A source calls it from one goroutine at a
// time and never after its Run has returned. A call must not block for long.
type Sink interface {
	// Put adds or replaces objects. What is put in one call belongs together and should become visible together.
	Put(objs ...convert.Object)
	// Delete removes objects; a key that was never put is ignored.
	Delete(keys ...model.Key)
	// Synced is called once, when everything that existed at the start has been put.
	Synced()
}

// Source delivers objects.
type Source interface {
	// Run delivers to the sink until ctx ends, and then returns nil. An error
	// means that the source cannot go on; what it delivered stays valid.
	// Run may be called again after it has returned; it then delivers everything anew.
	Run(ctx context.Context, sink Sink) error
}
