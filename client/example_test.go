package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/client"
)

func ExampleClient_Query() {
	// A stand-in for a server that holds one collection of words.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"result":{"points":[{"id":1948,"version":1,"score":0.75,"payload":{"word":"queen"}}]},"status":"ok"}`)
	}))
	defer server.Close()

	c, err := client.New(server.URL, client.Options{})
	if err != nil {
		panic(err)
	}
	king := vectord.NumberID(654)
	hits, err := c.Query(context.Background(), "words", vectord.Query{
		Nearest: &vectord.Example{ID: &king}, Limit: 1, Select: vectord.Selection{Payload: true},
	})
	if err != nil {
		panic(err)
	}
	for _, hit := range hits {
		fmt.Println(hit.ID, hit.Score, string(hit.Payload))
	}
	// Output: 1948 0.75 {"word":"queen"}
}
