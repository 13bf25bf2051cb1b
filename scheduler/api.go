package scheduler

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/vectord/vectord"
)

// PutQueue implements the server's Scheduler.
func (s *Scheduler) PutQueue(ctx context.Context, name string, config vectord.QueueConfig) error {
	if err := vectord.CheckName("queue", name); err != nil {
		return err
	}
	if err := config.Check(); err != nil {
		return err
	}
	_, err := s.propose(ctx, encodeJSON(commandPutQueue, putQueue{name, config}))
	return err
}

// DeleteQueue implements the server's Scheduler.
func (s *Scheduler) DeleteQueue(ctx context.Context, name string, force bool) error {
	s.mu.Lock()
	live := 0
	if q := s.queues[name]; q != nil {
		live = q.waiting + q.counts[vectord.TaskRunning]
	}
	s.mu.Unlock()
	if live > 0 && !force {
		return notEmpty(name, live)
	}
	_, err := s.propose(ctx, encodeJSON(commandDeleteQueue, deleteQueue{name, force}))
	return err
}

// Submit implements the server's Scheduler.
func (s *Scheduler) Submit(ctx context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
	if err := vectord.CheckName("queue", queue); err != nil {
		return nil, err
	}
	if len(tasks) < 1 || len(tasks) > vectord.MaxTaskBatch {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "tasks: %d of them, must be from 1 to %d", len(tasks), vectord.MaxTaskBatch)
	}
	if _, err := s.lead(); err != nil {
		return nil, err
	}
	if out := s.refuseAll(queue, tasks); out != nil {
		return out, nil
	}
	c, refused, err := s.prepare(ctx, queue, tasks)
	if err != nil {
		return nil, err
	}
	out := make([]vectord.Submitted, len(tasks))
	var taken []vectord.Submitted
	if len(c.tasks) > 0 {
		if taken, err = s.submit(ctx, c); err != nil {
			return nil, err
		}
	}
	for i := range out {
		if refused[i] != nil {
			out[i].Err = refused[i]
			continue
		}
		out[i], taken = taken[0], taken[1:]
	}
	return out, nil
}

// refuseAll refuses tasks for a queue that is full, before any work is done for them; nil: it has to be seen.
func (s *Scheduler) refuseAll(queue string, tasks []vectord.NewTask) []vectord.Submitted {
	s.mu.Lock()
	q := s.queues[queue]
	most := 0
	if q != nil {
		most = q.config.MaxDepth + q.config.MaxOverflow
	}
	full := q != nil && q.config.DropPolicy == vectord.RejectNew && q.waiting >= most
	s.mu.Unlock()
	if !full || slices.ContainsFunc(tasks, func(n vectord.NewTask) bool { return n.IdempotencyKey != "" }) {
		return nil
	}
	err := queueFull(queue, most)
	out := make([]vectord.Submitted, len(tasks))
	for i := range out {
		out[i].Err = err
	}
	return out
}

func queueFull(queue string, waiting int) error {
	return &vectord.Error{Kind: vectord.KindOverloaded, Code: vectord.CodeQueueFull, RetryAfter: millis(retryAfterMillis),
		Text: fmt.Sprintf("queue %q has %d tasks that wait, as many as it takes", queue, waiting)}
}

func (s *Scheduler) submit(ctx context.Context, c *submit) ([]vectord.Submitted, error) {
	s.mu.Lock()
	q := s.queues[c.queue]
	inMemory := q != nil && !q.durable()
	s.mu.Unlock()
	if inMemory {
		var value any
		var refusal, err error
		s.inMemory(func(x *tx) { value, refusal, err = x.submit(c) })
		if err = cmp.Or(err, refusal); err != nil {
			return nil, err
		}
		return value.([]vectord.Submitted), nil
	}
	value, err := s.propose(ctx, c.append([]byte{byte(commandSubmit)}))
	if err != nil {
		return nil, err
	}
	return value.([]vectord.Submitted), nil
}

// prepare checks tasks, makes vectors of their texts and gives them ids. Those that are refused are left out.
func (s *Scheduler) prepare(ctx context.Context, queue string, tasks []vectord.NewTask) (*submit, []error, error) {
	c := &submit{queue: queue, tasks: make([]submission, 0, len(tasks))}
	refused := make([]error, len(tasks))
	now := s.now()
	var texts []string
	for i := range tasks {
		n := tasks[i]
		refused[i] = n.Check()
		if refused[i] == nil && n.Text != "" && s.o.Embed == nil {
			refused[i] = vectord.Errorf(vectord.KindInvalid, "text: there is no model that makes a vector of it")
		}
		if refused[i] != nil {
			continue
		}
		t := submission{}
		if n.IdempotencyKey != "" {
			t.key, t.fingerprint = hashKey(n.IdempotencyKey), xxh3.Hash(appendBody(nil, &n))
		}
		if n.DelayMS > 0 {
			n.RunAt, n.DelayMS = vectord.Timestamp(now+n.DelayMS), 0
		}
		if n.Text != "" {
			texts = append(texts, n.Text)
		}
		t.new = n
		c.tasks = append(c.tasks, t)
	}
	var vectors [][]float32
	if len(texts) > 0 {
		var err error
		if vectors, err = s.o.Embed(ctx, texts); err != nil {
			return nil, nil, err
		}
	}
	ids := newTaskIDs(now, len(c.tasks))
	for i := range c.tasks {
		t := &c.tasks[i]
		t.id = ids[i]
		if t.new.Text != "" {
			t.new.Vector, vectors = vectors[0], vectors[1:]
		}
		if len(t.new.Vector) > 0 {
			t.new.Vector, _ = normalize(t.new.Vector) // Check has refused one of length 0
		}
	}
	if err := s.prepareQueue(ctx, c, refused); err != nil {
		return nil, nil, err
	}
	return c, refused, nil
}

// prepareQueue gives the configuration of a queue that there is not yet, and refuses tasks that must not wait for an agent.
func (s *Scheduler) prepareQueue(ctx context.Context, c *submit, refused []error) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[c.queue]
	if q == nil {
		if len(s.queues) >= vectord.MaxQueues {
			return vectord.Errorf(vectord.KindInvalid, "there are %d queues, as many as there may be", len(s.queues))
		}
		c.config, err = json.Marshal(vectord.DefaultQueueConfig())
		return err
	}
	if q.config.Routing.Fallback != "reject" {
		return nil
	}
	kept, now := c.tasks[:0], s.now()
	at := 0
	for _, t := range c.tasks {
		for refused[at] != nil {
			at++
		}
		list := s.snapshot().byQueue[q.name]
		similars, best := nearest(list, t.new.Vector, t.new.Tags, t.new.AgentID, now)
		if len(similars) == 0 || len(t.new.Vector) > 0 && best < q.config.Routing.MinSimilarity {
			refused[at] = vectord.Refuse(vectord.KindUnprocessable, vectord.CodeNoEligibleAgent, "no agent suits the task: the nearest of %d has similarity %s, %s is wanted",
				len(list), formatSimilarity(best), formatSimilarity(q.config.Routing.MinSimilarity))
		} else {
			kept = append(kept, t)
		}
		at++
	}
	c.tasks = kept
	return nil
}

// Call implements the server's Scheduler.
func (s *Scheduler) Call(ctx context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error) {
	if len(calls) < 1 || len(calls) > vectord.MaxTaskBatch {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "calls: %d of them, must be from 1 to %d", len(calls), vectord.MaxTaskBatch)
	}
	if _, err := s.lead(); err != nil {
		return nil, err
	}
	out := make([]vectord.CallOutcome, len(calls))
	var durable, volatile []call
	var places, volatilePlaces []int
	numbered := numbersMax
	for i := range calls {
		if out[i].Err = calls[i].Check(); out[i].Err != nil {
			continue
		}
		c, err := s.prepareCall(ctx, &calls[i])
		followUps := 0
		for j := range c.submits {
			followUps += len(c.submits[j].tasks)
		}
		if err == nil && followUps > numbered {
			err = vectord.Errorf(vectord.KindTooLarge, "tasks: more than %d of them come with the completions of one request", numbersMax)
			if c.release != nil {
				c.release()
			}
		}
		if err != nil {
			out[i].Err = err
			continue
		}
		numbered -= followUps
		if c.release != nil { // it goes alone: another one of these calls may wait for what it has locked
			if out[i], err = s.callAlone(ctx, &c); err != nil {
				return nil, err
			}
			continue
		}
		if calls[i].LeaseID >= volatileNumbers {
			if volatile == nil {
				volatile, volatilePlaces = make([]call, 0, len(calls)-i), make([]int, 0, len(calls)-i)
			}
			volatile, volatilePlaces = append(volatile, c), append(volatilePlaces, i)
		} else {
			if durable == nil {
				durable, places = make([]call, 0, len(calls)-i), make([]int, 0, len(calls)-i)
			}
			durable, places = append(durable, c), append(places, i)
		}
	}
	if len(volatile) > 0 {
		var answers []vectord.CallOutcome
		var err error
		s.inMemory(func(x *tx) { answers, err = x.calls(volatile) })
		if err != nil {
			return nil, err
		}
		for i, at := range volatilePlaces {
			out[at] = answers[i]
		}
	}
	if len(durable) > 0 {
		value, err := s.propose(ctx, appendCalls(nil, durable))
		if err != nil {
			return nil, err
		}
		for i, at := range places {
			out[at] = value.([]vectord.CallOutcome)[i]
		}
	}
	return out, nil
}

// callAlone applies a call with memories, whose scopes stay locked until the outcome is known, whoever waits for it.
func (s *Scheduler) callAlone(ctx context.Context, c *call) (vectord.CallOutcome, error) {
	type outcome struct {
		value any
		err   error
	}
	known := make(chan outcome, 1)
	s.calls.Go(func() {
		defer c.release()
		value, err := s.propose(context.WithoutCancel(ctx), appendCalls(nil, []call{*c}))
		known <- outcome{value, err}
	})
	select {
	case o := <-known:
		if o.err != nil {
			return vectord.CallOutcome{}, o.err
		}
		answer := o.value.([]vectord.CallOutcome)[0]
		if answer.Err == nil {
			answer.Memories = c.memories
		}
		return answer, nil
	case <-ctx.Done():
		return vectord.CallOutcome{}, vectord.Errorf(vectord.KindTimeout, "the outcome is unknown, the call may still take effect: %v", ctx.Err())
	}
}

// prepareCall brings what a completion carries into the form in which it is applied.
func (s *Scheduler) prepareCall(ctx context.Context, c *vectord.TaskCall) (p call, err error) {
	p.TaskCall = *c
	if c.Kind != vectord.CallComplete || c.Effects.Empty() {
		return p, nil
	}
	if len(c.Effects.Points) > 0 || c.Effects.Memories != nil {
		if s.o.Points == nil {
			return p, vectord.Errorf(vectord.KindUnsupported, "points: this server keeps none")
		}
		if c.LeaseID >= volatileNumbers {
			return p, vectord.Errorf(vectord.KindInvalid, "points cannot come with the completion of a task that is in memory only")
		}
	}
	for _, queue := range slices.Sorted(maps.Keys(c.Effects.Tasks)) {
		if err := vectord.CheckName("queue", queue); err != nil {
			return p, err
		}
		submit, refused, err := s.prepare(ctx, queue, c.Effects.Tasks[queue])
		if err != nil {
			return p, err
		}
		if i := slices.IndexFunc(refused, func(err error) bool { return err != nil }); i >= 0 {
			return p, fmt.Errorf("%w (tasks.%s[%d])", refused[i], queue, i)
		}
		p.submits = append(p.submits, *submit)
	}
	if len(c.Effects.Points) > 0 || c.Effects.Memories != nil { // last, as something may be locked after it
		p.writes, p.memories, p.release, err = s.o.Points.PrepareWrites(ctx, sourced(&c.Effects, c.ID))
	}
	return p, err
}

// sourced returns the effects with the task as the source of those memories that name none.
func sourced(e *vectord.Effects, id vectord.TaskID) *vectord.Effects {
	if e.Memories == nil {
		return e
	}
	own, memories := *e, *e.Memories
	memories.Memories = slices.Clone(memories.Memories)
	for i := range memories.Memories {
		memories.Memories[i].SourceTask = cmp.Or(memories.Memories[i].SourceTask, id.String())
	}
	own.Memories = &memories
	return &own
}

// change has a command about one task applied, in memory if that is where the task is, and returns the task.
func (s *Scheduler) change(ctx context.Context, id vectord.TaskID, command []byte) (vectord.Task, error) {
	if _, err := s.lead(); err != nil {
		return vectord.Task{}, err
	}
	s.mu.Lock()
	t := s.tasks[id]
	if t == nil {
		t = s.volatile.done[id]
	}
	inMemory := t != nil && !t.queue.durable()
	s.mu.Unlock()
	var err error
	if inMemory {
		s.inMemory(func(x *tx) {
			var refusal error
			if _, refusal, err = x.apply(commandKind(command[0]), command[1:]); err == nil {
				err = refusal
			}
		})
	} else {
		_, err = s.propose(ctx, command)
	}
	if err != nil {
		return vectord.Task{}, err
	}
	return s.Task(id)
}

// Cancel implements the server's Scheduler.
func (s *Scheduler) Cancel(ctx context.Context, id vectord.TaskID) (vectord.Task, error) {
	return s.change(ctx, id, encodeJSON(commandCancel, taskCommand{id}))
}

// GiveInput implements the server's Scheduler.
func (s *Scheduler) GiveInput(ctx context.Context, id vectord.TaskID, response []byte) (vectord.Task, error) {
	if len(response) > vectord.MaxMetadataBytes {
		return vectord.Task{}, vectord.Errorf(vectord.KindUnprocessable, "response: %d bytes, at most %d are accepted", len(response), vectord.MaxMetadataBytes)
	}
	if !json.Valid(response) {
		return vectord.Task{}, vectord.Errorf(vectord.KindInvalid, "response: is no JSON")
	}
	return s.change(ctx, id, encodeJSON(commandGiveInput, giveInput{id, response}))
}

// Redrive implements the server's Scheduler.
func (s *Scheduler) Redrive(ctx context.Context, queue string, ids []vectord.TaskID) (n int, err error) {
	if len(ids) > vectord.MaxTaskBatch {
		return 0, vectord.Errorf(vectord.KindUnprocessable, "task_ids: %d of them, at most %d are accepted", len(ids), vectord.MaxTaskBatch)
	}
	if len(ids) > 0 {
		return s.redrive(ctx, queue, ids)
	}
	after := vectord.TaskID{}
	for {
		page, err := s.ScrollTasks(vectord.TaskScroll{Queue: queue, Status: []vectord.TaskStatus{vectord.TaskFailed}, After: after, Limit: vectord.MaxTaskBatch})
		if err != nil || len(page) == 0 {
			return n, err
		}
		for i := range page {
			ids = append(ids, page[i].ID)
		}
		after = ids[len(ids)-1]
		redriven, err := s.redrive(ctx, queue, ids)
		n += redriven
		if err != nil || redriven < len(ids) || len(page) < vectord.MaxTaskBatch {
			return n, err
		}
		ids = ids[:0]
	}
}

func (s *Scheduler) redrive(ctx context.Context, queue string, ids []vectord.TaskID) (n int, err error) {
	if _, err := s.lead(); err != nil {
		return 0, err
	}
	s.mu.Lock()
	q := s.queues[queue]
	durable := q != nil && q.durable()
	s.mu.Unlock()
	if q == nil {
		return 0, noQueue(queue)
	}
	var value any
	if durable {
		value, err = s.propose(ctx, encodeJSON(commandRedrive, redrive{queue, ids}))
	} else {
		s.inMemory(func(x *tx) { value, _, err = x.redrive(redrive{queue, ids}) })
	}
	n, _ = value.(int)
	return n, err
}

// RegisterAgent implements the server's Scheduler.
func (s *Scheduler) RegisterAgent(ctx context.Context, id string, config vectord.AgentConfig) error {
	if err := vectord.CheckName("agent_id", id); err != nil {
		return err
	}
	if err := config.Check(); err != nil {
		return err
	}
	config.Capacity = cmp.Or(config.Capacity, 1)
	config.LeaseTTLSeconds = cmp.Or(config.LeaseTTLSeconds, defaultLeaseTTL)
	config.Transport = cmp.Or(config.Transport, "pull")
	vectors := slices.Clone(config.Vectors)
	if len(config.Texts) > 0 {
		if s.o.Embed == nil {
			return vectord.Errorf(vectord.KindInvalid, "texts: there is no model that makes vectors of them")
		}
		embedded, err := s.o.Embed(ctx, config.Texts)
		if err != nil {
			return err
		}
		vectors = append(vectors, embedded...)
	}
	for i := range vectors {
		v, ok := normalize(vectors[i])
		if !ok {
			return vectord.Errorf(vectord.KindUnprocessable, "vectors[%d]: has no direction", i)
		}
		vectors[i] = v
	}
	config.Vectors = vectors
	_, err := s.propose(ctx, encodeJSON(commandPutAgent, putAgent{id, config, vectord.DefaultQueueConfig()}))
	return err
}

// RemoveAgent implements the server's Scheduler.
func (s *Scheduler) RemoveAgent(ctx context.Context, id string) error {
	if err := s.endVolatile(id, "the agent was removed"); err != nil {
		return err
	}
	_, err := s.propose(ctx, encodeJSON(commandRemoveAgent, agentCommand{ID: id}))
	return err
}

// EndLeases ends all leases of an agent that has died: their attempts have failed.
func (s *Scheduler) EndLeases(ctx context.Context, id, reason string) error {
	if err := s.endVolatile(id, reason); err != nil {
		return err
	}
	_, err := s.propose(ctx, encodeJSON(commandEndLeases, agentCommand{ID: id, Reason: reason}))
	return err
}

func (s *Scheduler) endVolatile(id, reason string) (err error) {
	if _, err := s.lead(); err != nil {
		return err
	}
	s.inMemory(func(x *tx) {
		if a := s.agents[id]; a != nil {
			err = x.endLeasesOf(a, reason)
		}
	})
	return err
}

// HeartbeatAgent implements the server's Scheduler.
func (s *Scheduler) HeartbeatAgent(id string, h vectord.AgentHeartbeat) (vectord.AgentNews, error) {
	if _, err := s.lead(); err != nil {
		return vectord.AgentNews{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.agents[id]
	if a == nil {
		return vectord.AgentNews{}, noAgent(id)
	}
	now := s.now()
	back := a.status(now) == vectord.AgentOffline
	a.seen(now)
	if h.LatencyMS > 0 {
		a.observe(h.LatencyMS)
	}
	if back {
		for q := range s.queuesOf(a) {
			s.rethink(q)
		}
		s.kick()
	}
	news := vectord.AgentNews{Status: a.status(now), CancelRequested: []vectord.TaskID{}}
	for _, t := range a.held {
		if t.cancelBy != 0 {
			news.CancelRequested = append(news.CancelRequested, t.id)
		}
	}
	slices.SortFunc(news.CancelRequested, func(a, b vectord.TaskID) int { return slices.Compare(a[:], b[:]) })
	return news, nil
}

// DrainAgent implements the server's Scheduler.
func (s *Scheduler) DrainAgent(ctx context.Context, id string, drain bool) error {
	_, err := s.propose(ctx, encodeJSON(commandDrainAgent, agentCommand{ID: id, Drain: drain}))
	return err
}

// Route implements the server's Scheduler.
func (s *Scheduler) Route(ctx context.Context, r vectord.RouteRequest) (vectord.Decision, error) {
	if err := r.Check(); err != nil {
		return vectord.Decision{}, err
	}
	began := time.Now()
	n := vectord.NewTask{Vector: r.Vector, Tags: r.Tags, AgentID: r.AgentID}
	if r.Text != "" {
		if s.o.Embed == nil {
			return vectord.Decision{}, vectord.Errorf(vectord.KindInvalid, "text: there is no model that makes a vector of it")
		}
		vectors, err := s.o.Embed(ctx, []string{r.Text})
		if err != nil {
			return vectord.Decision{}, err
		}
		n.Vector = vectors[0]
	}
	if len(n.Vector) > 0 {
		var ok bool
		if n.Vector, ok = normalize(n.Vector); !ok {
			return vectord.Decision{}, vectord.Errorf(vectord.KindUnprocessable, "vector: has no direction")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[r.Queue]
	if q == nil {
		return vectord.Decision{}, noQueue(r.Queue)
	}
	now := s.now()
	t := &task{queue: q, new: n}
	list := s.snapshot().byQueue[q.name]
	similars, best := nearest(list, n.Vector, n.Tags, n.AgentID, now)
	t.route(similars, best, now)
	var chosen similar
	for _, c := range list {
		if c.agent.free() <= 0 || c.agent.status(now) != vectord.AgentActive {
			continue
		}
		if near, ok := s.may(t, c.agent, now); ok && (chosen.agent == nil || q.better(similar{c.agent, near}, chosen)) {
			chosen = similar{c.agent, near}
		}
	}
	return *s.explain(t, chosen.agent, began, cmp.Or(r.Limit, candidatesMax)), nil
}
