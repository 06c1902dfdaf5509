package filter

import "testing"

func TestHTTPStatusesHaveGRPCStatuses(t *testing.T) {
	for http, want := range map[int]int{
		200: 0, 400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14, 204: 2, 302: 2, 409: 2, 413: 2, 418: 2, 500: 2, 501: 2,
	} {
		if got := GRPCStatus(http); got != want {
			t.Errorf("%d: %d, want %d", http, got, want)
		}
	}
}

func TestGRPCMessagesAreEscaped(t *testing.T) {
	for text, want := range map[string]string{
		"plain text": "plain text", "50%": "50%25", "a\r\nb": "a%0D%0Ab", "ä": "%C3%A4", "\x00\x7f": "%00%7F", "~": "~", "": "",
	} {
		if got := string(AppendGRPCMessage([]byte("> "), []byte(text))); got != "> "+want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
