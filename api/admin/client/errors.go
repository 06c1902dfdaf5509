package client

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path/filepath"
	"syscall"

	"weft.mesh/weft/api/admin"
)

// ErrNotRunning says that nobody serves a socket.
var ErrNotRunning = errors.New("no mesh is running here")

// Error is why a call came to nothing.
type Error struct {
	Socket string // path of the socket
	Call   string // what was asked of it, a path of package admin
	Status int    // of an answer that refuses, 0 when there was none
	Cause  error
	Fix    string // what to do about it; "" when nobody knows
}

// Error names the socket, what was asked and the cause.
func (e *Error) Error() string {
	switch {
	case errors.Is(e.Cause, ErrNotRunning):
		return fmt.Sprintf("%v (%s)", e.Cause, e.Socket)
	case e.Status != 0:
		return fmt.Sprintf("%s: %s: %v", filepath.Base(e.Socket), e.Call, e.Cause)
	}
	return fmt.Sprintf("%s: %s: %v", e.Socket, e.Call, e.Cause)
}

func (e *Error) Unwrap() error { return e.Cause }

// fail says what err means for a caller of this socket.
func (s *socket) fail(call string, err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	var ue *url.Error
	if errors.As(err, &ue) { // its URL is made up
		err = ue.Err
	}
	e := &Error{Socket: s.path, Call: call, Cause: err}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		e.Cause, e.Fix = ErrNotRunning, "start one with `weft up FILE` or `weft demo`, or name its folder with --state-dir"
	case errors.Is(err, fs.ErrPermission):
		e.Cause, e.Fix = errors.New("permission denied"), "the mesh was started by another user; run weft as that user"
	case errors.Is(err, errSlow):
		e.Fix = "the mesh is stopped or overloaded: look at its process and its log"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		e.Cause, e.Fix = fmt.Errorf("the answer ended early: %w", err), "was the mesh ended or restarted meanwhile? try again"
	}
	return e
}

// refused reads an answer that says no.
func (s *socket) refused(call string, resp *http.Response) error {
	defer resp.Body.Close()
	e := &Error{Socket: s.path, Call: call, Status: resp.StatusCode}
	e.Cause, e.Fix = said(resp)
	return e
}

// said is the reason in an answer that is not 2xx.
func said(resp *http.Response) (cause error, fix string) {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxError)) // what came is enough for a message
	var a admin.Error
	if json.Unmarshal(b, &a) == nil && a.Message != "" {
		return errors.New(a.Message), a.Hint
	}
	return fmt.Errorf("answer %s: %s", resp.Status, bytes.TrimSpace(b)), ""
}
