package ratings

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"weft.mesh/weft/samples/bookinfo/internal/serve"
)

func plain(h http.Handler) http.Handler { return h }

func do(t *testing.T, h http.Handler, method, path, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func TestRequests(t *testing.T) {
	many := `{"r0":1`
	for i := range maxReviewers {
		many += fmt.Sprintf(`,"r%d":1`, i+1)
	}
	tests := []struct {
		name, method, path, body string
		status                   int
		want                     string // the whole body, or with … its start
	}{
		{"ratings at first", "GET", "/ratings/0", "", 200, `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}`},
		{"posted ratings", "POST", "/ratings/3", `{"Reviewer1":1,"Somebody":2}`, 200, `{"id":3,"ratings":{"Reviewer1":1,"Somebody":2}}`},
		{"an id that is no number", "GET", "/ratings/x", "", 400, `{"error":"product id \"x\"…`},
		{"a post to an id that is no number", "POST", "/ratings/x", `{"a":1}`, 400, `{"error":"product id \"x\"…`},
		{"no JSON", "POST", "/ratings/0", `five`, 400, `{"error":"ratings: want {\"reviewer\": stars, …}: …`},
		{"nothing", "POST", "/ratings/0", `{}`, 400, `{"error":"ratings: 0 reviewers…`},
		{"too many reviewers", "POST", "/ratings/0", many + "}", 400, `{"error":"ratings: 51 reviewers…`},
		{"too many stars", "POST", "/ratings/0", `{"a":6}`, 400, `{"error":"ratings: 6 stars of \"a\"…`},
		{"no stars", "POST", "/ratings/0", `{"a":0}`, 400, `{"error":"ratings: 0 stars of \"a\"…`},
		{"a body that is too long", "POST", "/ratings/0", `{"` + strings.Repeat("a", maxBody) + `":1}`, 400, `{"error":"ratings: want…`},
		{"health", "GET", "/health", "", 200, `{"status":"Ratings is healthy"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, body := do(t, New().Handler(plain), tt.method, tt.path, tt.body)
			start, cut := strings.CutSuffix(tt.want, "…")
			if status != tt.status || !cut && body != tt.want || !strings.HasPrefix(body, start) {
				t.Errorf("%d %s\nwant %d %s", status, body, tt.status, tt.want)
			}
		})
	}
}

func TestPostedRatingsStay(t *testing.T) {
	h := New().Handler(plain)
	do(t, h, "POST", "/ratings/1", `{"Reviewer1":2}`)
	if _, body := do(t, h, "GET", "/ratings/1", ""); body != `{"id":1,"ratings":{"Reviewer1":2}}` {
		t.Errorf("ratings of the product %s", body)
	}
	if _, body := do(t, h, "GET", "/ratings/0", ""); body != `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}` {
		t.Errorf("ratings of another product %s", body)
	}
}

func TestTheStoreIsBounded(t *testing.T) {
	h := New().Handler(plain)
	for i := range maxProducts {
		if status, body := do(t, h, "POST", fmt.Sprintf("/ratings/%d", i), `{"a":1}`); status != 200 {
			t.Fatalf("product %d: %d %s", i, status, body)
		}
	}
	if status, _ := do(t, h, "POST", "/ratings/999999", `{"a":1}`); status != 400 {
		t.Errorf("one product more: status %d, want 400", status)
	}
	if status, _ := do(t, h, "POST", "/ratings/0", `{"a":2}`); status != 200 {
		t.Errorf("a known product again: status %d, want 200", status)
	}
}

func TestAFlakyServiceIsHealthy(t *testing.T) {
	h := New().Handler(func(h http.Handler) http.Handler { return serve.Flaky(100, h) })
	if status, _ := do(t, h, "GET", "/ratings/0", ""); status != 503 {
		t.Errorf("ratings: status %d, want 503", status)
	}
	if status, _ := do(t, h, "GET", "/health", ""); status != 200 {
		t.Errorf("health: status %d, want 200", status)
	}
}
