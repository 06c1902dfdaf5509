package http1

import (
	"errors"
	"time"
)

var (
	// errOrder: a head was written twice, or a body before the head or after the end.
	errOrder = errors.New("head, body and end were written out of order")
	// errLength: the body does not have the length that the head announced.
	errLength = errors.New("body does not have the announced content-length")
	// errBusy: a second exchange was started on a connection that runs one.
	errBusy = errors.New("connection is busy or closed")
)

var noDeadline time.Time
