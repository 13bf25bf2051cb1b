package engine

import (
	"math"

	"github.com/vectord/vectord"
)

// earthRadius is in metres: the mean radius R1 of the Geodetic Reference System 1980 (Moritz, Geodetic Reference System
// 1980, Journal of Geodesy 74, 2000).
const earthRadius = 6_371_008.8

// inBox returns the test for a place in a box.
func inBox(b vectord.GeoBox) func(vectord.GeoPoint) bool {
	west, east := b.TopLeft.Lon, b.BottomRight.Lon
	return func(p vectord.GeoPoint) bool {
		between := p.Lon > west && p.Lon < east
		if west > east { // across the antimeridian
			between = p.Lon > west || p.Lon < east
		}
		return between && p.Lat > b.BottomRight.Lat && p.Lat < b.TopLeft.Lat
	}
}

// inRadius returns the test for a place within the distance of a center.
func inRadius(r vectord.GeoRadius) func(vectord.GeoPoint) bool {
	return func(p vectord.GeoPoint) bool { return distance(r.Center, p) < r.Radius }
}

// distance returns the length in metres of the great circle's arc between two places, by the haversine formula, which is
// exact for near ones too.
func distance(a, b vectord.GeoPoint) float64 {
	const radians = math.Pi / 180
	dLat := math.Sin((b.Lat - a.Lat) * radians / 2)
	dLon := math.Sin((b.Lon - a.Lon) * radians / 2)
	h := dLat*dLat + math.Cos(a.Lat*radians)*math.Cos(b.Lat*radians)*dLon*dLon
	return 2 * earthRadius * math.Asin(math.Sqrt(min(h, 1)))
}

// inPolygon returns the test for a place inside a polygon and outside its holes.
func inPolygon(polygon vectord.GeoPolygon) func(vectord.GeoPoint) bool {
	low, high := boxOf(polygon.Exterior)
	return func(p vectord.GeoPoint) bool {
		if p.Lon < low.Lon || p.Lon > high.Lon || p.Lat < low.Lat || p.Lat > high.Lat {
			return false
		}
		if inside, _ := inRing(polygon.Exterior, p); !inside {
			return false
		}
		for _, hole := range polygon.Interiors {
			if inside, border := inRing(hole, p); inside || border {
				return false
			}
		}
		return true
	}
}

// inRing reports whether p is inside the ring or on its border, not both. Inside is where a ray to the east crosses the ring
// an odd number of times.
func inRing(ring vectord.GeoRing, p vectord.GeoPoint) (inside, border bool) {
	for i := range len(ring) - 1 {
		a, b := ring[i], ring[i+1]
		if a.Lat > b.Lat {
			a, b = b, a
		}
		// The sign says on which side of the line from a up to b the place is: above 0 is west of it.
		side := (b.Lon-a.Lon)*(p.Lat-a.Lat) - (p.Lon-a.Lon)*(b.Lat-a.Lat)
		if side == 0 && p.Lat >= a.Lat && p.Lat <= b.Lat && p.Lon >= min(a.Lon, b.Lon) && p.Lon <= max(a.Lon, b.Lon) {
			return false, true
		}
		if side > 0 && a.Lat <= p.Lat && p.Lat < b.Lat {
			inside = !inside
		}
	}
	return inside, false
}
