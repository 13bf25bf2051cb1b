package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
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

// Query returns the points nearest to a vector or to another point, or those that a fusion puts first, best first. Other
// forms of a query are refused.
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

// AppendQuery appends q in the JSON form of the API, as Query sends it.
func AppendQuery(dst []byte, q vectord.Query) ([]byte, error) {
	dst, err := appendSearch(append(dst, '{'), &q)
	if err != nil {
		return dst, err
	}
	if dst, err = appendSelection(dst, q.Select); err != nil {
		return dst, err
	}
	return append(dst, '}'), nil
}

// appendSearch appends the members of a query or a prefetch that say what to find.
func appendSearch(dst []byte, q *vectord.Query) ([]byte, error) {
	if q.MMR != nil || q.Recommend != nil || q.Discover != nil || q.Context != nil || q.OrderBy != nil || q.Formula != nil || q.Sample ||
		q.Lookup != nil {
		return dst, errors.New("query: only nearest and fusion can be sent")
	}
	var err error
	dst = strconv.AppendInt(append(dst, `"limit":`...), int64(q.Limit), 10)
	if n := q.Nearest; n != nil && n.ID != nil {
		dst = n.ID.AppendJSON(append(dst, `,"query":`...))
	} else if n != nil {
		if err := checkVector(n.Vector.Values); err != nil {
			return dst, fmt.Errorf("query: %w", err)
		}
		dst = appendAnyVector(append(dst, `,"query":`...), &n.Vector)
	}
	if q.Fusion != nil {
		if err := checkVector(q.Fusion.Weights); err != nil {
			return dst, fmt.Errorf("weights: %w", err)
		}
		dst = appendFusion(append(dst, `,"query":`...), q.Fusion)
	}
	for i := range q.Prefetch {
		if i == 0 {
			dst = append(dst, `,"prefetch":[{`...)
		} else {
			dst = append(dst, `,{`...)
		}
		if dst, err = appendSearch(dst, &q.Prefetch[i]); err != nil {
			return dst, fmt.Errorf("prefetch %d: %w", i, err)
		}
		dst = append(dst, '}')
	}
	if len(q.Prefetch) > 0 {
		dst = append(dst, ']')
	}
	if q.Using != "" {
		dst = appendJSON(append(dst, `,"using":`...), q.Using)
	}
	if q.Offset != 0 {
		dst = strconv.AppendInt(append(dst, `,"offset":`...), int64(q.Offset), 10)
	}
	if q.ScoreThreshold != nil {
		dst = strconv.AppendFloat(append(dst, `,"score_threshold":`...), float64(*q.ScoreThreshold), 'g', -1, 32)
	}
	if q.Params != (vectord.SearchParams{}) {
		dst = append(dst, `,"params":{"exact":`...)
		dst = strconv.AppendBool(dst, q.Params.Exact)
		dst = append(dst, `,"indexed_only":`...)
		dst = strconv.AppendBool(dst, q.Params.IndexedOnly)
		if q.Params.HNSWEf != 0 {
			dst = strconv.AppendInt(append(dst, `,"hnsw_ef":`...), int64(q.Params.HNSWEf), 10)
		}
		dst = append(dst, '}')
	}
	return appendFilter(dst, q.Filter)
}

func appendFusion(dst []byte, f *vectord.Fusion) []byte {
	if f.Method == vectord.DistributionScore {
		return append(dst, `{"fusion":"dbsf"}`...)
	}
	dst = strconv.AppendInt(append(dst, `{"rrf":{"k":`...), int64(cmp.Or(f.K, vectord.DefaultRankConstant)), 10)
	if f.Weights != nil {
		dst = AppendVector(append(dst, `,"weights":`...), f.Weights)
	}
	return append(dst, "}}"...)
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

// checkVector refuses what JSON cannot carry.
func checkVector(v []float32) error {
	for i, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return fmt.Errorf("component %d of the vector is %v", i, x)
		}
	}
	return nil
}
