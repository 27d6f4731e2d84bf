//! Small charts of the last minutes, as SVG within a page.

use std::fmt::Write;

use crate::metrics::STEP;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 96.0;
/// Steps of the whole width: ten minutes.
const STEPS: usize = 120;

/// A name, and a value for each step, the newest last.
pub type Series = (&'static str, Vec<f64>);

/// `label` writes a value with its unit.
pub fn lines(title: &str, series: &[Series], label: impl Fn(f64) -> String) -> String {
    let values = series.iter().flat_map(|(_, values)| values.iter().copied());
    let max = values.fold(0.0, f64::max);
    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\
         <line class=\"axis\" x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\"/>\
         <line class=\"grid\" x1=\"0\" y1=\"1\" x2=\"{WIDTH}\" y2=\"1\"/>"
    );
    for (number, (_, values)) in series.iter().enumerate() {
        let _ = write!(svg, "<polyline class=\"s{number}\" points=\"{}\"/>", points(values, max));
    }
    let minutes = STEP.as_secs() as usize * STEPS / 60;
    let _ = write!(svg, "</svg><p class=\"scale\"><span>{minutes} min ago</span>");
    for (number, (name, values)) in series.iter().enumerate() {
        let newest = label(values.last().copied().unwrap_or(0.0));
        let _ = write!(svg, "<span class=\"key s{number}\">{name} {newest}</span>");
    }
    let _ = write!(svg, "<span>most {}</span></p></figure>", label(max));
    svg
}

/// The newest is at the right edge.
fn points(values: &[f64], max: f64) -> String {
    let step = WIDTH / STEPS as f64;
    let begin = WIDTH - step * values.len().saturating_sub(1) as f64;
    let point = |(number, value): (usize, &f64)| {
        let height = if max > 0.0 { value / max * (HEIGHT - 2.0) } else { 0.0 };
        format!("{:.1},{:.1}", begin + step * number as f64, HEIGHT - 1.0 - height)
    };
    values.iter().enumerate().map(point).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_at_the_right_and_the_largest_at_the_top() {
        assert_eq!(points(&[0.0, 4.0, 2.0], 4.0), "472.0,95.0 476.0,1.0 480.0,48.0");
        assert_eq!(points(&[0.0], 0.0), "480.0,95.0");
        assert_eq!(points(&[], 0.0), "");
    }
}
