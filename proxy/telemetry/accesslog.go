package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"weft.mesh/weft/proxy/config"
	"weft.mesh/weft/proxy/stream"
)

const (
	flushInterval = time.Second
	flushSize     = 64 << 10
	// maxQueued bounds what waits for a slow file; lines beyond it are dropped.
	maxQueued = 1 << 20
	maxFiles  = 64
	maxLine   = 64 << 10 // longer lines are cut
)

// AccessLogConfig describes one access log. At most one of Text and JSON is set;
// neither means [DefaultText].
type AccessLogConfig struct {
	Name string
	// Path of the file; /dev/stdout and /dev/stderr are the process's own.
	Path string
	Text string
	JSON map[string]any
	// OmitEmpty leaves out JSON members without a value, and writes "" instead of "-" in text (omit_empty_values).
	OmitEmpty bool
}

// AccessLogs owns the files of all access logs. Logs with the same path share
// one. Make it with [NewAccessLogs].
type AccessLogs struct {
	dropped *Counter
	lines   *Counter
	failed  *Counter
	log     *slog.Logger
	wake    chan struct{}

	mu    sync.Mutex
	files map[string]*logFile // mu protects it
}

// NewAccessLogs makes an empty set. Failures to write go to log (nil: nowhere), and are counted in r.
func NewAccessLogs(r *Registry, log *slog.Logger) *AccessLogs {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &AccessLogs{
		log: log, wake: make(chan struct{}, 1), files: map[string]*logFile{},
		lines:   r.Counter("weft_proxy_access_log_lines_total", "Access log lines written to a buffer."),
		dropped: r.Counter("weft_proxy_access_log_dropped_total", "Access log lines dropped because the file was too slow."),
		failed:  r.Counter("weft_proxy_access_log_write_failures_total", "Failures to open or write an access log file."),
	}
}

var lineBufs = sync.Pool{New: func() any { b := make([]byte, 0, 1024); return &b }}

// NewAccessLog compiles a log. An operator that is not supported, or a path that cannot be opened, is an error.
func (a *AccessLogs) NewAccessLog(cfg AccessLogConfig) (*config.AccessLog, error) {
	line, err := cfg.compile()
	if err != nil {
		return nil, err
	}
	f, err := a.file(cfg.Path)
	if err != nil {
		return nil, err
	}
	return &config.AccessLog{Name: cfg.Name, Log: func(i *stream.Info) {
		p := lineBufs.Get().(*[]byte)
		b := line((*p)[:0], i)
		if len(b) > maxLine {
			b = append(b[:maxLine-1], '\n')
		}
		a.queue(f, b)
		if cap(b) <= maxLine {
			*p = b
		}
		lineBufs.Put(p)
	}}, nil
}

// compile returns the function that appends a line.
func (c *AccessLogConfig) compile() (func([]byte, *stream.Info) []byte, error) {
	if c.JSON != nil {
		if c.Text != "" {
			return nil, errors.New("access log: both a text and a json format")
		}
		j, err := parseJSON(c.JSON, c.OmitEmpty)
		if err != nil {
			return nil, fmt.Errorf("access log: json format: %w", err)
		}
		return func(b []byte, i *stream.Info) []byte { return append(j.append(b, i), '\n') }, nil
	}
	text, missing := c.Text, "-"
	if text == "" {
		text = DefaultText
	}
	if c.OmitEmpty {
		missing = ""
	}
	f, err := ParseFormat(text)
	if err != nil {
		return nil, err
	}
	return func(b []byte, i *stream.Info) []byte { return f.append(b, i, missing) }, nil
}

func (a *AccessLogs) file(path string) (*logFile, error) {
	if path == "" {
		return nil, errors.New("access log: no path")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.files[path]; f != nil {
		return f, nil
	}
	if len(a.files) >= maxFiles {
		return nil, fmt.Errorf("access log %s: more than %d files", path, maxFiles)
	}
	f := &logFile{path: path}
	if err := f.open(); err != nil {
		return nil, fmt.Errorf("access log: %w", err)
	}
	a.files[path] = f
	return f, nil
}

// queue hands a line to the writer.
func (a *AccessLogs) queue(f *logFile, line []byte) {
	f.mu.Lock()
	if len(f.pending)+len(line) > maxQueued {
		f.mu.Unlock()
		a.dropped.Inc()
		return
	}
	before := len(f.pending)
	f.pending = append(f.pending, line...)
	full := before < flushSize && len(f.pending) >= flushSize
	f.mu.Unlock()
	a.lines.Inc()
	if full {
		select {
		case a.wake <- struct{}{}:
		default:
		}
	}
}

// Run writes what is queued, every second or at 64 KiB, until ctx ends; then it writes the rest.
func (a *AccessLogs) Run(ctx context.Context) error {
	t := time.NewTicker(flushInterval)
	defer t.Stop()
	defer a.Flush()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.wake:
		case <-t.C:
		}
		a.Flush()
	}
}

// Flush writes what is queued now.
func (a *AccessLogs) Flush() {
	for _, f := range a.list() {
		if err := f.flush(); err != nil {
			a.failed.Inc()
			a.log.Warn("access log: write failed", "path", f.path, "cause", err)
		}
	}
}

// Reopen opens all files again by their paths (SIGHUP). Files that were renamed or
// removed are also noticed without it, within a second.
func (a *AccessLogs) Reopen() {
	for _, f := range a.list() {
		f.reopenNext()
	}
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

func (a *AccessLogs) list() []*logFile {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*logFile, 0, len(a.files))
	for _, f := range a.files {
		out = append(out, f)
	}
	return out
}
