package engine

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/field"
	"github.com/vectord/vectord/internal/text"
	"github.com/vectord/vectord/storage"
)

// A payload index of a collection is a fieldIndex in each of its shards: postings, which map terms to the slots whose
// payloads have them. A posting is a row in storage, written and removed in the batch that writes the payload. At start
// the rows are read, and no payload.
//
// The catalog has the indexes of a collection. Apply maintains an index from its creation on; the points that are older are
// added in the background by commands of bounded size (fieldbuild.go). Filters use it when that is done (fieldfilter.go).

// fieldMeta is a payload index as the catalog keeps it.
type fieldMeta struct {
	Number uint16              `json:"number"` // of its postings; a collection gives each out once
	Name   string              `json:"name"`   // the path as it was given
	Schema vectord.FieldSchema `json:"schema"`
	Ready  bool                `json:"ready"` // all points are in it
}

// fieldDef is a fieldMeta made ready for use. It is immutable.
type fieldDef struct {
	fieldMeta
	path path
	key  string     // the path in the one spelling that path.String gives it
	text *textIndex // of type text
}

// textIndex says how the texts of an index become tokens.
type textIndex struct{ *text.Analyzer }

// fieldsMax is how many indexes a collection may have had in all: numbers are never given out again, so that rows of an
// index that was dropped cannot be taken for those of another.
const fieldsMax = 1 << 16

func newFieldDef(m fieldMeta) (*fieldDef, error) {
	d := &fieldDef{fieldMeta: m}
	var err error
	if d.path, err = parsePath(m.Name); err != nil {
		return nil, err
	}
	d.key = d.path.String()
	if m.Schema.Type == vectord.FieldText {
		var params text.Params
		if m.Schema.Params != nil {
			if err := json.Unmarshal(m.Schema.Params, &params); err != nil {
				return nil, vectord.Errorf(vectord.KindInvalid, "field_schema: %v", err)
			}
		}
		a, err := text.New(params)
		if err != nil {
			return nil, fmt.Errorf("field_schema: %w", err)
		}
		d.text = &textIndex{a}
	}
	return d, nil
}

// String returns the path in one spelling: every key in quotes.
func (p path) String() string {
	var b strings.Builder
	for i, s := range p {
		switch s.kind {
		case keySegment:
			if i > 0 {
				b.WriteByte('.')
			}
			b.WriteString(`"` + s.key + `"`)
		case indexSegment:
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
		case eachSegment:
			b.WriteString("[]")
		}
	}
	return b.String()
}

func (c *collection) fieldByName(name string) *fieldDef {
	for _, d := range c.fields {
		if d.Name == name {
			return d
		}
	}
	return nil
}

func (c *collection) fieldByNumber(number uint16) *fieldDef {
	for _, d := range c.fields {
		if d.Number == number {
			return d
		}
	}
	return nil
}

// analyzer returns that of the text index on a path, nil if there is none.
func (c *collection) analyzer(name string) analyzer {
	for _, d := range c.fields {
		if d.text == nil {
			continue
		}
		if p, err := parsePath(name); err == nil && p.String() == d.key {
			return d.text
		}
	}
	return nil
}

// compileFilter is compileFilter with the text indexes and the names of vectors that the collection has.
func (c *collection) compileFilter(f *vectord.Filter) (*matcher, error) {
	m, err := compileFilter(f, c.analyzer, c.numbers)
	if m != nil {
		m.fields = c.fields
		// No two schemas of a collection have the same counts.
		m.schema = fmt.Sprintf("%d of %d, %d of %d", len(c.fields), c.nextField, len(c.numbers), c.nextNumber)
	}
	return m, err
}

// appendTerms appends the terms that a payload has in the index, sorted, each once.
func (d *fieldDef) appendTerms(dst []string, payload *fastjson.Value) []string {
	first := len(dst)
	values := 0
	d.path.each(payload, func(found *fastjson.Value) bool {
		if found.Type() != fastjson.TypeArray {
			values++
			dst = d.appendElement(dst, found)
			return true
		}
		for _, element := range found.GetArray() {
			values++
			dst = d.appendElement(dst, element)
			if element.Type() == fastjson.TypeNull {
				dst = append(dst, field.Array)
			}
		}
		return true
	})
	if values > 1 {
		dst = append(dst, field.Several)
	}
	slices.Sort(dst[first:])
	return dst[:first+len(slices.Compact(dst[first:]))]
}

// appendElement appends the terms of one value.
func (d *fieldDef) appendElement(dst []string, e *fastjson.Value) []string {
	if e.Type() == fastjson.TypeNull {
		return append(dst, field.Null)
	}
	before := len(dst)
	switch d.Schema.Type {
	case vectord.FieldKeyword:
		if e.Type() == fastjson.TypeString {
			return append(dst, field.String(string(e.GetStringBytes())))
		}
	case vectord.FieldUUID:
		if e.Type() == fastjson.TypeString {
			return append(dst, uuidOrString(string(e.GetStringBytes())))
		}
	case vectord.FieldInteger, vectord.FieldFloat:
		if n, ok := numberOf(e); ok {
			_, err := e.Int64() // what match asks of it
			return append(dst, field.Number(n, err == nil))
		}
	case vectord.FieldBool:
		if t := e.Type(); t == fastjson.TypeTrue || t == fastjson.TypeFalse {
			return append(dst, field.Bool(t == fastjson.TypeTrue))
		}
	case vectord.FieldDatetime:
		if e.Type() == fastjson.TypeString {
			if moment, ok := vectord.ParseDatetime(e.GetStringBytes()); ok {
				return append(dst, field.Time(moment))
			}
		}
	case vectord.FieldGeo:
		if place, ok := placeOf(e); ok {
			return append(dst, field.Place(place.Lon, place.Lat))
		}
	case vectord.FieldText:
		if e.Type() == fastjson.TypeString {
			dst = d.text.Tokens(dst, string(e.GetStringBytes()))
			for i := before; i < len(dst); i++ {
				dst[i] = field.Token(dst[i])
			}
		}
	}
	if len(dst) == before {
		dst = append(dst, field.Other)
	}
	return dst
}

func uuidOrString(s string) string {
	if term, ok := field.UUID(s); ok {
		return term
	}
	return field.String(s)
}

// fieldIndexes are the payload indexes of a shard in memory.
type fieldIndexes struct {
	mu sync.RWMutex // guards what is below; Apply holds it while the slots and the vector index follow a batch
	// live are the slots in use.
	live    roaring.Bitmap
	indexes []*fieldIndex

	bytes atomic.Int64
}

// fieldIndex is one of them.
type fieldIndex struct {
	def      *fieldDef
	postings *field.Postings
	present  *roaring.Bitmap // slots with a value that is not null
	ready    bool            // filters may use it
}

// follow takes over the indexes of the collection: new ones are empty, those that are no more are dropped. Apply calls it
// before a batch is visible.
func (f *fieldIndexes) follow(defs []*fieldDef) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var indexes []*fieldIndex
	for _, d := range defs {
		x := f.byNumber(d.Number)
		if x == nil {
			x = &fieldIndex{postings: field.New(), present: roaring.New()}
		}
		x.def = d
		indexes = append(indexes, x)
	}
	f.indexes = indexes
}

// release lets filters use the indexes that the catalog says are ready. Apply calls it when the memory has followed the
// batch.
func (f *fieldIndexes) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.indexes {
		x.ready = x.def.Ready
	}
}

// byNumber returns an index. f.mu is held.
func (f *fieldIndexes) byNumber(number uint16) *fieldIndex {
	for _, x := range f.indexes {
		if x.def.Number == number {
			return x
		}
	}
	return nil
}

// load reads the postings of the indexes from storage.
func (f *fieldIndexes) load(store *storage.Store, shard uint32, defs []*fieldDef) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range defs {
		x := &fieldIndex{def: d, ready: d.Ready, present: roaring.New()}
		loader := field.NewLoader()
		var present []uint32
		flush := func() {
			x.present.AddMany(present)
			present = present[:0]
		}
		err := store.ScanPostings(shard, d.Number, func(term []byte, slot uint32) error {
			loader.Add(term, slot)
			if field.IsValue(string(term)) {
				if present = append(present, slot); len(present) == loadedSlots {
					flush()
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("payload index on %q: %w", d.Name, err)
		}
		flush()
		x.postings = loader.Done()
		f.indexes = append(f.indexes, x)
	}
	f.measure()
	return nil
}

// loadedSlots is how many slots are gathered before they go into a bitmap.
const loadedSlots = 4096

// measure notes the size of the indexes. f.mu is held.
func (f *fieldIndexes) measure() {
	bytes := int64(f.live.GetSizeInBytes())
	for _, x := range f.indexes {
		bytes += x.postings.MemoryBytes() + int64(x.present.GetSizeInBytes())
	}
	f.bytes.Store(bytes)
}

func (f *fieldIndexes) memoryBytes() int64 { return f.bytes.Load() }

// ready reports whether filters may use the index.
func (f *fieldIndexes) ready(number uint16) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	x := f.byNumber(number)
	return x != nil && x.ready
}

// points returns how many slots have a value in the index, but for those that have expired.
func (f *fieldIndexes) points(number uint16, expired []uint32) int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	x := f.byNumber(number)
	if x == nil {
		return 0
	}
	n := int(x.present.GetCardinality())
	for _, slot := range expired {
		if x.present.Contains(slot) {
			n--
		}
	}
	return n
}

// fieldStep is what a batch changes of the terms of one slot in one index, for the memory to follow.
type fieldStep struct {
	number         uint16
	slot           uint32
	removed, added []string
	present        bool // the slot has a value that is not null afterwards
}

// step changes the memory by one step. f.mu is held for writing.
func (f *fieldIndexes) step(s *fieldStep) {
	x := f.byNumber(s.number)
	if x == nil {
		return // the index was dropped later in the batch
	}
	for _, term := range s.removed {
		x.postings.Remove(term, s.slot)
	}
	for _, term := range s.added {
		x.postings.Add(term, s.slot)
	}
	if s.present {
		x.present.Add(s.slot)
	} else {
		x.present.Remove(s.slot)
	}
}

// reindex moves a point in the payload indexes from one row to another: nil is none. An error stays in w.err.
func (w *pointWriter) reindex(from, to *storage.PointRow) {
	if len(w.collection.fields) == 0 || w.err != nil {
		return
	}
	before, err := termsOf(w.collection.fields, from)
	if err != nil {
		w.err = err
		return
	}
	after, err := termsOf(w.collection.fields, to)
	if err != nil {
		w.err = err
		return
	}
	same := from != nil && to != nil && from.Slot == to.Slot
	for i, d := range w.collection.fields {
		removed, added := before[i], after[i]
		present := slices.ContainsFunc(added, field.IsValue)
		if same {
			removed, added = difference(before[i], after[i]), difference(after[i], before[i])
		}
		if from != nil && len(removed) > 0 || same && len(added) > 0 {
			s := fieldStep{number: d.Number, slot: from.Slot, removed: removed}
			if same {
				s.added, s.present = added, present
			}
			w.post(s)
		}
		if to != nil && !same && len(added) > 0 {
			w.post(fieldStep{number: d.Number, slot: to.Slot, added: added, present: present})
		}
	}
}

// post writes the rows of a step.
func (w *pointWriter) post(s fieldStep) {
	shard := w.changes.shard.id
	for _, term := range s.removed {
		w.batch.DeletePosting(shard, s.number, term, s.slot)
	}
	for _, term := range s.added {
		w.batch.PutPosting(shard, s.number, term, s.slot)
	}
	w.changes.fields = append(w.changes.fields, s)
}

// termsOf returns the terms of a row in each of the indexes. No row has none.
func termsOf(fields []*fieldDef, row *storage.PointRow) ([][]string, error) {
	terms := make([][]string, len(fields))
	if row == nil || len(row.Payload) == 0 {
		return terms, nil
	}
	p := parsers.Get().(*payloadParser)
	defer parsers.Put(p)
	v, err := p.parse(row.Payload)
	if err != nil {
		return nil, err
	}
	for i, d := range fields {
		terms[i] = d.appendTerms(nil, v)
	}
	return terms, nil
}

// difference returns the terms of a that are not in b. Both are sorted.
func difference(a, b []string) (only []string) {
	for _, term := range a {
		for len(b) > 0 && b[0] < term {
			b = b[1:]
		}
		if len(b) == 0 || b[0] != term {
			only = append(only, term)
		}
	}
	return only
}
