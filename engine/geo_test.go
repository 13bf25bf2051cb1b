package engine

import (
	"math"
	"testing"

	"github.com/vectord/vectord"
)

var (
	berlin = vectord.GeoPoint{Lon: 13.4050, Lat: 52.5200}
	paris  = vectord.GeoPoint{Lon: 2.3522, Lat: 48.8566}
	london = vectord.GeoPoint{Lon: -0.1278, Lat: 51.5074}
	york   = vectord.GeoPoint{Lon: -74.0060, Lat: 40.7128}
	sydney = vectord.GeoPoint{Lon: 151.2093, Lat: -33.8688}
	tokyo  = vectord.GeoPoint{Lon: 139.6503, Lat: 35.6762}
)

// TestDistance has distances that another formula gave, by arc tangents, with the same radius of the earth.
func TestDistance(t *testing.T) {
	f := func(a, b vectord.GeoPoint, want float64) {
		t.Helper()
		if got := distance(a, b); math.Abs(got-want) > 1e-3 || distance(b, a) != got {
			t.Errorf("from %v to %v: %.4f m and back %.4f m, want %.4f m", a, b, got, distance(b, a), want)
		}
	}
	at := func(lon, lat float64) vectord.GeoPoint { return vectord.GeoPoint{Lon: lon, Lat: lat} }
	f(berlin, paris, 877464.5379)
	f(london, york, 5570229.8737)
	f(sydney, tokyo, 7825829.4260)
	f(berlin, berlin, 0)
	f(at(0, 0), at(1, 0), 111195.0802) // a degree, of which a circle has 360
	f(at(0, 0), at(180, 0), 20015114.4420)
	f(at(0, 90), at(0, -90), 20015114.4420)
	f(at(179.5, 0), at(-179.5, 0), 111195.0802)
	f(at(50, 90), at(-130, 90), 0)
}

func TestInRadius(t *testing.T) {
	f := func(radius float64, want bool) {
		t.Helper()
		if got := inRadius(vectord.GeoRadius{Center: berlin, Radius: radius})(paris); got != want {
			t.Errorf("Paris is within %v m of Berlin: %v", radius, got)
		}
	}
	f(877_464, false)
	f(877_465, true)
	f(0, false)
	f(distance(berlin, paris), false)
}

func TestInBox(t *testing.T) {
	f := func(west, north, east, south, lon, lat float64, want bool) {
		t.Helper()
		b := vectord.GeoBox{TopLeft: vectord.GeoPoint{Lon: west, Lat: north}, BottomRight: vectord.GeoPoint{Lon: east, Lat: south}}
		if got := inBox(b)(vectord.GeoPoint{Lon: lon, Lat: lat}); got != want {
			t.Errorf("%v, %v in %v: %v", lon, lat, b, got)
		}
	}
	f(0, 2, 4, -2, 1, 1, true)
	f(0, 2, 4, -2, 0, 1, false)
	f(0, 2, 4, -2, 4, 1, false)
	f(0, 2, 4, -2, 1, 2, false)
	f(0, 2, 4, -2, 1, -2, false)
	f(0, 2, 4, -2, 5, 1, false)
	f(170, 2, -170, -2, 175, 0, true)
	f(170, 2, -170, -2, 180, 0, true)
	f(170, 2, -170, -2, -180, 0, true)
	f(170, 2, -170, -2, -175, 0, true)
	f(170, 2, -170, -2, 165, 0, false)
	f(170, 2, -170, -2, -165, 0, false)
	f(170, 2, -170, -2, 0, 0, false)
	f(170, 2, -170, -2, 175, 3, false)
	f(0, -2, 4, 2, 1, 0, false)
}

func TestInPolygon(t *testing.T) {
	ring := func(coordinates ...float64) (r vectord.GeoRing) {
		for i := 0; i < len(coordinates); i += 2 {
			r = append(r, vectord.GeoPoint{Lon: coordinates[i], Lat: coordinates[i+1]})
		}
		return append(r, r[0])
	}
	f := func(p vectord.GeoPolygon, lon, lat float64, want bool) {
		t.Helper()
		if got := inPolygon(p)(vectord.GeoPoint{Lon: lon, Lat: lat}); got != want {
			t.Errorf("%v, %v in %v: %v", lon, lat, p, got)
		}
	}
	square := vectord.GeoPolygon{Exterior: ring(0, 0, 8, 0, 8, 8, 0, 8), Interiors: []vectord.GeoRing{ring(2, 2, 6, 2, 6, 6, 2, 6)}}
	f(square, 1, 1, true)
	f(square, 7, 4, true)
	f(square, 4, 4, false) // the hole
	f(square, 2, 4, false) // its border
	f(square, 6, 6, false)
	f(square, 0, 4, false)
	f(square, 8, 8, false)
	f(square, 4, 0, false)
	f(square, 9, 4, false)
	f(square, -1, 2, false)
	f(square, 1, 2, true) // level with corners of the hole
	f(square, 7, 6, true)
	diamond := vectord.GeoPolygon{Exterior: ring(0, -4, 4, 0, 0, 4, -4, 0)}
	f(diamond, 0, 0, true) // level with two corners
	f(diamond, -5, 0, false)
	f(diamond, 2, 2, false) // on an edge
	f(diamond, 2, 1.99, true)
	arrow := vectord.GeoPolygon{Exterior: ring(0, 0, 4, 4, 0, 2, -4, 4)}
	f(arrow, 0, 3, false)
	f(arrow, 0, 1, true)
	f(arrow, 3, 3.25, true)
	for i := range arrow.Exterior[1:] { // the other way around, and from other corners
		turned := vectord.GeoPolygon{Exterior: append(append(vectord.GeoRing{}, arrow.Exterior[i+1:]...), arrow.Exterior[1:i+2]...)}
		f(turned, 0, 3, false)
		f(turned, 0, 1, true)
	}
}

func BenchmarkInPolygon(b *testing.B) {
	var ring vectord.GeoRing
	for i := range 100 {
		angle := 2 * math.Pi * float64(i) / 100
		ring = append(ring, vectord.GeoPoint{Lon: 10 * math.Cos(angle), Lat: 10 * math.Sin(angle)})
	}
	contains := inPolygon(vectord.GeoPolygon{Exterior: append(ring, ring[0])})
	for b.Loop() {
		if !contains(vectord.GeoPoint{Lon: 1, Lat: 2}) {
			b.Fatal("the middle is outside")
		}
	}
}
