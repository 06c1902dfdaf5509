package details

import (
	"net/http/httptest"
	"testing"
)

func TestHandler(t *testing.T) {
	tests := []struct {
		name, method, path string
		status             int
		body               string
	}{
		{"the book", "GET", "/details/7", 200, `{"id":7,"author":"William Shakespeare","year":1595,"type":"paperback","pages":200,"publisher":"PublisherA","language":"English","ISBN-10":"1234567890","ISBN-13":"123-1234567890"}`},
		{"an id that is no number", "GET", "/details/x", 400, `{"error":"product id \"x\": give a number from 0"}`},
		{"a negative id", "GET", "/details/-1", 400, `{"error":"product id \"-1\": give a number from 0"}`},
		{"health", "GET", "/health", 200, `{"status":"Details is healthy"}`},
		{"another method", "DELETE", "/details/0", 405, "Method Not Allowed\n"},
		{"another path", "GET", "/", 404, "404 page not found\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			Handler().ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, nil))
			if w.Code != tt.status || w.Body.String() != tt.body {
				t.Errorf("%d %s\nwant %d %s", w.Code, w.Body, tt.status, tt.body)
			}
		})
	}
}
