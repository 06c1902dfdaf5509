package http1

// maxChunkExtra bounds what chunk extensions may add to one message, in bytes.
const maxChunkExtra = 16 << 10

type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkExt
	chunkSizeLF
	chunkData
	chunkDataCR
	chunkDataLF
	chunkTrailer   // at the start of a trailer line
	chunkTrailerIn // inside one
	chunkTrailerLF // after its CR
	chunkEndLF     // after the CR of the empty line
	chunkDone
)

// chunks decodes the chunked coding (RFC 9112 section 7.1), strictly. It holds no
// data: step is fed what has arrived and says what part of it is body.
type chunks struct {
	state   chunkState
	digits  int   // of the size so far
	left    int64 // of the chunk
	extra   int   // bytes of extensions so far
	trailer int   // bytes of trailer lines so far
	max     int   // of trailer
}

// step consumes bytes from in: up to the end of one run of body data, or, with no data, up to the
// end of in, of a trailer line or of the message. A returned line is a piece of the trailers, CRLF included.
func (d *chunks) step(in []byte) (data, line []byte, used int, err *protoError) {
	for used < len(in) && d.state != chunkDone {
		c := in[used]
		switch d.state {
		case chunkSize:
			if !d.size(c) {
				return nil, nil, used, refuse(400, detailsCodec)
			}
		case chunkExt:
			if d.extra++; d.extra > maxChunkExtra || c < ' ' && c != '\t' && c != '\r' || c == 0x7f {
				return nil, nil, used, refuse(400, detailsCodec)
			}
			if c == '\r' {
				d.state = chunkSizeLF
			}
		case chunkSizeLF:
			if c != '\n' {
				return nil, nil, used, refuse(400, detailsCodec)
			}
			d.state, d.digits = chunkData, 0
			if d.left == 0 {
				d.state = chunkTrailer
			}
		case chunkData:
			n := int(min(d.left, int64(len(in)-used)))
			if d.left -= int64(n); d.left == 0 {
				d.state = chunkDataCR
			}
			return in[used : used+n], nil, used + n, nil
		case chunkDataCR:
			if c != '\r' {
				return nil, nil, used, refuse(400, detailsCodec)
			}
			d.state = chunkDataLF
		case chunkDataLF:
			if c != '\n' {
				return nil, nil, used, refuse(400, detailsCodec)
			}
			d.state = chunkSize
		default:
			line, used, err = d.trailers(in, used)
			return nil, line, used, err
		}
		used++
	}
	return nil, nil, used, nil
}

// size takes one byte of a chunk's size line.
func (d *chunks) size(c byte) bool {
	switch {
	case '0' <= c && c <= '9':
		c -= '0'
	case 'a' <= c && c <= 'f':
		c -= 'a' - 10
	case 'A' <= c && c <= 'F':
		c -= 'A' - 10
	case c == ';' && d.digits > 0:
		d.state = chunkExt
		return true
	case c == '\r' && d.digits > 0:
		d.state = chunkSizeLF
		return true
	default:
		return false
	}
	if d.digits++; d.digits > 15 { // 60 bits, so it cannot overflow
		return false
	}
	if d.digits == 1 {
		d.left = 0
	}
	d.left = d.left<<4 | int64(c)
	return true
}

// trailers takes bytes up to the end of a line.
func (d *chunks) trailers(in []byte, at int) (line []byte, used int, err *protoError) {
	start := at
	for ; at < len(in); at++ {
		c := in[at]
		switch d.state {
		case chunkTrailer:
			d.state = chunkTrailerIn
			if c == '\r' {
				d.state = chunkEndLF
			} else if c == '\n' {
				return nil, at, refuse(400, detailsCodec)
			}
		case chunkTrailerIn:
			if c == '\r' {
				d.state = chunkTrailerLF
			} else if c == '\n' {
				return nil, at, refuse(400, detailsCodec)
			}
		case chunkTrailerLF, chunkEndLF:
			if c != '\n' {
				return nil, at, refuse(400, detailsCodec)
			}
			if d.state == chunkEndLF {
				d.state = chunkDone
				return nil, at + 1, nil // the empty line is not handed out; its CR may have been
			}
			d.state = chunkTrailer
			return in[start : at+1], at + 1, d.count(at + 1 - start)
		}
	}
	if d.state == chunkEndLF {
		return nil, at, nil
	}
	return in[start:at], at, d.count(at - start)
}

func (d *chunks) count(n int) *protoError {
	if d.trailer += n; d.trailer > d.max {
		return refuse(431, detailsTooLarge)
	}
	return nil
}
