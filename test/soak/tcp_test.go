package soak

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// runTCP talks to the echo through a TCP listener.
func runTCP(addr string, r *rand.Rand, o op) error {
	c, err := dialTo(addr, "")
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(opTimeout + o.lasts))
	if _, err := fmt.Fprintf(c, "%s\n", o.id); err != nil {
		return err
	}
	br := bufio.NewReader(c)
	line, err := br.ReadString('\n')
	if err != nil {
		return fmt.Errorf("no greeting: %w", err)
	}
	if line != "hello "+o.id+"\n" {
		return wrongf("greeting %q", line)
	}
	return converse(c, br, r, o)
}

// runUpgrade switches an HTTP/1.1 connection to the echo.
func runUpgrade(addr string, r *rand.Rand, o op) error {
	c, err := dialTo(addr, "http/1.1")
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(opTimeout + o.lasts))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: app\r\nX-Id: %s\r\nConnection: upgrade\r\nUpgrade: soak\r\n\r\n", o.path(), o.id); err != nil {
		return err
	}
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: "GET"})
	if err != nil {
		return fmt.Errorf("response: %w", err)
	}
	if resp.StatusCode != 101 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return &errStatus{resp.StatusCode, string(text)}
	}
	if id := resp.Header.Get("x-id"); id != o.id {
		return wrongf("upgraded as %q, want %q", id, o.id)
	}
	return converse(c, br, r, o)
}

// converse sends in pieces, with pauses, reads the echo at the same time, closes its half and waits for the end.
func converse(c net.Conn, br *bufio.Reader, r *rand.Rand, o op) error {
	sent := random(o.id, o.size)
	cut := len(sent)
	if o.fault == abort {
		cut /= 2
	}
	steps := 1 + r.IntN(8)
	pause := o.pause(r, steps, 30*time.Millisecond)
	written := make(chan error, 1)
	go func() {
		for i := range steps {
			if _, err := c.Write(sent[cut*i/steps : cut*(i+1)/steps]); err != nil {
				written <- err
				return
			}
			time.Sleep(pause)
		}
		if o.fault == abort {
			resetConn(c)
			written <- nil
			return
		}
		var err error
		if cw, ok := c.(interface{ CloseWrite() error }); ok {
			err = cw.CloseWrite()
		}
		written <- err
	}()
	got, err := compare(br, &xorReader{bytes.NewReader(sent), keyOf(o.id)})
	if err != nil {
		_ = c.Close()
		err = fmt.Errorf("%d of %d bytes: %w", got, len(sent), err)
	}
	werr := <-written
	if o.fault == abort {
		return errIfWrong(err)
	}
	if err == nil && werr != nil {
		err = fmt.Errorf("write: %w", werr)
	}
	return err
}
