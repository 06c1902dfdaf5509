package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"weft.mesh/weft/api/admin"
	"weft.mesh/weft/local/process"
)

// Bounds of commands run in pods.
const (
	maxExecs     = 64              // at a time; more are refused
	execFiles    = 3               // stdin, stdout, stderr
	hangupGrace  = 2 * time.Second // from SIGHUP to SIGKILL when the caller has gone
	requestLimit = 10 * time.Second
)

// RunExec serves the exec socket until ctx ends; running commands are ended then.
func (s *Server) RunExec(ctx context.Context, ln *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	slots := make(chan struct{}, maxExecs)
	for {
		c, err := ln.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("api: serve %s: %w", ln.Addr(), err)
		}
		select {
		case slots <- struct{}{}:
		default:
			answer(c, admin.ExecResult{ExitCode: -1, Error: fmt.Sprintf("exec: %d commands run already", maxExecs)})
			c.Close()
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			defer c.Close()
			code, err := s.exec(ctx, c)
			res := admin.ExecResult{ExitCode: code}
			if err != nil {
				res.Error = err.Error()
			}
			answer(c, res)
		})
	}
}

func answer(c net.Conn, r admin.ExecResult) {
	c.SetWriteDeadline(time.Now().Add(time.Second))
	json.NewEncoder(c).Encode(r) // the caller may have gone
}

// exec runs one command to its end.
func (s *Server) exec(ctx context.Context, c *net.UnixConn) (int, error) {
	c.SetReadDeadline(time.Now().Add(requestLimit))
	req, files, err := readExec(c)
	closeFiles := func() {
		for _, f := range files {
			f.Close()
		}
	}
	defer closeFiles()
	if err != nil {
		return -1, err
	}
	c.SetReadDeadline(time.Time{})
	p, err := s.Backend.Find(req.Namespace, req.Pod)
	if err != nil {
		return -1, err
	}
	proc, err := p.Start(process.Spec{Argv: req.Command, Dir: req.Dir, Stdin: files[0], Stdout: files[1], Stderr: files[2]}, req.Env)
	closeFiles() // the command holds them now: their ends must be seen
	if err != nil {
		return 127, err
	}
	gone := make(chan struct{})
	go func() { // ends when the connection does, at the latest when we close it
		io.Copy(io.Discard, c)
		close(gone)
	}()
	select {
	case <-proc.Done():
		return proc.ExitCode(), nil
	case <-gone:
	case <-ctx.Done():
	}
	proc.Signal(syscall.SIGHUP)
	t := time.NewTimer(hangupGrace)
	defer t.Stop()
	select {
	case <-proc.Done():
	case <-t.C:
		proc.Signal(syscall.SIGKILL)
		<-proc.Done()
	}
	return proc.ExitCode(), errors.New("exec: the command was ended because its caller has gone")
}

// readExec reads the request line and the descriptors that come with it. The
// files are returned even with an error, for closing.
func readExec(c *net.UnixConn) (req admin.ExecRequest, files []*os.File, err error) {
	var line []byte
	buf, oob := make([]byte, 32<<10), make([]byte, unix.CmsgSpace(4*execFiles))
	for !bytes.HasSuffix(line, []byte("\n")) {
		n, oobn, flags, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil {
			return req, files, fmt.Errorf("exec: read request: %w", err)
		}
		if n == 0 {
			return req, files, errors.New("exec: read request: the caller has gone")
		}
		got, err := descriptors(oob[:oobn])
		files = append(files, got...)
		if err != nil {
			return req, files, err
		}
		if flags&unix.MSG_CTRUNC != 0 || len(files) > execFiles {
			return req, files, fmt.Errorf("exec: more than %d descriptors came with the request", execFiles)
		}
		if line = append(line, buf[:n]...); len(line) > maxRequest {
			return req, files, fmt.Errorf("exec: the request has more than %d bytes", maxRequest)
		}
	}
	if err := json.Unmarshal(line, &req); err != nil {
		return req, files, fmt.Errorf("exec: read request: %w", err)
	}
	if len(files) != execFiles {
		return req, files, fmt.Errorf("exec: %d descriptors came with the request: want stdin, stdout and stderr", len(files))
	}
	if len(req.Command) == 0 {
		return req, files, errors.New("exec: no command")
	}
	return req, files, nil
}

// descriptors takes over what a control message carries. The kernel marks them
// close-on-exec (Go asks for that).
func descriptors(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("exec: read descriptors: %w", err)
	}
	var out []*os.File
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return out, fmt.Errorf("exec: read descriptors: %w", err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			out = append(out, os.NewFile(uintptr(fd), "exec"))
		}
	}
	return out, nil
}
