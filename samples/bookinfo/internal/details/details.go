// Package details is the sample's service for facts about a book.
package details

import (
	"net/http"

	"weft.mesh/weft/samples/bookinfo/internal/serve"
)

// Details are the facts about one book.
type Details struct {
	ID        int    `json:"id"`
	Author    string `json:"author"`
	Year      int    `json:"year"`
	Type      string `json:"type"`
	Pages     int    `json:"pages"`
	Publisher string `json:"publisher"`
	Language  string `json:"language"`
	ISBN10    string `json:"ISBN-10"`
	ISBN13    string `json:"ISBN-13"`
}

// Handler serves GET /details/{id} and GET /health. Every product is the same book.
func Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", serve.Health("Details"))
	mux.HandleFunc("GET /details/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, err := serve.ProductID(r.PathValue("id"))
		if err != nil {
			serve.Fail(w, http.StatusBadRequest, err.Error())
			return
		}
		serve.JSON(w, http.StatusOK, Details{
			ID:        id,
			Author:    "William Shakespeare",
			Year:      1595,
			Type:      "paperback",
			Pages:     200,
			Publisher: "PublisherA",
			Language:  "English",
			ISBN10:    "1234567890",
			ISBN13:    "123-1234567890",
		})
	})
	return mux
}
