package server

import (
	"strconv"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// This file has the handlers of groups, facets and matrices, the older routes of queries, and how their answers are written.

func (s *Server) search(r *request) error { return s.legacy(r, decodeSearch) }

func (s *Server) recommend(r *request) error { return s.legacy(r, decodeRecommend) }

func (s *Server) discover(r *request) error { return s.legacy(r, decodeDiscover) }

// legacy answers an older form of a query with the bare array of hits.
func (s *Server) legacy(r *request, decode func([]byte) (query, error)) error {
	q, err := call(r, decode)
	if err != nil {
		return err
	}
	hits, err := s.answer(r, &q)
	if err != nil {
		return err
	}
	r.out = appendHits(r.out, hits, &q.answer)
	return nil
}

func (s *Server) recommendBatch(r *request) error {
	return s.batch(r, decodeRecommendBatch, appendBare)
}

func (s *Server) discoverBatch(r *request) error { return s.batch(r, decodeDiscoverBatch, appendBare) }

func appendBare(dst []byte, hits []vectord.Hit, q *query) []byte {
	return appendHits(dst, hits, &q.answer)
}

func (s *Server) queryGroups(r *request) error { return s.groups(r, decodeQueryGroups) }

func (s *Server) searchGroups(r *request) error { return s.groups(r, decodeSearchGroups) }

func (s *Server) recommendGroups(r *request) error { return s.groups(r, decodeRecommendGroups) }

func (s *Server) groups(r *request, decode func([]byte) (groups, error)) error {
	g, err := call(r, decode)
	if err != nil {
		return err
	}
	if err := r.authorizeLookups(&g.Query); err != nil {
		return err
	}
	if w := g.WithPoint; w != nil {
		if w.Collection, err = r.authorize(w.Collection, permissionRead); err != nil {
			return err
		}
	}
	found, err := s.engine.SearchGroups(r.ctx, r.collection, g.Groups)
	if err != nil {
		return err
	}
	r.out = append(r.out, `{"groups":[`...)
	for i := range found {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		r.out = append(r.out, `{"id":`...)
		r.out = appendScalar(r.out, found[i].Value)
		r.out = append(r.out, `,"hits":`...)
		r.out = appendHits(r.out, found[i].Hits, &g.answer)
		if found[i].Point != nil {
			r.out = append(r.out, `,"lookup":`...)
			r.out = appendRecord(r.out, found[i].Point, &g.lookup)
		}
		r.out = append(r.out, '}')
	}
	r.out = append(r.out, "]}"...)
	return nil
}

func appendScalar(dst []byte, v vectord.Scalar) []byte {
	switch v.Kind {
	case vectord.ScalarInt:
		return strconv.AppendInt(dst, v.Int, 10)
	case vectord.ScalarBool:
		return strconv.AppendBool(dst, v.Bool)
	}
	return appendString(dst, v.String)
}

// appendOrderValue appends what a point was ordered by: a number, of a time its microseconds.
func appendOrderValue(dst []byte, v *vectord.OrderValue) []byte {
	if v.Kind == vectord.OrderFloat {
		return jsontext.AppendFloat(dst, v.Float, 64)
	}
	return strconv.AppendInt(dst, v.Int, 10)
}

func (s *Server) facet(r *request) error {
	f, err := call(r, decodeFacet)
	if err != nil {
		return err
	}
	hits, err := s.engine.Facet(r.ctx, r.collection, f)
	if err != nil {
		return err
	}
	r.out = append(r.out, `{"hits":[`...)
	for i, h := range hits {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		r.out = append(r.out, `{"value":`...)
		r.out = appendScalar(r.out, h.Value)
		r.out = append(r.out, `,"count":`...)
		r.out = append(strconv.AppendInt(r.out, int64(h.Count), 10), '}')
	}
	r.out = append(r.out, "]}"...)
	return nil
}

func (s *Server) matrixPairs(r *request) error {
	rows, err := s.matrix(r)
	if err != nil {
		return err
	}
	r.out = append(r.out, `{"pairs":[`...)
	separator := ""
	for i := range rows {
		for _, n := range rows[i].Neighbors {
			r.out = append(r.out, separator+`{"a":`...)
			separator = ","
			r.out = rows[i].ID.AppendJSON(r.out)
			r.out = append(r.out, `,"b":`...)
			r.out = n.ID.AppendJSON(r.out)
			r.out = append(r.out, `,"score":`...)
			r.out = append(appendFloat(r.out, n.Score), '}')
		}
	}
	r.out = append(r.out, "]}"...)
	return nil
}

func (s *Server) matrix(r *request) ([]vectord.MatrixRow, error) {
	m, err := call(r, decodeMatrix)
	if err != nil {
		return nil, err
	}
	return s.engine.Matrix(r.ctx, r.collection, m)
}

// matrixOffsets answers with the places of the points in the list of ids, instead of the ids.
func (s *Server) matrixOffsets(r *request) error {
	rows, err := s.matrix(r)
	if err != nil {
		return err
	}
	places := make(map[vectord.PointID]int, len(rows))
	for i := range rows {
		places[rows[i].ID] = i
	}
	r.appendEntries(`{"offsets_row":[`, rows, func(row int, _ *vectord.Hit) { r.out = strconv.AppendInt(r.out, int64(row), 10) })
	r.appendEntries(`],"offsets_col":[`, rows, func(_ int, n *vectord.Hit) { r.out = strconv.AppendInt(r.out, int64(places[n.ID]), 10) })
	r.appendEntries(`],"scores":[`, rows, func(_ int, n *vectord.Hit) { r.out = appendFloat(r.out, n.Score) })
	r.out = append(r.out, `],"ids":[`...)
	for i := range rows {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		r.out = rows[i].ID.AppendJSON(r.out)
	}
	r.out = append(r.out, "]}"...)
	return nil
}

// appendEntries appends begin and what appendEntry does for each entry of the matrix.
func (r *request) appendEntries(begin string, rows []vectord.MatrixRow, appendEntry func(row int, n *vectord.Hit)) {
	r.out = append(r.out, begin...)
	separator := ""
	for i := range rows {
		for j := range rows[i].Neighbors {
			r.out = append(r.out, separator...)
			separator = ","
			appendEntry(i, &rows[i].Neighbors[j])
		}
	}
}
