package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/client"
)

const (
	// mixedSpareShare is the inverse of the share of the data set, its end, that is not in the collection at the beginning:
	// what the writer inserts.
	mixedSpareShare = 10

	// MixedRoundsMax bounds the rounds of a measurement.
	MixedRoundsMax = 1000

	mixedLoadBatch       = 256
	mixedLoadConcurrency = 4
	mixedDeleteBatch     = 1000

	// indexPoll is how often settle asks whether the server has indexed everything, indexWithin how long it goes on.
	indexPoll   = 100 * time.Millisecond
	indexWithin = 10 * time.Minute
)

// Mixed measures what writes to a running server do to its searches, and searches to its writes. Each round first searches
// in a closed loop with nothing else going on, then in the same loop while a writer upserts points in an open one. Rounds
// alternate the two because other work on the machine would else count for one of them.
//
// The collection holds the data set but for its last tenth; it is made if it is missing, and stays. The writer takes the
// points from that tenth, which are deleted again after each round.
type Mixed struct {
	Client     *client.Client
	URL        string
	APIKey     string
	Collection string
	Base       *dataset.Vectors // whose rows are the points' ids
	Queries    *dataset.Vectors
	Metric     vectord.Distance // of a collection that is created
	K          int
	Ef         int // 0: the collection's own
	Searchers  int // connections that search
	Writers    int // connections that write
	WriteRate  float64
	WriteBatch int           // points in one request
	Duration   time.Duration // of each half of a round
	Rounds     int

	// Replace writes points that the collection holds: each write deletes a vector and inserts one.
	Replace bool
}

// MixedReport is what Mixed found, of all rounds together.
type MixedReport struct {
	URL        string  `json:"url"`
	Collection string  `json:"collection"`
	K          int     `json:"k"`
	Ef         int     `json:"ef"`
	Recall     float64 `json:"recall"`     // before the first round
	WriteRate  float64 `json:"write_rate"` // points per second asked for
	WriteBatch int     `json:"write_batch"`
	Rounds     int     `json:"rounds"`

	Idle   ServeRow `json:"searches_alone"`
	Busy   ServeRow `json:"searches_during_writes"`
	Writes ServeRow `json:"writes"` // each durable and findable when answered; latencies from when it should have been sent
}

func (m *Mixed) validate() error {
	switch {
	case !m.Metric.Valid():
		return errors.New("metric: not given")
	case m.Base.Dim != m.Queries.Dim:
		return fmt.Errorf("the queries have %d components, the base vectors %d", m.Queries.Dim, m.Base.Dim)
	case m.WriteBatch < 1 || m.WriteBatch > vectord.MaxBatchPoints:
		return fmt.Errorf("write batch: %d invalid, must be from 1 to %d", m.WriteBatch, vectord.MaxBatchPoints)
	case m.Base.Len()/mixedSpareShare < m.WriteBatch:
		return fmt.Errorf("a tenth of the %d base vectors is less than one write of %d", m.Base.Len(), m.WriteBatch)
	case !(m.WriteRate > 0 && m.WriteRate <= rateMax):
		return fmt.Errorf("write rate: %v invalid, must be above 0 and up to %d", m.WriteRate, rateMax)
	case m.Writers < 1 || m.Writers > ServeConcurrencyMax:
		return fmt.Errorf("writers: %d invalid, must be from 1 to %d", m.Writers, ServeConcurrencyMax)
	case m.Rounds < 1 || m.Rounds > MixedRoundsMax:
		return fmt.Errorf("rounds: %d invalid, must be from 1 to %d", m.Rounds, MixedRoundsMax)
	}
	return nil
}

// spare returns the first row that is not in the collection at the beginning.
func (m *Mixed) spare() int { return m.Base.Len() - m.Base.Len()/mixedSpareShare }

// Run does the measurement. progress is told about each step. When ctx ends, Run returns its error, and the collection may
// hold points of the last tenth.
func (m *Mixed) Run(ctx context.Context, progress func(step string)) (MixedReport, error) {
	searches := Serve{URL: m.URL, APIKey: m.APIKey, Collection: m.Collection, Queries: m.Queries, K: m.K, Ef: m.Ef,
		Concurrency: []int{m.Searchers}, Duration: m.Duration}
	if err := errors.Join(m.validate(), searches.validate()); err != nil {
		return MixedReport{}, err
	}
	report := MixedReport{URL: m.URL, Collection: m.Collection, K: m.K, Ef: m.Ef, WriteRate: m.WriteRate, WriteBatch: m.WriteBatch,
		Rounds: m.Rounds}
	if err := m.fill(ctx, progress); err != nil {
		return report, err
	}
	progress("asking for the recall")
	var err error
	if report.Recall, err = searches.recall(ctx, m.Client); err != nil {
		return report, err
	}
	queries, err := searches.prepare()
	if err != nil {
		return report, err
	}
	writes, ids := m.prepare()

	reading := loop{connections: m.Searchers, duration: m.Duration}
	writing := loop{connections: m.Writers, duration: m.Duration, rate: m.WriteRate / float64(m.WriteBatch)}
	var idle, busy, written outcome
	for round := range m.Rounds {
		progress(fmt.Sprintf("round %d of %d: searches alone for %v", round+1, m.Rounds, m.Duration))
		got, err := reading.run(ctx, queries)
		if err != nil {
			return report, err
		}
		idle.add(got)

		progress(fmt.Sprintf("round %d of %d: searches and writes for %v", round+1, m.Rounds, m.Duration))
		var wrote outcome
		var writeErr error
		done := make(chan struct{})
		go func() {
			defer close(done)
			wrote, writeErr = writing.run(ctx, writes)
		}()
		got, err = reading.run(ctx, queries)
		<-done
		if err := errors.Join(err, writeErr); err != nil {
			return report, err
		}
		busy.add(got)
		written.add(wrote)
		if err := m.restore(ctx, ids); err != nil {
			return report, err
		}
	}
	if err := errors.Join(idle.usable(), busy.usable(), written.usable()); err != nil {
		return report, err
	}
	report.Idle, report.Busy, report.Writes = idle.row(m.Searchers), busy.row(m.Searchers), written.row(m.Writers)
	return report, nil
}

// fill makes the collection if it is missing, and waits until everything is indexed.
func (m *Mixed) fill(ctx context.Context, progress func(step string)) error {
	info, err := m.Client.Collection(ctx, m.Collection)
	switch {
	case err == nil && info.Points != m.spare():
		return fmt.Errorf("collection %q has %d points, expected the first %d of the data set: name another collection or delete this one",
			m.Collection, info.Points, m.spare())
	case err == nil:
	case client.StatusOf(err) != http.StatusNotFound:
		return err
	default:
		if err := m.Client.CreateCollection(ctx, m.Collection, vectord.DefaultCollectionConfig(m.Base.Dim, m.Metric)); err != nil {
			return err
		}
		progress(fmt.Sprintf("writing %d points", m.spare()))
		load := Load{Client: m.Client, Collection: m.Collection, Batch: mixedLoadBatch, Concurrency: mixedLoadConcurrency}
		if _, err := load.Run(ctx, &firstRows{vectors: m.Base, end: m.spare()}); err != nil {
			return err
		}
	}
	progress("waiting for the index")
	return settle(ctx, m.Client, m.Collection)
}

// settle waits until the server says that all vectors are indexed.
func settle(ctx context.Context, c *client.Client, collection string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, indexWithin, fmt.Errorf("collection %q is not indexed after %v", collection, indexWithin))
	defer cancel()
	for {
		info, err := c.Collection(ctx, collection)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		case info.Status != vectord.StatusYellow:
			return nil
		}
		if !sleepUntil(ctx, time.Now().Add(indexPoll)) {
			return context.Cause(ctx)
		}
	}
}

// prepare encodes the writes, as many as one round sends or as there are rows for, and returns the ids that they insert.
func (m *Mixed) prepare() (writes *requests, ids []vectord.PointID) {
	writes = pointRequests(http.MethodPut, m.URL, m.Collection, "?wait=true", m.APIKey)
	rows := make([]int, 0, m.Base.Len())
	for row := m.spare(); row < m.Base.Len(); row++ {
		rows = append(rows, row)
	}
	if m.Replace {
		rows = rand.New(rand.NewPCG(5, 6)).Perm(m.spare()) // the same choices each time, so that runs can be compared
	}
	needed := int(m.WriteRate*m.Duration.Seconds()) + m.WriteBatch
	for first := 0; first+m.WriteBatch <= min(len(rows), needed); first += m.WriteBatch {
		body := []byte(`{"points":[`)
		for i, row := range rows[first : first+m.WriteBatch] {
			if i > 0 {
				body = append(body, ',')
			}
			id := vectord.NumberID(uint64(row))
			body = client.AppendPoint(body, vectord.Point{ID: id, Vectors: vectord.Unnamed(m.Base.At(row))})
			if !m.Replace {
				ids = append(ids, id)
			}
		}
		writes.bodies = append(writes.bodies, append(body, `]}`...))
	}
	return writes, ids
}

// restore deletes what a round has inserted.
func (m *Mixed) restore(ctx context.Context, ids []vectord.PointID) error {
	for len(ids) > 0 {
		n := min(len(ids), mixedDeleteBatch)
		if _, err := m.Client.Delete(ctx, m.Collection, ids[:n], vectord.WriteOptions{}); err != nil {
			return err
		}
		ids = ids[n:]
	}
	return settle(ctx, m.Client, m.Collection)
}

// firstRows reads vectors up to a row as points whose ids are the rows.
type firstRows struct {
	vectors   *dataset.Vectors
	next, end int
}

// Next implements dataset.Reader.
func (r *firstRows) Next() (vectord.Point, error) {
	if r.next == r.end {
		return vectord.Point{}, io.EOF
	}
	row := r.next
	r.next++
	return vectord.Point{ID: vectord.NumberID(uint64(row)), Vectors: vectord.Unnamed(r.vectors.At(row))}, nil
}

// WriteTable writes the report for people.
func (r *MixedReport) WriteTable(w io.Writer) error {
	ef := "default"
	if r.Ef > 0 {
		ef = strconv.Itoa(r.Ef)
	}
	fmt.Fprintf(w, "%s · collection %s · k %d · ef %s · recall %.4f · %g upserts/s in requests of %d · %d rounds\n\n",
		r.URL, r.Collection, r.K, ef, r.Recall, r.WriteRate, r.WriteBatch, r.Rounds)
	var rows [][]string
	for _, row := range []struct {
		name string
		ServeRow
	}{{"searches alone", r.Idle}, {"searches during writes", r.Busy}, {"writes", r.Writes}} {
		rows = append(rows, append([]string{row.name, strconv.Itoa(row.Concurrency)}, row.ServeRow.cells()...))
	}
	if err := table(w, append([]string{"", "connections", "requests/s"}, serveHeader...), rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nsearches during writes against alone: p50 × %.2f, p95 × %.2f, p99 × %.2f\n",
		r.Busy.P50/r.Idle.P50, r.Busy.P95/r.Idle.P95, r.Busy.P99/r.Idle.P99)
	return err
}
