package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/bench/words"
	"github.com/vectord/vectord/client"
)

const (
	demoBatch       = 500
	demoConcurrency = 2
)

type demoCmd struct {
	Words       []string `arg:"" optional:"" help:"Words to find neighbors of; \"king\" unless given." placeholder:"WORD"`
	serverFlags `embed:""`
	Collection  string `help:"Collection to load the sample into." default:"words"`
	Limit       int    `help:"Neighbors to show." default:"8"`
}

// Help is shown by demo --help.
func (demoCmd) Help() string {
	return `Examples:

    vectord demo
    vectord demo coffee violin thursday

The sample is in the program: 5,000 frequent English words with vectors of 100 components. It is loaded into a running server
the first time. After that the same neighbors can be had with curl; the command is printed.`
}

// Run loads the sample if need be and prints neighbors.
func (c *demoCmd) Run(s *session) error {
	if len(c.Words) == 0 {
		c.Words = []string{"king"}
	}
	server, err := c.client(0)
	if err != nil {
		return err
	}
	if err := c.load(s, server); err != nil {
		return err
	}
	for _, word := range c.Words {
		if err := c.show(s, server, word); err != nil {
			return err
		}
	}
	return nil
}

// load writes the sample into the collection unless it has as many points as the sample already.
func (c *demoCmd) load(s *session, server *client.Client) error {
	info, err := server.Collection(s.ctx, c.Collection)
	switch {
	case client.StatusOf(err) == http.StatusNotFound:
		if err := server.CreateCollection(s.ctx, c.Collection, vectord.DefaultCollectionConfig(words.Dimension, vectord.Cosine)); err != nil {
			return err
		}
	case err != nil:
		return err
	case info.Config.Params.Vectors[""].Size != words.Dimension:
		return fmt.Errorf("collection %q has vectors of %d components, the sample's have %d; give another --collection",
			c.Collection, info.Config.Params.Vectors[""].Size, words.Dimension)
	case info.Points >= words.SampleWords:
		return nil
	}
	sample, err := words.Sample()
	if err != nil {
		return err
	}
	load := bench.Load{Client: server, Collection: c.Collection, Dim: words.Dimension, Batch: demoBatch, Concurrency: demoConcurrency}
	report, err := load.Run(s.ctx, sample)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "loaded %d words into collection %q in %.1f s\n\n", report.Points, c.Collection, report.Seconds)
	return nil
}

// show prints the words nearest to one.
func (c *demoCmd) show(s *session, server *client.Client, word string) error {
	id, err := c.find(s.ctx, server, word)
	if err != nil {
		return err
	}
	hits, err := server.Query(s.ctx, c.Collection, vectord.Query{Nearest: &vectord.Example{ID: &id}, Limit: c.Limit, Select: vectord.Selection{Payload: true}})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "nearest to %q:\n", word)
	for _, h := range hits {
		var payload struct {
			Word string `json:"word"`
		}
		if err := json.Unmarshal(h.Payload, &payload); err != nil {
			return fmt.Errorf("payload of point %s: %w", h.ID, err)
		}
		fmt.Fprintf(s.stdout, "  %.4f  %s\n", h.Score, payload.Word)
	}
	fmt.Fprintf(s.stdout, "\nThe same with curl:\n\n  curl -s %s/collections/%s/points/query -H 'content-type: application/json'%s \\\n    -d '{\"query\": %s, \"limit\": %d, \"with_payload\": true}'\n\n",
		strings.TrimRight(c.URL, "/"), c.Collection, c.curlKey(), id.AppendJSON(nil), c.Limit)
	return nil
}

// curlKey returns the header that curl has to send, with the name of the variable in place of the key.
func (c *demoCmd) curlKey() string {
	if c.APIKey == "" && c.APIKeyFile == "" {
		return ""
	}
	return ` -H "api-key: $VECTORD_API_KEY"`
}

// find returns the id of the point whose payload has the word.
func (c *demoCmd) find(ctx context.Context, server *client.Client, word string) (vectord.PointID, error) {
	is := vectord.Scalar{Kind: vectord.ScalarString, String: word}
	page, err := server.Scroll(ctx, c.Collection, vectord.ScrollRequest{Limit: 1, Filter: &vectord.Filter{
		Must: []vectord.Condition{{Field: &vectord.FieldCondition{Key: "word", Match: &vectord.Match{Value: &is}}}}}})
	if err != nil {
		return vectord.PointID{}, err
	}
	if len(page.Points) == 0 {
		return vectord.PointID{}, fmt.Errorf("collection %q does not have the word %q", c.Collection, word)
	}
	return page.Points[0].ID, nil
}
