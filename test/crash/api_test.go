package crash

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	collection   = "crash"
	requestLimit = 30 * time.Second // no request waits longer, so no round hangs
	indexLimit   = 30 * time.Minute // for the graph of all untouched points, of which there may be many
	pageSize     = 1000             // points asked for by one scroll
)

// api speaks to one server process. It is safe for concurrent use.
type api struct {
	url    string
	client http.Client
}

func newAPI(url string) *api {
	return &api{url: url, client: http.Client{
		Timeout:   requestLimit,
		Transport: &http.Transport{MaxIdleConnsPerHost: clients},
	}}
}

// A refusal is an answer that says no.
type refusal struct {
	status int
	code   string
	text   string
}

func (r *refusal) Error() string { return fmt.Sprintf("status %d: %s", r.status, r.text) }

// call sends one request, without a body if that is nil, and decodes the result of its answer. An error that is not a *refusal leaves open whether the
// server did what it was asked to do.
func (a *api) call(ctx context.Context, method, path string, body, result any) error {
	return a.callUnder(ctx, "", method, path, body, result)
}

// callUnder is call with an idempotency key.
func (a *api) callUnder(ctx context.Context, key, method, path string, body, result any) error {
	var sent io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode the request: %w", err)
		}
		sent = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(ctx, method, a.url+path, sent)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		var envelope struct {
			Status struct {
				Code string `json:"code"`
			} `json:"status"`
		}
		_ = json.Unmarshal(answer, &envelope) // not every refusal is in an envelope
		return &refusal{status: response.StatusCode, code: envelope.Status.Code, text: string(answer)}
	}
	envelope := struct {
		Result any    `json:"result"`
		Status string `json:"status"`
	}{Result: result}
	if err := json.Unmarshal(answer, &envelope); err != nil {
		return fmt.Errorf("decode the answer to %s %s: %w", method, path, err)
	}
	if envelope.Status != "ok" {
		return fmt.Errorf("%s %s: status is %q, want \"ok\"", method, path, envelope.Status)
	}
	return nil
}

// write sends one change of the collection and waits for it to be durable. It returns the change's place in the log.
func (a *api) write(ctx context.Context, method, path string, body any) (uint64, error) {
	var result struct {
		OperationID uint64 `json:"operation_id"`
		Status      string `json:"status"`
	}
	if err := a.call(ctx, method, "/collections/"+collection+path+"?wait=true", body, &result); err != nil {
		return 0, err
	}
	if result.Status != "completed" {
		return 0, fmt.Errorf("%s %s: a write with wait=true is %q, want \"completed\"", method, path, result.Status)
	}
	return result.OperationID, nil
}

// object is a JSON object to be sent.
type object = map[string]any

// createCollection makes the collection. Its distance is the one that leaves vectors as they came. Indexing begins with
// the first points, so that the graph and its checkpoints are part of what is killed.
func (a *api) createCollection(ctx context.Context) error {
	var done bool
	return a.call(ctx, http.MethodPut, "/collections/"+collection, object{
		"vectors":           object{"size": dimension, "distance": "Euclid"},
		"optimizers_config": object{"indexing_threshold": 1},
		"hnsw_config":       object{"full_scan_threshold": 1},
	}, &done)
}

// waitIndexed waits until no point waits for the graph.
func (a *api) waitIndexed(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, indexLimit)
	defer cancel()
	for {
		var info struct {
			Status  string `json:"status"`
			Indexed int    `json:"indexed_vectors_count"`
			Points  int    `json:"points_count"`
		}
		if err := a.call(ctx, http.MethodGet, "/collections/"+collection, nil, &info); err != nil {
			return err
		}
		if info.Status == "green" {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%d of %d points are in the graph after %v", info.Indexed, info.Points, indexLimit)
		}
	}
}

// record is a point as the server gives it back.
type record struct {
	ID      uint64    `json:"id"`
	Vector  []float32 `json:"vector"`
	Payload *payload  `json:"payload"`
	Score   float32   `json:"score"`
}

// scroll calls each for every point of the collection, in the server's order.
func (a *api) scroll(ctx context.Context, each func(record)) error {
	body := object{"limit": pageSize, "with_payload": true, "with_vector": true}
	for {
		var page struct {
			Points []record `json:"points"`
			Next   *uint64  `json:"next_page_offset"`
		}
		if err := a.call(ctx, http.MethodPost, "/collections/"+collection+"/points/scroll", body, &page); err != nil {
			return err
		}
		for _, r := range page.Points {
			each(r)
		}
		if page.Next == nil {
			return nil
		}
		body["offset"] = *page.Next
	}
}

// count returns the number of points.
func (a *api) count(ctx context.Context) (int, error) {
	var result struct {
		Count int `json:"count"`
	}
	err := a.call(ctx, http.MethodPost, "/collections/"+collection+"/points/count", object{"exact": true}, &result)
	return result.Count, err
}

// nearest returns the points nearest to v.
func (a *api) nearest(ctx context.Context, v []float32, limit int, exact bool) ([]record, error) {
	var result struct {
		Points []record `json:"points"`
	}
	err := a.call(ctx, http.MethodPost, "/collections/"+collection+"/points/query", object{
		"query": v, "limit": limit, "params": object{"exact": exact}, "with_payload": true, "with_vector": true,
	}, &result)
	return result.Points, err
}
