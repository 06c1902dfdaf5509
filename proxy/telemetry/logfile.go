package telemetry

import (
	"os"
	"sync"
)

// logFile is one file with what waits to be written to it.
type logFile struct {
	path string

	mu      sync.Mutex
	pending []byte // mu protects it
	reopen  bool   // and this

	write sync.Mutex // held while writing; protects the following
	f     *os.File
	std   bool
	spare []byte // the buffer written last
}

// open opens the file for appending; write is held, or nobody else knows f yet.
func (f *logFile) open() error {
	switch f.path {
	case "/dev/stdout":
		f.f, f.std = os.Stdout, true
		return nil
	case "/dev/stderr":
		f.f, f.std = os.Stderr, true
		return nil
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	if f.f != nil {
		_ = f.f.Close()
	}
	f.f = file
	return nil
}

func (f *logFile) reopenNext() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reopen = true
}

// flush writes what is pending. What a failed write did not take is lost, so that one bad file cannot hold memory.
func (f *logFile) flush() error {
	f.write.Lock()
	defer f.write.Unlock()
	f.mu.Lock()
	out, reopen := f.pending, f.reopen
	if len(out) > 0 {
		f.pending = f.spare[:0]
	}
	f.reopen = false
	f.mu.Unlock()
	if reopen || (len(out) > 0 && f.moved()) {
		if !f.std {
			if err := f.open(); err != nil {
				f.spare = out[:0]
				return err
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	_, err := f.f.Write(out)
	if f.spare = out[:0]; cap(out) > 4*flushSize { // a burst is over
		f.spare = nil
	}
	return err
}

// moved tells whether the path no longer names the open file (logrotate).
func (f *logFile) moved() bool {
	if f.std {
		return false
	}
	open, err := f.f.Stat()
	if err != nil || !open.Mode().IsRegular() {
		return false // a pipe or device is what it is
	}
	now, err := os.Stat(f.path)
	return err != nil || !os.SameFile(open, now)
}
