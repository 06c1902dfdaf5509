package netio

import "sync"

// watches holds one goroutine for each channel somebody waits on, instead of
// one for each connection: an idle connection that watches for a drain must not cost a stack.
var watches struct {
	sync.Mutex
	by map[<-chan struct{}]*watch
}

type watch struct {
	subs map[*func()]struct{}
	quit chan struct{}
}

// OnClose calls f on a goroutine of its own when ch is closed. Stop undoes it; f may be running then. A nil ch is never closed.
func OnClose(ch <-chan struct{}, f func()) (stop func()) {
	if ch == nil {
		return func() {}
	}
	key := &f
	watches.Lock()
	defer watches.Unlock()
	w := watches.by[ch]
	if w == nil {
		w = &watch{subs: map[*func()]struct{}{}, quit: make(chan struct{})}
		if watches.by == nil {
			watches.by = map[<-chan struct{}]*watch{}
		}
		watches.by[ch] = w
		go w.run(ch)
	}
	w.subs[key] = struct{}{}
	return func() { w.drop(ch, key) }
}

// run ends when ch is closed or nobody watches it any more.
func (w *watch) run(ch <-chan struct{}) {
	select {
	case <-ch:
	case <-w.quit:
		return
	}
	watches.Lock()
	subs := w.subs
	w.subs = nil
	if watches.by[ch] == w {
		delete(watches.by, ch)
	}
	watches.Unlock()
	for f := range subs {
		(*f)()
	}
}

func (w *watch) drop(ch <-chan struct{}, key *func()) {
	watches.Lock()
	defer watches.Unlock()
	if w.subs == nil {
		return
	}
	delete(w.subs, key)
	if len(w.subs) == 0 {
		w.subs = nil
		delete(watches.by, ch)
		close(w.quit)
	}
}
