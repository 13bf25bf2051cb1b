package grpcserver

import (
	"encoding/json"

	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
)

// schemaOf reads what a payload index is to be of: parameters of a type, or the type alone.
func schemaOf(m *qdrant.CreateFieldIndexCollection) (vectord.FieldSchema, error) {
	var none vectord.FieldSchema
	typed := ""
	if m.FieldType != nil {
		var ok bool
		if typed, ok = fieldTypes.of(m.GetFieldType()); !ok {
			return none, vectord.Errorf(vectord.KindInvalid, "field_type: unknown type %d", m.GetFieldType())
		}
	}
	if m.GetFieldIndexParams().GetIndexParams() == nil {
		if typed == "" {
			return none, missing("field_type")
		}
		return vectord.FieldSchema{Type: vectord.FieldType(typed)}, nil
	}
	raw, err := indexParamsOf(m.GetFieldIndexParams())
	if err != nil {
		return none, err
	}
	schema, err := vectord.ParseFieldSchema(raw)
	if err == nil && typed != "" && string(schema.Type) != typed {
		err = vectord.Errorf(vectord.KindInvalid, "field_type: %s, but field_index_params are those of %s", typed, schema.Type)
	}
	return schema, err
}

// indexParamsOf returns the JSON form of parameters.
func indexParamsOf(m *qdrant.PayloadIndexParams) (json.RawMessage, error) {
	named := func(t vectord.FieldType) values { return values{"type": string(t)} }
	switch p := m.GetIndexParams().(type) {
	case *qdrant.PayloadIndexParams_KeywordIndexParams:
		return settings(p.KeywordIndexParams, named(vectord.FieldKeyword))
	case *qdrant.PayloadIndexParams_IntegerIndexParams:
		return settings(p.IntegerIndexParams, named(vectord.FieldInteger))
	case *qdrant.PayloadIndexParams_FloatIndexParams:
		return settings(p.FloatIndexParams, named(vectord.FieldFloat))
	case *qdrant.PayloadIndexParams_GeoIndexParams:
		return settings(p.GeoIndexParams, named(vectord.FieldGeo))
	case *qdrant.PayloadIndexParams_BoolIndexParams:
		return settings(p.BoolIndexParams, named(vectord.FieldBool))
	case *qdrant.PayloadIndexParams_DatetimeIndexParams:
		return settings(p.DatetimeIndexParams, named(vectord.FieldDatetime))
	case *qdrant.PayloadIndexParams_UuidIndexParams:
		return settings(p.UuidIndexParams, named(vectord.FieldUUID))
	case *qdrant.PayloadIndexParams_TextIndexParams:
		text := named(vectord.FieldText)
		text["tokenizer"] = tokenizers.given(p.TextIndexParams.GetTokenizer())
		if stemmer := p.TextIndexParams.GetStemmer(); stemmer != nil {
			text["stemmer"] = values{"type": "snowball", "language": stemmer.GetSnowball().GetLanguage()}
		}
		return settings(p.TextIndexParams, text)
	}
	return nil, missing("field_index_params")
}

// schemaInfo returns a payload index as it stands.
func schemaInfo(f *vectord.FieldInfo) (*qdrant.PayloadSchemaInfo, error) {
	have := uint64(f.Points)
	out := &qdrant.PayloadSchemaInfo{DataType: schemaTypes[string(f.Type)], Points: &have}
	if len(f.Params) == 0 {
		return out, nil
	}
	var err error
	out.Params, err = indexParams(f.Type, f.Params)
	return out, err
}

func indexParams(t vectord.FieldType, raw json.RawMessage) (*qdrant.PayloadIndexParams, error) {
	out := &qdrant.PayloadIndexParams{}
	var err error
	switch t {
	case vectord.FieldKeyword:
		p := &qdrant.PayloadIndexParams_KeywordIndexParams{}
		p.KeywordIndexParams, err = told[qdrant.KeywordIndexParams](raw, nil)
		out.IndexParams = p
	case vectord.FieldInteger:
		p := &qdrant.PayloadIndexParams_IntegerIndexParams{}
		p.IntegerIndexParams, err = told[qdrant.IntegerIndexParams](raw, nil)
		out.IndexParams = p
	case vectord.FieldFloat:
		p := &qdrant.PayloadIndexParams_FloatIndexParams{}
		p.FloatIndexParams, err = told[qdrant.FloatIndexParams](raw, nil)
		out.IndexParams = p
	case vectord.FieldGeo:
		p := &qdrant.PayloadIndexParams_GeoIndexParams{}
		p.GeoIndexParams, err = told[qdrant.GeoIndexParams](raw, nil)
		out.IndexParams = p
	case vectord.FieldBool:
		p := &qdrant.PayloadIndexParams_BoolIndexParams{}
		p.BoolIndexParams, err = told[qdrant.BoolIndexParams](raw, nil)
		out.IndexParams = p
	case vectord.FieldDatetime:
		p := &qdrant.PayloadIndexParams_DatetimeIndexParams{}
		p.DatetimeIndexParams, err = told[qdrant.DatetimeIndexParams](raw, nil)
		out.IndexParams = p
	case vectord.FieldUUID:
		p := &qdrant.PayloadIndexParams_UuidIndexParams{}
		p.UuidIndexParams, err = told[qdrant.UuidIndexParams](raw, nil)
		out.IndexParams = p
	case vectord.FieldText:
		p := &qdrant.PayloadIndexParams_TextIndexParams{}
		p.TextIndexParams, err = textIndexParams(raw)
		out.IndexParams = p
	}
	return out, err
}

func textIndexParams(raw json.RawMessage) (*qdrant.TextIndexParams, error) {
	out, err := told[qdrant.TextIndexParams](raw, values{"tokenizer": nil, "stemmer": nil, "stopwords": nil})
	if err != nil {
		return nil, err
	}
	var p struct {
		Tokenizer string          `json:"tokenizer"`
		Stopwords json.RawMessage `json:"stopwords"`
		Stemmer   *struct {
			Language string `json:"language"`
		} `json:"stemmer"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, err
	}
	out.Tokenizer = tokenizers[p.Tokenizer]
	if p.Stemmer != nil && p.Stemmer.Language != "" {
		out.Stemmer = &qdrant.StemmingAlgorithm{StemmingParams: &qdrant.StemmingAlgorithm_Snowball{
			Snowball: &qdrant.SnowballParams{Language: p.Stemmer.Language}}}
	}
	if len(p.Stopwords) == 0 {
		return out, nil
	}
	out.Stopwords = &qdrant.StopwordsSet{}
	var language string
	if json.Unmarshal(p.Stopwords, &language) == nil { // one language may stand alone
		out.Stopwords.Languages = []string{language}
		return out, nil
	}
	return out, json.Unmarshal(p.Stopwords, out.Stopwords)
}
