package hotrestart

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Versions of the protocol that this release speaks.
const (
	MinVersion = 1
	MaxVersion = 1
)

// Bounds of a message.
const (
	maxMessage   = 4 << 10
	maxText      = 512  // bytes of an address or of a name
	maxInherited = 1024 // ports
	// maxDuration bounds what a child may ask of its parent.
	maxDuration = 24 * time.Hour
)

// Types of messages.
const (
	msgHello    = "hello"    // child: who it is
	msgWelcome  = "welcome"  // parent: go on
	msgRefused  = "refused"  // parent: no, and why
	msgTake     = "take"     // child: give me this socket
	msgSocket   = "socket"   // parent: here it is, with the descriptor
	msgNone     = "none"     // parent: there is no such socket
	msgServing  = "serving"  // child: I serve, you may stop
	msgDraining = "draining" // parent: I have stopped accepting
)

// Peer is what each side says about itself.
type Peer struct {
	Node     string `json:"node,omitempty"` // node ID, as the control plane knows it
	Role     string `json:"role,omitempty"`
	NetNS    uint64 `json:"netns,omitempty"`    // inode of the network namespace
	Software string `json:"software,omitempty"` // version of weft-proxy, for logs
	PID      int    `json:"pid,omitempty"`
}

// Kind says what a socket is for.
type Kind string

// Kinds of sockets.
const (
	Listener  Kind = "listener"  // of a configured listener; its address is the configured one
	Admin     Kind = "admin"     // of one of the proxy's own interfaces; its address is the configured one
	Inherited Kind = "inherited" // bound by whoever started the proxy; its address is a port
)

// Key names a socket.
type Key struct {
	Kind    Kind   `json:"kind,omitempty"`
	Address string `json:"address,omitempty"`
}

func (k Key) String() string { return string(k.Kind) + " " + k.Address }

// Lineage is the place of a proxy in the line of its restarts.
type Lineage struct {
	Epoch   uint32    // 0: started as usual
	Started time.Time // when the first of the line started
}

// Terms are what the child grants its parent.
type Terms struct {
	// Drain is how long connections may be ended gently, Shutdown when the rest is cut: Istio's
	// drainDuration and parentShutdownDuration.
	Drain, Shutdown time.Duration
}

// message is any message; its type says which fields count.
type message struct {
	Type string `json:"type"`
	Min  int    `json:"min,omitempty"` // hello
	Max  int    `json:"max,omitempty"` // hello
	Peer
	Version    int      `json:"version,omitempty"` // welcome
	Epoch      uint32   `json:"epoch,omitempty"`   // welcome: the parent's
	StartedMS  int64    `json:"started_ms,omitempty"`
	Inherited  []uint16 `json:"inherited,omitempty"`
	Key                 // take
	DrainMS    int64    `json:"drain_ms,omitempty"`    // serving
	ShutdownMS int64    `json:"shutdown_ms,omitempty"` // serving
	Reason     string   `json:"reason,omitempty"`      // refused
}

// encode fails only for what does not fit.
func encode(m *message) ([]byte, error) {
	b, err := json.Marshal(m)
	if err == nil && len(b) > maxMessage {
		err = fmt.Errorf("%q message has %d bytes, at most %d", m.Type, len(b), maxMessage)
	}
	return b, err
}

// decode parses and checks a message. Fields it does not know are ignored.
func decode(b []byte) (*message, error) {
	if len(b) > maxMessage {
		return nil, fmt.Errorf("message has more than %d bytes", maxMessage)
	}
	m := new(message)
	if err := json.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("message: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%.20q message: %w", m.Type, err)
	}
	return m, nil
}

func (m *message) check() error {
	for _, s := range []string{m.Node, m.Role, m.Software, m.Address, m.Reason} {
		if len(s) > maxText {
			return fmt.Errorf("a text has %d bytes, at most %d", len(s), maxText)
		}
	}
	switch m.Type {
	case msgHello:
		return m.checkHello()
	case msgWelcome:
		if m.Version < 1 || len(m.Inherited) > maxInherited {
			return fmt.Errorf("version %d, %d inherited sockets", m.Version, len(m.Inherited))
		}
	case msgTake:
		if m.Kind != Listener && m.Kind != Admin && m.Kind != Inherited || m.Address == "" {
			return fmt.Errorf("kind %.20q, address %.60q", m.Kind, m.Address)
		}
	case msgServing:
		limit := maxDuration.Milliseconds()
		if m.DrainMS < 0 || m.ShutdownMS < 0 || m.DrainMS > limit || m.ShutdownMS > limit {
			return fmt.Errorf("drain %d ms, shutdown %d ms: want 0 to %d", m.DrainMS, m.ShutdownMS, limit)
		}
	case msgRefused, msgSocket, msgNone, msgDraining:
	default:
		return errors.New("unknown type")
	}
	return nil
}

func (m *message) checkHello() error {
	if m.Min < 1 || m.Max < m.Min {
		return fmt.Errorf("versions %d to %d", m.Min, m.Max)
	}
	if m.Node == "" || m.Role == "" || m.NetNS == 0 {
		return errors.New("node, role and netns must be set")
	}
	return nil
}

// refusal is why a child may not take over from us; "" if it may.
func refusal(us, child Peer, lo, hi int) string {
	switch {
	case lo > MaxVersion || hi < MinVersion:
		return fmt.Sprintf("it speaks hot restart versions %d to %d, we %d to %d: restart in the ordinary way", lo, hi, MinVersion, MaxVersion)
	case child.Node != us.Node:
		return fmt.Sprintf("it is node %q, we are %q: is the state directory another proxy's?", child.Node, us.Node)
	case child.Role != us.Role:
		return fmt.Sprintf("it is a %s, we are a %s", child.Role, us.Role)
	case child.NetNS != us.NetNS:
		return fmt.Sprintf("it is in network namespace %d, we are in %d", child.NetNS, us.NetNS)
	}
	return ""
}
