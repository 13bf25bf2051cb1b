package bench

import (
	"bytes"
	"fmt"
	"html"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// Point is one measurement of recall against speed.
type Point struct {
	Recall float64
	QPS    float64
	Label  string // such as "ef 80"; drawn only where there is one series
}

// Series is the points of one engine, joined in the order given.
type Series struct {
	Name   string
	Points []Point
}

// Plot is a picture of recall (across) against queries per second (up, on a logarithmic scale). It is drawn by hand
// because the chart libraries for Go bring font, PDF and LaTeX code with them, all for line charts.
type Plot struct {
	Title  string
	Series []Series
}

// Size and margins of a plot, in pixels of an SVG; a PNG has plotScale times as many.
const (
	plotWidth, plotHeight  = 720, 440
	plotLeft, plotRight    = 80, 30
	plotTop, plotBottom    = 50, 60
	plotTicksMax           = 10
	plotInnerW, plotInnerH = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
	plotLegendLine         = 18
	plotRecallSpanMin      = 0.01 // so that a single point, or equal ones, still have an axis
	plotFontSize           = 12
	plotLineWidth          = 2
	plotDot                = 4 // radius; smaller where there are several series
	plotScale              = 2
)

var (
	plotGrid = color.RGBA{0xdd, 0xdd, 0xdd, 0xff}
	plotInk  = color.RGBA{0, 0, 0, 0xff}

	// plotColors are told apart also by most people who see colors differently (mostly those of Okabe and Ito).
	plotColors = []color.RGBA{
		{0x1f, 0x6f, 0xeb, 0xff}, {0xd5, 0x5e, 0x00, 0xff}, {0x00, 0x9e, 0x73, 0xff}, {0x56, 0xb4, 0xe9, 0xff},
		{0xcc, 0x79, 0xa7, 0xff}, {0xe6, 0x9f, 0x00, 0xff}, {0x55, 0x55, 0x55, 0xff}, {0x8b, 0x5a, 0x2b, 0xff},
	}
)

// anchor says which end of a text its position is.
type anchor string

const (
	anchorStart  anchor = "start"
	anchorMiddle anchor = "middle"
	anchorEnd    anchor = "end"
)

type pixel struct{ x, y float64 }

// canvas is what a plot is drawn on.
type canvas interface {
	line(points []pixel, width float64, c color.RGBA)
	dot(at pixel, radius float64, c color.RGBA)
	text(at pixel, a anchor, s string)
}

// WriteSVG writes the plot as SVG.
func (p *Plot) WriteSVG(w io.Writer) error {
	var c svgCanvas
	fmt.Fprintf(&c.b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %[1]d %[2]d\""+
		" font-family=\"sans-serif\" font-size=\"%[3]d\">\n", plotWidth, plotHeight, plotFontSize)
	fmt.Fprintf(&c.b, "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n")
	if err := p.draw(&c); err != nil {
		return err
	}
	c.b.WriteString("</svg>\n")
	_, err := w.Write(c.b.Bytes())
	return err
}

// WritePNG writes the plot as PNG.
func (p *Plot) WritePNG(w io.Writer) error {
	c, err := newPNGCanvas()
	if err != nil {
		return err
	}
	if err := p.draw(c); err != nil {
		return err
	}
	return png.Encode(w, c.image)
}

func (p *Plot) draw(c canvas) error {
	axes, err := p.axes()
	if err != nil {
		return err
	}
	c.text(pixel{plotWidth / 2, plotTop / 2}, anchorMiddle, p.Title)
	axes.draw(c)
	for i, s := range p.Series {
		ink := plotColors[i%len(plotColors)]
		line := make([]pixel, len(s.Points))
		for j, point := range s.Points {
			line[j] = pixel{axes.x(point.Recall), axes.y(point.QPS)}
		}
		c.line(line, plotLineWidth, ink)
		for j, at := range line {
			if len(p.Series) > 1 {
				c.dot(at, plotDot-1, ink)
				continue
			}
			c.dot(at, plotDot, ink)
			c.text(pixel{at.x - 8, at.y + 16}, anchorEnd, s.Points[j].Label)
		}
	}
	if len(p.Series) > 1 { // in the corner of little recall at little speed, where curves worth drawing are not
		y := float64(plotTop + plotInnerH - plotLegendLine*len(p.Series))
		for i, s := range p.Series {
			ink := plotColors[i%len(plotColors)]
			at := y + float64(i)*plotLegendLine
			c.line([]pixel{{plotLeft + 12, at}, {plotLeft + 36, at}}, plotLineWidth, ink)
			c.dot(pixel{plotLeft + 24, at}, plotDot-1, ink)
			c.text(pixel{plotLeft + 44, at + 4}, anchorStart, s.Name)
		}
	}
	return nil
}

// plotAxes are the ranges that a plot shows.
type plotAxes struct {
	low, high, step float64    // recall
	decades         [2]float64 // of queries per second
}

func (p *Plot) axes() (plotAxes, error) {
	low, high := math.Inf(1), math.Inf(-1)
	slow, fast := math.Inf(1), math.Inf(-1)
	for _, s := range p.Series {
		if len(s.Points) == 0 {
			return plotAxes{}, fmt.Errorf("plot: %q has no points", s.Name)
		}
		for _, point := range s.Points {
			if !(point.QPS > 0 && point.QPS < math.MaxFloat64) || !(point.Recall >= 0 && point.Recall <= 1) {
				return plotAxes{}, fmt.Errorf("plot: recall %v at %v queries/s cannot be drawn", point.Recall, point.QPS)
			}
			low, high = min(low, point.Recall), max(high, point.Recall)
			slow, fast = min(slow, point.QPS), max(fast, point.QPS)
		}
	}
	if len(p.Series) == 0 {
		return plotAxes{}, fmt.Errorf("plot: there is nothing to draw")
	}
	a := plotAxes{step: recallStep(max(high-low, plotRecallSpanMin))}
	a.low = math.Floor(low/a.step) * a.step
	a.high = max(math.Ceil(high/a.step)*a.step, a.low+a.step)
	a.decades = [2]float64{math.Floor(math.Log10(slow)), math.Ceil(math.Log10(fast))}
	if a.decades[0] == a.decades[1] {
		a.decades[1]++
	}
	return a, nil
}

func (a *plotAxes) x(recall float64) float64 {
	return plotLeft + (recall-a.low)/(a.high-a.low)*plotInnerW
}

func (a *plotAxes) y(qps float64) float64 {
	return plotTop + (a.decades[1]-math.Log10(qps))/(a.decades[1]-a.decades[0])*plotInnerH
}

func (a *plotAxes) draw(c canvas) {
	c.text(pixel{plotLeft + plotInnerW/2, plotHeight - 16}, anchorMiddle, "recall")
	c.text(pixel{plotLeft, plotTop - 10}, anchorEnd, "queries/s")
	for i := range plotTicksMax + 2 {
		recall := a.low + float64(i)*a.step
		if recall > a.high+a.step/2 {
			break
		}
		x := a.x(recall)
		c.line([]pixel{{x, plotTop}, {x, plotTop + plotInnerH}}, 1, plotGrid)
		c.text(pixel{x, plotTop + plotInnerH + 18}, anchorMiddle, fmt.Sprintf("%.4g", recall))
	}
	for decade := a.decades[0]; decade <= a.decades[1]; decade++ {
		for _, mantissa := range [...]float64{1, 2, 5} {
			qps := mantissa * math.Pow(10, decade)
			if decade == a.decades[1] && mantissa > 1 {
				break
			}
			y := a.y(qps)
			c.line([]pixel{{plotLeft, y}, {plotLeft + plotInnerW, y}}, 1, plotGrid)
			c.text(pixel{plotLeft - 6, y + 4}, anchorEnd, fmt.Sprintf("%.7g", qps))
		}
	}
}

// recallStep returns the round distance between ticks that divides span into at most plotTicksMax parts.
func recallStep(span float64) float64 {
	for step := 0.001; ; step *= 10 {
		for _, s := range [...]float64{step, 2 * step, 5 * step} {
			if span/s <= plotTicksMax {
				return s
			}
		}
	}
}

type svgCanvas struct{ b bytes.Buffer }

func svgColor(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

func (s *svgCanvas) line(points []pixel, width float64, c color.RGBA) {
	fmt.Fprintf(&s.b, "<polyline fill=\"none\" stroke-width=\"%g\" stroke=\"%s\" points=\"", width, svgColor(c))
	for i, p := range points {
		if i > 0 {
			s.b.WriteByte(' ')
		}
		fmt.Fprintf(&s.b, "%.1f,%.1f", p.x, p.y)
	}
	s.b.WriteString("\"/>\n")
}

func (s *svgCanvas) dot(at pixel, radius float64, c color.RGBA) {
	fmt.Fprintf(&s.b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%g\" fill=\"%s\"/>\n", at.x, at.y, radius, svgColor(c))
}

func (s *svgCanvas) text(at pixel, a anchor, text string) {
	fmt.Fprintf(&s.b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", at.x, at.y, a, html.EscapeString(text))
}

// pngCanvas draws on an image of plotScale times the size, with its edges smoothed.
type pngCanvas struct {
	image *image.RGBA
	face  font.Face
	shape *vector.Rasterizer
}

func newPNGCanvas() (*pngCanvas, error) {
	parsed, err := opentype.Parse(goregular.TTF)
	if err != nil {
		return nil, fmt.Errorf("plot: %w", err)
	}
	const dotsPerInch = 72 // makes a point a pixel
	face, err := opentype.NewFace(parsed, &opentype.FaceOptions{Size: plotFontSize * plotScale, DPI: dotsPerInch})
	if err != nil {
		return nil, fmt.Errorf("plot: %w", err)
	}
	c := &pngCanvas{image: image.NewRGBA(image.Rect(0, 0, plotWidth*plotScale, plotHeight*plotScale)), face: face}
	c.shape = vector.NewRasterizer(plotWidth*plotScale, plotHeight*plotScale)
	draw.Draw(c.image, c.image.Bounds(), image.White, image.Point{}, draw.Src)
	return c, nil
}

func (p *pngCanvas) moveTo(at pixel) {
	p.shape.MoveTo(float32(at.x*plotScale), float32(at.y*plotScale))
}
func (p *pngCanvas) lineTo(at pixel) {
	p.shape.LineTo(float32(at.x*plotScale), float32(at.y*plotScale))
}

// fill fills the shape that was outlined since the last one.
func (p *pngCanvas) fill(c color.RGBA) {
	p.shape.ClosePath()
	p.shape.Draw(p.image, p.image.Bounds(), image.NewUniform(c), image.Point{})
	p.shape.Reset(plotWidth*plotScale, plotHeight*plotScale)
}

// line fills a rectangle for each part, and a disc of the line's width where two meet.
func (p *pngCanvas) line(points []pixel, width float64, c color.RGBA) {
	for i := 1; i < len(points); i++ {
		a, b := points[i-1], points[i]
		length := math.Hypot(b.x-a.x, b.y-a.y)
		if length == 0 {
			continue
		}
		dx, dy := (b.y-a.y)/length*width/2, (a.x-b.x)/length*width/2 // across the line, half its width
		p.moveTo(pixel{a.x + dx, a.y + dy})
		p.lineTo(pixel{b.x + dx, b.y + dy})
		p.lineTo(pixel{b.x - dx, b.y - dy})
		p.lineTo(pixel{a.x - dx, a.y - dy})
		p.fill(c)
		if i > 1 {
			p.dot(a, width/2, c)
		}
	}
}

func (p *pngCanvas) dot(at pixel, radius float64, c color.RGBA) {
	const corners = 32
	p.moveTo(pixel{at.x + radius, at.y})
	for i := 1; i < corners; i++ {
		sin, cos := math.Sincos(2 * math.Pi * float64(i) / corners)
		p.lineTo(pixel{at.x + radius*cos, at.y + radius*sin})
	}
	p.fill(c)
}

func (p *pngCanvas) text(at pixel, a anchor, s string) {
	d := font.Drawer{Dst: p.image, Src: image.NewUniform(plotInk), Face: p.face,
		Dot: fixed.Point26_6{X: fixed.Int26_6(at.x * plotScale * 64), Y: fixed.Int26_6(at.y * plotScale * 64)}}
	switch a {
	case anchorMiddle:
		d.Dot.X -= d.MeasureString(s) / 2
	case anchorEnd:
		d.Dot.X -= d.MeasureString(s)
	}
	d.DrawString(s)
}
