package bench

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"math"
)

// Point is one measurement of recall against speed.
type Point struct {
	Recall float64
	QPS    float64
	Label  string // such as "ef 80"
}

// Size and margins of a plot, in pixels.
const (
	plotWidth, plotHeight   = 720, 440
	plotLeft, plotRight     = 80, 30
	plotTop, plotBottom     = 50, 60
	plotTicksMax            = 10
	plotInnerW, plotInnerH  = plotWidth - plotLeft - plotRight, plotHeight - plotTop - plotBottom
	plotRecallSpanMin       = 0.01 // so that a single point, or equal ones, still have an axis
	plotFont, plotLineColor = "font-family=\"sans-serif\" font-size=\"12\"", "#1f6feb"
)

// WritePlot writes an SVG of recall (across) against queries per second (up, on a logarithmic scale), joined in the order
// given. It is written by hand because the chart libraries for Go bring font, PDF and LaTeX code with them, all for one
// line chart.
func WritePlot(w io.Writer, title string, points []Point) error {
	if len(points) == 0 {
		return fmt.Errorf("plot: there are no points")
	}
	low, high := math.Inf(1), math.Inf(-1)
	slow, fast := math.Inf(1), math.Inf(-1)
	for _, p := range points {
		if !(p.QPS > 0 && p.QPS < math.MaxFloat64) || !(p.Recall >= 0 && p.Recall <= 1) {
			return fmt.Errorf("plot: recall %v at %v queries/s cannot be drawn", p.Recall, p.QPS)
		}
		low, high = min(low, p.Recall), max(high, p.Recall)
		slow, fast = min(slow, p.QPS), max(fast, p.QPS)
	}
	step := recallStep(max(high-low, plotRecallSpanMin))
	low = math.Floor(low/step) * step
	high = max(math.Ceil(high/step)*step, low+step)
	decades := [2]float64{math.Floor(math.Log10(slow)), math.Ceil(math.Log10(fast))}
	if decades[0] == decades[1] {
		decades[1]++
	}
	x := func(recall float64) float64 { return plotLeft + (recall-low)/(high-low)*plotInnerW }
	y := func(qps float64) float64 {
		return plotTop + (decades[1]-math.Log10(qps))/(decades[1]-decades[0])*plotInnerH
	}

	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %[1]d %[2]d\" %[3]s>\n",
		plotWidth, plotHeight, plotFont)
	fmt.Fprintf(&b, "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n")
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, html.EscapeString(s))
	}
	line := func(x1, y1, x2, y2 float64, color string) {
		fmt.Fprintf(&b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2, color)
	}
	text(plotWidth/2, plotTop/2, "middle", title)
	text(plotLeft+plotInnerW/2, plotHeight-16, "middle", "recall")
	text(plotLeft, plotTop-10, "end", "queries/s")
	for i := range plotTicksMax + 2 {
		recall := low + float64(i)*step
		if recall > high+step/2 {
			break
		}
		line(x(recall), plotTop, x(recall), plotTop+plotInnerH, "#ddd")
		text(x(recall), plotTop+plotInnerH+18, "middle", fmt.Sprintf("%.4g", recall))
	}
	for decade := decades[0]; decade <= decades[1]; decade++ {
		for _, mantissa := range [...]float64{1, 2, 5} {
			qps := mantissa * math.Pow(10, decade)
			if decade == decades[1] && mantissa > 1 {
				break
			}
			line(plotLeft, y(qps), plotLeft+plotInnerW, y(qps), "#ddd")
			text(plotLeft-6, y(qps)+4, "end", fmt.Sprintf("%.6g", qps))
		}
	}
	b.WriteString("<polyline fill=\"none\" stroke-width=\"2\" stroke=\"" + plotLineColor + "\" points=\"")
	for _, p := range points {
		fmt.Fprintf(&b, "%.1f,%.1f ", x(p.Recall), y(p.QPS))
	}
	b.WriteString("\"/>\n")
	for _, p := range points {
		fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"/>\n", x(p.Recall), y(p.QPS), plotLineColor)
		text(x(p.Recall)-8, y(p.QPS)+16, "end", p.Label)
	}
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
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
