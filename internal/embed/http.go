package embed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/vectord/vectord"
)

// HTTPOptions name an endpoint that speaks OpenAI's embeddings API, as OpenAI, Ollama, vLLM, Text Embeddings Inference and
// others do. They are the operator's: nothing of a request chooses where texts are sent. Proxies are those of the environment.
type HTTPOptions struct {
	URL   string // of the endpoint itself: https://api.openai.com/v1/embeddings
	Model string // what the endpoint calls the model
	Name  string // what requests call it; empty: Model
	Key   string // sent as a bearer token; empty: none
	Dim   int    // components that every vector must have

	SendDim  bool          // ask the endpoint for Dim components, for models that can be shortened
	Texts    int           // of one request; 0: 100
	Timeout  time.Duration // of one attempt; 0: 30 s
	Attempts int           // of one request, the first among them; 0: 4

	Logger *slog.Logger // is told why attempts fail, which may name hosts; nil: slog.Default()
}

// Bounds of a call to an endpoint.
const (
	httpTextsMax         = 2048             // of one request, OpenAI's own bound
	httpAttemptsMax      = 10               // of one request
	httpTimeoutMax       = 10 * time.Minute // of one attempt
	httpBackoff          = 250 * time.Millisecond
	httpWaitMax          = 30 * time.Second // between attempts; an endpoint that asks for more has failed
	httpRedirectsMax     = 3
	httpComponentBytes   = 32       // of one number in an answer
	httpAnswerBytes      = 64 << 10 // of an answer beside its numbers
	httpErrorBytes       = 4 << 10  // of an answer that is an error
	httpErrorShown       = 200      // characters of its message
	httpIdleConnsPerHost = 16
)

// HTTP embeds by an endpoint.
type HTTP struct {
	options HTTPOptions
	client  *http.Client
}

// NewHTTP checks options and returns their embedder. It does not call the endpoint.
func NewHTTP(options HTTPOptions) (*HTTP, error) {
	options.Name = orDefault(options.Name, options.Model)
	options.Texts = orDefault(options.Texts, 100)
	options.Timeout = orDefault(options.Timeout, 30*time.Second)
	options.Attempts = orDefault(options.Attempts, 4)
	options.Logger = orDefault(options.Logger, slog.Default())
	invalid := func(format string, args ...any) (*HTTP, error) {
		return nil, vectord.Errorf(vectord.KindInvalid, "embedding endpoint: "+format, args...)
	}
	switch u, err := url.Parse(options.URL); {
	case err != nil:
		return invalid("%v", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return invalid("%q is no http or https URL", u.Redacted())
	case u.User != nil:
		return invalid("%q: a key belongs in its own setting", u.Redacted())
	case options.Model == "":
		return invalid("no model is named")
	case options.Dim < 1 || options.Dim > vectord.MaxDimension:
		return invalid("%d components are not between 1 and %d", options.Dim, vectord.MaxDimension)
	case options.Texts < 1 || options.Texts > httpTextsMax:
		return invalid("%d texts a request are not between 1 and %d", options.Texts, httpTextsMax)
	case options.Timeout < 0 || options.Timeout > httpTimeoutMax:
		return invalid("a timeout of %v is not between 0 and %v", options.Timeout, httpTimeoutMax)
	case options.Attempts < 1 || options.Attempts > httpAttemptsMax:
		return invalid("%d attempts are not between 1 and %d", options.Attempts, httpAttemptsMax)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = httpIdleConnsPerHost
	return &HTTP{options, &http.Client{Transport: transport, CheckRedirect: checkRedirect, Timeout: options.Timeout}}, nil
}

func orDefault[T comparable](value, otherwise T) T {
	var zero T
	if value == zero {
		return otherwise
	}
	return value
}

// errRedirect is an endpoint that sends us where the operator did not.
var errRedirect = errors.New("a redirect is refused")

func checkRedirect(next *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case next.URL.Host != first.URL.Host || next.URL.Scheme != first.URL.Scheme:
		return fmt.Errorf("%w: to another host, %s", errRedirect, next.URL.Host)
	case next.Method != first.Method:
		return fmt.Errorf("%w: it turns %s into %s", errRedirect, first.Method, next.Method)
	case len(via) > httpRedirectsMax:
		return fmt.Errorf("%w: more than %d in a row", errRedirect, httpRedirectsMax)
	}
	return nil
}

// Name returns what requests call the model.
func (h *HTTP) Name() string { return h.options.Name }

// Dim returns the number of components.
func (h *HTTP) Dim() int { return h.options.Dim }

// Embed sends texts to the endpoint in requests of bounded size, one after the other, and returns its vectors as they are:
// whether they have length 1 is the model's affair. Status 429, 5xx and lost connections are tried again. When that is no
// use, the error is of KindOverloaded and says when to come back; an endpoint that is set up wrongly is an internal error.
func (h *HTTP) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	if err := checkTexts(texts); err != nil {
		return nil, err
	}
	for i, text := range texts {
		if text == "" {
			return nil, nothingToEmbed(i)
		}
	}
	vectors := make([][]float32, 0, len(texts))
	for len(vectors) < len(texts) {
		batch := texts[len(vectors):min(len(vectors)+h.options.Texts, len(texts))]
		answer, err := h.request(ctx, batch)
		if err != nil {
			return nil, err
		}
		vectors = append(vectors, answer...)
	}
	return vectors, nil
}

// request has one batch embedded, in as many attempts as it may take.
func (h *HTTP) request(ctx context.Context, texts []string) ([][]float32, error) {
	body, err := jsonv2.Marshal(struct {
		Model      string   `json:"model"`
		Input      []string `json:"input"`
		Format     string   `json:"encoding_format"`
		Dimensions int      `json:"dimensions,omitzero"`
	}{h.options.Model, texts, "float", h.sentDim()})
	if err != nil {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "texts to embed: %v", err) // not UTF-8
	}
	for attempt := 1; ; attempt++ {
		vectors, err := h.attempt(ctx, body, len(texts))
		var failed *attemptError
		if !errors.As(err, &failed) {
			return vectors, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		h.options.Logger.Warn("embedding failed", "model", h.options.Name, "attempt", attempt, "error", failed.cause)
		wait := max(failed.retryAfter, backoff(attempt))
		deadline, bounded := ctx.Deadline()
		if attempt == h.options.Attempts || wait > httpWaitMax || bounded && time.Until(deadline) < wait {
			return nil, &vectord.Error{Kind: vectord.KindOverloaded, RetryAfter: wait,
				Text: fmt.Sprintf("model %q: %s, after attempt %d", h.options.Name, failed.shown, attempt)}
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (h *HTTP) sentDim() int {
	if h.options.SendDim {
		return h.options.Dim
	}
	return 0
}

// backoff doubles with each attempt, less up to half of it by chance, so that those who failed together part.
func backoff(attempt int) time.Duration {
	full := min(httpBackoff<<(attempt-1), httpWaitMax)
	return full - rand.N(full/2)
}

// attemptError is a failure that may pass.
type attemptError struct {
	shown      string // to clients
	cause      error  // to the operator
	retryAfter time.Duration
}

func (e *attemptError) Error() string { return e.shown }

// attempt sends a request once.
func (h *HTTP) attempt(ctx context.Context, body []byte, texts int) ([][]float32, error) {
	fail := func(kind vectord.Kind, format string, args ...any) ([][]float32, error) {
		return nil, vectord.Errorf(kind, "model %q: "+format, append([]any{h.options.Name}, args...)...)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.options.URL, bytes.NewReader(body))
	if err != nil {
		return fail(vectord.KindInternal, "%v", err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	if h.options.Key != "" {
		request.Header.Set("Authorization", "Bearer "+h.options.Key)
	}
	response, err := h.client.Do(request)
	switch {
	case errors.Is(err, errRedirect):
		return fail(vectord.KindInternal, "the embedding endpoint: %v", errors.Unwrap(err))
	case err != nil:
		return nil, &attemptError{shown: "the embedding endpoint cannot be reached", cause: err}
	}
	defer response.Body.Close()
	switch status := response.StatusCode; {
	case status == http.StatusTooManyRequests || status >= 500:
		err := errors.New("the embedding endpoint answers " + response.Status)
		return nil, &attemptError{shown: err.Error(), cause: err, retryAfter: retryAfter(response.Header.Get("Retry-After"))}
	case status == http.StatusBadRequest || status == http.StatusRequestEntityTooLarge || status == http.StatusUnprocessableEntity:
		// These may be about the text, whose sender is told what the endpoint says. Others are about keys and set-up.
		return fail(vectord.KindUnprocessable, "the embedding endpoint answers %s: %s", response.Status, errorMessage(response.Body))
	case status != http.StatusOK:
		return fail(vectord.KindInternal, "the embedding endpoint answers %s", response.Status)
	}
	limit := httpAnswerBytes + texts*h.options.Dim*httpComponentBytes
	answer, err := io.ReadAll(io.LimitReader(response.Body, int64(limit)+1))
	switch {
	case err != nil:
		return nil, &attemptError{shown: "the embedding endpoint broke off its answer", cause: err}
	case len(answer) > limit:
		return fail(vectord.KindInternal, "the embedding endpoint's answer is longer than %d bytes", limit)
	}
	vectors, err := decodeAnswer(answer, texts, h.options.Dim)
	if err != nil {
		return fail(vectord.KindInternal, "the embedding endpoint's answer: %v", err)
	}
	return vectors, nil
}

// retryAfter reads the header of that name, seconds or a date; 0 where it says nothing.
func retryAfter(header string) time.Duration {
	if seconds, err := strconv.ParseUint(header, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}

// errorMessage returns what an error's body says, shortened.
func errorMessage(body io.Reader) string {
	text, _ := io.ReadAll(io.LimitReader(body, httpErrorBytes)) // what came is better than nothing
	var parsed struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := jsonv2.Unmarshal(text, &parsed); err != nil || parsed.Error.Message == "" {
		return "no reason is given"
	}
	if runes := []rune(parsed.Error.Message); len(runes) > httpErrorShown {
		return string(runes[:httpErrorShown]) + "…"
	}
	return parsed.Error.Message
}

// decodeAnswer returns the vectors of an answer in the order of their texts.
func decodeAnswer(answer []byte, texts, dim int) ([][]float32, error) {
	var parsed struct {
		Data []struct {
			Index     int       `json:"index"`
			Embedding []float32 `json:"embedding"`
		} `json:"data"`
	}
	if err := jsonv2.Unmarshal(answer, &parsed); err != nil {
		return nil, err
	}
	if len(parsed.Data) != texts {
		return nil, fmt.Errorf("%d vectors for %d texts", len(parsed.Data), texts)
	}
	vectors := make([][]float32, texts)
	for _, d := range parsed.Data {
		switch {
		case d.Index < 0 || d.Index >= texts:
			return nil, fmt.Errorf("index %d among %d texts", d.Index, texts)
		case vectors[d.Index] != nil:
			return nil, fmt.Errorf("two vectors for index %d", d.Index)
		case len(d.Embedding) != dim:
			return nil, fmt.Errorf("a vector of %d components, not %d", len(d.Embedding), dim)
		}
		for i, x := range d.Embedding {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return nil, fmt.Errorf("component %d is %g", i, x)
			}
		}
		vectors[d.Index] = d.Embedding
	}
	return vectors, nil
}
