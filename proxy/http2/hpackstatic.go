package http2

// staticFields is the static table of RFC 7541, appendix A; index 1 is the first.
var staticFields = [...][2]string{
	{":authority", ""},
	{":method", "GET"},
	{":method", "POST"},
	{":path", "/"},
	{":path", "/index.html"},
	{":scheme", "http"},
	{":scheme", "https"},
	{":status", "200"},
	{":status", "204"},
	{":status", "206"},
	{":status", "304"},
	{":status", "400"},
	{":status", "404"},
	{":status", "500"},
	{"accept-charset", ""},
	{"accept-encoding", "gzip, deflate"},
	{"accept-language", ""},
	{"accept-ranges", ""},
	{"accept", ""},
	{"access-control-allow-origin", ""},
	{"age", ""},
	{"allow", ""},
	{"authorization", ""},
	{"cache-control", ""},
	{"content-disposition", ""},
	{"content-encoding", ""},
	{"content-language", ""},
	{"content-length", ""},
	{"content-location", ""},
	{"content-range", ""},
	{"content-type", ""},
	{"cookie", ""},
	{"date", ""},
	{"etag", ""},
	{"expect", ""},
	{"expires", ""},
	{"from", ""},
	{"host", ""},
	{"if-match", ""},
	{"if-modified-since", ""},
	{"if-none-match", ""},
	{"if-range", ""},
	{"if-unmodified-since", ""},
	{"last-modified", ""},
	{"link", ""},
	{"location", ""},
	{"max-forwards", ""},
	{"proxy-authenticate", ""},
	{"proxy-authorization", ""},
	{"range", ""},
	{"referer", ""},
	{"refresh", ""},
	{"retry-after", ""},
	{"server", ""},
	{"set-cookie", ""},
	{"strict-transport-security", ""},
	{"transfer-encoding", ""},
	{"user-agent", ""},
	{"vary", ""},
	{"via", ""},
	{"www-authenticate", ""},
}

const staticLen = len(staticFields)

// staticSlots finds a name's first index by the hash of the name; collisions go to the next slot.
var staticSlots = func() (t [256]uint8) {
	for i := range staticFields {
		name := stringBytes(staticFields[i][0])
		if i > 0 && staticFields[i][0] == staticFields[i-1][0] {
			continue
		}
		at := hashOf(name, 0) % 256
		for t[at] != 0 {
			at = (at + 1) % 256
		}
		t[at] = uint8(i + 1)
	}
	return t
}()

// staticFind returns the index of name (0: none) and whether value matches too. hash is hashOf(name, 0).
func staticFind(name, value []byte, hash uint64) (int, bool) {
	for at := hash % 256; ; at = (at + 1) % 256 {
		first := int(staticSlots[at])
		if first == 0 {
			return 0, false
		}
		if staticFields[first-1][0] != string(name) {
			continue
		}
		for i := first; i <= staticLen && staticFields[i-1][0] == staticFields[first-1][0]; i++ {
			if staticFields[i-1][1] == string(value) {
				return i, true
			}
		}
		return first, false
	}
}
