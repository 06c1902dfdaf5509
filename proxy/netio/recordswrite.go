package netio

import "weft.mesh/weft/proxy/netio/record"

func (t *records) write(head, body, tail []byte) (done int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	parts := [3][]byte{head, body, tail}
	left := len(head) + len(body) + len(tail)
	mem, put := memory(left)
	defer put(mem)
	for left > 0 && err == nil {
		if t.over != nil {
			return done, t.over
		}
		var end, n int
		if end, err = t.renew(mem); err != nil {
			t.over = err
			return done, err
		}
		for left > n && len(mem)-end > record.Overhead {
			room := mem[end : end+min(record.HeaderLen+record.MaxPlain, len(mem)-end-record.Overhead+record.HeaderLen)]
			m := record.HeaderLen
			for i := range parts {
				k := copy(room[m:], parts[i])
				parts[i] = parts[i][k:]
				m += k
			}
			n += m - record.HeaderLen
			end += len(t.out.Seal(room[:m], record.TypeData))
		}
		if _, err = t.r.writeAll(mem[:end]); err != nil {
			t.over = err
			return done, err
		}
		done += n
		left -= n
	}
	return done, nil
}

// renew puts a key update before what is to be written, if one is due. mu is held.
func (t *records) renew(mem []byte) (int, error) {
	if !t.asked.Swap(false) && !t.out.Worn() {
		return 0, nil
	}
	rec := t.out.Seal(append(mem[:record.HeaderLen], record.KeyUpdate(false)...), record.TypeHandshake)
	return len(rec), t.out.Update()
}

// memory to seal so many bytes in, or a part of them.
func memory(n int) (mem []byte, put func([]byte)) {
	if n > record.MaxPlain {
		if wideUsed.Add(1) <= maxWide {
			return widePool.Get().(*[WideSize]byte)[:], putWide
		}
		wideUsed.Add(-1)
	}
	return recordPool.Get().(*[recordBuf]byte)[:], putRecord
}

func putRecord(mem []byte) { recordPool.Put((*[recordBuf]byte)(mem)) }

func putWide(mem []byte) {
	widePool.Put((*[WideSize]byte)(mem))
	wideUsed.Add(-1)
}
