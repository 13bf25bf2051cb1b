package grpcserver

import (
	"math"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/vectord/vectord"
)

// filterOf reads a filter and checks its limits. It is nil for one that is absent or selects every point.
func filterOf(in *qdrant.Filter) (*vectord.Filter, error) {
	f, err := checkedFilter(in)
	if err != nil || f.Empty() {
		return nil, err
	}
	return &f, nil
}

func checkedFilter(in *qdrant.Filter) (vectord.Filter, error) {
	f, err := plainFilter(in)
	if err == nil {
		err = f.Check()
	}
	return f, err
}

// plainFilter reads a filter without looking at its limits. A message has a limit of depth itself, far below what a stack
// has room for.
func plainFilter(in *qdrant.Filter) (out vectord.Filter, err error) {
	if out.Must, err = conditionsOf(in.GetMust()); err != nil {
		return out, err
	}
	if out.Should, err = conditionsOf(in.GetShould()); err != nil {
		return out, err
	}
	if out.MustNot, err = conditionsOf(in.GetMustNot()); err != nil {
		return out, err
	}
	if m := in.GetMinShould(); m != nil {
		out.MinShould = &vectord.MinShould{Count: number(m.GetMinCount())}
		out.MinShould.Conditions, err = conditionsOf(m.GetConditions())
	}
	return out, err
}

func conditionsOf(in []*qdrant.Condition) ([]vectord.Condition, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]vectord.Condition, len(in))
	for i := range in {
		var err error
		if out[i], err = conditionOf(in[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func conditionOf(in *qdrant.Condition) (out vectord.Condition, err error) {
	switch kind := in.GetConditionOneOf().(type) {
	case *qdrant.Condition_Field:
		out.Field, err = fieldConditionOf(kind.Field)
	case *qdrant.Condition_IsEmpty:
		if out.IsEmpty = kind.IsEmpty.GetKey(); out.IsEmpty == "" {
			err = emptyKey("is_empty")
		}
	case *qdrant.Condition_IsNull:
		if out.IsNull = kind.IsNull.GetKey(); out.IsNull == "" {
			err = emptyKey("is_null")
		}
	case *qdrant.Condition_HasId:
		var ids []vectord.PointID
		ids, err = idsOf("has_id", kind.HasId.GetHasId())
		out.HasID = &ids
	case *qdrant.Condition_HasVector:
		name := kind.HasVector.GetHasVector()
		out.HasVector = &name
	case *qdrant.Condition_Filter:
		var f vectord.Filter
		f, err = plainFilter(kind.Filter)
		out.Filter = &f
	case *qdrant.Condition_Nested:
		out.Nested = &vectord.Nested{Key: kind.Nested.GetKey()}
		if kind.Nested.GetFilter() != nil {
			var f vectord.Filter
			f, err = plainFilter(kind.Nested.GetFilter())
			out.Nested.Filter = &f
		}
	default:
		err = vectord.Errorf(vectord.KindInvalid, "filter: a condition is empty, or of a kind that this server does not know")
	}
	return out, err
}

func emptyKey(of string) error {
	return vectord.Errorf(vectord.KindUnprocessable, "filter condition: key of %s is empty", of)
}

func fieldConditionOf(in *qdrant.FieldCondition) (out *vectord.FieldCondition, err error) {
	out = &vectord.FieldCondition{Key: in.GetKey(), IsEmpty: in.IsEmpty, IsNull: in.IsNull}
	if in.GetMatch() != nil {
		if out.Match, err = matchOf(in.GetMatch()); err != nil {
			return nil, err
		}
	}
	if r := in.GetRange(); r != nil {
		out.Range, err = boundsOf(r.Gt, r.Gte, r.Lt, r.Lte, numberBound)
	}
	if r := in.GetDatetimeRange(); r != nil && err == nil {
		out.Datetime, err = boundsOf(presence(r.GetGt()), presence(r.GetGte()), presence(r.GetLt()), presence(r.GetLte()), timeBound)
	}
	if r := in.GetValuesCount(); r != nil && err == nil {
		out.ValuesCount, err = boundsOf(r.Gt, r.Gte, r.Lt, r.Lte, func(n uint64) (vectord.Count, error) { return vectord.Count(n), nil })
	}
	if err != nil {
		return nil, err
	}
	if box := in.GetGeoBoundingBox(); box != nil {
		if box.GetTopLeft() == nil || box.GetBottomRight() == nil {
			return nil, missing("geo_bounding_box: a corner")
		}
		out.GeoBox = &vectord.GeoBox{TopLeft: geoPointOf(box.GetTopLeft()), BottomRight: geoPointOf(box.GetBottomRight())}
	}
	if circle := in.GetGeoRadius(); circle != nil {
		if circle.GetCenter() == nil {
			return nil, missing("geo_radius.center")
		}
		out.GeoRadius = &vectord.GeoRadius{Center: geoPointOf(circle.GetCenter()), Radius: float64(circle.GetRadius())}
	}
	if polygon := in.GetGeoPolygon(); polygon != nil {
		out.GeoPolygon = &vectord.GeoPolygon{Exterior: ringOf(polygon.GetExterior())}
		for _, ring := range polygon.GetInteriors() {
			out.GeoPolygon.Interiors = append(out.GeoPolygon.Interiors, ringOf(ring))
		}
	}
	return out, nil
}

func geoPointOf(in *qdrant.GeoPoint) vectord.GeoPoint {
	return vectord.GeoPoint{Lon: in.GetLon(), Lat: in.GetLat()}
}

func ringOf(in *qdrant.GeoLineString) vectord.GeoRing {
	ring := make(vectord.GeoRing, len(in.GetPoints()))
	for i, p := range in.GetPoints() {
		ring[i] = geoPointOf(p)
	}
	return ring
}

// matchOf reads a match, whose kind says what type the values are of.
func matchOf(in *qdrant.Match) (*vectord.Match, error) {
	text := func(s string) vectord.Scalar { return vectord.Scalar{Kind: vectord.ScalarString, String: s} }
	integer := func(n int64) vectord.Scalar { return vectord.Scalar{Kind: vectord.ScalarInt, Int: n} }
	switch kind := in.GetMatchValue().(type) {
	case *qdrant.Match_Keyword:
		v := text(kind.Keyword)
		return &vectord.Match{Value: &v}, nil
	case *qdrant.Match_Integer:
		v := integer(kind.Integer)
		return &vectord.Match{Value: &v}, nil
	case *qdrant.Match_Boolean:
		return &vectord.Match{Value: &vectord.Scalar{Kind: vectord.ScalarBool, Bool: kind.Boolean}}, nil
	case *qdrant.Match_Keywords:
		return &vectord.Match{Any: scalars(kind.Keywords.GetStrings(), text)}, nil
	case *qdrant.Match_Integers:
		return &vectord.Match{Any: scalars(kind.Integers.GetIntegers(), integer)}, nil
	case *qdrant.Match_ExceptKeywords:
		return &vectord.Match{Except: scalars(kind.ExceptKeywords.GetStrings(), text)}, nil
	case *qdrant.Match_ExceptIntegers:
		return &vectord.Match{Except: scalars(kind.ExceptIntegers.GetIntegers(), integer)}, nil
	case *qdrant.Match_Text:
		return &vectord.Match{Text: &kind.Text}, nil
	case *qdrant.Match_TextAny:
		return &vectord.Match{TextAny: &kind.TextAny}, nil
	case *qdrant.Match_Phrase:
		return &vectord.Match{Phrase: &kind.Phrase}, nil
	}
	return nil, vectord.Errorf(vectord.KindInvalid, "match: is empty, or of a kind that this server does not know")
}

func scalars[T any](values []T, of func(T) vectord.Scalar) *[]vectord.Scalar {
	out := make([]vectord.Scalar, len(values))
	for i, v := range values {
		out[i] = of(v)
	}
	return &out
}

// boundsOf reads bounds, of which those that are nil are not set.
func boundsOf[In any, Out interface{ Compare(Out) int }](gt, gte, lt, lte *In, of func(In) (Out, error)) (*vectord.Bounds[Out], error) {
	var b vectord.Bounds[Out]
	for _, one := range []struct {
		in  *In
		out **Out
	}{{gt, &b.GT}, {gte, &b.GTE}, {lt, &b.LT}, {lte, &b.LTE}} {
		if one.in == nil {
			continue
		}
		bound, err := of(*one.in)
		if err != nil {
			return nil, err
		}
		*one.out = &bound
	}
	return &b, nil
}

func numberBound(x float64) (vectord.Number, error) {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return vectord.Number{}, vectord.Errorf(vectord.KindInvalid, "range: a bound of %v, expected a finite number", x)
	}
	return vectord.FloatNumber(x), nil
}

// presence returns a pointer to what may be absent.
func presence(t *timestamppb.Timestamp) **timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return &t
}

func timeBound(t *timestamppb.Timestamp) (vectord.Datetime, error) {
	if err := t.CheckValid(); err != nil {
		return 0, vectord.Errorf(vectord.KindInvalid, "datetime_range: %v", err)
	}
	return vectord.Datetime(t.AsTime().UnixMicro()), nil
}

// number returns a count of a message as an int. What is beyond every limit stays so.
func number(n uint64) int { return int(min(n, math.MaxInt32)) }
