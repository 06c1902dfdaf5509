package chain

import (
	"context"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
)

// resync is how often the node is looked at without a reason: an event may be lost.
const resync = 30 * time.Second

// settle is how long after an event the node is looked at: writers write more than once.
const settle = 100 * time.Millisecond

// Keep installs the plugin, and again whenever somebody changes what it needs, until ctx ends.
// report is told the outcome of each time that something changed or failed, and of the first.
func (c *Chain) Keep(ctx context.Context, report func(changed bool, err error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the node's folders: %w", err)
	}
	defer w.Close()
	for _, dir := range []string{c.BinDir, c.ConfDir} {
		if err := w.Add(dir); err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	first, failed := true, false
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.Events:
			if !ok {
				return fmt.Errorf("watch the node's folders: it ended")
			}
			timer.Reset(settle)
		case <-w.Errors: // events were lost
			timer.Reset(settle)
		case <-timer.C:
			changed, err := c.Install()
			if first || changed || err != nil || failed {
				report(changed, err)
			}
			first, failed = false, err != nil
			timer.Reset(resync)
		}
	}
}
