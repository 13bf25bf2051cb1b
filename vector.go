package vectord

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"unicode/utf8"
)

// VectorKind says what a Vector is.
type VectorKind uint8

// The kinds of vectors. The numbers are part of the log's format.
const (
	DenseVector  VectorKind = 0 // as many components as its collection says
	SparseVector VectorKind = 1 // some components of very many
	MultiVector  VectorKind = 2 // several dense vectors
	TextVector   VectorKind = 3 // a text that the server makes a vector of; none is stored
)

func (k VectorKind) String() string {
	names := [...]string{"dense vector", "sparse vector", "multivector", "text"}
	if int(k) < len(names) {
		return names[k]
	}
	return "vector of unknown kind"
}

// Vector is one vector of a point or of a query.
type Vector struct {
	Kind    VectorKind
	Values  []float32 // dense: the components; sparse: those at Indices; multi: the rows, one after the other
	Indices []uint32  // sparse: ascending, each once
	Rows    int       // multi: how many, at least 1
	Text    *Document // text
}

// Document is a text from which the server makes a vector. Options are the model's own, one JSON object or nil.
type Document struct {
	Text    string
	Model   string
	Options json.RawMessage
}

// Dense returns the dense vector with the given components, which it keeps.
func Dense(values []float32) Vector { return Vector{Values: values} }

// Sparse returns the sparse vector whose components at indices are values, sorted by index. It sorts in place.
func Sparse(indices []uint32, values []float32) Vector {
	if !slices.IsSorted(indices) {
		order := make([]int, len(indices))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(indices[a], indices[b]) })
		i, v := slices.Clone(indices), slices.Clone(values)
		for to, from := range order {
			indices[to], values[to] = i[from], v[from]
		}
	}
	return Vector{Kind: SparseVector, Indices: indices, Values: values}
}

// Clone returns a copy that shares nothing that changes.
func (v Vector) Clone() Vector {
	v.Values, v.Indices = slices.Clone(v.Values), slices.Clone(v.Indices)
	return v
}

// Equal reports whether v and w are the same vector, bit for bit but for the signs of zeros.
func (v Vector) Equal(w Vector) bool {
	return v.Kind == w.Kind && v.Rows == w.Rows && slices.Equal(v.Values, w.Values) && slices.Equal(v.Indices, w.Indices)
}

// NamedVector is one vector of a point. The name of the default vector is empty.
type NamedVector struct {
	Name string
	Vector
}

// Vectors are the vectors of a point, each name once.
type Vectors []NamedVector

// Unnamed returns the vectors of a point that has none but the default one, dense.
func Unnamed(values []float32) Vectors { return Vectors{{Vector: Dense(values)}} }

// Get returns the vector of a name.
func (v Vectors) Get(name string) (Vector, bool) {
	for i := range v {
		if v[i].Name == name {
			return v[i].Vector, true
		}
	}
	return Vector{}, false
}

// Unnamed returns the components of the default vector, nil if there is none.
func (v Vectors) Unnamed() []float32 {
	u, _ := v.Get("")
	return u.Values
}

// VectorParams describe the vectors of one name. A nil setting is the collection's.
type VectorParams struct {
	Size         int             `json:"size"`
	Distance     Distance        `json:"distance"`
	OnDisk       bool            `json:"on_disk,omitempty"`
	Datatype     string          `json:"datatype,omitempty"`
	Multi        *MultiParams    `json:"multivector_config,omitempty"`  // nil: one vector a point
	HNSW         json.RawMessage `json:"hnsw_config,omitempty"`         // those settings of HNSWConfig that differ
	Quantization json.RawMessage `json:"quantization_config,omitempty"` // see ParseQuantization
}

// MultiParams say how multivectors are compared.
type MultiParams struct {
	Comparator string `json:"comparator"`
}

// MaxSim is the comparator of multivectors: for each vector of the query the nearest of the point's, summed up.
const MaxSim = "max_sim"

// The types of components. Components are kept as float32s; with another type they are rounded to what it can hold.
const (
	Float32 = "float32"
	Float16 = "float16"
	Uint8   = "uint8"
)

// SparseParams describe the sparse vectors of one name.
type SparseParams struct {
	Index    json.RawMessage `json:"index,omitempty"` // kept for clients that read it back
	Modifier string          `json:"modifier,omitempty"`
}

// NewVectors describe the vectors of a name that a collection is to have: one of the two. Its JSON form is part of the log's
// format.
type NewVectors struct {
	Dense  *VectorParams `json:"dense,omitempty"`
	Sparse *SparseParams `json:"sparse,omitempty"`
}

// ModifierIDF weighs each component of a query by how rare it is among the points: ln((n - df + 0.5) / (df + 0.5) + 1).
const ModifierIDF = "idf"

// VectorsParams are the dense and multi-vectors of a collection by name. Its JSON form is bare where the default vector is
// the only one.
type VectorsParams map[string]VectorParams

// MarshalJSON implements json.Marshaler.
func (v VectorsParams) MarshalJSON() ([]byte, error) {
	if unnamed, ok := v[""]; ok && len(v) == 1 {
		return json.Marshal(unnamed)
	}
	if v == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string]VectorParams(v))
}

// UnmarshalJSON implements json.Unmarshaler.
func (v *VectorsParams) UnmarshalJSON(b []byte) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	*v = VectorsParams{}
	if size, ok := object["size"]; ok && (len(size) == 0 || size[0] != '{') {
		var unnamed VectorParams
		if err := json.Unmarshal(b, &unnamed); err != nil {
			return err
		}
		(*v)[""] = unnamed
		return nil
	}
	return json.Unmarshal(b, (*map[string]VectorParams)(v))
}

// Limits of the vectors of one collection.
const (
	MaxVectorNames      = 256     // dense and sparse together
	MaxVectorNameSize   = 200     // bytes
	MaxMultiVectorRows  = 4096    // vectors in one multivector
	MaxMultiVectorBytes = 1 << 20 // … and float32s in it, times 4
	MaxSparseComponents = 65536   // of one sparse vector
	MaxDocumentBytes    = 1 << 20
)

// CheckVectorName returns an error unless name may name vectors.
func CheckVectorName(name string) error {
	switch {
	case len(name) > MaxVectorNameSize:
		return Errorf(KindUnprocessable, "vector name: %d bytes, at most %d are accepted", len(name), MaxVectorNameSize)
	case !utf8.ValidString(name):
		return Errorf(KindUnprocessable, "vector name: %q is not valid UTF-8", name)
	}
	return checkCharacters("vector name", name)
}

// Check returns an error unless the vector may be kept or compared as one of the given name and kind.
func (v *Vector) Check(name string, kind VectorKind, size int) error {
	if v.Kind == DenseVector && kind == MultiVector && len(v.Values) > 0 {
		*v = Vector{Kind: MultiVector, Values: v.Values, Rows: 1}
	}
	if v.Kind != kind {
		return Errorf(KindInvalid, "Wrong vector kind: %s expected for vector name %q, got a %s", kind, name, v.Kind)
	}
	for i, x := range v.Values {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return Errorf(KindInvalid, "vector: component %d is %v, expected a finite number", i, x)
		}
	}
	switch kind {
	case DenseVector:
		return checkDimension(size, len(v.Values))
	case MultiVector:
		switch {
		case v.Rows < 1 || v.Rows > MaxMultiVectorRows:
			return Errorf(KindUnprocessable, "vector: %d rows, must be from 1 to %d", v.Rows, MaxMultiVectorRows)
		case len(v.Values)*4 > MaxMultiVectorBytes:
			return Errorf(KindUnprocessable, "vector: %d components in all rows, at most %d are accepted", len(v.Values), MaxMultiVectorBytes/4)
		case len(v.Values)%v.Rows != 0:
			return Errorf(KindInvalid, "vector: %d components in %d rows", len(v.Values), v.Rows)
		}
		return checkDimension(size, len(v.Values)/v.Rows)
	case SparseVector:
		return v.checkSparse()
	}
	return nil
}

func (v *Vector) checkSparse() error {
	switch {
	case len(v.Indices) != len(v.Values):
		return Errorf(KindUnprocessable, "vector: must be the same length as indices, got %d values and %d indices", len(v.Values), len(v.Indices))
	case len(v.Indices) > MaxSparseComponents:
		return Errorf(KindUnprocessable, "vector: %d indices, at most %d are accepted", len(v.Indices), MaxSparseComponents)
	}
	for i := 1; i < len(v.Indices); i++ {
		if v.Indices[i] <= v.Indices[i-1] {
			return Errorf(KindUnprocessable, "vector: indices must be unique and ascending, %d follows %d", v.Indices[i], v.Indices[i-1])
		}
	}
	return nil
}

func checkDimension(want, got int) error {
	if want != got {
		return Errorf(KindInvalid, "Vector dimension error: expected dim: %d, got %d", want, got)
	}
	return nil
}

// RoundTo rounds the components to what a datatype can hold, in place: uint8 to the nearest whole number from 0 to 255, float16
// to the nearest half-precision float (IEEE 754 binary16), the largest finite one where there is none.
func RoundTo(datatype string, values []float32) {
	switch datatype {
	case Uint8:
		for i, x := range values {
			values[i] = float32(math.Round(float64(min(max(x, 0), 255))))
		}
	case Float16:
		for i, x := range values {
			values[i] = roundToHalf(x)
		}
	}
}

// roundToHalf returns the half-precision float nearest to x, ties to even.
func roundToHalf(x float32) float32 {
	const largest = 65504
	switch a := math.Abs(float64(x)); {
	case a >= largest:
		return float32(math.Copysign(largest, float64(x)))
	case a < 1.0/(1<<14): // subnormal halves are multiples of 2^-24
		return float32(math.RoundToEven(float64(x)*(1<<24)) / (1 << 24))
	}
	bits := math.Float32bits(x)
	const dropped = 13 // of 23 bits of fraction
	half := uint32(1)<<(dropped-1) - 1 + bits>>dropped&1
	return min(max(math.Float32frombits((bits+half)&^(1<<dropped-1)), -largest), largest)
}
