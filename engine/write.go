package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/vectord/vectord"
)

const (
	// selectedPerCommand bounds the points that one command of a filtered operation changes.
	selectedPerCommand = 4096
	// waitingVectorsMax is how far the graph may fall behind before writers wait for it, and backlogWaitMax for how long.
	waitingVectorsMax = 1_000_000
	backlogWaitMax    = 10 * time.Second
	backlogPoll       = 20 * time.Millisecond
)

// Write applies operations to a collection in order and returns when all are durable and every later read sees them. Each
// operation is atomic within a shard. When one is refused, those before it stay and those after it are not tried; what
// can be checked without looking at points is checked for all of them before anything changes.
//
// An operation that selects by filter changes the points that match when it is proposed and still match when it is
// applied.
func (db *DB) Write(ctx context.Context, name string, ops []vectord.Operation, o vectord.WriteOptions) ([]vectord.UpdateResult, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return nil, err
	}
	p := proposal{db: db, collection: col}
	if o.IdempotencyKey != "" { // of what was asked for, before texts become vectors, which need not be the same each time
		if p.fingerprint, err = fingerprint(ops); err != nil {
			return nil, err
		}
	}
	adds := false
	for i := range ops {
		if err := db.checkOperation(col, &ops[i]); err != nil {
			return nil, err
		}
		adds = adds || ops[i].Kind == vectord.OpUpsert
	}
	if err := db.checkStrictWrite(ctx, col, ops); err != nil {
		return nil, err
	}
	if adds {
		if err := db.budget.admit(); err != nil {
			return nil, err
		}
		if err := db.waitForIndex(ctx, col); err != nil {
			return nil, err
		}
	}
	if o.IdempotencyKey != "" {
		p.session = sessionKey(col.id, o.IdempotencyKey)
		p.noting = p.targets(ops)
		// Filters are resolved below, and a repetition must not resolve them again: what is left to match now is not
		// what the first attempt asked for.
		if done, err := p.repeated(); done || err != nil {
			return make([]vectord.UpdateResult, len(ops)), err
		}
	}
	if err := db.embedPoints(ctx, col, ops); err != nil {
		return nil, err
	}
	col.prepare(ops)
	return p.run(ctx, ops)
}

// waitForIndex holds writers back while the graph is too far behind, so that searches never scan without bound.
func (db *DB) waitForIndex(ctx context.Context, col *collection) error {
	behind := func() bool {
		for _, s := range col.shards {
			for _, x := range s.indexes() {
				if x.buildThreshold() >= 0 && x.waiting() > waitingVectorsMax {
					return true
				}
			}
		}
		return false
	}
	if !behind() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, backlogWaitMax)
	defer cancel()
	tick := time.NewTicker(backlogPoll)
	defer tick.Stop()
	for behind() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return &vectord.Error{Kind: vectord.KindOverloaded, RetryAfter: time.Second,
				Text: "indexing is behind: more than 1000000 vectors of the collection wait for the graph"}
		}
	}
	return nil
}

// proposal sends the operations of one Write to the log.
type proposal struct {
	db          *DB
	collection  *collection
	session     [16]byte // of the idempotency key, zero without one
	fingerprint uint64
	// noting are the shards that note the session: all that the operations go to. The last command goes to each of them,
	// if only for this.
	noting []*shard
	// answer, if any, is noted with the session, and repeatedAnswer what the first attempt has noted, once repeated says so.
	answer, repeatedAnswer []byte
	deleted                int // points so far
}

// repeated reports whether every shard that the operations go to has the proposal's key already, and how that ended.
func (p *proposal) repeated() (done bool, err error) {
	for _, s := range p.noting {
		session, ok, err := p.db.store.Session(s.group, p.session)
		if err != nil || !ok {
			return false, err
		}
		if p.repeatedAnswer, err = sessionOutcome(session, p.fingerprint); err != nil {
			return true, err
		}
	}
	return true, nil
}

// targets returns the shards that the operations go to: every shard where one selects by filter.
func (p *proposal) targets(ops []vectord.Operation) []*shard {
	if len(p.collection.shards) == 1 || slices.ContainsFunc(ops, func(op vectord.Operation) bool { return op.Filter != nil }) {
		return p.collection.shards
	}
	var targets []*shard
	for _, s := range p.collection.shards {
		if slices.ContainsFunc(ops, func(op vectord.Operation) bool { return !part(op, p.collection, s).empty() }) {
			targets = append(targets, s)
		}
	}
	return targets
}

// run proposes runs of operations as one command. An operation with a filter goes alone: its filter must see what the
// operations before it did. In a collection of several shards every operation goes alone, so that none is applied in one
// shard when one before it was refused in another.
func (p *proposal) run(ctx context.Context, ops []vectord.Operation) ([]vectord.UpdateResult, error) {
	results := make([]vectord.UpdateResult, 0, len(ops))
	for len(ops) > 0 {
		n := slices.IndexFunc(ops, func(op vectord.Operation) bool { return op.Filter != nil })
		if n < 0 {
			n = len(ops)
		}
		if len(p.collection.shards) > 1 {
			n = min(n, 1)
		}
		var index uint64
		var err error
		if n == 0 {
			n = 1
			index, err = p.proposeFiltered(ctx, ops[0], len(ops) == 1)
		} else if err = p.checkExistence(ops[0]); err == nil {
			index, err = p.propose(ctx, ops[:n], n == len(ops))
		}
		if err != nil {
			return nil, err
		}
		for range n {
			results = append(results, vectord.UpdateResult{OperationID: index})
		}
		ops = ops[n:]
	}
	return results, nil
}

// checkExistence refuses an operation on several shards that would be refused by one of them and applied by another,
// because a point that it names does not exist. Within one shard, and if the point is deleted a moment later, Apply
// refuses.
func (p *proposal) checkExistence(op vectord.Operation) error {
	if len(p.collection.shards) == 1 || op.Kind == vectord.OpUpsert || op.Kind == vectord.OpDelete {
		return nil
	}
	ids := op.IDs
	for _, point := range op.Points {
		ids = append(ids[:len(ids):len(ids)], point.ID)
	}
	for _, id := range ids {
		if row, ok, err := p.db.store.Point(p.collection.shardOf(id).id, id); err != nil {
			return err
		} else if !ok || gone(row, p.db.now()) {
			return noPoint(id)
		}
	}
	return nil
}

// operationPart is what of an operation concerns one shard.
type operationPart struct{ vectord.Operation }

func (o operationPart) empty() bool { return len(o.Points) == 0 && len(o.IDs) == 0 }

func part(op vectord.Operation, c *collection, s *shard) operationPart {
	if len(c.shards) == 1 {
		return operationPart{op}
	}
	whole := op
	op.Points, op.IDs = nil, nil
	for _, point := range whole.Points {
		if c.shardOf(point.ID) == s {
			op.Points = append(op.Points, point)
		}
	}
	for _, id := range whole.IDs {
		if c.shardOf(id) == s {
			op.IDs = append(op.IDs, id)
		}
	}
	return operationPart{op}
}

// propose sends each shard its part of the operations, all at the same time. last says that nothing follows under the
// proposal's key, which the log notes with the last command only.
func (p *proposal) propose(ctx context.Context, ops []vectord.Operation, last bool) (index uint64, err error) {
	type outcome struct {
		result vectord.Result
		err    error
	}
	outcomes := make(chan outcome, len(p.collection.shards))
	sent := 0
	for _, s := range p.collection.shards {
		w := write{Collection: p.collection.id, Shard: s.id}
		if last {
			w.Session, w.Fingerprint, w.Answer = p.session, p.fingerprint, p.answer
		}
		for _, op := range ops {
			if mine := part(op, p.collection, s); !mine.empty() {
				w.Operations = append(w.Operations, mine.Operation)
			}
		}
		if len(w.Operations) == 0 && !(last && slices.Contains(p.noting, s)) {
			continue
		}
		command, err := w.append(nil)
		if err != nil {
			return 0, err
		}
		sent++
		propose := func() {
			r, err := p.db.log.Propose(ctx, s.group, command)
			outcomes <- outcome{r, err}
		}
		if len(p.collection.shards) == 1 {
			propose()
		} else {
			go propose()
		}
	}
	for range sent {
		o := <-outcomes
		index = max(index, o.result.Index)
		if o.err == nil {
			o.err = o.result.Err
		}
		deleted, _ := o.result.Value.(int)
		p.deleted += deleted
		if err == nil {
			err = o.err
		}
	}
	return index, err
}

// proposeFiltered resolves an operation's filter to ids and proposes the operation for them in commands of bounded size.
// Each carries the filter too, and Apply leaves out the points that no longer match.
func (p *proposal) proposeFiltered(ctx context.Context, op vectord.Operation, last bool) (index uint64, err error) {
	m, err := p.collection.compileFilter(op.Filter)
	if err != nil {
		return 0, err
	}
	ids, err := p.db.matchingIDs(ctx, p.collection, m)
	if err != nil {
		return 0, err
	}
	for {
		n := min(len(ids), selectedPerCommand)
		op.IDs = ids[:n]
		ids = ids[n:]
		index, err = p.propose(ctx, []vectord.Operation{op}, last && len(ids) == 0)
		if err != nil || len(ids) == 0 {
			return index, err
		}
	}
}

// prepare brings the vectors of operations that were checked into the form in which they are kept.
func (c *collection) prepare(ops []vectord.Operation) {
	for _, op := range ops {
		for _, p := range op.Points {
			for i := range p.Vectors {
				if spec, err := c.spec(p.Vectors[i].Name); err == nil {
					spec.prepare(&p.Vectors[i].Vector)
				}
			}
		}
	}
}

// checkOperation refuses what can be known to be wrong before the log has it, and makes sparse vectors of texts.
func (db *DB) checkOperation(c *collection, op *vectord.Operation) error {
	switch op.Kind {
	case vectord.OpUpsert, vectord.OpUpdateVectors:
		if op.UpdateMode > vectord.WriteExists {
			return vectord.Errorf(vectord.KindInvalid, "update_mode: unknown mode %d", op.UpdateMode)
		}
		if _, err := c.compileFilter(op.UpdateFilter); err != nil {
			return err
		}
		return db.checkPoints(c, op.Points)
	case vectord.OpDelete, vectord.OpSetPayload, vectord.OpOverwritePayload, vectord.OpDeletePayload, vectord.OpClearPayload,
		vectord.OpDeleteVectors, vectord.OpSetExpiry:
	default:
		return vectord.Errorf(vectord.KindInvalid, "unknown operation %d", op.Kind)
	}
	if len(op.IDs) > 0 && op.Filter != nil {
		return vectord.Errorf(vectord.KindInvalid, "points and filter are both given, expected one of them")
	}
	if len(op.IDs) > vectord.MaxBatchPoints {
		return vectord.Errorf(vectord.KindInvalid, "points: %d ids in one operation, at most %d are accepted", len(op.IDs), vectord.MaxBatchPoints)
	}
	if _, err := c.compileFilter(op.Filter); err != nil {
		return err
	}
	switch op.Kind {
	case vectord.OpSetPayload, vectord.OpOverwritePayload:
		if err := checkPayload("payload", op.Payload); err != nil {
			return err
		}
		if op.Key != "" {
			if _, err := parsePath(op.Key); err != nil {
				return err
			}
		}
	case vectord.OpDeletePayload:
		if _, err := parsePaths(op.Keys); err != nil {
			return err
		}
	case vectord.OpDeleteVectors:
		if len(op.Keys) == 0 {
			return vectord.Errorf(vectord.KindUnprocessable, "vector: at least one name must be given")
		}
		if _, err := c.numbersOf(op.Keys); err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) checkPoints(c *collection, points []vectord.Point) error {
	if len(points) > vectord.MaxBatchPoints {
		return vectord.Errorf(vectord.KindInvalid, "points: %d points in one operation, at most %d are accepted", len(points), vectord.MaxBatchPoints)
	}
	seen := make(map[vectord.PointID]int, len(points))
	for i, p := range points {
		if first, twice := seen[p.ID]; twice {
			return vectord.Errorf(vectord.KindInvalid, "points: id %s is given twice, at positions %d and %d", p.ID, first, i)
		}
		seen[p.ID] = i
		if err := db.takeTexts(c, p.Vectors); err != nil {
			return fmt.Errorf("%w (points[%d], id %s)", err, i, p.ID)
		}
		if err := c.checkVectors(p.Vectors); err != nil {
			return fmt.Errorf("%w (points[%d], id %s)", err, i, p.ID)
		}
		if err := checkPayload("payload of point "+p.ID.String(), p.Payload); err != nil {
			return err
		}
	}
	return nil
}

// takeTexts makes sparse vectors of the texts among those of a point, and checks that there are models for the others.
func (db *DB) takeTexts(c *collection, vectors vectord.Vectors) error {
	for i := range vectors {
		if i > 0 && slices.ContainsFunc(vectors[:i], func(v vectord.NamedVector) bool { return v.Name == vectors[i].Name }) {
			return vectord.Errorf(vectord.KindInvalid, "vector name %q is given twice", vectors[i].Name)
		}
		v := &vectors[i].Vector
		if v.Kind != vectord.TextVector {
			continue
		}
		spec, err := c.spec(vectors[i].Name)
		if err != nil {
			return err
		}
		switch spec.kind {
		case vectord.SparseVector:
			*v, err = sparseOfText(v.Text, false)
		case vectord.DenseVector:
			_, err = db.embedderFor(v.Text, spec)
		default:
			err = vectord.Errorf(vectord.KindUnsupported, "vector name %q: no model makes a %s of a text", spec.name, spec.kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
