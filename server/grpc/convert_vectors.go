package grpcserver

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
)

// vectorOf reads a vector in the form of today, or in the older one, which has the components of all kinds in the field data.
func vectorOf(v *qdrant.Vector) (vectord.Vector, error) {
	switch kind := v.GetVector().(type) {
	case *qdrant.Vector_Dense:
		return denseVector(kind.Dense.GetData())
	case *qdrant.Vector_Sparse:
		return sparseVector(kind.Sparse.GetIndices(), kind.Sparse.GetValues())
	case *qdrant.Vector_MultiDense:
		return multiVector(kind.MultiDense.GetVectors())
	case *qdrant.Vector_Document:
		return textVector(kind.Document)
	case nil:
	default:
		return vectord.Vector{}, noInference()
	}
	//nolint:staticcheck // older clients send no other form
	data, indices, rows := v.GetData(), v.GetIndices(), int(v.GetVectorsCount())
	switch {
	case indices != nil:
		return sparseVector(indices.GetData(), data)
	case rows == 0:
		return denseVector(data)
	case len(data)%rows != 0:
		return vectord.Vector{}, vectord.Errorf(vectord.KindInvalid, "vector: %d components in %d rows", len(data), rows)
	}
	return vectord.Vector{Kind: vectord.MultiVector, Values: data, Rows: rows}, nil
}

func noInference() error {
	return vectord.Errorf(vectord.KindUnsupported, "inference from images and objects is not offered by this server")
}

func denseVector(values []float32) (vectord.Vector, error) {
	if len(values) == 0 {
		return vectord.Vector{}, vectord.Errorf(vectord.KindUnprocessable, "the vector is empty")
	}
	return vectord.Dense(values), nil
}

func sparseVector(indices []uint32, values []float32) (v vectord.Vector, err error) {
	if len(indices) != len(values) {
		return v, vectord.Errorf(vectord.KindUnprocessable, "values: must be the same length as indices, got %d values and %d indices", len(values), len(indices))
	}
	v = vectord.Sparse(indices, values)
	for i := 1; i < len(v.Indices); i++ {
		if v.Indices[i] == v.Indices[i-1] {
			return v, vectord.Errorf(vectord.KindUnprocessable, "indices: must be unique, %d is there twice", v.Indices[i])
		}
	}
	return v, nil
}

func multiVector(rows []*qdrant.DenseVector) (vectord.Vector, error) {
	v := vectord.Vector{Kind: vectord.MultiVector, Rows: len(rows)}
	for i, row := range rows {
		switch values := row.GetData(); {
		case len(values) == 0:
			return v, vectord.Errorf(vectord.KindUnprocessable, "row %d of the multivector is empty", i)
		case len(values)*i != len(v.Values):
			return v, vectord.Errorf(vectord.KindUnprocessable, "rows of a multivector must have the same length, row %d has %d, those before it %d",
				i, len(values), len(v.Values)/i)
		default:
			v.Values = append(v.Values, values...)
		}
	}
	return v, nil
}

func textVector(d *qdrant.Document) (vectord.Vector, error) {
	if d.GetModel() == "" {
		return vectord.Vector{}, missing("model")
	}
	options, err := payloadJSON("options", d.GetOptions())
	if err != nil {
		return vectord.Vector{}, err
	}
	return vectord.Vector{Kind: vectord.TextVector,
		Text: &vectord.Document{Text: d.GetText(), Model: d.GetModel(), Options: json.RawMessage(options)}}, nil
}

// vectorsOf reads the vectors of a point: one, which is the default one, or several by name.
func vectorsOf(v *qdrant.Vectors) (vectord.Vectors, error) {
	switch kind := v.GetVectorsOptions().(type) {
	case *qdrant.Vectors_Vector:
		one, err := vectorOf(kind.Vector)
		return vectord.Vectors{{Vector: one}}, err
	case *qdrant.Vectors_Vectors:
		named := kind.Vectors.GetVectors()
		if len(named) > vectord.MaxVectorNames {
			return nil, vectord.Errorf(vectord.KindUnprocessable, "%d vectors of one point, at most %d are accepted", len(named), vectord.MaxVectorNames)
		}
		out := make(vectord.Vectors, 0, len(named))
		for _, name := range slices.Sorted(maps.Keys(named)) {
			one, err := vectorOf(named[name])
			if err != nil {
				return nil, fmt.Errorf("%.60q: %w", name, err)
			}
			out = append(out, vectord.NamedVector{Name: name, Vector: one})
		}
		return out, nil
	}
	return nil, missing("vectors")
}

// exampleOf reads what a query compares with: a vector, or a point by its id.
func exampleOf(field string, in *qdrant.VectorInput) (out vectord.Example, err error) {
	switch kind := in.GetVariant().(type) {
	case *qdrant.VectorInput_Id:
		var id vectord.PointID
		id, err = idOf(field, kind.Id)
		return vectord.Example{ID: &id}, err
	case *qdrant.VectorInput_Dense:
		out.Vector, err = denseVector(kind.Dense.GetData())
	case *qdrant.VectorInput_Sparse:
		out.Vector, err = sparseVector(kind.Sparse.GetIndices(), kind.Sparse.GetValues())
	case *qdrant.VectorInput_MultiDense:
		out.Vector, err = multiVector(kind.MultiDense.GetVectors())
	case *qdrant.VectorInput_Document:
		out.Vector, err = textVector(kind.Document)
	case nil:
		err = missing(field)
	default:
		err = noInference()
	}
	if err != nil {
		return out, fmt.Errorf("%s: %w", field, err)
	}
	return out, nil
}

func examplesOf(field string, in []*qdrant.VectorInput) ([]vectord.Example, error) {
	out := make([]vectord.Example, len(in))
	for i := range in {
		var err error
		if out[i], err = exampleOf(fmt.Sprintf("%s[%d]", field, i), in[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// vectorsOutput returns the vectors of a point: bare, if there is none but the default one, else by name.
func vectorsOutput(vectors vectord.Vectors) *qdrant.VectorsOutput {
	if len(vectors) == 1 && vectors[0].Name == "" {
		return &qdrant.VectorsOutput{VectorsOptions: &qdrant.VectorsOutput_Vector{Vector: vectorOutput(&vectors[0].Vector)}}
	}
	named := make(map[string]*qdrant.VectorOutput, len(vectors))
	for i := range vectors {
		named[vectors[i].Name] = vectorOutput(&vectors[i].Vector)
	}
	return &qdrant.VectorsOutput{VectorsOptions: &qdrant.VectorsOutput_Vectors{Vectors: &qdrant.NamedVectorsOutput{Vectors: named}}}
}

func vectorOutput(v *vectord.Vector) *qdrant.VectorOutput {
	switch v.Kind {
	case vectord.SparseVector:
		return &qdrant.VectorOutput{Vector: &qdrant.VectorOutput_Sparse{Sparse: &qdrant.SparseVector{Indices: v.Indices, Values: v.Values}}}
	case vectord.MultiVector:
		rows := make([]*qdrant.DenseVector, v.Rows)
		size := len(v.Values) / max(v.Rows, 1)
		for i := range rows {
			rows[i] = &qdrant.DenseVector{Data: v.Values[i*size : (i+1)*size]}
		}
		return &qdrant.VectorOutput{Vector: &qdrant.VectorOutput_MultiDense{MultiDense: &qdrant.MultiDenseVector{Vectors: rows}}}
	}
	return &qdrant.VectorOutput{Vector: &qdrant.VectorOutput_Dense{Dense: &qdrant.DenseVector{Data: v.Values}}}
}
