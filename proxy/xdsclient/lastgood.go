package xdsclient

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"weft.mesh/weft/xds"
)

// The last-good file: magic with a format version, the node's ID, resources
// (type, name, version, body, each with its length before it), and a SHA-256 of all before it.
// It may hold private keys that came over SDS, hence mode 0600.
const (
	fileMagic = "weft-xds-1\n"
	maxFile   = 256 << 20 // bytes
)

// changed notes that the file is out of date: it is written after a quiet second, but not later than ten.
func (c *Client) changed() {
	now := time.Now()
	if c.dirty.IsZero() {
		c.dirty = now
	}
	c.saveAt = now.Add(saveDelay)
	if last := c.dirty.Add(saveAtMost); c.saveAt.After(last) {
		c.saveAt = last
	}
}

// untilSave is the time until the file is to be written.
func (c *Client) untilSave() time.Duration {
	if c.dirty.IsZero() || c.set.File == "" {
		return math.MaxInt64
	}
	return max(time.Until(c.saveAt), 0)
}

// save writes the last-good file if it is out of date. A failure is logged: the proxy goes on.
func (c *Client) save() {
	if c.dirty.IsZero() || c.set.File == "" || c.retired.Load() {
		return
	}
	c.dirty = time.Time{}
	var rs []*xds.Resource
	for _, t := range c.session.order {
		rs = append(rs, c.set.Sink.Accepted(t)...)
	}
	if err := saveFile(c.set.File, c.set.Node.GetId(), rs); err != nil {
		c.log.Error("last-good configuration not written", "file", c.set.File, "cause", err)
	}
}

// Flush has Run write the last-good file now if it is out of date, and waits for that or for ctx.
func (c *Client) Flush(ctx context.Context) {
	done := make(chan struct{})
	select {
	case c.flush <- done:
	case <-ctx.Done():
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// Retire keeps Run from writing the last-good file from now on: it belongs to another process.
func (c *Client) Retire() { c.retired.Store(true) }

func saveFile(name, node string, rs []*xds.Resource) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(encode(node, rs))
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

func encode(node string, rs []*xds.Resource) []byte {
	n := len(fileMagic) + len(node) + 64
	for _, r := range rs {
		n += len(r.TypeURL) + len(r.Name) + len(r.Version) + len(r.Body) + 40
	}
	b := append(make([]byte, 0, n), fileMagic...)
	b = appendField(b, node)
	b = binary.AppendUvarint(b, uint64(len(rs)))
	for _, r := range rs {
		b = appendField(b, r.TypeURL)
		b = appendField(b, r.Name)
		b = appendField(b, r.Version)
		b = appendField(b, string(r.Body))
	}
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func appendField(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// loadFile reads a last-good file. None is no error.
func loadFile(name, node string) ([]*xds.Resource, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("more than %d bytes", maxFile)
	}
	return decode(b, node)
}

var errDamaged = errors.New("damaged")

func decode(b []byte, node string) ([]*xds.Resource, error) {
	if len(b) < len(fileMagic)+sha256.Size || string(b[:len(fileMagic)]) != fileMagic {
		return nil, errors.New("not a last-good file of this version")
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if sha256.Sum256(body) != [sha256.Size]byte(sum) {
		return nil, fmt.Errorf("%w: wrong checksum", errDamaged)
	}
	body = body[len(fileMagic):]
	got, body, err := field(body)
	if err != nil {
		return nil, err
	}
	if string(got) != node {
		return nil, fmt.Errorf("it belongs to node %q", got)
	}
	n, k := binary.Uvarint(body)
	if k <= 0 || n > uint64(len(body)) {
		return nil, errDamaged
	}
	body = body[k:]
	rs := make([]*xds.Resource, 0, n)
	for range n {
		var f [4][]byte
		for i := range f {
			if f[i], body, err = field(body); err != nil {
				return nil, err
			}
		}
		rs = append(rs, &xds.Resource{TypeURL: string(f[0]), Name: string(f[1]), Version: string(f[2]), Body: f[3]})
	}
	if len(body) > 0 {
		return nil, errDamaged
	}
	return rs, nil
}

func field(b []byte) (f, rest []byte, err error) {
	n, k := binary.Uvarint(b)
	if k <= 0 || n > uint64(len(b)-k) {
		return nil, nil, errDamaged
	}
	return b[k : k+int(n) : k+int(n)], b[k+int(n):], nil
}
