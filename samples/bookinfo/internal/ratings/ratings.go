// Package ratings is the sample's service for stars: how many each reviewer gave.
package ratings

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"

	"weft.mesh/weft/samples/bookinfo/internal/serve"
)

// Bounds of what can be posted: the store is in memory.
const (
	maxProducts  = 1000
	maxReviewers = 50
	maxBody      = 16 << 10
	maxStars     = 5
)

// Ratings are the stars for one product, by reviewer.
type Ratings struct {
	ID      int            `json:"id"`
	Ratings map[string]int `json:"ratings"`
}

// Service answers with ratings, and keeps those that are posted until it ends.
type Service struct {
	mu     sync.Mutex
	posted map[int]map[string]int // mu
}

// New returns a service with the ratings that every product has at first.
func New() *Service { return &Service{posted: map[int]map[string]int{}} }

// Handler serves GET and POST /ratings/{id}, and GET /health. flaky wraps the
// ratings, not the health page.
func (s *Service) Handler(flaky func(http.Handler) http.Handler) http.Handler {
	ratings := http.NewServeMux()
	ratings.HandleFunc("GET /ratings/{id}", s.get)
	ratings.HandleFunc("POST /ratings/{id}", s.post)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", serve.Health("Ratings"))
	mux.Handle("/", flaky(ratings))
	return mux
}

func (s *Service) get(w http.ResponseWriter, r *http.Request) {
	id, err := serve.ProductID(r.PathValue("id"))
	if err != nil {
		serve.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	serve.JSON(w, http.StatusOK, Ratings{id, s.of(id)})
}

func (s *Service) of(id int) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r, ok := s.posted[id]; ok {
		return r // never changed after it was stored
	}
	return map[string]int{"Reviewer1": 5, "Reviewer2": 4}
}

func (s *Service) post(w http.ResponseWriter, r *http.Request) {
	id, err := serve.ProductID(r.PathValue("id"))
	if err == nil {
		var given map[string]int
		if given, err = parse(http.MaxBytesReader(w, r.Body, maxBody)); err == nil {
			err = s.store(id, given)
		}
	}
	if err != nil {
		serve.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	serve.JSON(w, http.StatusOK, Ratings{id, s.of(id)})
}

// parse reads {"Reviewer": stars, …}.
func parse(body io.Reader) (map[string]int, error) {
	var given map[string]int
	if err := json.NewDecoder(body).Decode(&given); err != nil {
		return nil, fmt.Errorf(`ratings: want {"reviewer": stars, …}: %w`, err)
	}
	if len(given) == 0 || len(given) > maxReviewers {
		return nil, fmt.Errorf("ratings: %d reviewers: give 1 to %d", len(given), maxReviewers)
	}
	for who, stars := range given {
		if stars < 1 || stars > maxStars {
			return nil, fmt.Errorf("ratings: %d stars of %q: give 1 to %d", stars, who, maxStars)
		}
	}
	return given, nil
}

func (s *Service) store(id int, given map[string]int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.posted[id]; !known && len(s.posted) >= maxProducts {
		return fmt.Errorf("ratings: no room for more than %d products", maxProducts)
	}
	s.posted[id] = maps.Clone(given)
	return nil
}
