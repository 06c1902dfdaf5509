package stream

import (
	"slices"
	"unsafe"
)

// Field is one header line. Name keeps the case it came in; both alias memory
// that belongs to the message and must not be written to or kept.
type Field struct {
	Name, Value []byte
	checked     check // what is known of it
}

// check is what the codec that read a field vouches for.
type check uint8

const (
	checkedName  check = 1 << iota // a token, and no field that concerns the connection or the framing
	checkedValue                   // as ValidValue says
	wholeLine                      // Name lies in memory that reads "name: value\r\n", see [Fields.AppendLine]
	ownMemory                      // of this message alone
)

const checked = checkedName | checkedValue

// Checked tells that the field is as a codec has read it off the wire, and that it
// found it fit to be sent on in HTTP/1: see [Fields.AppendChecked].
func (l *Field) Checked() bool { return l.checked&checked == checked }

// Private tells that the field's memory is this message's alone: the value may be overwritten in place by a valid one of the same length.
func (l *Field) Private() bool { return l.checked&ownMemory != 0 }

// Fields is an ordered list of header fields. Repeated names stay separate
// lines in their order. The zero value is empty and ready; Reset keeps memory.
//
// Pseudo-fields (:method, :path, …), Host and hop-by-hop fields are never in
// it: codecs move them into Request and Response or drop them (RFC 9110 section 7.6.1).
type Fields struct {
	list []Field
	// lens has a bit for each length of a name that was ever in list, the last one for all that are longer: most searches end here.
	lens uint64
}

func lenBit(n int) uint64 { return 1 << (uint(min(n, 63)) & 63) }

// MayHave is false if no name is n bytes long or longer.
func (f *Fields) MayHave(n int) bool { return f.lens>>(uint(min(n, 63))&63) != 0 }

func (f *Fields) lacks(name string) bool { return f.lens&lenBit(len(name)) == 0 }

// Len is the number of lines.
func (f *Fields) Len() int { return len(f.list) }

// At returns line i.
func (f *Fields) At(i int) Field { return f.list[i] }

// All returns the lines; the slice is read-only and valid until the next change.
func (f *Fields) All() []Field { return f.list }

// Reset empties the list and keeps its memory.
func (f *Fields) Reset() {
	clear(f.list)
	f.list, f.lens = f.list[:0], 0
}

// Index is the place of the first line of name (any case), -1 if there is none.
func (f *Fields) Index(name string) int {
	if f.lacks(name) {
		return -1
	}
	for i := range f.list {
		if len(f.list[i].Name) == len(name) && EqualFold(f.list[i].Name, name) {
			return i
		}
	}
	return -1
}

// Get returns the first value of name (any case), nil if there is none.
func (f *Fields) Get(name string) []byte {
	if i := f.Index(name); i >= 0 {
		return f.list[i].Value
	}
	return nil
}

// Has tells whether name is present, with whatever value.
func (f *Fields) Has(name string) bool { return f.Index(name) >= 0 }

// Append adds a line whose bytes the caller keeps alive and unchanged for as long as the message.
func (f *Fields) Append(name, value []byte) {
	f.lens |= lenBit(len(name))
	l := f.extend()
	l.Name, l.Value, l.checked = name, value, 0
}

// extend adds a line for the caller to fill, all of it: what was there before is still in it. A line that is made on the stack is copied in pieces of another size than those
// it was written in, for which the processor waits until they are in the cache.
func (f *Fields) extend() *Field {
	n := len(f.list)
	if n == cap(f.list) {
		f.list = slices.Grow(f.list, 1)
	}
	f.list = f.list[:n+1]
	return &f.list[n]
}

// AppendChecked is Append for a field whose name is a token that is none of the codecs' own (Connection,
// Transfer-Encoding…) and whose value is valid ([ValidToken], [ValidValue]), so that whoever sends it need
// not look again. Only codecs may call it for what they have parsed, and others for names and values that they have made
// themselves and that cannot be anything else; a value that is set later is not checked.
//
//go:noinline
func (f *Fields) AppendChecked(name, value []byte) {
	f.lens |= lenBit(len(name))
	l := f.extend()
	l.Name, l.Value, l.checked = name, value, checked
}

// AppendLine is AppendChecked for a field whose line is in memory as HTTP/1 writes it: line is "name: value\r\n", with
// exactly one space, and name is the length of the name. Lines that lie behind one another in the
// same memory are sent in one go: see [Fields.Run]. private says that the memory is this message's alone, see [Field.Private].
//
// It is not inlined: it is called from many places, and code that is in the cache already costs less.
//
//go:noinline
func (f *Fields) AppendLine(line []byte, name int, private bool) {
	c := checked | wholeLine
	if private {
		c |= ownMemory
	}
	f.lens |= lenBit(name)
	l := f.extend()
	l.Name, l.Value, l.checked = line[:name], line[name+2:len(line)-2:len(line)-2], c
}

// SetLine puts a line in the place of line i; see [Fields.AppendLine].
func (f *Fields) SetLine(i int, line []byte, name int) {
	f.lens |= lenBit(name)
	l := &f.list[i]
	l.Name, l.Value, l.checked = line[:name], line[name+2:len(line)-2:len(line)-2], checked|wholeLine
}

// Run is the text of line i as HTTP/1 writes it, and of the lines that follow it in the list as well as in memory; next is
// the line behind them. Nil: line i is not there as text.
func (f *Fields) Run(i int) (text []byte, next int) {
	l := &f.list[i]
	if l.checked&wholeLine == 0 {
		return nil, i
	}
	n := len(l.Name) + len(l.Value) + 4
	for next = i + 1; next < len(f.list); next++ {
		m := &f.list[next]
		if m.checked&wholeLine == 0 || addr(m.Name) != addr(l.Name)+uintptr(n) {
			break
		}
		more := n + len(m.Name) + len(m.Value) + 4
		if more > cap(l.Name) {
			break // other memory that happens to lie behind
		}
		n = more
	}
	return l.Name[:n], next
}

func addr(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// Add adds a line. The strings are aliased, not copied.
func (f *Fields) Add(name, value string) { f.Append(bytesOf(name), bytesOf(value)) }

// Set replaces all lines of name by one; it takes the first one's place, or comes last.
func (f *Fields) Set(name, value string) { f.SetBytes(name, bytesOf(value)) }

// SetBytes is Set with a value that the caller keeps alive and unchanged.
func (f *Fields) SetBytes(name string, value []byte) {
	i := f.Index(name)
	if i < 0 {
		f.Append(bytesOf(name), value)
		return
	}
	f.SetAt(i, value)
	f.del(name, i+1)
}

// SetAt replaces the value of line i by one that the caller keeps alive and unchanged.
func (f *Fields) SetAt(i int, value []byte) {
	f.list[i].Value = value
	f.list[i].checked &^= checkedValue | wholeLine | ownMemory
}

// DelFunc removes the lines that drop says.
func (f *Fields) DelFunc(drop func(Field) bool) {
	i := 0
	for i < len(f.list) && !drop(f.list[i]) {
		i++
	}
	if i == len(f.list) {
		return
	}
	keep := f.list[:i]
	for _, l := range f.list[i+1:] {
		if !drop(l) {
			keep = append(keep, l)
		}
	}
	clear(f.list[len(keep):])
	f.list = keep
}

// Del removes all lines of name.
func (f *Fields) Del(name string) {
	if !f.lacks(name) {
		f.del(name, 0)
	}
}

func (f *Fields) del(name string, from int) {
	keep := f.list[:from]
	for i := from; i < len(f.list); i++ {
		if !EqualFold(f.list[i].Name, name) {
			keep = append(keep, f.list[i])
		}
	}
	clear(f.list[len(keep):])
	f.list = keep
}

// AppendUint is strconv's, for small numbers in base 10.
func AppendUint(b []byte, n uint64) []byte {
	var text [20]byte
	i := len(text) - 1
	for ; n > 9; i-- {
		text[i] = byte('0' + n%10)
		n /= 10
	}
	text[i] = byte('0' + n)
	return append(b, text[i:]...)
}

// EqualFold compares an ASCII name in any case without allocation.
func EqualFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range b {
		x, y := b[i], s[i]
		if x == y {
			continue
		}
		if 'A' <= x && x <= 'Z' {
			x += 'a' - 'A'
		}
		if 'A' <= y && y <= 'Z' {
			y += 'a' - 'A'
		}
		if x != y {
			return false
		}
	}
	return true
}

// Bytes aliases a string as bytes that must not be written to: for values of fields and messages.
func Bytes(s string) []byte { return bytesOf(s) }

// bytesOf aliases a string. Field values are read-only by contract, so the
// string's memory is never written.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
