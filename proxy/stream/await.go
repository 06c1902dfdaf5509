package stream

// Awaiter may be implemented by a [Client] whose codec reads its connection all the time. It lets an
// exchange wait for its response without a goroutine.
type Awaiter interface {
	// Join tells, before anything is written, whose request the exchange carries on. False: it cannot await its response for that
	// one, and whoever writes the request may wait.
	Join(s Server) bool
	// Await, called after the request was written whole, ends what the handler of the
	// joined Server has to do now. If it returns true the handler must return at once without touching
	// anything of the exchange, which is not over: resume will be called, once, on
	// another goroutine, when there is a response to be read or the exchange has failed, and is the handler
	// from then on; it may await again. False: the caller goes on, and waits.
	Await(resume func()) bool
}

// Blocker may be implemented by a [Server] whose handler runs where it must not wait.
type Blocker interface {
	// Block tells that the handler is about to wait for something that this package does not know.
	// The methods of [Server] and [Client] that wait do not need it. It is called by the handler's goroutine.
	Block()
}

// Keeper may be implemented by a [Server] or [Client] that is reused for one exchange after the other: it carries
// what its user needs for an exchange of its own from one to the next. What it carries may be lost at any time between exchanges.
type Keeper interface {
	// Kept is what Keep was given in this or an earlier exchange, by the same or another user; nil if nothing was.
	Kept() any
	Keep(v any)
}
