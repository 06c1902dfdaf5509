// Package logs keeps the output of one container: the newest part in memory
// for those who watch, all of it in a file of bounded size.
//
// A [Log] is an io.Writer that never blocks on its readers: a follower that is
// too slow loses the oldest bytes and is told so. Safe for concurrent use.
package logs

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// Bounds of one log.
const (
	DefaultMaxFile = 10 << 20  // bytes; then the file becomes FILE.1 and a new one begins
	memorySize     = 128 << 10 // newest bytes kept in memory
)

// Log is the output of one container.
type Log struct {
	path    string
	maxFile int64

	mu     sync.Mutex
	file   *os.File // nil when the file system refused; memory still works
	size   int64
	memory []byte // newest bytes, at most memorySize
	total  int64  // bytes ever written; memory holds those before it
	closed bool
	more   chan struct{} // closed and replaced at every write
}

// Open appends to the log file at path, making its folder. maxFile is the size
// in bytes at which the file is rotated; 0 means DefaultMaxFile.
func Open(path string, maxFile int64) (*Log, error) {
	if maxFile <= 0 {
		maxFile = DefaultMaxFile
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("logs: make folder: %w", err)
	}
	l := &Log{path: path, maxFile: maxFile, more: make(chan struct{})}
	if err := l.openFile(); err != nil {
		return nil, fmt.Errorf("logs: open file: %w", err)
	}
	return l, nil
}

func (l *Log) openFile() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.file, l.size = f, st.Size()
	return nil
}

// Write stores p. It never fails: a full disk costs the file, not the program
// that writes.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return len(p), nil
	}
	l.writeFile(p)
	if keep := p; len(keep) >= memorySize {
		l.memory = append(l.memory[:0], keep[len(keep)-memorySize:]...)
	} else {
		if over := len(l.memory) + len(keep) - memorySize; over > 0 {
			// Drop a quarter at once, so that the copying is rare.
			over = min(len(l.memory), max(over, memorySize/4))
			l.memory = append(l.memory[:0], l.memory[over:]...)
		}
		l.memory = append(l.memory, keep...)
	}
	l.total += int64(len(p))
	close(l.more)
	l.more = make(chan struct{})
	return len(p), nil
}

func (l *Log) writeFile(p []byte) {
	if l.size > 0 && l.size+int64(len(p)) > l.maxFile {
		if l.file != nil {
			l.file.Close()
			l.file = nil
		}
		os.Rename(l.path, l.path+".1") // on failure the file just grows on
		l.size = 0
	}
	if l.file == nil && l.openFile() != nil {
		return
	}
	n, _ := l.file.Write(p)
	l.size += int64(n)
}

// Printf writes one line of our own into the log, marked as ours.
func (l *Log) Printf(format string, args ...any) {
	l.Write([]byte("[weft] " + fmt.Sprintf(format, args...) + "\n"))
}

// Close ends the log: followers see its end. The files stay.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.more)
	if l.file != nil {
		return l.file.Close()
	}
	return nil
}

// All lines, where a number of last lines is asked for.
const All = -1

// Tail is the last n lines in memory, or [All] that it holds.
func (l *Log) Tail(n int) []byte {
	b, _ := l.tail(n)
	return b
}

func (l *Log) tail(n int) ([]byte, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return lastLines(bytes.Clone(l.memory), n), l.total
}

// lastLines cuts b to its last n lines.
func lastLines(b []byte, n int) []byte {
	if n < 0 {
		return b
	}
	if n == 0 {
		return nil
	}
	end := len(b)
	if end > 0 && b[end-1] == '\n' {
		end--
	}
	for i := end - 1; i >= 0; i-- {
		if b[i] == '\n' {
			if n--; n == 0 {
				return b[i+1:]
			}
		}
	}
	return b
}

// Copy writes the log to w: the last tail lines, or [All] that the files hold;
// then, when follow is set, what comes, until ctx or the log
// ends. A w that is slower than the log misses bytes and is told how many.
func (l *Log) Copy(ctx context.Context, w io.Writer, tail int, follow bool) error {
	at, err := l.copyPast(w, tail)
	if err != nil || !follow {
		return err
	}
	for {
		chunk, lost, more, closed := l.since(at)
		if lost > 0 {
			if _, err := fmt.Fprintf(w, "[weft] %d bytes were skipped\n", lost); err != nil {
				return err
			}
		}
		if len(chunk) > 0 {
			if _, err := w.Write(chunk); err != nil {
				return err
			}
		}
		at += lost + int64(len(chunk))
		if closed {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		}
	}
}

// copyPast writes what the log holds now and returns where following begins.
func (l *Log) copyPast(w io.Writer, tail int) (int64, error) {
	if tail >= 0 {
		b, at := l.tail(tail)
		_, err := w.Write(b)
		return at, err
	}
	l.mu.Lock()
	at, size := l.total, l.size
	older, _ := os.Open(l.path + ".1")
	newer, err := os.Open(l.path)
	l.mu.Unlock()
	if older != nil {
		defer older.Close()
		if _, err := io.Copy(w, older); err != nil {
			return at, err
		}
	}
	if err != nil {
		b, at := l.tail(All) // the file is gone: memory is what is left
		_, err := w.Write(b)
		return at, err
	}
	defer newer.Close()
	_, err = io.CopyN(w, newer, size)
	if err == io.EOF {
		err = nil
	}
	return at, err
}

// since returns what came after position at.
func (l *Log) since(at int64) (chunk []byte, lost int64, more <-chan struct{}, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	oldest := l.total - int64(len(l.memory))
	if at < oldest {
		lost, at = oldest-at, oldest
	}
	return bytes.Clone(l.memory[at-oldest:]), lost, l.more, l.closed
}
