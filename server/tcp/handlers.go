package tcpserver

import (
	"context"
	"fmt"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
	"github.com/vectord/vectord/internal/wire"
)

// startPoll has a goroutine of its own wait for tasks. The frame's credit is free meanwhile: polls have a bound of their own.
func (c *conn) startPoll(f *frame) {
	if c.polling.Add(1) > maxPolls {
		c.polling.Add(-1)
		c.finish(f, nil, &vectord.Error{Kind: vectord.KindOverloaded, RetryAfter: overloadedFor,
			Text: fmt.Sprintf("more than %d polls for tasks over one connection", maxPolls)})
		return
	}
	c.polls.Go(func() {
		defer c.polling.Add(-1)
		c.poll(f)
	})
}

func (c *conn) poll(f *frame) {
	tasks, err := c.lease(f)
	switch {
	case err != nil:
		c.refuse(f, err)
	case c.ctx.Err() != nil && !c.draining.Load():
		c.release(tasks)
	default:
		messages, beyond := split(tasks)
		c.answer(f, wire.FrameLeased, &wire.LeasedBatch{Tasks: messages})
		c.release(beyond)
	}
	c.done(f)
}

// lease leases tasks to an agent, which from now on lives as long as the connection does.
func (c *conn) lease(f *frame) (tasks []vectord.Task, err error) {
	defer c.catch(f.Type, &err)
	r, err := c.readLease(f)
	c.payBack(f)
	if err != nil {
		return nil, err
	}
	if err := c.bind(r.AgentID); err != nil {
		return nil, err
	}
	return c.server.scheduler.Lease(c.ctx, r)
}

func (c *conn) readLease(f *frame) (r vectord.LeaseRequest, err error) {
	if _, err := c.authorize(access.Write, access.ScopeServer, ""); err != nil {
		return r, err
	}
	var m wire.Lease
	if _, err := m.UnmarshalMsg(f.body); err != nil {
		return r, wire.Malformed(f.Type, err)
	}
	r = vectord.LeaseRequest{Queue: m.Queue, AgentID: m.AgentID, MaxTasks: m.MaxTasks, WaitMS: m.WaitMS, LeaseSeconds: m.LeaseSeconds}
	return r, r.Check()
}

// bind binds an agent to the connection.
func (c *conn) bind(id string) error {
	c.agentsMu.Lock()
	defer c.agentsMu.Unlock()
	if c.agents[id] {
		return nil
	}
	if len(c.agents) == maxAgents {
		return vectord.Errorf(vectord.KindOverloaded, "more than %d agents over one connection", maxAgents)
	}
	c.server.agents.bind(id)
	c.agents[id] = true
	return nil
}

// split makes messages of as many tasks as one answer may have, and returns the tasks beyond.
func split(tasks []vectord.Task) (messages []wire.Leased, beyond []vectord.Task) {
	messages = make([]wire.Leased, 0, len(tasks))
	size := 0
	for i := range tasks {
		m := wire.LeasedOf(&tasks[i])
		if size += m.Msgsize(); size > maxLeasedBytes && i > 0 {
			return messages, tasks[i:]
		}
		messages = append(messages, m)
	}
	return messages, nil
}

// release gives tasks back that cannot be handed out.
func (c *conn) release(tasks []vectord.Task) {
	if len(tasks) == 0 {
		return
	}
	calls := make([]vectord.TaskCall, len(tasks))
	for i := range tasks {
		calls[i] = vectord.TaskCall{Kind: vectord.CallRelease, ID: tasks[i].ID, LeaseID: tasks[i].LeaseID}
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.server.options.RequestTimeout)
	defer cancel()
	if _, err := c.server.scheduler.Call(ctx, calls); err != nil {
		c.server.log.Warn("give tasks back that could not be handed out", "tasks", len(tasks), "error", err)
	}
}

func (c *conn) upsert(ctx context.Context, f *frame) (wire.Marshaler, error) {
	var m wire.Upsert
	if _, err := m.UnmarshalMsg(f.body); err != nil {
		return nil, wire.Malformed(f.Type, err)
	}
	name, err := c.authorizeCollection(access.Write, m.Collection)
	if err != nil {
		return nil, err
	}
	if len(m.IdempotencyKey) > vectord.MaxTaskKeyBytes {
		return nil, vectord.Errorf(vectord.KindInvalid, "idempotency_key: %d bytes, at most %d are accepted", len(m.IdempotencyKey), vectord.MaxTaskKeyBytes)
	}
	op := vectord.Operation{Kind: vectord.OpUpsert, Points: make([]vectord.Point, len(m.Points))}
	for i := range m.Points {
		if op.Points[i], err = m.Points[i].Point(); err != nil {
			return nil, fmt.Errorf("points[%d]: %w", i, err)
		}
	}
	results, err := c.server.engine.Write(ctx, name, []vectord.Operation{op}, vectord.WriteOptions{IdempotencyKey: m.IdempotencyKey})
	if err != nil {
		return nil, err
	}
	return &wire.Upserted{OperationID: results[0].OperationID}, nil
}

func (c *conn) search(ctx context.Context, f *frame) (wire.Marshaler, error) {
	var m wire.Search
	if _, err := m.UnmarshalMsg(f.body); err != nil {
		return nil, wire.Malformed(f.Type, err)
	}
	name, err := c.authorizeCollection(access.Read, m.Collection)
	if err != nil {
		return nil, err
	}
	q, err := m.Query()
	if err != nil {
		return nil, err
	}
	hits, err := c.server.engine.Search(ctx, name, q)
	if err != nil {
		return nil, err
	}
	return wire.HitsOf(hits), nil
}

func (c *conn) authorizeCollection(needed access.Permission, collection string) (name string, err error) {
	if err := vectord.CheckCollectionName(collection); err != nil {
		return "", err
	}
	return c.authorize(needed, access.ScopeCollection, collection)
}
