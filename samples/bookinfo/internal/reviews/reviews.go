// Package reviews is the sample's service for what readers say, in three
// versions: v1 has no stars, v2 adds black stars from the ratings service, v3 red
// ones.
//
// v2 waits up to 10 s for the ratings, which is longer than the product page waits
// for it: the mistake that the fault injection task finds. v3 has the cure and waits
// for 2.5 s.
package reviews

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"weft.mesh/weft/samples/bookinfo/internal/call"
	"weft.mesh/weft/samples/bookinfo/internal/serve"
)

// VersionHeader tells in answers which version made them, for the product page's footer.
const VersionHeader = "Bookinfo-Version"

// Unavailable is shown in place of stars when the ratings service has no answer.
const Unavailable = "Ratings service is currently unavailable"

// Reviews is the answer for one product.
type Reviews struct {
	ID      string   `json:"id"`
	Pod     string   `json:"podname"`
	Cluster string   `json:"clustername"`
	Reviews []Review `json:"reviews"`
}

// Review is what one reader says.
type Review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *Rating `json:"rating,omitempty"` // nil in v1
}

// Rating is a number of stars in a colour, or why there are none.
type Rating struct {
	Stars int    `json:"stars,omitempty"`
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

// Config is what a version of the service needs. All of it is set at creation.
type Config struct {
	Version string // v1, v2 or v3; a suffix after a hyphen (v2-flaky) is a name only
	Pod     string
	Cluster string
	Ratings string // base URL of the ratings service, for v2 and v3
	Client  *call.Client
}

// Service answers with reviews.
type Service struct {
	Config
	color   string // of the stars; empty: none
	timeout time.Duration
}

// New returns the service in the version that c names.
func New(c Config) (*Service, error) {
	s := &Service{Config: c}
	switch version, _, _ := strings.Cut(c.Version, "-"); version {
	case "v1":
	case "v2":
		s.color, s.timeout = "black", 10*time.Second
	case "v3":
		s.color, s.timeout = "red", 2500*time.Millisecond
	default:
		return nil, fmt.Errorf("reviews: version %q: want v1, v2 or v3", c.Version)
	}
	return s, nil
}

// Handler serves GET /reviews/{id} and GET /health. flaky wraps the reviews, not
// the health page.
func (s *Service) Handler(flaky func(http.Handler) http.Handler) http.Handler {
	reviews := http.NewServeMux()
	reviews.HandleFunc("GET /reviews/{id}", s.get)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", serve.Health("Reviews"))
	mux.Handle("/", s.named(flaky(reviews)))
	return mux
}

// named puts the version on every answer, also on bad ones.
func (s *Service) named(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(VersionHeader, s.Version)
		h.ServeHTTP(w, r)
	})
}

func (s *Service) get(w http.ResponseWriter, r *http.Request) {
	id, err := serve.ProductID(r.PathValue("id"))
	if err != nil {
		serve.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	answer := Reviews{
		ID:      strconv.Itoa(id),
		Pod:     s.Pod,
		Cluster: s.Cluster,
		Reviews: []Review{
			{Reviewer: "Reviewer1", Text: "Two pairs of twins, one harbour town and not a moment to breathe. I laughed out loud on the train, twice."},
			{Reviewer: "Reviewer2", Text: "Quick, light and very funny. Do not look for deep thoughts here: he saved those for the later plays."},
		},
	}
	if s.color != "" {
		s.rate(r.Context(), id, call.Headers(r.Header), answer.Reviews)
	}
	serve.JSON(w, http.StatusOK, answer)
}

// rate fills in the ratings, or why there are none.
func (s *Service) rate(ctx context.Context, id int, headers http.Header, reviews []Review) {
	var got struct {
		Ratings map[string]int `json:"ratings"`
	}
	_, err := s.Client.Decode(ctx, s.Ratings+"/ratings/"+strconv.Itoa(id), headers, s.timeout, &got)
	for i := range reviews {
		r := &reviews[i]
		stars, ok := got.Ratings[r.Reviewer]
		switch {
		case err != nil:
			r.Rating = &Rating{Error: Unavailable}
		case ok:
			r.Rating = &Rating{Stars: stars, Color: s.color}
		}
	}
}
