package snapshot

import "weft.mesh/weft/model"

// Secret returns a Secret; nil if there is none. [Revisions].Secrets tells when any changed.
func (w *World) Secret(namespace, name string) *model.Secret {
	for _, o := range w.objects.at(model.Key{Kind: model.KindSecret, Namespace: namespace, Name: name}) {
		if s, ok := o.(*model.Secret); ok {
			return s
		}
	}
	return nil
}
