package mcpserver

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"maps"
	"slices"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

const (
	defaultCollections = 100
	maxCollections     = 1_000
	defaultHits        = 10
	maxHits            = 1_000
	maxPoints          = 1_000 // of one call
)

func (s *Server) addCollectionTools() {
	addTool(s, toolSpec{name: "list_collections", needs: access.Read, scope: access.ScopeListed, effect: reads,
		description: "List the collections that the caller may read, by name."}, s.listCollections)
	addTool(s, toolSpec{name: "create_collection", needs: access.Manage, scope: access.ScopeCollection, effect: addsOnce, required: []string{"collection", "size"},
		description: "Create a collection of points with one dense vector each."}, s.createCollection)
	addTool(s, toolSpec{name: "upsert_points", needs: access.Write, scope: access.ScopeCollection, effect: changesOnce, required: []string{"collection", "points"},
		description: "Write points, replacing those with the same id. When this returns they are durable and every search sees them."}, s.upsertPoints)
	addTool(s, toolSpec{name: "search_points", needs: access.Read, scope: access.ScopeCollection, effect: reads, required: []string{"collection"},
		description: "Find the points nearest to a vector or a text."}, s.searchPoints)
}

type listCollectionsIn struct {
	After string `json:"after,omitempty" jsonschema:"only collections whose name comes after this one, for the next page"`
	Limit int    `json:"limit,omitempty" jsonschema:"how many to list, 1 to 1000; 100 unless given"`
}

type listCollectionsOut struct {
	Collections []collectionOut `json:"collections"`
	More        bool            `json:"more" jsonschema:"there are further ones, to be listed with after"`
}

type collectionOut struct {
	Name    string      `json:"name"`
	Points  int         `json:"points"`
	Status  string      `json:"status"`
	Vectors []vectorOut `json:"vectors"`
}

type vectorOut struct {
	Name     string           `json:"name,omitempty" jsonschema:"absent: the default one"`
	Size     int              `json:"size"`
	Distance vectord.Distance `json:"distance"`
}

func (s *Server) listCollections(ctx context.Context, in listCollectionsIn) (out listCollectionsOut, err error) {
	limit, err := numberWithin("limit", in.Limit, defaultCollections, maxCollections)
	if err != nil {
		return out, err
	}
	out.Collections = []collectionOut{}
	caller := &visitOf(ctx).caller
	for _, name := range s.engine.Collections() {
		if name <= in.After || !caller.May(access.Read, name) {
			continue
		}
		if len(out.Collections) == limit {
			out.More = true
			break
		}
		c, err := s.describeCollection(name)
		if vectord.KindOf(err) == vectord.KindNotFound && err != nil { // deleted meanwhile
			continue
		}
		if err != nil {
			return out, err
		}
		out.Collections = append(out.Collections, c)
	}
	return out, nil
}

func (s *Server) describeCollection(name string) (collectionOut, error) {
	info, err := s.engine.CollectionInfo(name)
	if err != nil {
		return collectionOut{}, err
	}
	out := collectionOut{Name: name, Points: info.Points, Status: string(info.Status), Vectors: []vectorOut{}}
	for _, vector := range slices.Sorted(maps.Keys(info.Config.Params.Vectors)) {
		p := info.Config.Params.Vectors[vector]
		out.Vectors = append(out.Vectors, vectorOut{vector, p.Size, p.Distance})
	}
	return out, nil
}

// numberWithin returns a number that a call may leave out.
func numberWithin(name string, value, otherwise, most int) (int, error) {
	if value == 0 {
		return otherwise, nil
	}
	if value < 1 || value > most {
		return 0, vectord.Errorf(vectord.KindUnprocessable, "%s: value %d invalid, must be from 1 to %d", name, value, most)
	}
	return value, nil
}

type createCollectionIn struct {
	collectionArgument
	Size     int              `json:"size" jsonschema:"components of a vector"`
	Distance vectord.Distance `json:"distance,omitempty" jsonschema:"how vectors are compared; Cosine unless given"`
}

type createCollectionOut struct {
	Collection string `json:"collection"`
}

func (s *Server) createCollection(ctx context.Context, in createCollectionIn) (createCollectionOut, error) {
	if !in.Distance.Valid() {
		in.Distance = vectord.Cosine
	}
	err := s.engine.CreateCollection(ctx, in.Collection, vectord.DefaultCollectionConfig(in.Size, in.Distance))
	return createCollectionOut{in.Collection}, err
}

type upsertPointsIn struct {
	collectionArgument
	Points []pointIn `json:"points" jsonschema:"the points, at most 1000"`
	Using  string    `json:"using,omitempty" jsonschema:"name of the vector that vector and text are for; the default one unless given"`
	Model  string    `json:"model,omitempty" jsonschema:"what makes vectors of texts, such as vectord/minilm-static-256"`
}

type pointIn struct {
	ID      *vectord.PointID     `json:"id,omitempty" jsonschema:"an unsigned integer or a UUID; a new UUID unless given"`
	Vector  []float32            `json:"vector,omitempty" jsonschema:"its vector"`
	Text    string               `json:"text,omitempty" jsonschema:"a text of which the server makes the vector"`
	Vectors map[string][]float32 `json:"vectors,omitempty" jsonschema:"several vectors by name"`
	Payload json.RawMessage      `json:"payload,omitempty" jsonschema:"an object of any content"`
}

type upsertPointsOut struct {
	IDs []vectord.PointID `json:"ids" jsonschema:"of the points, in their order"`
}

func (s *Server) upsertPoints(ctx context.Context, in upsertPointsIn) (out upsertPointsOut, err error) {
	if len(in.Points) > maxPoints {
		return out, vectord.Errorf(vectord.KindUnprocessable, "points: %d of them, at most %d are accepted", len(in.Points), maxPoints)
	}
	points := make([]vectord.Point, len(in.Points))
	out.IDs = make([]vectord.PointID, len(in.Points))
	for i := range in.Points {
		if points[i], err = in.Points[i].point(in.Using, in.Model); err != nil {
			return out, vectord.Errorf(vectord.KindOf(err), "points[%d].%v", i, err)
		}
		out.IDs[i] = points[i].ID
	}
	if len(points) > 0 {
		_, err = s.engine.Write(ctx, in.Collection, []vectord.Operation{{Kind: vectord.OpUpsert, Points: points}}, vectord.WriteOptions{})
	}
	return out, err
}

// point returns the point to be written.
func (p *pointIn) point(using, model string) (vectord.Point, error) {
	point := vectord.Point{Payload: p.Payload}
	if string(p.Payload) == "null" {
		point.Payload = nil
	}
	if point.Payload != nil {
		if err := checkPayload(point.Payload); err != nil {
			return point, err
		}
	}
	if p.ID != nil {
		point.ID = *p.ID
	} else {
		point.ID = newID()
	}
	switch {
	case p.Vector != nil && p.Text != "":
		return point, vectord.Errorf(vectord.KindInvalid, "vector: cannot be given together with text")
	case p.Vector != nil:
		point.Vectors = append(point.Vectors, vectord.NamedVector{Name: using, Vector: vectord.Dense(p.Vector)})
	case p.Text != "":
		point.Vectors = append(point.Vectors, vectord.NamedVector{Name: using, Vector: textVector(p.Text, model)})
	}
	for _, name := range slices.Sorted(maps.Keys(p.Vectors)) {
		if _, twice := point.Vectors.Get(name); twice {
			return point, vectord.Errorf(vectord.KindInvalid, "vectors: %q is given twice", name)
		}
		point.Vectors = append(point.Vectors, vectord.NamedVector{Name: name, Vector: vectord.Dense(p.Vectors[name])})
	}
	return point, nil
}

func checkPayload(payload json.RawMessage) error {
	if len(payload) > vectord.MaxPayloadBytes {
		return vectord.Errorf(vectord.KindUnprocessable, "payload: %d bytes, at most %d are accepted", len(payload), vectord.MaxPayloadBytes)
	}
	if depth := vectord.JSONDepth(payload); depth > vectord.MaxPayloadDepth {
		return vectord.Errorf(vectord.KindUnprocessable, "payload: nested %d deep, at most %d are accepted", depth, vectord.MaxPayloadDepth)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(payload, &object); err != nil {
		return vectord.Errorf(vectord.KindInvalid, "payload: expected an object")
	}
	return nil
}

func textVector(text, model string) vectord.Vector {
	return vectord.Vector{Kind: vectord.TextVector, Text: &vectord.Document{Text: text, Model: model}}
}

// newID returns a random UUID, of version 4.
func newID() vectord.PointID {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it does not fail
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return vectord.UUIDID(b)
}

type searchPointsIn struct {
	collectionArgument
	Vector         []float32       `json:"vector,omitempty" jsonschema:"what to be near to"`
	Text           string          `json:"text,omitempty" jsonschema:"instead of vector: a text of which the server makes one"`
	Model          string          `json:"model,omitempty" jsonschema:"with text: what makes a vector of it, such as vectord/minilm-static-256"`
	Using          string          `json:"using,omitempty" jsonschema:"name of the vectors to compare with; the default one unless given"`
	Filter         *vectord.Filter `json:"filter,omitempty" jsonschema:"conditions in the form of Qdrant's filters: {\"must\": [{\"key\": \"city\", \"match\": {\"value\": \"Berlin\"}}]}"`
	Limit          int             `json:"limit,omitempty" jsonschema:"how many points, 1 to 1000; 10 unless given"`
	ScoreThreshold *float32        `json:"score_threshold,omitempty" jsonschema:"only points nearer than this score"`
	WithVectors    bool            `json:"with_vectors,omitempty" jsonschema:"return the points' vectors too"`
}

type searchPointsOut struct {
	Points []hitOut `json:"points" jsonschema:"the nearest first"`
}

type hitOut struct {
	ID      vectord.PointID      `json:"id"`
	Score   float32              `json:"score"`
	Payload json.RawMessage      `json:"payload,omitempty"`
	Vector  []float32            `json:"vector,omitempty"`
	Vectors map[string][]float32 `json:"vectors,omitempty" jsonschema:"dense ones by name"`
}

func (s *Server) searchPoints(ctx context.Context, in searchPointsIn) (out searchPointsOut, err error) {
	q := vectord.Query{Using: in.Using, Filter: in.Filter, ScoreThreshold: in.ScoreThreshold, Select: vectord.Selection{Payload: true, Vectors: in.WithVectors}}
	switch {
	case (in.Vector == nil) == (in.Text == ""):
		return out, vectord.Errorf(vectord.KindInvalid, "vector: exactly one of vector and text must be given")
	case in.Text != "":
		q.Nearest = &vectord.Example{Vector: textVector(in.Text, in.Model)}
	default:
		q.Nearest = vectord.Near(in.Vector)
	}
	if q.Limit, err = numberWithin("limit", in.Limit, defaultHits, maxHits); err != nil {
		return out, err
	}
	hits, err := s.engine.Search(ctx, in.Collection, q)
	if err != nil {
		return out, err
	}
	out.Points = make([]hitOut, len(hits))
	for i, h := range hits {
		out.Points[i] = hitOut{ID: h.ID, Score: h.Score, Payload: h.Payload}
		for _, v := range h.Vectors {
			switch {
			case v.Kind != vectord.DenseVector:
			case v.Name == "":
				out.Points[i].Vector = v.Values
			default:
				if out.Points[i].Vectors == nil {
					out.Points[i].Vectors = map[string][]float32{}
				}
				out.Points[i].Vectors[v.Name] = v.Values
			}
		}
	}
	return out, nil
}
