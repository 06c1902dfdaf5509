package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"strings"
	"time"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/internal/backoff"
)

// reconnect is the wait between tries to reach a control plane.
var reconnect = backoff.Policy{Base: 50 * time.Millisecond, Max: 2 * time.Second, Factor: 2, Jitter: 0.3}

// Objects are objects of the watched kinds, by kind, namespace and name.
type Objects map[admin.ObjectRef]admin.Object

// WatchObjects reports all objects of the kinds, again after every change,
// until ctx ends. The map given to report is not changed afterwards.
//
// A lost control plane is not an event: the watch tries again with back-off, and
// reports nothing until the control plane has sent everything, so that a
// restart of it looks like no change. lost, if not nil, is told why a
// connection ended.
func (c *Client) WatchObjects(ctx context.Context, kinds []string, report func(Objects), lost func(error)) {
	q := url.Values{"watch": {"true"}, "kind": {strings.Join(kinds, ",")}}
	c.control.watch(ctx, admin.PathObjects, q, lost, func() func([]byte) error {
		w := objectWatch{current: Objects{}, report: report}
		return w.line
	})
}

type objectWatch struct {
	current Objects
	synced  bool
	report  func(Objects)
}

func (w *objectWatch) line(b []byte) error {
	var e admin.Event
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Errorf("read event: %w", err)
	}
	if e.Type == admin.EventSynced {
		w.synced = true
	} else if e.Object == nil {
		return fmt.Errorf("event %q without an object", e.Type)
	} else {
		ref := admin.ObjectRef{Kind: e.Object.Kind, Namespace: e.Object.Namespace, Name: e.Object.Name}
		switch e.Type {
		case admin.EventPut:
			w.current[ref] = *e.Object
		case admin.EventDelete:
			delete(w.current, ref)
		default:
			return fmt.Errorf("unknown event %q", e.Type)
		}
	}
	if w.synced {
		w.report(maps.Clone(w.current))
	}
	return nil
}

// WatchNames reports the table of names, again after every change, until ctx
// ends. It tries again as WatchObjects does.
func (c *Client) WatchNames(ctx context.Context, report func(admin.NameTable), lost func(error)) {
	c.control.watch(ctx, admin.PathNames, url.Values{"watch": {"true"}}, lost, func() func([]byte) error {
		return func(b []byte) error {
			var t admin.NameTable
			if err := json.Unmarshal(b, &t); err != nil {
				return fmt.Errorf("read names: %w", err)
			}
			report(t)
			return nil
		}
	})
}

// watch reads a stream of lines for ever, each connection with a new reader.
func (s *socket) watch(ctx context.Context, path string, q url.Values, lost func(error), begin func() func([]byte) error) {
	for retry := 0; ctx.Err() == nil; {
		began := time.Now()
		err := s.lines(ctx, path, q, begin())
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > reconnect.Max {
			retry = 0
		}
		if lost != nil {
			lost(err)
		}
		t := time.NewTimer(reconnect.Delay(retry, 0.5))
		retry++
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// lines reads one stream to its end, which is an error.
func (s *socket) lines(ctx context.Context, path string, q url.Values, line func([]byte) error) error {
	body, err := s.stream(ctx, path, q)
	if err != nil {
		return err
	}
	defer body.Close()
	sc := bufio.NewScanner(body)
	sc.Buffer(make([]byte, 0, 64<<10), maxLine)
	for sc.Scan() {
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		if err := line(sc.Bytes()); err != nil {
			return s.fail(path, err)
		}
	}
	if err := sc.Err(); err != nil {
		return s.fail(path, err)
	}
	return s.fail(path, io.EOF)
}
