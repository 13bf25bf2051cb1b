package access

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/token"
)

const (
	// existsFor is how long it is believed that a point which tokens depend on is there, or is not. A token that is
	// revoked by deleting the point may open that much longer.
	existsFor = 5 * time.Second

	// existsWithin bounds the search for such a point.
	existsWithin = time.Second

	// existsKept bounds the answers that are kept. Only who can sign tokens can ask for another one.
	existsKept = 1024
)

// existsChecks finds out whether the points are there that tokens depend on, and keeps the answers for a while.
type existsChecks struct {
	engine Engine

	mu      sync.Mutex // guards answers
	answers *simplelru.LRU[string, *existsAnswer]
}

// existsAnswer is what the engine said.
type existsAnswer struct {
	turn   chan struct{} // guards the rest: of capacity 1, full while one asks the engine and the others wait
	at     time.Time     // zero until there is an answer
	exists bool
	err    error
}

func newExistsChecks(e Engine) *existsChecks {
	answers, err := simplelru.NewLRU[string, *existsAnswer](existsKept, nil)
	if err != nil {
		panic(fmt.Sprintf("a cache of %d answers: %v", existsKept, err))
	}
	return &existsChecks{engine: e, answers: answers}
}

// check reports whether e holds, or did within existsFor. A failure is an answer as well and kept as long, so that requests
// which wait for a slow one do not each ask anew.
func (c *existsChecks) check(e *token.Exists) (bool, error) {
	question, err := json.Marshal(e)
	if err != nil {
		return false, fmt.Errorf("value_exists of the token: %w", err)
	}
	a := c.answer(string(question))
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	if a.at.IsZero() || time.Since(a.at) >= existsFor {
		a.exists, a.err = c.ask(e)
		a.at = time.Now()
	}
	return a.exists, a.err
}

func (c *existsChecks) answer(question string) *existsAnswer {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.answers.Get(question)
	if !ok {
		a = &existsAnswer{turn: make(chan struct{}, 1)}
		c.answers.Add(question, a)
	}
	return a
}

// ask looks for the point. An alias has no points here, as it has none in the rest of a token.
func (c *existsChecks) ask(e *token.Exists) (bool, error) {
	filter, err := e.Filter()
	if err != nil {
		return false, err
	}
	if c.engine.ResolveAlias(e.Collection) != e.Collection {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), existsWithin)
	defer cancel()
	n, err := c.engine.Count(ctx, e.Collection, filter)
	switch vectord.KindOf(err) {
	case vectord.KindNotFound:
		return false, nil
	case vectord.KindTimeout:
		return false, vectord.Errorf(vectord.KindOverloaded, "value_exists of the token could not be checked within %v", existsWithin)
	}
	if err != nil {
		return false, fmt.Errorf("value_exists of the token: %w", err)
	}
	return n > 0, nil
}
