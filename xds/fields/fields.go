// Package fields walks over an encoded protobuf message without decoding it.
package fields

import "google.golang.org/protobuf/encoding/protowire"

// Each visits the fields of a message that have a length: texts, bytes and messages, in the order in which they stand.
// Others are passed over. What is visited is part of b. An error of visit, or of a message that is cut off, ends it.
func Each(b []byte, visit func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if kind != protowire.BytesType {
			if n = protowire.ConsumeFieldValue(num, kind, b); n < 0 {
				return protowire.ParseError(n)
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := visit(num, v); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
