package scheduler

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/vectord/vectord"
)

// A command is a kind and a body. Commands are a format: a kind keeps its meaning for ever, and a change of a body takes a
// new kind. Times within are milliseconds since the Unix epoch.
type commandKind byte

const (
	commandSubmit      commandKind = 1
	commandGrant       commandKind = 2
	commandCalls       commandKind = 3
	commandCancel      commandKind = 4
	commandGiveInput   commandKind = 5
	commandRedrive     commandKind = 6
	commandPutQueue    commandKind = 7
	commandDeleteQueue commandKind = 8
	commandPutAgent    commandKind = 9
	commandRemoveAgent commandKind = 10
	commandDrainAgent  commandKind = 11
	commandEndLeases   commandKind = 12
	commandTick        commandKind = 13
	commandElected     commandKind = 14
	commandPurge       commandKind = 15
	commandPutState    commandKind = 16
	commandDeleteState commandKind = 17
)

// submission is a task on its way into a queue.
type submission struct {
	id          vectord.TaskID
	key         [16]byte // hash of the idempotency key, zero for none
	fingerprint uint64   // of what was asked for under the key
	body        []byte   // what new says, of a submission that was read
	new         vectord.NewTask
}

// submit is a number of tasks for one queue. config is what the queue gets if there is none, as JSON.
type submit struct {
	queue  string
	config []byte
	tasks  []submission
}

func (s *submit) append(dst []byte) []byte {
	dst = appendBytes(appendBytes(dst, s.queue), s.config)
	dst = binary.AppendUvarint(dst, uint64(len(s.tasks)))
	var body []byte
	for i := range s.tasks {
		t := &s.tasks[i]
		dst = append(append(dst, t.id[:]...), t.key[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, t.fingerprint)
		body = appendBody(body[:0], &t.new)
		dst = appendBytes(dst, body)
	}
	return dst
}

// submissionSizeMin is the least that a submission takes in a command.
const submissionSizeMin = 16 + 16 + 8 + 1

// readSubmit shares memory with the command, but for the tasks' bodies.
func readSubmit(r *reader) (s submit) {
	s.queue, s.config = r.string(), r.bytes()
	s.tasks = make([]submission, r.count(submissionSizeMin))
	total := 0
	for i := range s.tasks {
		t := &s.tasks[i]
		t.id, t.key, t.fingerprint, t.body = r.id(), r.id(), r.fixed64(), r.bytes()
		total += len(t.body)
	}
	own := make([]byte, 0, total) // one allocation for all; they live about equally long
	for i := range s.tasks {
		t := &s.tasks[i]
		at := len(own)
		own = append(own, t.body...)
		t.body = own[at:len(own):len(own)]
		var err error
		if t.new, err = decodeBody(t.body); err != nil && r.err == nil {
			r.err = err
		}
	}
	return s
}

// hashKey returns the hash under which an idempotency key is kept, never zero.
func hashKey(key string) [16]byte {
	h := xxh3.Hash128([]byte(key))
	b := h.Bytes()
	if b == ([16]byte{}) {
		b[0] = 1
	}
	return b
}

// grant gives tasks to an agent.
type grant struct {
	agent  string
	leases []granted
}

type granted struct {
	id           vectord.TaskID
	leaseSeconds int
	decision     []byte // JSON; empty where there was no choice
}

func (g *grant) append(dst []byte) []byte {
	dst = appendBytes(append(dst, byte(commandGrant)), g.agent)
	dst = binary.AppendUvarint(dst, uint64(len(g.leases)))
	for i := range g.leases {
		l := &g.leases[i]
		dst = binary.AppendUvarint(append(dst, l.id[:]...), uint64(l.leaseSeconds))
		dst = appendBytes(dst, l.decision)
	}
	return dst
}

func readGrant(r *reader) (g grant) {
	g.agent = r.string()
	g.leases = make([]granted, r.count(18))
	for i := range g.leases {
		g.leases[i] = granted{r.id(), int(r.uint()), r.bytes()}
	}
	return g
}

// call is a vectord.TaskCall with its effects in the form that is applied.
type call struct {
	vectord.TaskCall
	writes  []byte   // changes of points, in the engine's form
	submits []submit // of further tasks

	// What follows is the proposer's.
	memories []vectord.MemoryResult
	release  func() // nil: nothing is to be released
}

func appendCalls(dst []byte, calls []call) []byte {
	dst = append(dst, byte(commandCalls))
	dst = binary.AppendUvarint(dst, uint64(len(calls)))
	for i := range calls {
		c := &calls[i]
		dst = append(append(dst, byte(c.Kind)), c.ID[:]...)
		dst = binary.AppendUvarint(dst, uint64(c.LeaseID))
		switch c.Kind {
		case vectord.CallComplete:
			dst = appendBytes(appendBytes(dst, c.Result), c.writes)
			dst = binary.AppendUvarint(dst, uint64(len(c.submits)))
			for j := range c.submits {
				dst = c.submits[j].append(dst)
			}
		case vectord.CallFail:
			final := byte(0)
			if c.Final {
				final = 1
			}
			dst = binary.AppendUvarint(append(dst, final), uint64(c.RetryAfterMS))
			dst = appendBytes(appendBytes(dst, c.Error.Code), c.Error.Message)
		case vectord.CallHeartbeat:
			dst = appendBytes(binary.AppendUvarint(dst, uint64(c.Extend)), c.Progress)
		case vectord.CallRequestInput:
			dst = appendBytes(dst, c.Request)
		}
	}
	return dst
}

// readCalls shares memory with the command.
func readCalls(r *reader) []call {
	calls := make([]call, r.count(18))
	for i := range calls {
		c := &calls[i]
		c.Kind, c.ID, c.LeaseID = vectord.TaskCallKind(r.byte()), r.id(), vectord.LeaseID(r.uint())
		switch c.Kind {
		case vectord.CallComplete:
			c.Result, c.writes = r.bytes(), r.bytes()
			c.submits = make([]submit, r.count(3))
			for j := range c.submits {
				c.submits[j] = readSubmit(r)
			}
		case vectord.CallFail:
			c.Final, c.RetryAfterMS = r.byte() == 1, r.int()
			c.Error = vectord.TaskError{Code: r.string(), Message: r.string()}
		case vectord.CallHeartbeat:
			c.Extend, c.Progress = int(r.uint()), r.bytes()
		case vectord.CallRequestInput:
			c.Request = r.bytes()
		case vectord.CallRelease:
		default:
			if r.err == nil {
				r.err = fmt.Errorf("call of unknown kind %d", c.Kind)
			}
		}
		if r.err != nil {
			return nil
		}
	}
	return calls
}

// What commands that come seldom say; they are JSON.
type (
	putQueue struct {
		Name   string              `json:"name"`
		Config vectord.QueueConfig `json:"config"`
	}
	deleteQueue struct {
		Name  string `json:"name"`
		Force bool   `json:"force"`
	}
	putAgent struct {
		ID     string              `json:"id"`
		Config vectord.AgentConfig `json:"config"`
		Queue  vectord.QueueConfig `json:"queue"` // of those of its queues that there are not yet
	}
	agentCommand struct {
		ID     string `json:"id"`
		Drain  bool   `json:"drain,omitempty"`
		Reason string `json:"reason,omitempty"`
	}
	redrive struct {
		Queue string           `json:"queue"`
		IDs   []vectord.TaskID `json:"ids"`
	}
	giveInput struct {
		ID       vectord.TaskID  `json:"id"`
		Response json.RawMessage `json:"response"`
	}
	taskCommand struct {
		ID vectord.TaskID `json:"id"`
	}
	purge struct {
		Tasks  []vectord.TaskID `json:"tasks,omitempty"`
		Keys   [][]byte         `json:"keys,omitempty"`   // of submissions, whose time has passed
		States []string         `json:"states,omitempty"` // that have expired
	}
	deleteState struct {
		Key       string  `json:"key"`
		IfVersion *uint64 `json:"if_version,omitempty"`
	}
)

func encodeJSON(kind commandKind, body any) []byte {
	b, err := json.Marshal(body)
	if err != nil {
		panic(fmt.Sprintf("scheduler: command of kind %d: %v", kind, err)) // it is ours, and has no cycles
	}
	return append([]byte{byte(kind)}, b...)
}

func decodeJSON[T any](b []byte) (v T, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}
