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

// staticNames finds a name's first index.
var staticNames = func() map[string]int {
	m := make(map[string]int, staticLen)
	for i := staticLen - 1; i >= 0; i-- {
		m[staticFields[i][0]] = i + 1
	}
	return m
}()

// staticFind returns the index of name (0: none) and whether value matches too.
func staticFind(name, value []byte) (int, bool) {
	first := staticNames[string(name)]
	if first == 0 {
		return 0, false
	}
	for i := first; i <= staticLen && staticFields[i-1][0] == staticFields[first-1][0]; i++ {
		if staticFields[i-1][1] == string(value) {
			return i, true
		}
	}
	return first, false
}
