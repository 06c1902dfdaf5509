package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// notify returns what tells those who started us that we serve: a line to the descriptor of
// --notify-fd (0: none), and systemd's message (sd_notify(3)) to the socket of $NOTIFY_SOCKET ("": none). MAINPID in
// it makes systemd follow a successor that SIGUSR2 has started. Nil: nobody wants to be told.
func notify(fd int, socket string, stderr io.Writer) (func(), error) {
	if fd == 0 && socket == "" {
		return nil, nil
	}
	line, err := notifyFD(fd)
	if err != nil {
		return nil, err
	}
	return func() {
		line()
		if err := notifySystemd(socket); err != nil {
			fmt.Fprintf(stderr, "weft-proxy: NOTIFY_SOCKET %q: %v\n", socket, err) // it serves all the same
		}
	}, nil
}

func notifyFD(fd int) (func(), error) {
	if fd == 0 {
		return func() {}, nil
	}
	f := os.NewFile(uintptr(fd), "--notify-fd")
	if f == nil || fd < 0 {
		return nil, fmt.Errorf("--notify-fd %d: want the number of an open descriptor", fd)
	}
	if _, err := f.Stat(); err != nil {
		return nil, fmt.Errorf("--notify-fd %d: %w", fd, err)
	}
	syscall.CloseOnExec(fd)
	return func() {
		_, _ = io.WriteString(f, "serving\n") // whoever wanted to know may be gone
		_ = f.Close()
	}, nil
}

func notifySystemd(socket string) error {
	if socket == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: socket, Net: "unixgram"}) // @ stands for an abstract one, here as there
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = fmt.Fprintf(c, "READY=1\nMAINPID=%d\n", os.Getpid())
	return err
}
