package gossip

import (
	"bytes"
	"context"
	"log/slog"
	"strings"

	"golang.org/x/time/rate"
)

// logWriter takes memberlist's lines to a slog.Logger, and makes less of them: its errors are warnings here, since it goes on,
// and anyone who can reach the port can cause them, so that they are limited; the rest is for debugging.
//
// It is also how this package learns of suspicion, of which memberlist tells nobody: neither do its delegates hear of it nor
// does Node.State have it.
type logWriter struct {
	logger  *slog.Logger
	suspect func(id string)
	limit   *rate.Limiter // of warnings
}

func newLogWriter(logger *slog.Logger, suspect func(id string)) *logWriter {
	return &logWriter{logger: logger, suspect: suspect, limit: rate.NewLimiter(logLinesPerSecond, logLinesBurst)}
}

// Write takes one line, as log.Logger writes them.
func (w *logWriter) Write(line []byte) (int, error) {
	level, text := slog.LevelDebug, string(bytes.TrimSpace(line))
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if name, rest, ok := strings.Cut(rest, "] "); ok {
			text = strings.TrimPrefix(rest, "memberlist: ")
			if strings.HasPrefix(name, "ERR") && w.limit.Allow() {
				level = slog.LevelWarn
			}
		}
	}
	if id, ok := suspectIn(text); ok {
		w.suspect(id)
	}
	w.logger.Log(context.Background(), level, text)
	return len(line), nil
}

// suspectIn returns the id in the line by which memberlist v0.6.0 says that a node answered neither a probe, nor others'
// probes, nor over a stream.
func suspectIn(text string) (string, bool) {
	rest, ok := strings.CutPrefix(text, "Suspect ")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(rest, " has failed, no acks received")
}
