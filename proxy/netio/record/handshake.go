package record

// Messages that may come after the handshake (RFC 8446 section 4).
const (
	msgNewSessionTicket = 4
	msgKeyUpdate        = 24

	msgHeaderLen = 4
	maxMessage   = 1 << 16
)

// Messages puts together the handshake messages that come after the handshake. Its zero value is a server's.
type Messages struct {
	Client bool
	part   []byte
}

// Pending tells whether a message has begun, in which no other content may come.
func (m *Messages) Pending() bool { return len(m.part) > 0 }

// Take reads the content of a record. update: the peer's next record has new keys; asked: and it wants to see new ones of ours.
// The error is the alert to send. Tickets are dropped: sessions are not resumed.
func (m *Messages) Take(content []byte) (update, asked bool, err error) {
	if len(content) == 0 {
		return false, false, AlertUnexpectedMessage
	}
	m.part = append(m.part, content...)
	for len(m.part) >= msgHeaderLen {
		n := int(m.part[1])<<16 | int(m.part[2])<<8 | int(m.part[3])
		if n > maxMessage {
			return false, false, AlertDecodeError
		}
		if len(m.part) < msgHeaderLen+n {
			return false, false, nil
		}
		typ, body := m.part[0], m.part[msgHeaderLen:msgHeaderLen+n]
		m.part = m.part[msgHeaderLen+n:]
		switch {
		case typ == msgKeyUpdate:
			if len(body) != 1 || body[0] > 1 {
				return false, false, AlertDecodeError
			}
			if len(m.part) > 0 { // keys change between records (section 5.1)
				return false, false, AlertUnexpectedMessage
			}
			m.part = nil
			return true, body[0] == 1, nil
		case typ == msgNewSessionTicket && m.Client:
		default:
			return false, false, AlertUnexpectedMessage
		}
	}
	if len(m.part) == 0 {
		m.part = nil
	}
	return false, false, nil
}

// KeyUpdate is the message that says that our next record has new keys.
func KeyUpdate(ask bool) []byte {
	if ask {
		return []byte{msgKeyUpdate, 0, 0, 1, 1}
	}
	return []byte{msgKeyUpdate, 0, 0, 1, 0}
}
