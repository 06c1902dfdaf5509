package cni

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"time"
)

// Bounds of the agent's socket.
const (
	maxQuestions  = 64 // at once; more wait in the socket's backlog
	questionLimit = 30 * time.Second
)

// Serve answers questions on l until ctx ends, and closes it. It returns after the last answer.
func Serve(ctx context.Context, l net.Listener, answer func(context.Context, Pod) Answer) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	slots := make(chan struct{}, maxQuestions)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			one(ctx, conn, answer)
		})
	}
}

// one answers the question of one connection.
func one(ctx context.Context, conn net.Conn, answer func(context.Context, Pod) Answer) {
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, questionLimit)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	var p Pod
	a := Answer{}
	if err := readLine(conn, &p); err != nil {
		a.Error = "question: " + err.Error()
	} else {
		a = answer(ctx, p)
	}
	json.NewEncoder(conn).Encode(a) // a plugin that has gone hears nothing
}
