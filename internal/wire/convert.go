package wire

import (
	"bytes"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tinylib/msgp/msgp"

	"github.com/vectord/vectord"
)

// The functions of this file turn messages into what they say and back. What comes out of a message shares nothing with its
// frame, which is read into again.

// text returns a copy of JSON text, or why it is none. nil stays nil.
func (r Raw) text(field string, limit int) ([]byte, error) {
	switch {
	case r == nil:
		return nil, nil
	case len(r) > limit:
		return nil, vectord.Errorf(vectord.KindTooLarge, "%s: %d bytes, at most %d are accepted", field, len(r), limit)
	case !ValidJSON(r):
		return nil, vectord.Errorf(vectord.KindInvalid, "%s: not valid JSON", field)
	}
	return bytes.Clone(r), nil
}

// ValidJSON reports whether b is one JSON value in valid UTF-8, without a name twice in an object, and no deeper than payloads may be.
func ValidJSON(b []byte) bool {
	brackets := bytes.Count(b, []byte{'{'}) + bytes.Count(b, []byte{'['}) // which is quicker than to look how they nest
	return (brackets <= vectord.MaxPayloadDepth || vectord.JSONDepth(b) <= vectord.MaxPayloadDepth) && jsontext.Value(b).IsValid()
}

// NewTask returns the task to be submitted.
func (t *NewTask) NewTask() (out vectord.NewTask, err error) {
	if !utf8.ValidString(t.IdempotencyKey) || !utf8.ValidString(t.Text) {
		return out, vectord.Errorf(vectord.KindInvalid, "idempotency_key or text is not valid UTF-8")
	}
	out = vectord.NewTask{Type: t.Type, Vector: t.Vector, Text: t.Text, Tags: t.Tags, AgentID: t.AgentID, Priority: t.Priority,
		FairnessKey: t.FairnessKey, FairnessWeight: t.FairnessWeight, RunAt: vectord.Timestamp(t.RunAt), DelayMS: t.DelayMS,
		Deadline: vectord.Timestamp(t.Deadline), TimeoutSeconds: t.TimeoutSeconds, MaxAttempts: t.MaxAttempts,
		IdempotencyKey: t.IdempotencyKey, StateRefs: t.StateRefs, TraceParent: t.TraceParent}
	for _, id := range t.DependsOn {
		out.DependsOn = append(out.DependsOn, vectord.TaskID(id))
	}
	switch t.OnDependencyFailure {
	case "", "fail":
	case onFailureRun:
		out.RunOnDependencyFailure = true
	default:
		return out, vectord.Errorf(vectord.KindInvalid, "on_dependency_failure: %.80q, expected fail or run", t.OnDependencyFailure)
	}
	if out.Payload, err = t.Payload.text("payload", vectord.MaxTaskBytes); err != nil {
		return out, err
	}
	out.Metadata, err = t.Metadata.text("metadata", vectord.MaxMetadataBytes)
	return out, err
}

const onFailureRun = "run"

// NewTaskOf returns the message for a task, with which it shares its bytes.
func NewTaskOf(t *vectord.NewTask) NewTask {
	out := NewTask{Payload: Raw(t.Payload), Type: t.Type, Vector: t.Vector, Text: t.Text, Tags: t.Tags, AgentID: t.AgentID,
		Priority: t.Priority, FairnessKey: t.FairnessKey, FairnessWeight: t.FairnessWeight, RunAt: Time(t.RunAt), DelayMS: t.DelayMS,
		Deadline: Time(t.Deadline), TimeoutSeconds: t.TimeoutSeconds, MaxAttempts: t.MaxAttempts, IdempotencyKey: t.IdempotencyKey,
		StateRefs: t.StateRefs, Metadata: Raw(t.Metadata), TraceParent: t.TraceParent}
	for _, id := range t.DependsOn {
		out.DependsOn = append(out.DependsOn, TaskID(id))
	}
	if t.RunOnDependencyFailure {
		out.OnDependencyFailure = onFailureRun
	}
	return out
}

// SubmittedOf returns the message for an answer.
func SubmittedOf(s *vectord.Submitted) Submitted {
	if s.Err != nil {
		e := ErrorOf(s.Err)
		return Submitted{Code: e.Code, Error: e.Text, HTTPStatus: e.Status, RetryAfterMS: e.RetryAfterMS}
	}
	return Submitted{Code: CodeOK, TaskID: TaskID(s.TaskID), Status: s.Status.String(), Admission: s.Admission.String(),
		RetryAfterMS: s.RetryAfterMS, Deduplicated: s.Deduplicated, Position: s.Position, Durable: s.Durable}
}

// Refusal returns why the task was not taken, nil if it was.
func (s *Submitted) Refusal() *Error { return refusal(s.Code, s.Error, s.HTTPStatus, s.RetryAfterMS) }

func refusal(code, text string, status int, retryAfterMS int64) *Error {
	if code == CodeOK {
		return nil
	}
	return &Error{Status: status, Code: code, Text: text, RetryAfterMS: retryAfterMS}
}

// Submitted returns the answer, but for its error.
func (s *Submitted) Submitted() (out vectord.Submitted, err error) {
	out = vectord.Submitted{TaskID: vectord.TaskID(s.TaskID), RetryAfterMS: s.RetryAfterMS, Deduplicated: s.Deduplicated,
		Position: s.Position, Durable: s.Durable}
	if s.Refusal() != nil {
		return vectord.Submitted{}, nil
	}
	switch s.Admission {
	case vectord.AdmissionOK.String():
		out.Admission = vectord.AdmissionOK
	case vectord.AdmissionBackpressure.String():
		out.Admission = vectord.AdmissionBackpressure
	default:
		return out, vectord.Errorf(vectord.KindInvalid, "admission: %.80q is unknown", s.Admission)
	}
	return out, out.Status.UnmarshalText([]byte(s.Status))
}

// LeasedOf returns the message for a leased task, with which it shares its bytes.
func LeasedOf(t *vectord.Task) Leased {
	out := Leased{TaskID: TaskID(t.ID), Queue: t.Queue, LeaseID: LeaseID(t.LeaseID), LeaseExpiresAt: Time(t.LeaseExpiresAt),
		Attempt: t.Attempt, Payload: Raw(t.Payload), Type: t.Type, Tags: t.Tags, Priority: t.Priority, FairnessKey: t.FairnessKey,
		CreatedAt: Time(t.CreatedAt), Deadline: Time(t.Deadline), TimeoutSeconds: t.TimeoutSeconds, MaxAttempts: t.MaxAttempts,
		StateRefs: t.StateRefs, Metadata: Raw(t.Metadata), TraceParent: t.TraceParent,
		InputRequest: Raw(t.InputRequest), InputResponse: Raw(t.InputResponse)}
	if t.Error != nil {
		out.Error = &TaskError{Code: t.Error.Code, Message: t.Error.Message}
	}
	return out
}

// Task returns the leased task.
func (l *Leased) Task() vectord.Task {
	t := vectord.Task{ID: vectord.TaskID(l.TaskID), Queue: l.Queue, Status: vectord.TaskRunning, Attempt: l.Attempt,
		LeaseID: vectord.LeaseID(l.LeaseID), LeaseExpiresAt: vectord.Timestamp(l.LeaseExpiresAt), CreatedAt: vectord.Timestamp(l.CreatedAt),
		InputRequest: bytes.Clone(l.InputRequest), InputResponse: bytes.Clone(l.InputResponse)}
	t.NewTask = vectord.NewTask{Payload: bytes.Clone(l.Payload), Type: l.Type, Tags: l.Tags, Priority: l.Priority, FairnessKey: l.FairnessKey,
		Deadline: vectord.Timestamp(l.Deadline), TimeoutSeconds: l.TimeoutSeconds, MaxAttempts: l.MaxAttempts,
		StateRefs: l.StateRefs, Metadata: bytes.Clone(l.Metadata), TraceParent: l.TraceParent}
	if l.Error != nil {
		t.Error = &vectord.TaskError{Code: l.Error.Code, Message: l.Error.Message}
	}
	return t
}

// callNames are the names of the kinds of calls.
var callNames = [...]string{vectord.CallComplete: "complete", vectord.CallFail: "fail", vectord.CallRelease: "release",
	vectord.CallHeartbeat: "heartbeat", vectord.CallRequestInput: "request_input"}

// Limits of what all completions of one frame bring about together.
const (
	MaxEffectTasks  = vectord.MaxTaskBatch
	MaxEffectPoints = vectord.MaxBatchPoints
)

// Budget is what the completions of one frame may still bring about.
type Budget struct{ Tasks, Points int }

// FullBudget is that of a frame.
func FullBudget() Budget { return Budget{MaxEffectTasks, MaxEffectPoints} }

// TaskCall returns the call.
func (c *Call) TaskCall(left *Budget) (out vectord.TaskCall, err error) {
	for kind, name := range callNames {
		if name == c.Call && name != "" {
			out.Kind = vectord.TaskCallKind(kind)
		}
	}
	if out.Kind == 0 {
		return out, vectord.Errorf(vectord.KindInvalid, "call: %.80q, expected complete, fail, release, heartbeat or request_input", c.Call)
	}
	out.ID, out.LeaseID = vectord.TaskID(c.TaskID), vectord.LeaseID(c.LeaseID)
	out.RetryAfterMS, out.Extend, out.Final = c.RetryAfterMS, c.ExtendSeconds, c.Retryable != nil && !*c.Retryable
	if c.Error != nil {
		if len(c.Error.Code) > vectord.MaxNameBytes || len(c.Error.Message) > vectord.MaxErrorBytes {
			return out, vectord.Errorf(vectord.KindTooLarge, "error: the code has at most %d bytes and the message %d", vectord.MaxNameBytes, vectord.MaxErrorBytes)
		}
		out.Error = vectord.TaskError{Code: c.Error.Code, Message: c.Error.Message}
	}
	var result, progress, request []byte
	if result, err = c.Result.text("result", vectord.MaxTaskBytes); err != nil {
		return out, err
	}
	if progress, err = c.Progress.text("progress", vectord.MaxMetadataBytes); err != nil {
		return out, err
	}
	if request, err = c.Request.text("request", vectord.MaxTaskBytes); err != nil {
		return out, err
	}
	out.Result, out.Progress, out.Request = result, progress, request
	if out.Effects.Points, err = readEffects(c.Points, "points", &left.Points, func(p *Point) (vectord.Point, error) { return p.Point() }); err != nil {
		return out, err
	}
	out.Effects.Tasks, err = readEffects(c.Tasks, "tasks", &left.Tasks, func(t *NewTask) (vectord.NewTask, error) { return t.NewTask() })
	return out, err
}

// message is a pointer to an M that is decoded.
type message[M any] interface {
	*M
	UnmarshalMsg([]byte) ([]byte, error)
}

// readEffects reads a map of lists.
func readEffects[M, T any, P message[M]](b Nested, field string, left *int, convert func(*M) (T, error)) (out map[string][]T, err error) {
	if len(b) == 0 || msgp.IsNil(b) {
		return nil, nil
	}
	names, rest, err := msgp.ReadMapHeaderBytes(b)
	if err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "%s: expected a map", field)
	}
	out = map[string][]T{}
	for range names {
		var name string
		var n uint32
		if name, rest, err = msgp.ReadStringBytes(rest); err == nil {
			n, rest, err = msgp.ReadArrayHeaderBytes(rest)
		}
		switch _, twice := out[name]; {
		case err != nil || twice:
			return nil, vectord.Errorf(vectord.KindInvalid, "%s: expected a map of arrays, each name once", field)
		case int64(n) > int64(*left):
			return nil, vectord.Errorf(vectord.KindTooLarge, "%s: too many in one frame", field)
		}
		*left -= int(n)
		list := make([]T, n)
		for i := range list {
			var m M
			if rest, err = P(&m).UnmarshalMsg(rest); err == nil {
				list[i], err = convert(&m)
			}
			if err != nil {
				return nil, vectord.Errorf(kindOf(err), "%s: %.80q, item %d: %v", field, name, i, err)
			}
		}
		out[name] = list
	}
	return out, nil
}

// kindOf is the kind of what a decoder or a check says.
func kindOf(err error) vectord.Kind {
	if k := vectord.KindOf(err); k != vectord.KindInternal {
		return k
	}
	return vectord.KindInvalid
}

// CallOf returns the message for a call, with which it shares its bytes.
func CallOf(c *vectord.TaskCall) (out Call, err error) {
	out = Call{Call: callNames[c.Kind], TaskID: TaskID(c.ID), LeaseID: LeaseID(c.LeaseID), Result: Raw(c.Result),
		RetryAfterMS: c.RetryAfterMS, ExtendSeconds: c.Extend, Progress: Raw(c.Progress), Request: Raw(c.Request)}
	if c.Kind == vectord.CallFail {
		retryable := !c.Final
		out.Retryable = &retryable
		out.Error = &TaskError{Code: c.Error.Code, Message: c.Error.Message}
	}
	if len(c.Effects.Points) > 0 {
		out.Points = msgp.AppendMapHeader(nil, uint32(len(c.Effects.Points)))
		for name, points := range c.Effects.Points {
			out.Points = msgp.AppendArrayHeader(msgp.AppendString(out.Points, name), uint32(len(points)))
			for i := range points {
				p := PointOf(&points[i])
				if out.Points, err = p.MarshalMsg(out.Points); err != nil {
					return out, err
				}
			}
		}
	}
	if len(c.Effects.Tasks) > 0 {
		out.Tasks = msgp.AppendMapHeader(nil, uint32(len(c.Effects.Tasks)))
		for name, tasks := range c.Effects.Tasks {
			out.Tasks = msgp.AppendArrayHeader(msgp.AppendString(out.Tasks, name), uint32(len(tasks)))
			for i := range tasks {
				t := NewTaskOf(&tasks[i])
				if out.Tasks, err = t.MarshalMsg(out.Tasks); err != nil {
					return out, err
				}
			}
		}
	}
	return out, nil
}

// OutcomeOf returns the message for an answer.
func OutcomeOf(o *vectord.CallOutcome) Outcome {
	if o.Err != nil {
		e := ErrorOf(o.Err)
		return Outcome{Code: e.Code, Error: e.Text, HTTPStatus: e.Status, RetryAfterMS: e.RetryAfterMS}
	}
	out := Outcome{Code: CodeOK, Status: o.Status.String(), LeaseExpiresAt: Time(o.LeaseExpiresAt), CancelRequested: o.CancelRequested}
	for _, id := range o.Tasks {
		out.Tasks = append(out.Tasks, TaskID(id))
	}
	return out
}

// Refusal returns why the call was refused, nil if it was not.
func (o *Outcome) Refusal() *Error { return refusal(o.Code, o.Error, o.HTTPStatus, o.RetryAfterMS) }

// Outcome returns the answer, but for its error.
func (o *Outcome) Outcome() (out vectord.CallOutcome, err error) {
	out = vectord.CallOutcome{LeaseExpiresAt: vectord.Timestamp(o.LeaseExpiresAt), CancelRequested: o.CancelRequested}
	for _, id := range o.Tasks {
		out.Tasks = append(out.Tasks, vectord.TaskID(id))
	}
	if o.Refusal() != nil {
		return vectord.CallOutcome{}, nil
	}
	return out, out.Status.UnmarshalText([]byte(o.Status))
}

// Point returns the point to be stored.
func (p *Point) Point() (out vectord.Point, err error) {
	out = vectord.Point{ID: p.ID.PointID, Vectors: vectord.Vectors(p.Vector), Expires: int64(p.ExpiresAt)}
	out.Payload, err = p.Payload.text("payload", vectord.MaxPayloadBytes)
	return out, err
}

// PointOf returns the message for a point, with which it shares its bytes.
func PointOf(p *vectord.Point) Point {
	return Point{ID: PointID{p.ID}, Vector: Vectors(p.Vectors), Payload: Raw(p.Payload), ExpiresAt: Time(p.Expires)}
}

// Query returns what is searched for.
func (s *Search) Query() (q vectord.Query, err error) {
	if len(s.Vector) != 1 || s.Vector[0].Name != "" {
		return q, vectord.Errorf(vectord.KindInvalid, "vector: expected one vector, without a name")
	}
	if s.Limit < 1 || min(s.Offset, s.HNSWEf) < 0 || max(s.Limit, s.Offset, s.HNSWEf) > vectord.MaxLimit {
		return q, vectord.Errorf(vectord.KindUnprocessable, "limit %d, offset %d, hnsw_ef %d: must be from 1 (offset, hnsw_ef: 0) to %d",
			s.Limit, s.Offset, s.HNSWEf, vectord.MaxLimit)
	}
	q = vectord.Query{Nearest: &vectord.Example{Vector: s.Vector[0].Vector}, Using: s.Using, Limit: s.Limit, Offset: s.Offset,
		ScoreThreshold: s.ScoreThreshold, Params: vectord.SearchParams{HNSWEf: s.HNSWEf, Exact: s.Exact},
		Select: vectord.Selection{Payload: s.WithPayload, Vectors: s.WithVector}}
	if s.Filter != nil {
		q.Filter, err = vectord.ParseFilter(bytes.Clone(s.Filter))
	}
	return q, err
}

// HitsOf returns the message for what was found, with which it shares its bytes.
func HitsOf(hits []vectord.Hit) *Hits {
	out := &Hits{Points: make([]Hit, len(hits))}
	for i := range hits {
		h := &hits[i]
		out.Points[i] = Hit{ID: PointID{h.ID}, Version: h.Version, Score: h.Score, Vector: Vectors(h.Vectors), Payload: Raw(h.Payload),
			ExpiresAt: Time(h.Expires)}
	}
	return out
}

// Hits returns what was found.
func (h *Hits) Hits() []vectord.Hit {
	out := make([]vectord.Hit, len(h.Points))
	for i := range h.Points {
		p := &h.Points[i]
		out[i] = vectord.Hit{Score: p.Score, Record: vectord.Record{ID: p.ID.PointID, Version: p.Version, Vectors: vectord.Vectors(p.Vector),
			Payload: bytes.Clone(p.Payload), Expires: int64(p.ExpiresAt)}}
	}
	return out
}
