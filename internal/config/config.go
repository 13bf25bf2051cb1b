// Package config finds the settings that were not given as flags: in environment variables first, then in a YAML file. A
// setting has the name of its flag: data-dir is VECTORD_DATA_DIR in the environment and data-dir in the file.
//
// A variable or key that names no setting is an error, for what is misspelt would otherwise be silently without effect.
package config

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// EnvPrefix begins the names of all variables that are settings.
const EnvPrefix = "VECTORD_"

// fileBytesMax bounds the YAML file.
const fileBytesMax = 1 << 20

// Setting is a value and where it was found, in words for an error message.
type Setting struct {
	Value  string
	Source string // such as "VECTORD_HTTP" or "vectord.yaml:3"
}

// Settings are the values found, by the names of their flags.
type Settings map[string]Setting

// EnvName returns the variable that holds the setting name.
func EnvName(name string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// Load finds the settings with the given names in environ (as os.Environ returns it) and in the YAML file at path; an
// empty path means that there is none. A variable goes before the file; an empty one counts as not set.
func Load(path string, environ, names []string) (Settings, error) {
	settings := Settings{}
	if path != "" {
		if err := settings.addFile(path, names); err != nil {
			return nil, err
		}
	}
	byVariable := make(map[string]string, len(names))
	variables := make([]string, len(names))
	for i, name := range names {
		variables[i] = EnvName(name)
		byVariable[variables[i]] = name
	}
	for _, entry := range environ {
		variable, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(variable, EnvPrefix) {
			continue
		}
		name, ok := byVariable[variable]
		if !ok && serviceLink(variable, value) {
			continue
		}
		if !ok {
			return nil, fmt.Errorf("environment variable %s is unknown%s", variable, suggest(variable, variables))
		}
		if value != "" {
			settings[name] = Setting{Value: value, Source: variable}
		}
	}
	return settings, nil
}

// serviceLinkName matches the variables that Kubernetes gives to every pod beside a service that is named vectord.
var serviceLinkName = regexp.MustCompile(`^VECTORD_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_\d+_(TCP|UDP|SCTP)(_.+)?)$`)

// serviceLink reports whether a variable comes from Kubernetes and not from somebody who wants to set something.
func serviceLink(variable, value string) bool {
	return serviceLinkName.MatchString(variable) || variable == "VECTORD_PORT" && strings.Contains(value, "://")
}

func (s Settings) addFile(path string, names []string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fileBytesMax+1))
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if len(text) > fileBytesMax {
		return fmt.Errorf("configuration %s is longer than %d bytes", path, fileBytesMax)
	}
	return s.addYAML(path, text, names)
}

func (s Settings) addYAML(path string, text []byte, names []string) error {
	file, err := parser.ParseBytes(text, 0)
	if err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	if len(file.Docs) > 1 {
		return fmt.Errorf("configuration %s: holds %d documents, expected one", path, len(file.Docs))
	}
	if len(file.Docs) == 0 || file.Docs[0].Body == nil {
		return nil
	}
	var members []*ast.MappingValueNode
	switch body := file.Docs[0].Body.(type) {
	case *ast.MappingNode:
		members = body.Values
	case *ast.MappingValueNode:
		members = []*ast.MappingValueNode{body}
	case *ast.NullNode, *ast.CommentGroupNode:
		return nil
	default:
		return fmt.Errorf("configuration %s: expected lines of the form name: value", path)
	}
	for _, m := range members {
		at := fmt.Sprintf("%s:%d", path, m.Key.GetToken().Position.Line)
		name := m.Key.GetToken().Value
		if !slices.Contains(names, name) {
			return fmt.Errorf("%s: key %q is unknown%s", at, name, suggest(name, names))
		}
		if first, ok := s[name]; ok {
			return fmt.Errorf("%s: key %q was given before, at %s", at, name, first.Source)
		}
		switch value := m.Value.(type) {
		case *ast.StringNode, *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
			s[name] = Setting{Value: value.GetToken().Value, Source: at}
		case *ast.NullNode: // as if it were not there
		default:
			return fmt.Errorf("%s: %s expects a single value, got %s", at, name, m.Value.Type())
		}
	}
	return nil
}

// suggest returns a question for the name nearest to the unknown one, or nothing if all are far.
func suggest(unknown string, names []string) string {
	best, bestDistance := "", 1+len(unknown)/3 // up to a third may be wrong
	for _, name := range names {
		if d := editDistance(unknown, name); d < bestDistance || d == bestDistance && best == "" {
			best, bestDistance = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %s?", best)
}

// editDistance returns how many bytes must be inserted, deleted or replaced to make b of a (Levenshtein, 1966).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1) // distances of the first i bytes of a to each beginning of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
