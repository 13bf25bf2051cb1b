package model

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/vectord/vectord"
)

// matches reports whether a filter holds for a point.
func matches(f *vectord.Filter, id vectord.PointID, payload map[string]any) bool {
	if f == nil {
		return true
	}
	held := func(conditions []vectord.Condition) (n int) {
		for i := range conditions {
			if holds(&conditions[i], id, payload) {
				n++
			}
		}
		return n
	}
	return held(f.Must) == len(f.Must) &&
		(len(f.Should) == 0 || held(f.Should) > 0) &&
		held(f.MustNot) == 0 &&
		(f.MinShould == nil || held(f.MinShould.Conditions) >= f.MinShould.Count)
}

func holds(c *vectord.Condition, id vectord.PointID, payload map[string]any) bool {
	switch {
	case c.Filter != nil:
		return matches(c.Filter, id, payload)
	case c.HasID != nil:
		return slices.Contains(*c.HasID, id)
	case c.IsEmpty != "":
		return isEmpty(lookUp(payload, c.IsEmpty))
	case c.IsNull != "":
		return isNull(lookUp(payload, c.IsNull))
	}
	field := c.Field
	values := lookUp(payload, field.Key)
	return field.Match != nil && anyElement(values, func(v any) bool { return matchesValue(field.Match, v) }) ||
		field.Range != nil && anyElement(values, func(v any) bool { return inRange(field.Range, v) }) ||
		field.ValuesCount != nil && countFits(field.ValuesCount, values) ||
		field.IsEmpty != nil && isEmpty(values) == *field.IsEmpty ||
		field.IsNull != nil && isNull(values) == *field.IsNull
}

// lookUp returns the values at a payload path, none if the path cannot be read.
func lookUp(payload map[string]any, path string) []any {
	steps, err := parsePath(path)
	if err != nil {
		return nil
	}
	return valuesAt(payload, steps)
}

// anyElement reports whether test holds for one of the values, or of the elements of one that is an array.
func anyElement(values []any, test func(any) bool) bool {
	return slices.ContainsFunc(values, func(v any) bool {
		if array, ok := v.([]any); ok {
			return slices.ContainsFunc(array, test)
		}
		return test(v)
	})
}

func matchesValue(m *vectord.Match, v any) bool {
	equal := func(s vectord.Scalar) bool { return equals(s, v) }
	switch {
	case m.Value != nil:
		return equals(*m.Value, v)
	case m.Any != nil:
		return slices.ContainsFunc(*m.Any, equal)
	case m.Except != nil:
		return v != nil && !slices.ContainsFunc(*m.Except, equal)
	case m.Text != nil:
		s, ok := v.(string)
		return ok && strings.Contains(s, *m.Text)
	}
	return false
}

// equals compares a payload value with a scalar. Only a number written as an integer equals one: 1.0 is not 1.
func equals(s vectord.Scalar, v any) bool {
	switch s.Kind {
	case vectord.ScalarString:
		return v == s.String
	case vectord.ScalarBool:
		return v == s.Bool
	case vectord.ScalarInt:
		n, ok := v.(json.Number)
		if !ok {
			return false
		}
		i, err := strconv.ParseInt(string(n), 10, 64)
		return err == nil && i == s.Int
	}
	return false
}

func inRange(r *vectord.Range, v any) bool {
	n, ok := v.(json.Number)
	if !ok {
		return false
	}
	x, err := n.Float64()
	return err == nil && r.Contains(vectord.FloatNumber(x))
}

// countFits tests how many values there are: the elements of an array, 1 for a scalar, 0 for null and for none.
func countFits(r *vectord.CountRange, values []any) bool {
	if len(values) == 0 {
		return r.Contains(0)
	}
	return slices.ContainsFunc(values, func(v any) bool {
		switch v := v.(type) {
		case nil:
			return r.Contains(0)
		case []any:
			return r.Contains(vectord.Count(len(v)))
		}
		return r.Contains(1)
	})
}

func isEmpty(values []any) bool {
	return !slices.ContainsFunc(values, func(v any) bool {
		array, ok := v.([]any)
		return v != nil && (!ok || len(array) > 0)
	})
}

func isNull(values []any) bool {
	return slices.ContainsFunc(values, func(v any) bool {
		array, ok := v.([]any)
		return v == nil || ok && slices.Contains(array, nil)
	})
}
