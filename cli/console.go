package cli

import (
	"context"
	"log/slog"
	"net"

	"weft.mesh/weft/observe/console"
)

// serveConsole answers the web console on l until ctx ends. It reads the mesh
// by its sockets, as weft status and weft ps do, so that it works the same
// when the control plane is a process of its own.
func (m *mesh) serveConsole(ctx context.Context, l net.Listener, log *slog.Logger) error {
	s, err := console.New(console.Settings{Mesh: m.app.mesh(), Log: log})
	if err != nil {
		return err
	}
	return s.Serve(ctx, l)
}

// besideConsole serves the console until the returned function is called,
// which waits for its end. A mesh without its console is a mesh still: what
// goes wrong is logged.
func (m *mesh) besideConsole(ctx context.Context, l net.Listener, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := m.serveConsole(ctx, l, log); err != nil {
			log.Error("the console ended", "error", err)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
