package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// children are the processes of a node. As pid 1 the program inherits
// orphans (containerd's shims), so one loop waits for all.
type children struct {
	logs string // directory; each program writes NAME.log

	mu      sync.Mutex // protects the following
	running map[int]child
	reaping bool
}

type child struct {
	name string
	done chan unix.WaitStatus // buffered, one value
}

// start starts a program; its end, which nobody waits for, is written to the node's log.
func (c *children) start(name string, argv ...string) (child, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	log, err := os.OpenFile(filepath.Join(c.logs, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return child{}, err
	}
	defer log.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return child{}, err
	}
	defer null.Close()
	p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Files: []*os.File{null, log, log}, Env: os.Environ()})
	if err != nil {
		return child{}, fmt.Errorf("start %s: %w", name, err)
	}
	if c.running == nil {
		c.running = map[int]child{}
	}
	k := child{name, make(chan unix.WaitStatus, 1)}
	c.running[p.Pid] = k
	p.Release()
	if !c.reaping {
		c.reaping = true
		go c.reap() // as long as the process lives: pid 1 ends when it is killed
	}
	return k, nil
}

// keep starts a program again whenever it ends, as a machine's service manager does, but not while it is held (see [Bed.Hold]).
func (c *children) keep(name string, held func() bool, argv ...string) error {
	k, err := c.start(name, argv...)
	if err != nil {
		return err
	}
	go func() { // as long as the process lives: pid 1 ends when it is killed
		for {
			<-k.done
			for time.Sleep(200 * time.Millisecond); held(); time.Sleep(100 * time.Millisecond) {
			}
			for k, err = c.start(name, argv...); err != nil; k, err = c.start(name, argv...) {
				fmt.Fprintln(os.Stderr, err)
				time.Sleep(time.Second)
			}
		}
	}()
	return nil
}

// run starts a program and waits for its end.
func (c *children) run(name string, argv ...string) error {
	k, err := c.start(name, argv...)
	if err != nil {
		return err
	}
	if s := <-k.done; s != 0 {
		return fmt.Errorf("%s: %v: %s", name, argv, describe(s))
	}
	return nil
}

func (c *children) reap() {
	for {
		var s unix.WaitStatus
		pid, err := unix.Wait4(-1, &s, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			c.mu.Lock()
			none := len(c.running) == 0
			c.reaping = !none // the next start begins again
			c.mu.Unlock()
			if none {
				return
			}
			continue // one was started meanwhile
		}
		c.mu.Lock()
		k, ok := c.running[pid]
		delete(c.running, pid)
		c.mu.Unlock()
		if ok {
			k.done <- s
			if s != 0 {
				fmt.Fprintf(os.Stderr, "%s ended: %s\n", k.name, describe(s))
			}
		}
	}
}

func describe(s unix.WaitStatus) string {
	if s.Signaled() {
		return "signal " + s.Signal().String()
	}
	return fmt.Sprintf("exit status %d", s.ExitStatus())
}
