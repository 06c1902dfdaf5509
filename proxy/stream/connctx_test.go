package stream

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestConnContextIsAContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		drain := make(chan struct{})
		var c ConnContext
		c.Init(context.WithValue(t.Context(), key{}, "value"))
		c.SetDrain(drain)
		if c.Value(key{}) != "value" || Draining(&c) != (<-chan struct{})(drain) || c.Err() != nil {
			t.Fatal("values are not there")
		}
		child, cancel := context.WithTimeout(&c, time.Hour)
		defer cancel()
		grandchild, stop := context.WithCancel(child)
		defer stop()
		if Draining(grandchild) != (<-chan struct{})(drain) {
			t.Error("the drain signal is not inherited")
		}
		var called, undone atomic.Int32
		AfterFunc(&c, func() { called.Add(1) })
		undo := AfterFunc(&c, func() { undone.Add(1) })
		context.AfterFunc(grandchild, func() { called.Add(1) })
		if !undo() || undo() {
			t.Error("a function that was not called must be taken out once")
		}
		c.Cancel()
		c.Cancel()
		synctest.Wait()
		if called.Load() != 2 || undone.Load() != 0 || !errors.Is(c.Err(), context.Canceled) || !errors.Is(grandchild.Err(), context.Canceled) || context.Cause(grandchild) == nil {
			t.Errorf("called %d times, %d undone, %v, %v", called.Load(), undone.Load(), c.Err(), grandchild.Err())
		}
		<-c.Done()
		<-grandchild.Done()
		late := AfterFunc(&c, func() { called.Add(1) })
		synctest.Wait()
		if called.Load() != 3 || late() {
			t.Error("after the end a function is called at once")
		}
	})
}
