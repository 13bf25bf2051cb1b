package vectord

import "encoding/json"

// Query asks for points. What it ranks them by is the one of Nearest, Recommend, Discover, Context, OrderBy, Fusion, Formula
// and Sample that is set. With none it lists points by ascending id, with score 0.
//
// With Prefetch, the queries of which may prefetch themselves, only points that those found are ranked; Fusion and Formula
// need it. Filter holds for what is prefetched too. Points that are examples by their id are left out of everything that the
// query and its prefetches find, unless their vectors are looked up in another collection.
type Query struct {
	Nearest   *Example       // nearest to this; a point given by id is itself left out
	MMR       *MMR           // with Nearest: unlike one another as well
	Recommend *Recommend     // like some examples and unlike others
	Discover  *Discover      // like a target, within a context
	Context   *[]ContextPair // on the right side of pairs of examples
	OrderBy   *OrderBy       // by a payload value
	Fusion    *Fusion        // by their places in what was prefetched
	Formula   *Formula       // by a computed score
	Sample    bool           // at random

	Prefetch []Query // their Select says nothing
	Using    string  // the name of the vectors that are compared; "" is the default one
	Lookup   *Lookup // where examples given by id are looked up; nil: here

	Filter         *Filter
	Limit          int // at least 1
	Offset         int
	ScoreThreshold *float32 // only hits strictly nearer than this score; of a fusion and a formula also those at it
	Params         SearchParams
	Select         Selection
	Explain        *Explanation // if not nil, is told how the answer was found
}

// MaxPrefetchDepth is how deep queries may prefetch within prefetches, MaxPrefetches how many of them one query may have.
const (
	MaxPrefetchDepth = 8
	MaxPrefetches    = 64
)

// Example is a vector to compare with, given itself or as that of a point.
type Example struct {
	ID     *PointID // nil: Vector is given
	Vector Vector
}

// Near returns the example of a dense vector, which it keeps.
func Near(values []float32) *Example { return &Example{Vector: Dense(values)} }

// NearPoint returns the example of a point's vector.
func NearPoint(id PointID) *Example { return &Example{ID: &id} }

// Lookup says where the vectors of examples given by id are.
type Lookup struct {
	Collection string
	Vector     *string // their name; nil: the query's Using
}

// MMR ranks the nearest points again by maximal marginal relevance (Carbonell, Goldstein: SIGIR 1998): each place goes to the
// point with the most of (1 - Diversity) of its similarity to the query, less Diversity of its greatest similarity to those
// placed before.
type MMR struct {
	Diversity  float32 // from 0 to 1
	Candidates int     // the nearest points that are considered, to MaxMMRCandidates; 0: as many as the query's limit
}

// The defaults and limits of MMR.
const (
	DefaultDiversity = 0.5
	MaxMMRCandidates = 16384
)

// Recommend asks for points like the positive examples and unlike the negative ones. Points given as examples are left out.
type Recommend struct {
	Positive []Example
	Negative []Example
	Strategy RecommendStrategy
}

// MaxExamples bounds the examples of one query, and the pairs of a context.
const MaxExamples = 1_000

// RecommendStrategy says how examples make a score. But for AverageVector, the similarity to an example is the dot product, or
// less the L1 distance, or less the square of the L2 distance: larger is nearer.
type RecommendStrategy uint8

// The strategies.
const (
	// AverageVector compares with the mean of the positive examples, plus that less the mean of the negative ones. There is
	// no such mean of multivectors.
	AverageVector RecommendStrategy = iota
	// BestScore takes the nearest example: s(p) of a positive one, -s(n) of a negative one, s(x) = 0.5 (x/(1+|x|) + 1).
	BestScore
	// SumScores adds up the similarities to the positive examples and subtracts those to the negative ones.
	SumScores
)

// Discover asks for points nearest to a target among those on the right side of most pairs: the score is one for each pair
// whose positive example is nearer than its negative one, less one for each whose negative one is, plus s(similarity to the
// target), s as in BestScore.
type Discover struct {
	Target  Example
	Context []ContextPair
}

// ContextPair is an example to be near to, and one to be far from. As a query of its own a context scores each point by how
// far it is on the wrong side: the sum of f(min(positive - negative - ContextMargin, 0)) of all pairs, f(x) = x / (1 + |x|).
type ContextPair struct {
	Positive Example
	Negative Example
}

// ContextMargin is what a positive example must be nearer by than the negative one for a point to be on its side.
const ContextMargin = 0x1p-23

// OrderBy orders points by the number or the time at a payload path that has an index for ranges. A point with several
// values comes with each of them; one without is left out.
type OrderBy struct {
	Key        string
	Descending bool
	StartFrom  *OrderValue // the first value; nil: from the end
}

// OrderValue is a number or a time that points are ordered by.
type OrderValue struct {
	Kind  OrderKind
	Int   int64   // OrderInt; OrderTime: microseconds since the Unix epoch
	Float float64 // OrderFloat
}

// OrderKind says what an OrderValue is.
type OrderKind uint8

// The kinds of values to order by.
const (
	OrderInt OrderKind = iota
	OrderFloat
	OrderTime
)

// Fusion merges the lists that were prefetched.
type Fusion struct {
	Method  FusionMethod
	K       int       // of ReciprocalRank; 0: DefaultRankConstant
	Weights []float32 // of ReciprocalRank, one for each list; nil: 1
}

// FusionMethod is a way to merge lists.
type FusionMethod uint8

// The ways to merge lists.
const (
	// ReciprocalRank adds up 1 / ((place + 1) / weight + K - 1), places counted from 0 (Cormack, Clarke, Buettcher:
	// SIGIR 2009).
	ReciprocalRank FusionMethod = iota
	// DistributionScore adds up scores, each brought to 0 at three standard deviations below its list's mean and to 1 at three
	// above; to 0.5 where all are equal. Of distances, less of which is nearer, the negative is taken.
	DistributionScore
)

// DefaultRankConstant is the K of a reciprocal rank fusion that does not say, MaxRankConstant the largest.
const (
	DefaultRankConstant = 2
	MaxRankConstant     = 1_000_000
)

// Formula scores points by an expression. Defaults has values for payload paths and scores ("$score", "$score[1]") that a point
// lacks, as JSON; a score that is not there is 0. It is an error if a point lacks any other value, has one of another type or
// gets a score that is no finite number.
type Formula struct {
	Expression Expression
	Defaults   map[string]json.RawMessage
}

// Expression is a node of a formula.
type Expression struct {
	Kind      ExpressionKind
	Number    float64      // of ExprNumber; of the decays the scale; of ExprDiv what division by zero gives, if HasNumber
	HasNumber bool         // Number is given, of ExprDiv and the decays
	Score     int          // of ExprScore: which of the prefetches
	Key       string       // of ExprValue, ExprTimeKey and ExprGeoDistance: a payload path
	Origin    GeoPoint     // of ExprGeoDistance
	Time      int64        // of ExprTime: microseconds since the Unix epoch
	Condition *Condition   // of ExprCondition
	Args      []Expression // operands; of the decays the value and, if there are two, the target
	Midpoint  *float64     // of the decays: the outcome at one scale from the target; nil: DefaultMidpoint
}

// The midpoint and the scale of decays that do not say.
const (
	DefaultMidpoint = 0.5
	DefaultScale    = 1.0
)

// MaxExpressions bounds the nodes of a formula, conditions counting as one.
const MaxExpressions = 1_000

// ExpressionKind says what a node of a formula computes.
type ExpressionKind uint8

// The kinds of nodes.
const (
	ExprNumber      ExpressionKind = iota
	ExprScore                      // of a prefetch
	ExprValue                      // the number at a payload path; null is missing, an array of one is its element
	ExprCondition                  // 1 if a condition holds, else 0
	ExprGeoDistance                // meters from Origin to the place at a payload path
	ExprTime                       // seconds since the Unix epoch
	ExprTimeKey                    // those of the time at a payload path
	ExprSum
	ExprMult
	ExprNeg
	ExprAbs
	ExprDiv
	ExprSqrt
	ExprPow
	ExprExp
	ExprLog10
	ExprLn
	ExprLinDecay
	ExprExpDecay
	ExprGaussDecay
)

// Groups asks for the best hits of each of the best groups. A group is made of the points with one value at a payload path; a
// point belongs to each of its values.
type Groups struct {
	Query            // Offset is 0, Limit counts groups
	By        string // a payload path; strings and integers make groups
	Size      int    // hits of a group, at least 1
	WithPoint *GroupLookup
}

// GroupLookup has each group carry the point of another collection whose id is the group's value.
type GroupLookup struct {
	Collection string
	Select     Selection
}

// The defaults of groups.
const (
	DefaultGroupSize = 3
	MaxGroupSize     = 1_000
)

// Group is a value and the best points that have it, best first.
type Group struct {
	Value Scalar
	Hits  []Hit
	Point *Record // if asked for and there
}

// Facet asks how many points have each value at a payload path that has an index for matches.
type Facet struct {
	Key    string
	Limit  int
	Filter *Filter
}

// FacetHit is a value and how many points have it.
type FacetHit struct {
	Value Scalar
	Count int
}

// Matrix asks for the similarities between points of a sample.
type Matrix struct {
	Sample int // points, from 2 to MaxMatrixSample
	Limit  int // neighbors of each
	Filter *Filter
	Using  string
}

// The default and limits of a Matrix.
const (
	DefaultMatrixSample = 10
	DefaultMatrixLimit  = 3
	MaxMatrixSample     = 1_000
)

// MatrixRow has the neighbors of one point of the sample, nearest first; their Records have nothing but the id.
type MatrixRow struct {
	ID        PointID
	Neighbors []Hit
}

// Explanation tells how a search was done, summed up over its shards and prefetches.
type Explanation struct {
	Plans      []string `json:"plans"`      // one for each shard and prefetch that ran
	Matching   int      `json:"matching"`   // points that the filter lets pass; all without one
	Candidates int      `json:"candidates"` // compared at full precision
	Visited    int      `json:"visited"`    // compared by codes
	Exact      bool     `json:"exact"`      // the answer is the exact one
}
