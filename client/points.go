package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/vectord/vectord"
)

// Upsert writes points whole, replacing those that exist, and returns when they are durable and findable.
func (c *Client) Upsert(ctx context.Context, collection string, points []vectord.Point, o vectord.WriteOptions) (vectord.UpdateResult, error) {
	size := 16
	for i, p := range points {
		size += 48 + len(p.Payload)
		for _, v := range p.Vectors {
			if err := checkVector(v.Values); err != nil {
				return vectord.UpdateResult{}, fmt.Errorf("point %d (id %s): %w", i, p.ID, err)
			}
			size += 12*len(v.Values) + 8*len(v.Indices)
		}
	}
	body := append(make([]byte, 0, size), `{"points":[`...)
	for i, p := range points {
		if i > 0 {
			body = append(body, ',')
		}
		body = AppendPoint(body, p)
	}
	body = append(body, `]}`...)
	return c.update(ctx, write(http.MethodPut, collectionPath(collection, "/points?wait=true"), body, o))
}

// Delete removes the points with the given ids; those that are not there are no error.
func (c *Client) Delete(ctx context.Context, collection string, ids []vectord.PointID, o vectord.WriteOptions) (vectord.UpdateResult, error) {
	body := append(appendIDs([]byte(`{"points":`), ids), '}')
	return c.update(ctx, write(http.MethodPost, collectionPath(collection, "/points/delete?wait=true"), body, o))
}

// DeleteMatching removes the points that the filter selects. An empty filter is refused here, for it would remove all.
func (c *Client) DeleteMatching(ctx context.Context, collection string, f *vectord.Filter, o vectord.WriteOptions) (vectord.UpdateResult, error) {
	if f.Empty() {
		return vectord.UpdateResult{}, errors.New("delete matching points: the filter is empty and would select every point")
	}
	body, err := json.Marshal(struct {
		Filter *vectord.Filter `json:"filter"`
	}{f})
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	return c.update(ctx, write(http.MethodPost, collectionPath(collection, "/points/delete?wait=true"), body, o))
}

func (c *Client) update(ctx context.Context, r request) (vectord.UpdateResult, error) {
	var result struct {
		OperationID uint64 `json:"operation_id"`
	}
	err := c.call(ctx, r, &result)
	return vectord.UpdateResult{OperationID: result.OperationID}, err
}

// Query returns the points that q asks for, best first.
func (c *Client) Query(ctx context.Context, collection string, q vectord.Query) ([]vectord.Hit, error) {
	body, err := AppendQuery(nil, q)
	if err != nil {
		return nil, err
	}
	var result struct {
		Points []record `json:"points"`
	}
	err = c.call(ctx, request{method: http.MethodPost, path: collectionPath(collection, "/points/query"), body: body}, &result)
	if err != nil {
		return nil, err
	}
	hits := make([]vectord.Hit, len(result.Points))
	for i := range result.Points {
		r := &result.Points[i]
		hits[i] = vectord.Hit{Record: r.record(), Score: r.Score}
	}
	return hits, nil
}

// Count returns the number of points that the filter selects; nil selects all.
func (c *Client) Count(ctx context.Context, collection string, f *vectord.Filter) (int, error) {
	body, err := appendFilter([]byte(`{"exact":true`), f)
	if err != nil {
		return 0, err
	}
	var result struct {
		Count int `json:"count"`
	}
	err = c.call(ctx, request{method: http.MethodPost, path: collectionPath(collection, "/points/count"), body: append(body, '}')}, &result)
	return result.Count, err
}

// Scroll returns one page of points in ascending order of id.
func (c *Client) Scroll(ctx context.Context, collection string, s vectord.ScrollRequest) (vectord.ScrollPage, error) {
	body := strconv.AppendInt([]byte(`{"limit":`), int64(s.Limit), 10)
	if s.Offset != nil {
		body = s.Offset.AppendJSON(append(body, `,"offset":`...))
	}
	body, err := appendFilter(body, s.Filter)
	if err != nil {
		return vectord.ScrollPage{}, err
	}
	if body, err = appendSelection(body, s.Select); err != nil {
		return vectord.ScrollPage{}, err
	}
	var result struct {
		Points []record         `json:"points"`
		Next   *vectord.PointID `json:"next_page_offset"`
	}
	err = c.call(ctx, request{method: http.MethodPost, path: collectionPath(collection, "/points/scroll"), body: append(body, '}')}, &result)
	return vectord.ScrollPage{Points: records(result.Points), Next: result.Next}, err
}

// Retrieve returns the points with the given ids, without those that are not there.
func (c *Client) Retrieve(ctx context.Context, collection string, ids []vectord.PointID, s vectord.Selection) ([]vectord.Record, error) {
	body, err := appendSelection(appendIDs([]byte(`{"ids":`), ids), s)
	if err != nil {
		return nil, err
	}
	var result []record
	err = c.call(ctx, request{method: http.MethodPost, path: collectionPath(collection, "/points"), body: append(body, '}')}, &result)
	return records(result), err
}

func records(in []record) []vectord.Record {
	out := make([]vectord.Record, len(in))
	for i := range in {
		out[i] = in[i].record()
	}
	return out
}
