package model

import (
	"cmp"
	"context"
	"encoding/json"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/vectord/vectord"
)

// This file has what goes by the values at a payload path: order, facets and groups; and the distance matrix.

// indexType returns the type of the payload index on a path, if it is one of some.
func (c *collection) indexType(key string, types ...vectord.FieldType) (vectord.FieldType, error) {
	steps, err := parsePath(key)
	if err != nil {
		return "", err
	}
	for name, schema := range c.fields {
		if other, err := parsePath(name); err == nil && slices.Equal(steps, other) && slices.Contains(types, schema.Type) {
			return schema.Type, nil
		}
	}
	return "", vectord.Errorf(vectord.KindInvalid, "no index of types %v on %s", types, key)
}

// eachValue calls fn with the values of a payload at a path, those of arrays one by one.
func eachValue(payload map[string]any, path string, fn func(v any)) {
	anyElement(lookUp(payload, path), func(v any) bool {
		fn(v)
		return false
	})
}

// inOrder returns the points by their values, each once for each value.
func (c *collection) inOrder(by *vectord.OrderBy, ids []vectord.PointID) ([]ranked, error) {
	kind, err := c.indexType(by.Key, vectord.FieldInteger, vectord.FieldFloat, vectord.FieldDatetime)
	if err != nil {
		return nil, err
	}
	var from *big.Rat
	if by.StartFrom != nil {
		if by.StartFrom.Kind == vectord.OrderTime && kind != vectord.FieldDatetime {
			return nil, vectord.Errorf(vectord.KindInvalid, "start_from is a time, the index is of numbers")
		}
		if from = new(big.Rat).SetInt64(by.StartFrom.Int); by.StartFrom.Kind == vectord.OrderFloat {
			from.SetFloat64(by.StartFrom.Float)
		}
	}
	type place struct {
		id    vectord.PointID
		value *big.Rat
	}
	direction := 1
	if by.Descending {
		direction = -1
	}
	var places []place
	for _, id := range ids {
		eachValue(c.points[id].payload, by.Key, func(v any) {
			value, ok := rational(v)
			if kind == vectord.FieldDatetime {
				var t interface{ UnixMicro() int64 }
				if t, ok = moment(v); ok {
					value = new(big.Rat).SetInt64(t.UnixMicro())
				}
			}
			if !ok || from != nil && value.Cmp(from)*direction < 0 {
				return
			}
			if !slices.ContainsFunc(places, func(p place) bool { return p.id == id && p.value.Cmp(value) == 0 }) {
				places = append(places, place{id, value})
			}
		})
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Or(a.value.Cmp(b.value)*direction, a.id.Compare(b.id)) })
	found := make([]ranked, len(places))
	for i, p := range places {
		value := vectord.OrderValue{Kind: vectord.OrderInt, Int: p.value.Num().Int64()}
		switch {
		case kind == vectord.FieldDatetime:
			value.Kind = vectord.OrderTime
		case !p.value.IsInt() || !p.value.Num().IsInt64():
			value = vectord.OrderValue{Kind: vectord.OrderFloat}
			value.Float, _ = p.value.Float64()
		}
		found[i] = ranked{id: p.id, order: &value}
	}
	return found, nil
}

// onceEach returns the points without those that came before.
func onceEach(list []ranked) (once []ranked) {
	for _, r := range list {
		if placeOf(r.id, once) < 0 {
			once = append(once, r)
		}
	}
	return once
}

// Facet counts the matching points by value.
func (m *Model) Facet(_ context.Context, name string, f vectord.Facet) ([]vectord.FacetHit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if f.Limit < 1 || f.Limit > vectord.MaxLimit {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "limit %d", f.Limit)
	}
	if err := checkPaths(f.Filter); err != nil {
		return nil, err
	}
	kind, err := c.indexType(f.Key, vectord.FieldKeyword, vectord.FieldUUID, vectord.FieldInteger, vectord.FieldBool)
	if err != nil {
		return nil, err
	}
	wanted := map[vectord.FieldType]vectord.ScalarKind{vectord.FieldKeyword: vectord.ScalarString, vectord.FieldUUID: vectord.ScalarString,
		vectord.FieldInteger: vectord.ScalarInt, vectord.FieldBool: vectord.ScalarBool}[kind]
	counts := map[vectord.Scalar]int{}
	for _, id := range c.matching(f.Filter) {
		has := map[vectord.Scalar]bool{}
		eachValue(c.points[id].payload, f.Key, func(v any) {
			if s, ok := scalar(v); ok && s.Kind == wanted {
				has[s] = true
			}
		})
		for s := range has {
			counts[s]++
		}
	}
	hits := []vectord.FacetHit{}
	for value, count := range counts {
		hits = append(hits, vectord.FacetHit{Value: value, Count: count})
	}
	slices.SortFunc(hits, func(a, b vectord.FacetHit) int {
		switch {
		case a.Count != b.Count:
			return b.Count - a.Count
		case b.Value.Bool && !a.Value.Bool:
			return -1
		case a.Value.Bool && !b.Value.Bool:
			return 1
		}
		return cmp.Or(strings.Compare(a.Value.String, b.Value.String), cmp.Compare(a.Value.Int, b.Value.Int))
	})
	return hits[:min(len(hits), f.Limit)], nil
}

// scalar returns a payload value as what a match can ask for.
func scalar(v any) (vectord.Scalar, bool) {
	switch v := v.(type) {
	case string:
		return vectord.Scalar{Kind: vectord.ScalarString, String: v}, true
	case bool:
		return vectord.Scalar{Kind: vectord.ScalarBool, Bool: v}, true
	case json.Number:
		n, err := strconv.ParseInt(string(v), 10, 64)
		return vectord.Scalar{Kind: vectord.ScalarInt, Int: n}, err == nil
	}
	return vectord.Scalar{}, false
}

// SearchGroups ranks every matching point and puts one after the other into its groups.
func (m *Model) SearchGroups(ctx context.Context, name string, g vectord.Groups) ([]vectord.Group, error) {
	if !m.CollectionExists(name) {
		return nil, noCollection(name)
	}
	if g.Size < 1 || g.Size > vectord.MaxGroupSize || g.Limit < 1 || g.Limit > vectord.MaxLimit/g.Size || g.Offset != 0 {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "%d groups of %d from %d", g.Limit, g.Size, g.Offset)
	}
	groups, err := m.groups(name, &g)
	if err != nil || g.WithPoint == nil {
		return groups, err
	}
	if _, err := m.Retrieve(ctx, g.WithPoint.Collection, nil, g.WithPoint.Select); err != nil {
		return nil, err
	}
	for i := range groups {
		id, err := vectord.ParsePointID(groups[i].Value.String)
		isID := err == nil && id.IsUUID()
		if groups[i].Value.Kind == vectord.ScalarInt {
			id, isID = vectord.NumberID(uint64(groups[i].Value.Int)), groups[i].Value.Int >= 0
		}
		if !isID {
			continue
		}
		records, err := m.Retrieve(ctx, g.WithPoint.Collection, []vectord.PointID{id}, g.WithPoint.Select)
		if err != nil {
			return nil, err
		}
		if len(records) > 0 {
			groups[i].Point = &records[0]
		}
	}
	return groups, nil
}

func (m *Model) groups(name string, g *vectord.Groups) ([]vectord.Group, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if err := g.Check(); err != nil {
		return nil, err
	}
	if _, err := parsePath(g.By); err != nil {
		return nil, err
	}
	pick, err := c.picker(g.Select)
	if err != nil {
		return nil, err
	}
	asked := question{model: m, collection: c, examples: map[vectord.PointID]bool{}}
	if err := asked.noteExamples(&g.Query); err != nil {
		return nil, err
	}
	found, err := asked.rank(&g.Query, nil)
	if err != nil {
		return nil, err
	}
	groups := []vectord.Group{}
	for _, r := range onceEach(found) {
		has := map[vectord.Scalar]bool{}
		eachValue(c.points[r.id].payload, g.By, func(v any) {
			value, ok := scalar(v)
			if !ok || value.Kind == vectord.ScalarBool || has[value] {
				return
			}
			has[value] = true
			at := slices.IndexFunc(groups, func(group vectord.Group) bool { return group.Value == value })
			if at < 0 && len(groups) < g.Limit {
				at = len(groups)
				groups = append(groups, vectord.Group{Value: value})
			}
			if at >= 0 && len(groups[at].Hits) < g.Size {
				hit := vectord.Hit{Record: pick(r.id, c.points[r.id]), Score: r.score}
				hit.Order = r.order
				groups[at].Hits = append(groups[at].Hits, hit)
			}
		})
	}
	return groups, nil
}

// Matrix takes the first of the matching points for a sample.
func (m *Model) Matrix(ctx context.Context, name string, x vectord.Matrix) ([]vectord.MatrixRow, error) {
	if !m.CollectionExists(name) {
		return nil, noCollection(name)
	}
	if x.Sample < 2 || x.Sample > vectord.MaxMatrixSample || x.Limit < 1 || x.Limit > vectord.MaxLimit {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "%d neighbors of a sample of %d", x.Limit, x.Sample)
	}
	var ids []vectord.PointID
	vectors := map[vectord.PointID]vectord.Vector{}
	if err := func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		c, err := m.find(name)
		if err != nil {
			return err
		}
		if _, err := c.kind(x.Using); err != nil {
			return err
		}
		if err := checkPaths(x.Filter); err != nil {
			return err
		}
		for _, id := range c.matching(x.Filter) {
			if v, ok := c.points[id].vectors[x.Using]; ok && len(ids) < x.Sample {
				ids = append(ids, id)
				vectors[id] = v
			}
		}
		return nil
	}(); err != nil || len(ids) < 2 {
		return nil, err
	}
	var rows []vectord.MatrixRow
	for _, id := range ids {
		others := slices.DeleteFunc(slices.Clone(ids), func(other vectord.PointID) bool { return other == id })
		hits, err := m.Search(ctx, name, vectord.Query{Nearest: &vectord.Example{Vector: vectors[id]}, Using: x.Using, Limit: x.Limit,
			Filter: &vectord.Filter{Must: []vectord.Condition{{HasID: &others}}}})
		if err != nil {
			return nil, err
		}
		rows = append(rows, vectord.MatrixRow{ID: id, Neighbors: hits})
	}
	return rows, nil
}
