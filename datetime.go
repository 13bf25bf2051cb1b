package vectord

import (
	"cmp"
	"encoding/json"
	"time"
)

// Datetime is a moment: microseconds since the start of 1970, UTC. Those of the years 0 to 9999 can be written.
type Datetime int64

// The first and the last Datetime that can be written.
var (
	datetimeMin = Datetime(time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro())
	datetimeMax = Datetime(time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro() - 1)
)

// ParseDatetime reads RFC 3339 and the forms that are common beside it:
//
//	2026-08-04
//	2026-08-04 12:30, 2026-08-04T12:30
//	2026-08-04 12:30:59, 2026-08-04T12:30:59.123456, each also with Z, +02:00, +0200 or +02 behind it
//
// Without a zone it is UTC. What is finer than a microsecond is cut off. It reports false for anything else.
func ParseDatetime[T string | []byte](s T) (Datetime, bool) {
	year, ok1 := digitsAt(s, 0, 4)
	month, ok2 := digitsAt(s, 5, 2)
	day, ok3 := digitsAt(s, 8, 2)
	if !ok1 || !ok2 || !ok3 || s[4] != '-' || s[7] != '-' || month < 1 || month > 12 || day < 1 || day > daysIn(month, year) {
		return 0, false
	}
	var hour, minute, second, micros int
	offset := 0 // seconds east of UTC
	if len(s) > 10 {
		hour, ok1 = digitsAt(s, 11, 2)
		minute, ok2 = digitsAt(s, 14, 2)
		if c := s[10]; !ok1 || !ok2 || c != 'T' && c != 't' && c != ' ' || s[13] != ':' || hour > 23 || minute > 59 {
			return 0, false
		}
	}
	if len(s) > 16 {
		if second, ok1 = digitsAt(s, 17, 2); !ok1 || s[16] != ':' || second > 59 {
			return 0, false
		}
		rest := 19
		if rest < len(s) && s[rest] == '.' {
			rest++
			start, unit := rest, 100_000
			for rest < len(s) && s[rest] >= '0' && s[rest] <= '9' {
				micros += int(s[rest]-'0') * unit
				unit /= 10
				rest++
			}
			if rest == start {
				return 0, false
			}
		}
		if offset, ok1 = zoneAt(s, rest); !ok1 {
			return 0, false
		}
	}
	seconds := time.Date(year, time.Month(month), day, hour, minute, second, 0, time.UTC).Unix() - int64(offset)
	d := Datetime(seconds*1_000_000 + int64(micros))
	return d, d >= datetimeMin && d <= datetimeMax
}

// digitsAt reads n decimal digits at i.
func digitsAt[T string | []byte](s T, i, n int) (value int, ok bool) {
	if len(s) < i+n {
		return 0, false
	}
	for ; n > 0; n-- {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		value = value*10 + int(s[i]-'0')
		i++
	}
	return value, true
}

// zoneAt reads the rest of s as a zone: nothing, Z, or a sign and hours, with or without minutes.
func zoneAt[T string | []byte](s T, i int) (secondsEast int, ok bool) {
	rest := len(s) - i
	if rest == 0 || rest == 1 && (s[i] == 'Z' || s[i] == 'z') {
		return 0, true
	}
	if s[i] != '+' && s[i] != '-' {
		return 0, false
	}
	hours, ok := digitsAt(s, i+1, 2)
	minutes := 0
	switch {
	case !ok:
	case rest == 5:
		minutes, ok = digitsAt(s, i+3, 2)
	case rest == 6:
		minutes, ok = digitsAt(s, i+4, 2)
		ok = ok && s[i+3] == ':'
	default:
		ok = rest == 3
	}
	if !ok || hours > 23 || minutes > 59 {
		return 0, false
	}
	secondsEast = hours*3600 + minutes*60
	if s[i] == '-' {
		secondsEast = -secondsEast
	}
	return secondsEast, true
}

func daysIn(month, year int) int {
	switch month {
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	case 4, 6, 9, 11:
		return 30
	}
	return 31
}

// Compare returns -1, 0 or 1 as d is before, equal to or after other.
func (d Datetime) Compare(other Datetime) int { return cmp.Compare(d, other) }

// String returns the RFC 3339 form in UTC, with as many digits of a second as it has.
func (d Datetime) String() string {
	return time.UnixMicro(int64(d)).UTC().Format("2006-01-02T15:04:05.999999Z")
}

// MarshalJSON implements json.Marshaler.
func (d Datetime) MarshalJSON() ([]byte, error) {
	if d < datetimeMin || d > datetimeMax {
		return nil, Errorf(KindInvalid, "datetime %d is not of the years 0 to 9999", int64(d))
	}
	return []byte(`"` + d.String() + `"`), nil
}

// UnmarshalJSON reads a string in one of the forms of ParseDatetime.
func (d *Datetime) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err == nil {
		if parsed, ok := ParseDatetime(s); ok {
			*d = parsed
			return nil
		}
	}
	return Errorf(KindInvalid, "%s is no date and time, expected one as 2026-08-04T12:30:59Z", shorten(b))
}
