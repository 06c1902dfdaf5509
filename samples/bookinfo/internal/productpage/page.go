package productpage

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"sync"
	"time"

	"weft.mesh/weft/samples/bookinfo/internal/details"
	"weft.mesh/weft/samples/bookinfo/internal/reviews"
)

//go:embed templates/page.html static/bookinfo.css static/bookinfo.svg
var assets embed.FS

var (
	pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
		"stars":  stars,
		"rating": func(color string, n, most int) rating { return rating{color, n, most} },
		"ms": func(d time.Duration) string {
			return strconv.FormatFloat(float64(d.Microseconds())/1000, 'f', 1, 64) + " ms"
		},
	}).ParseFS(assets, "templates/page.html"))
	styleURL, iconURL = assetURL("bookinfo.css"), assetURL("bookinfo.svg")
	assetTypes        = map[string]string{styleURL: "text/css; charset=utf-8", iconURL: "image/svg+xml"}
)

// assetURL names a file with a digest of its content, so that browsers may keep it for ever.
func assetURL(file string) string {
	data, err := assets.ReadFile("static/" + file)
	if err != nil {
		panic(err) // embedded
	}
	sum := sha256.Sum256(data)
	return "/static/" + file + "?v=" + hex.EncodeToString(sum[:6])
}

// rating is what the template for a row of stars shows.
type rating struct {
	Color       string
	Stars, Most int
}

// view is what the template for the page shows.
type view struct {
	User           string
	Product        product
	Description    template.HTML
	Style, Icon    string
	Pod            string
	Details        *details.Details // nil: DetailsError
	DetailsError   string
	DetailsTime    time.Duration
	Reviews        *reviews.Reviews // nil: ReviewsError
	ReviewsError   string
	ReviewsTime    time.Duration
	ReviewsVersion string
	Color          string // of the stars; empty: none
	DemoUser       string
	MostStars      int
	Average        int    // stars over all reviews, rounded
	AverageStars   string // the same with one decimal; empty: no ratings
}

func (s *Service) page(w http.ResponseWriter, r *http.Request) {
	v := s.collect(r)
	var out bytes.Buffer
	if err := pageTemplate.Execute(&out, v); err != nil { // our template and our types
		s.Log.Error("render the page", "error", err)
		http.Error(w, "render the page: see the log", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(out.Len()))
	h.Set("Cache-Control", "no-store") // who is signed in, and the version, change
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	if v.ReviewsVersion != "" {
		h.Set(ReviewsVersionHeader, v.ReviewsVersion)
	}
	_, _ = w.Write(out.Bytes())
}

// collect asks both services at once.
func (s *Service) collect(r *http.Request) *view {
	p := catalogue[0]
	v := &view{
		User:        s.sessions.user(r, time.Now()),
		Product:     p,
		Description: template.HTML(p.DescriptionHTML), // ours
		Style:       styleURL,
		Icon:        iconURL,
		Pod:         s.Pod,
		DemoUser:    "jason",
		MostStars:   5,
	}
	headers := s.outgoing(r)
	var wg sync.WaitGroup
	wg.Go(func() {
		start := time.Now()
		var d details.Details
		if _, err := s.ask(r.Context(), fmt.Sprintf("%s/details/%d", s.Details, p.ID), headers, 1, &d); err != nil {
			v.DetailsError = DetailsUnavailable
		} else {
			v.Details = &d
		}
		v.DetailsTime = time.Since(start)
	})
	wg.Go(func() {
		start := time.Now()
		var got reviews.Reviews
		a, err := s.ask(r.Context(), fmt.Sprintf("%s/reviews/%d", s.Reviews, p.ID), headers, reviewsAttempts, &got)
		if err != nil {
			v.ReviewsError = ReviewsUnavailable
		} else {
			v.Reviews = &got
			v.ReviewsVersion = a.Header.Get(reviews.VersionHeader)
			v.summarise()
		}
		v.ReviewsTime = time.Since(start)
	})
	wg.Wait()
	return v
}

// summarise works out what the page says about all ratings together.
func (v *view) summarise() {
	sum, n := 0, 0
	for _, r := range v.Reviews.Reviews {
		switch {
		case r.Rating == nil, r.Rating.Error != "":
		default:
			v.Color = r.Rating.Color
			sum, n = sum+r.Rating.Stars, n+1
		}
	}
	if n > 0 {
		v.AverageStars = strconv.FormatFloat(float64(sum)/float64(n), 'f', 1, 64)
	}
}

// stars returns one entry for each star of a rating: full or not.
func stars(n, most int) []bool {
	out := make([]bool, most)
	for i := range out {
		out[i] = i < n
	}
	return out
}

func static(w http.ResponseWriter, r *http.Request) {
	file := r.PathValue("file")
	data, err := assets.ReadFile("static/" + file)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", assetTypes[assetURL(file)])
	h.Set("Content-Length", strconv.Itoa(len(data)))
	h.Set("X-Content-Type-Options", "nosniff")
	if r.URL.RequestURI() == assetURL(file) {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	} else { // a page of another version of the service wants it
		h.Set("Cache-Control", "no-store")
	}
	_, _ = w.Write(data)
}
