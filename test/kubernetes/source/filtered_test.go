package source

import (
	"context"

	"weft.mesh/weft/control/convert"
	"weft.mesh/weft/control/source"
	"weft.mesh/weft/model"
)

// filtered is a source without what every cluster holds, which the contract's suite does not expect.
type filtered struct{ source.Source }

// Run implements source.Source.
func (f filtered) Run(ctx context.Context, sink source.Sink) error {
	return f.Source.Run(ctx, only{sink})
}

type only struct{ source.Sink }

func (o only) Put(objs ...convert.Object) {
	for _, x := range objs {
		if mine(x.Key) {
			o.Sink.Put(x)
		}
	}
}

func (o only) Delete(keys ...model.Key) {
	for _, k := range keys {
		if mine(k) {
			o.Sink.Delete(k)
		}
	}
}
