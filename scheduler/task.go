package scheduler

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/vectord/vectord"
)

const rowVersion = 1

// task is a task that is not terminal. What it was submitted with never changes and has a row of its own, the body, written
// once; what changes is the header.
type task struct {
	id    vectord.TaskID
	queue *queue
	seq   uint64 // by which tasks are in order: that of their submissions
	new   vectord.NewTask
	// spilled says that the payload and the metadata are in the body's row only.
	spilled bool
	size    int // bytes of the body
	header

	// What follows is derived from the above.
	openDependencies int
	timer            int   // its place in the timers, -1 for none
	lane             *lane // in which it waits to be leased, nil if it does not

	// What follows is the dispatcher's.
	routed   bool
	fresh    bool    // whether it is in its queue's fresh
	chosenBy *poll   // last; it puts the task back if nobody else has chosen it since
	best     float64 // similarity of the nearest agent
	steps    int     // by which the margin was widened
	widenAt  int64
	lookAt   int64 // under which it is in the looks, 0: it is not
	readyAt  int64
	shelves  []shelfKey
	waiting  string // why
	similars []similar
}

// header is what changes of a task.
type header struct {
	status       vectord.TaskStatus
	created      int64 // times in milliseconds
	updated      int64
	runAt        int64 // scheduled: when it is queued
	attempt      int   // that is under way or was the last
	series       int   // attempts that count against the limit
	started      int64 // the attempt
	agent        string
	lease        vectord.LeaseID
	leaseSeconds int
	leaseExpires int64
	cancelBy     int64 // a running task that shall stop: when it is cancelled regardless
	preferred    string
	progress     []byte
	inputRequest []byte
	inputAnswer  []byte
	result       []byte
	failure      *vectord.TaskError // of the last attempt that failed
	fingerprint  uint64             // of a completion, to know its repetition
}

// limit returns how many attempts the task has.
func (t *task) limit() int {
	if t.new.MaxAttempts > 0 {
		return t.new.MaxAttempts
	}
	return t.queue.config.MaxAttempts
}

func (t *task) priority() int {
	if t.new.Priority != nil {
		return *t.new.Priority
	}
	return defaultPriority
}

const defaultPriority = 4

// constrained reports whether not every agent of the queue may have the task.
func (t *task) constrained() bool {
	return len(t.new.Vector) > 0 || len(t.new.Tags) > 0 || t.new.AgentID != "" || t.preferred != ""
}

// due returns when something happens to the task by itself, 0 for never.
func (t *task) due() int64 {
	due := int64(t.new.Deadline)
	sooner := func(at int64) {
		if at != 0 && (due == 0 || at < due) {
			due = at
		}
	}
	switch t.status {
	case vectord.TaskScheduled:
		sooner(t.runAt)
	case vectord.TaskRunning:
		sooner(t.leaseExpires)
		sooner(t.cancelBy)
		if t.new.TimeoutSeconds > 0 {
			sooner(t.started + int64(t.new.TimeoutSeconds)*1000)
		}
	}
	return due
}

// appendBody appends what a task was submitted with.
func appendBody(dst []byte, n *vectord.NewTask) []byte {
	dst = append(dst, rowVersion)
	priority, flags := byte(defaultPriority), byte(0)
	if n.Priority != nil {
		priority, flags = byte(*n.Priority), flags|1
	}
	if n.RunOnDependencyFailure {
		flags |= 2
	}
	dst = append(dst, flags, priority)
	dst = appendFloat(dst, n.FairnessWeight)
	dst = binary.AppendUvarint(dst, uint64(n.RunAt))
	dst = binary.AppendUvarint(dst, uint64(n.DelayMS))
	dst = binary.AppendUvarint(dst, uint64(n.Deadline))
	dst = binary.AppendUvarint(dst, uint64(n.TimeoutSeconds))
	dst = binary.AppendUvarint(dst, uint64(n.MaxAttempts))
	for _, s := range [...]string{n.Type, n.AgentID, n.FairnessKey, n.IdempotencyKey, n.TraceParent, n.Text} {
		dst = appendBytes(dst, s)
	}
	dst = appendStrings(dst, n.Tags)
	dst = appendStrings(dst, n.StateRefs)
	dst = binary.AppendUvarint(dst, uint64(len(n.DependsOn)))
	for _, id := range n.DependsOn {
		dst = append(dst, id[:]...)
	}
	dst = appendVector(dst, n.Vector)
	dst = appendBytes(dst, n.Metadata)
	return appendBytes(dst, n.Payload)
}

// decodeBody reads what appendBody wrote. The payload and the metadata are parts of b.
func decodeBody(b []byte) (n vectord.NewTask, err error) {
	r := reader{b: b}
	if v := r.byte(); v != rowVersion {
		return n, fmt.Errorf("task of version %d, this program reads version %d", v, rowVersion)
	}
	flags, priority := r.byte(), int(r.byte())
	if flags&1 != 0 {
		n.Priority = &priority
	}
	n.RunOnDependencyFailure = flags&2 != 0
	n.FairnessWeight = r.float()
	n.RunAt, n.DelayMS, n.Deadline = vectord.Timestamp(r.int()), r.int(), vectord.Timestamp(r.int())
	n.TimeoutSeconds, n.MaxAttempts = int(r.uint()), int(r.uint())
	for _, s := range [...]*string{&n.Type, &n.AgentID, &n.FairnessKey, &n.IdempotencyKey, &n.TraceParent, &n.Text} {
		*s = r.string()
	}
	n.Tags, n.StateRefs = r.strings(), r.strings()
	for range r.count(16) {
		n.DependsOn = append(n.DependsOn, r.id())
	}
	n.Vector = r.vector()
	n.Metadata, n.Payload = json.RawMessage(r.bytes()), json.RawMessage(r.bytes())
	if r.err == nil && (priority > vectord.MaxPriority || n.RunAt < 0 || n.Deadline < 0 || n.DelayMS < 0) {
		r.err = errMalformed
	}
	return n, r.end()
}

// appendHeader appends the header of a task with the queue and the order that belong to it.
func appendHeader(dst []byte, queue uint32, seq uint64, h *header) []byte {
	dst = append(dst, rowVersion, byte(h.status))
	dst = binary.AppendUvarint(dst, uint64(queue))
	dst = binary.AppendUvarint(dst, seq)
	for _, n := range [...]int64{h.created, h.updated, h.runAt, int64(h.attempt), int64(h.series), h.started, int64(h.lease),
		int64(h.leaseSeconds), h.leaseExpires, h.cancelBy, int64(h.fingerprint)} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	dst = appendBytes(appendBytes(dst, h.agent), h.preferred)
	for _, b := range [...][]byte{h.progress, h.inputRequest, h.inputAnswer, h.result} {
		dst = appendBytes(dst, b)
	}
	if h.failure == nil {
		return append(dst, 0)
	}
	return appendBytes(appendBytes(append(dst, 1), h.failure.Code), h.failure.Message)
}

// decodeHeader reads what appendHeader wrote. It shares memory with b.
func decodeHeader(b []byte) (queue uint32, seq uint64, h header, err error) {
	r := reader{b: b}
	if v := r.byte(); v != rowVersion {
		return 0, 0, h, fmt.Errorf("task of version %d, this program reads version %d", v, rowVersion)
	}
	h.status = vectord.TaskStatus(r.byte())
	queue, seq = uint32(r.uint()), r.uint()
	h.created, h.updated, h.runAt = r.int(), r.int(), r.int()
	h.attempt, h.series, h.started = int(r.uint()), int(r.uint()), r.int()
	h.lease, h.leaseSeconds, h.leaseExpires = vectord.LeaseID(r.uint()), int(r.uint()), r.int()
	h.cancelBy, h.fingerprint = r.int(), r.uint()
	h.agent, h.preferred = r.string(), r.string()
	h.progress, h.inputRequest, h.inputAnswer, h.result = r.bytes(), r.bytes(), r.bytes(), r.bytes()
	if r.byte() == 1 {
		h.failure = &vectord.TaskError{Code: r.string(), Message: r.string()}
	}
	if r.err == nil && (h.status < vectord.TaskScheduled || h.status > vectord.TaskCancelled) {
		r.err = errMalformed
	}
	return queue, seq, h, r.end()
}

// public returns the task as others see it. It shares memory with t, none of which is changed later.
func (t *task) public() vectord.Task {
	p := publicTask(t.id, t.queue.name, t.new, &t.header)
	p.Durable = t.queue.durable()
	p.WaitingReason = t.waiting
	if t.queue.ready.holds(t) {
		p.WaitingReason = "limit of the fairness key"
	}
	if t.status != vectord.TaskQueued {
		p.WaitingReason = ""
	}
	return p
}

func publicTask(id vectord.TaskID, queue string, n vectord.NewTask, h *header) vectord.Task {
	p := vectord.Task{ID: id, Queue: queue, Status: h.status, NewTask: n, CreatedAt: vectord.Timestamp(h.created), UpdatedAt: vectord.Timestamp(h.updated),
		Attempt: h.attempt, Agent: h.agent, Progress: h.progress, CancelRequested: h.cancelBy != 0, InputRequest: h.inputRequest,
		InputResponse: h.inputAnswer, Result: h.result, Error: h.failure, Durable: true}
	if h.status == vectord.TaskRunning {
		p.LeaseID, p.LeaseExpiresAt = h.lease, vectord.Timestamp(h.leaseExpires)
	}
	if h.status == vectord.TaskScheduled {
		p.RunAt = vectord.Timestamp(h.runAt)
	}
	return p
}
