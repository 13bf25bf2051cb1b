package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/client"
)

// Ingest measures how fast a running server takes points over HTTP: each batch is durable and findable when it counts.
type Ingest struct {
	Client      *client.Client
	URL         string // for the report
	Collection  string // created if missing; it stays
	Base        dataset.Reader
	Metric      vectord.Distance // of a collection that is created
	Batch       int
	Concurrency int
}

// IngestReport is what Ingest found.
type IngestReport struct {
	URL         string  `json:"url"`
	Collection  string  `json:"collection"`
	Batch       int     `json:"batch"`
	Concurrency int     `json:"concurrency"`
	Points      uint64  `json:"points"`
	Batches     int     `json:"batches"`
	Seconds     float64 `json:"seconds"`
	PointRate   float64 `json:"points_per_second"`
	Latency             // of batches
}

// Run does the measurement.
func (g *Ingest) Run(ctx context.Context) (IngestReport, error) {
	first, err := g.Base.Next()
	if errors.Is(err, io.EOF) {
		return IngestReport{}, fmt.Errorf("the data set is empty")
	}
	if err != nil {
		return IngestReport{}, err
	}
	if _, err := g.Client.Collection(ctx, g.Collection); client.StatusOf(err) == http.StatusNotFound {
		err = g.Client.CreateCollection(ctx, g.Collection, vectord.DefaultCollectionConfig(len(first.Vectors.Unnamed()), g.Metric))
		if err != nil {
			return IngestReport{}, err
		}
	} else if err != nil {
		return IngestReport{}, err
	}
	load := Load{Client: g.Client, Collection: g.Collection, Batch: g.Batch, Concurrency: g.Concurrency}
	report, err := load.Run(ctx, &unread{Reader: g.Base, first: &first})
	return IngestReport{URL: g.URL, Collection: g.Collection, Batch: g.Batch, Concurrency: g.Concurrency, Points: report.Points,
		Batches: report.Batches, Seconds: report.Seconds, PointRate: float64(report.Points) / report.Seconds, Latency: report.BatchLatency}, err
}

// unread is a reader from which one point was taken and given back.
type unread struct {
	dataset.Reader
	first *vectord.Point // nil once it is read again
}

// Next implements dataset.Reader.
func (u *unread) Next() (vectord.Point, error) {
	if p := u.first; p != nil {
		u.first = nil
		return *p, nil
	}
	return u.Reader.Next()
}

// WriteTable writes the report for people.
func (r *IngestReport) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%s · collection %s · %d points in %.2f s · batches of %d on %d connections\n\n",
		r.URL, r.Collection, r.Points, r.Seconds, r.Batch, r.Concurrency)
	return table(w, append([]string{"points/s", "batches"}, latencyHeader...),
		[][]string{append([]string{fmt.Sprintf("%.0f", r.PointRate), fmt.Sprint(r.Batches)}, r.cells()...)})
}
