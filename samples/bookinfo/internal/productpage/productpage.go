// Package productpage is the sample's front end: one page about one book, made
// of what the details and the reviews service say, and the same as a JSON API.
//
// It promises an answer whatever the other services do: a part that has no
// answer in time shows an apology. The call for reviews is tried twice, 3 s each: that
// is less than reviews v2 waits for the ratings, and the fault injection task shows
// what comes of it.
package productpage

import (
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"weft.mesh/weft/samples/bookinfo/internal/call"
	"weft.mesh/weft/samples/bookinfo/internal/serve"
)

// How long, and how often, other services are asked.
const (
	callTimeout     = 3 * time.Second
	reviewsAttempts = 2
)

// Apologies of the parts of the page.
const (
	DetailsUnavailable = "Sorry, product details are currently unavailable for this book."
	ReviewsUnavailable = "Sorry, product reviews are currently unavailable for this book."
	RatingsUnavailable = "Sorry, product ratings are currently unavailable for this book."
)

// ReviewsVersionHeader tells in the answer for the page which version of the reviews it shows.
const ReviewsVersionHeader = "Bookinfo-Reviews-Version"

// Config is what the front end needs. All of it is set at creation.
type Config struct {
	Details, Reviews, Ratings string // base URLs
	Client                    *call.Client
	Pod                       string
	Log                       *slog.Logger
}

// Service is the front end.
type Service struct {
	Config
	sessions *sessions
}

// New returns the front end, with a new key for its sessions.
func New(c Config) *Service { return &Service{c, newSessions()} }

// Handler serves the page, sign-in, the JSON API and GET /health.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.page)
	mux.HandleFunc("GET /productpage", s.page)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("GET /logout", s.logout)
	mux.HandleFunc("POST /logout", s.logout)
	mux.HandleFunc("GET /static/{file}", static)
	mux.HandleFunc("GET /health", serve.Health("Product page"))
	mux.HandleFunc("GET /api/v1/products", s.products)
	mux.HandleFunc("GET /api/v1/products/{id}", s.productDetails)
	mux.HandleFunc("GET /api/v1/products/{id}/reviews", s.productReviews)
	mux.HandleFunc("GET /api/v1/products/{id}/ratings", s.productRatings)
	return mux
}

// outgoing returns the headers for calls made for r: those that are forwarded, with
// the signed-in user, if there is one, as end-user.
func (s *Service) outgoing(r *http.Request) http.Header {
	h := call.Headers(r.Header)
	if user := s.sessions.user(r, time.Now()); user != "" {
		h.Set("end-user", user)
	}
	return h
}

func (s *Service) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 8<<10)
	// Any password is right: this is a demonstration of routing by user, and says so.
	c, err := s.sessions.cookie(r.PostFormValue("username"), time.Now(), r.Header.Get("X-Forwarded-Proto") == "https")
	if err != nil {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(err.Error() + "\n"))
		return
	}
	http.SetCookie(w, c)
	redirect(w, r)
}

func (s *Service) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, endedCookie())
	redirect(w, r)
}

// redirect sends the browser back to the page, where it came from: / or /productpage.
func redirect(w http.ResponseWriter, r *http.Request) {
	to := "/productpage"
	if from, err := url.Parse(r.Referer()); err == nil && from.Path == "/" && from.Host == r.Host {
		to = "/"
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, to, http.StatusSeeOther)
}
