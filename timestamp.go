package vectord

import "time"

// Timestamp is a moment in milliseconds since the Unix epoch; 0 stands for none. As text it is RFC 3339 in UTC with
// milliseconds.
type Timestamp int64

// timestampMax is the last one of the year 9999.
const timestampMax = Timestamp(253402300799999)

const timestampLayout = "2006-01-02T15:04:05.000Z07:00"

// Time returns t in UTC.
func (t Timestamp) Time() time.Time { return time.UnixMilli(int64(t)).UTC() }

func (t Timestamp) String() string { return t.Time().Format(timestampLayout) }

// MarshalText implements encoding.TextMarshaler.
func (t Timestamp) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. It takes the forms of ParseDatetime.
func (t *Timestamp) UnmarshalText(text []byte) error {
	d, ok := ParseDatetime(text)
	if at := Timestamp(int64(d) / 1000); ok && at >= 0 && at <= timestampMax {
		*t = at
		return nil
	}
	return Errorf(KindInvalid, "%.80q is not a time from 1970 to 9999 such as 2026-01-31T12:00:00Z", text)
}
