package productpage

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"weft.mesh/weft/samples/bookinfo/internal/call"
	"weft.mesh/weft/samples/bookinfo/internal/serve"
)

// product is one entry of the catalogue, which has one.
type product struct {
	ID              int    `json:"id"`
	Title           string `json:"title"`
	DescriptionHTML string `json:"descriptionHtml"`
}

var catalogue = []product{{
	ID:    0,
	Title: "The Comedy of Errors",
	DescriptionHTML: `<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">The Comedy of Errors</a> ` +
		`is one of Shakespeare’s first plays, his shortest, and one of his most farcical. Two pairs of identical twins, ` +
		`parted as babies by a shipwreck, cross paths in Ephesus without knowing it, and for one long day everybody is taken for somebody else.`,
}}

func (s *Service) products(w http.ResponseWriter, _ *http.Request) {
	serve.JSON(w, http.StatusOK, catalogue)
}

// productDetails, productReviews and productRatings pass on what the service in
// question says.

func (s *Service) productDetails(w http.ResponseWriter, r *http.Request) {
	s.pass(w, r, s.Details+"/details/", 1, DetailsUnavailable)
}

func (s *Service) productReviews(w http.ResponseWriter, r *http.Request) {
	s.pass(w, r, s.Reviews+"/reviews/", reviewsAttempts, ReviewsUnavailable)
}

func (s *Service) productRatings(w http.ResponseWriter, r *http.Request) {
	s.pass(w, r, s.Ratings+"/ratings/", 1, RatingsUnavailable)
}

// pass asks url+id up to attempts times and answers with what comes back, or with
// the last status that was no success and the apology.
func (s *Service) pass(w http.ResponseWriter, r *http.Request, url string, attempts int, apology string) {
	id, err := serve.ProductID(r.PathValue("id"))
	if err != nil {
		serve.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	var body json.RawMessage
	a, err := s.ask(r.Context(), url+strconv.Itoa(id), s.outgoing(r), attempts, &body)
	switch {
	case err == nil:
		serve.JSON(w, http.StatusOK, body)
	case a.Status >= 400:
		serve.Fail(w, a.Status, apology)
	default: // no answer at all, or one that is no use
		serve.Fail(w, http.StatusInternalServerError, apology)
	}
}

// ask decodes the answer of another service into v, with up to attempts tries.
// Every failure but the caller's going away is logged and tried again.
func (s *Service) ask(ctx context.Context, url string, headers http.Header, attempts int, v any) (a call.Answer, err error) {
	for try := range attempts {
		if a, err = s.Client.Decode(ctx, url, headers, callTimeout, v); err == nil || ctx.Err() != nil {
			return a, err
		}
		s.Log.Warn("no answer for a part of the page", "try", try+1, "of", attempts, "error", err)
	}
	return a, err
}
